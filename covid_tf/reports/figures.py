"""How figures look, and how they reach the disk: one style, as of a journal."""

import contextlib
import io
import pathlib
import re
import textwrap
from typing import Any

import matplotlib
import matplotlib.axes
import matplotlib.figure
import numpy as np

from covid_tf.statistics import roc
from covid_tf.storage import files

# M. Okabe, K. Ito, "Color Universal Design" (2008): distinct with any colour
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
TWO_COLUMNS_INCH = 7.0  # 178 mm, the width of a journal's page.
CAPTION_CHARACTERS = 138  # Of a caption, that fit a line of this width.
_CAPTION_POINTS = 6.5
_PNG_DOTS_PER_INCH = 300
# A number stays with its unit and its sign: no line begins with '< 0.0001' or 'cm³'.
_KEPT_TOGETHER = re.compile(r'(?<=[=<×−]) | (?=[=<×−] )|(?<=\d) (?=%|cm³|HU\b)')
_STYLE: dict[Any, Any] = {  # By matplotlib's names.
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


def roc_axes(
  figure: matplotlib.figure.Figure, curve: roc.RocCurve, label: str
) -> matplotlib.axes.Axes:
  """Draws a ROC curve over the line of chance.

  Args:
    figure: to draw in; as a whole.
    curve: of a score.
    label: of the curve, for a legend.

  Returns:
    The axes, for points and the legend.
  """
  axes = figure.add_subplot()
  axes.plot([0, 1], [0, 1], color=GREY, lw=0.7, ls=':', zorder=1)
  axes.plot(
    np.append(1.0, 1 - curve.specificity),
    np.append(1.0, curve.sensitivity),
    color=BLUE,
    lw=1.5,
    clip_on=False,
    zorder=3,
    label=label,
  )
  axes.set(
    xlabel='1 − specificity',
    ylabel='Sensitivity',
    xlim=(0, 1),
    ylim=(0, 1),
    aspect='equal',
  )
  return axes


def put_caption(
  figure: matplotlib.figure.Figure,
  caption: str,
  line_characters: int = 72,
  tight: bool = True,
) -> None:
  """Writes `caption` at the foot and, where `tight`, fits the axes above it."""
  lines = textwrap.wrap(
    _KEPT_TOGETHER.sub('\N{NO-BREAK SPACE}', caption),
    line_characters,
    break_on_hyphens=False,
  )
  height = figure.get_figheight()
  line_inch = _CAPTION_POINTS * 1.35 / 72
  figure.text(
    0.02,
    0.06 / height,
    '\n'.join(lines),
    fontsize=_CAPTION_POINTS,
    va='bottom',
    linespacing=1.3,
    color='#222222',
    parse_math=False,
  )
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
  return text[text.index('<svg') :]


def save(figure: matplotlib.figure.Figure, stem: pathlib.Path) -> None:
  """Writes STEM.svg and STEM.png."""
  for suffix, metadata in (('.svg', {'Date': None}), ('.png', {'Software': None})):
    with files.replacing(stem.with_suffix(suffix)) as path, styled():
      figure.savefig(path, dpi=_PNG_DOTS_PER_INCH, metadata=metadata)
