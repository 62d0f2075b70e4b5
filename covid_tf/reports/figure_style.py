"""How figures look, and how they reach the disk."""

import contextlib
import io
import pathlib
import re
import textwrap

import matplotlib
import matplotlib.figure

from covid_tf import files

# M. Okabe, K. Ito, "Color Universal Design" (2008): told apart with any colour
# vision. Marks differ in shape too, so that a grey print still reads.
BLUE = '#0072B2'
ORANGE = '#D55E00'
GREEN = '#009E73'
PURPLE = '#CC79A7'
SKY = '#56B4E9'
AMBER = '#E69F00'
GREY = '#666666'
CATEGORIES = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY)

COLUMN_WIDTH_INCH = 3.5  # 89 mm, one column of most journals.
_CAPTION_POINTS = 6.5
_PNG_DOTS_PER_INCH = 300
# A number stays with its unit and its sign: no line begins with '< 0.0001' or 'cm³'.
_KEPT_TOGETHER = re.compile(r'(?<=[=<×−]) | (?=[=<×−] )|(?<=\d) (?=%|cm³|HU\b)')
_STYLE = {
    'font.family': 'DejaVu Sans',  # Comes with matplotlib: the same everywhere.
    'font.size': 8,
    'axes.linewidth': 0.6,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'xtick.major.width': 0.6,
    'ytick.major.width': 0.6,
    'legend.frameon': False,
    'svg.hashsalt': 'covid_tf',  # The same figure gives the same bytes.
}


@contextlib.contextmanager
def styled():
  """Sets the style while a figure is made, and leaves matplotlib as it was."""
  with matplotlib.rc_context(_STYLE):
    yield


def new_figure(
    height_inch: float, width_inch: float = COLUMN_WIDTH_INCH
) -> matplotlib.figure.Figure:
  """An empty figure; no pyplot, so no window and no shared state."""
  return matplotlib.figure.Figure((width_inch, height_inch))


def put_caption(
    figure: matplotlib.figure.Figure, caption: str, line_characters: int = 72,
    tight: bool = True) -> None:
  """Writes `caption` at the foot and, where `tight`, fits the axes above it."""
  lines = textwrap.wrap(
      _KEPT_TOGETHER.sub('\N{NO-BREAK SPACE}', caption), line_characters,
      break_on_hyphens=False)
  height = figure.get_figheight()
  line_inch = _CAPTION_POINTS * 1.35 / 72
  figure.text(
      0.02, 0.06 / height, '\n'.join(lines), fontsize=_CAPTION_POINTS, va='bottom',
      linespacing=1.3, color='#222222', parse_math=False)
  foot = (0.18 + line_inch * len(lines)) / height
  if tight:
    figure.tight_layout(rect=(0, foot, 1, 1), pad=0.5)


class Shown:
  """A figure as a notebook shows it."""

  def __init__(self, figure: matplotlib.figure.Figure):
    self._figure = figure

  def _repr_svg_(self) -> str:
    return svg_text(self._figure)


def svg_text(figure: matplotlib.figure.Figure) -> str:
  """The figure as an <svg> element, without the XML prologue."""
  buffer = io.StringIO()
  with styled():
    figure.savefig(buffer, format='svg', metadata={'Date': None})
  text = buffer.getvalue()
  return text[text.index('<svg'):]


def save(figure: matplotlib.figure.Figure, stem: pathlib.Path) -> None:
  """Writes STEM.svg and STEM.png."""
  for suffix, metadata in (('.svg', {'Date': None}), ('.png', {'Software': None})):
    with files.replacing(stem.with_suffix(suffix)) as path, styled():
      figure.savefig(path, dpi=_PNG_DOTS_PER_INCH, metadata=metadata)
