"""Figures of one case as in a journal: the two scales (Fig. 2) and the 3D map."""

import contextlib
import io
import pathlib
import re
import textwrap
from typing import Any

import matplotlib
from matplotlib import patheffects
import matplotlib.axes
import matplotlib.colors
import matplotlib.figure
import numpy as np

from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import localization
from covid_tf.analysis import orientation
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.predictors import interface
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.reports import rendering
from covid_tf.statistics import roc
from covid_tf.storage import files

# How figures look, and how they reach the disk.

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


_TWO_COLUMNS_INCH = 7.0  # 178 mm, the width of a journal's page.
_CAPTION_CHARACTERS = 138  # That fit this width.
_VOXEL_MM = 1.5
_LUNGS = '#58C4F5'
_DARK = '#0A0E13'
_SIDES = (  # Title, turn and tilt in degrees, letters at left, right and top.
  ('From the front', 0, 0, 'RLH'),
  ("From the patient's right", 90, 0, 'PAH'),
  ("From the patient's left", -90, 0, 'APH'),
  ('From the right, above', 35, 25, ('', '', '')),
)


def scales_figure(
  volume: volume_lib.CTVolume,
  result: results.CaseResult,
  index: int,
  explanation: results.SliceExplanation,
) -> matplotlib.figure.Figure:
  """Fig. 2 of the paper on one slice: both Grad-CAM scales and their product.

  Args:
    volume: the CT; its slices must be nearest to axial.
    result: its score; gives the box, the lung mask and the map threshold.
    index: the slice.
    explanation: the classifier's answer for that slice's crop, N = 1.

  Returns:
    The figure, with its caption.
  """
  box = result.lung_box
  view = pictures.plane_view(
    volume.affine, volume.shape, 'axial', (slice(None), box.rows, box.columns)
  )
  fused = localization.fuse_scales(
    explanation.cam_28[0], explanation.cam_14[0], box.shape
  )
  maps = (
    ('CT and segmented lungs', None),
    ('28 × 28', _enlarged(explanation.cam_28[0], box.shape)),
    ('14 × 14', _enlarged(explanation.cam_14[0], box.shape)),
    ('Product', fused),
  )
  height_mm, width_mm = view.size_mm
  with styled():
    figure = new_figure(
      _TWO_COLUMNS_INCH / 4 * height_mm / width_mm + 1.05, _TWO_COLUMNS_INCH
    )
    all_axes = figure.subplots(1, 4)
    for axes, (title, map_) in zip(all_axes, maps):
      _draw_plane(axes, view, volume.hu[index], map_, box)
      axes.set_title(title, fontsize=8, pad=4)
    draw_contour(all_axes[0], view, result.lung_mask[index], 0.5, _LUNGS)
    draw_contour(
      all_axes[3],
      view,
      _on_grid(fused, box, volume.shape),
      result.thresholds.map,
      'white',
    )
    put_caption(
      figure,
      _scales_caption(result, index, explanation),
      line_characters=_CAPTION_CHARACTERS,
    )
    _colour_bar(figure, all_axes[3], result.thresholds.map)
    return figure


def map_figure(
  lung_mask: np.ndarray, map_: results.LocalizationMap, affine: np.ndarray, caption: str
) -> matplotlib.figure.Figure:
  """The 3D localization map rendered in the lungs, from four sides.

  Args:
    lung_mask: uint8 [slice, row, column], 0 or 1, not empty.
    map_: the map on the same grid.
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres.
    caption: what the figure shows.
  """
  scene = rendering.lung_scene(lung_mask, map_, affine, _VOXEL_MM)
  views = [_trimmed(rendering.render(scene, turn, tilt)) for _, turn, tilt, _ in _SIDES]
  widths = [view.shape[1] for view in views]
  tallest = max(view.shape[0] for view in views)
  with styled():
    figure = new_figure(
      _TWO_COLUMNS_INCH * tallest / sum(widths) + 0.72, _TWO_COLUMNS_INCH
    )
    all_axes = figure.subplots(1, len(views), width_ratios=widths)
    for axes, view, (title, _, _, letters) in zip(all_axes, views, _SIDES):
      draw_rendering(axes, view, tallest, letters)
      axes.set_title(title, fontsize=8, pad=4)
    put_caption(figure, caption, line_characters=_CAPTION_CHARACTERS)
    return figure


def map_caption(result: results.CaseResult) -> str:
  """What `map_figure` shows of a case."""
  return (
    'Localization map of one case, rendered in the segmented lungs: '
    f'{len(result.positive_slices)} of {result.shape[0]} slices positive, Corona '
    f'score {pages.cm3(result.corona_score_cm3)} cm³, '
    f'{pages.percent(result.involved_lung_fraction)} % of '
    f'{result.lung_volume_cm3:,.0f} cm³ of lung involved. The brighter, the higher '
    'the map; slices that are not positive have none. Research use only.'
  )


def _scales_caption(result, index, explanation) -> str:
  probability = float(explanation.covid_probability[0])
  score_cm3 = float(result.corona_score_by_slice_cm3[index])
  return (
    f'Multi-scale Grad-CAM on one slice (slice {index} of 0 to '
    f'{result.shape[0] - 1}, COVID-19 probability {probability:.2f}). Left to right: '
    'the lung crop with the segmented lungs (blue); Grad-CAM at the 28 × 28 and the '
    '14 × 14 layer, each divided by its maximum; their product, the localization '
    f'map. White: voxels above {result.thresholds.map:g}, which count in the Corona '
    f'score ({pages.cm3(score_cm3)} cm³ here). Lung window '
    f'−{-pictures.WINDOW_HU[0]} to {pictures.WINDOW_HU[1]} HU; '
    "patient's right on the left. Research use only."
  )


def _enlarged(cam, size):
  rows = localization.interpolation_matrix(cam.shape[0], size[0])
  columns = localization.interpolation_matrix(cam.shape[1], size[1])
  return rows @ cam @ columns.T


def _on_grid(crop, box, shape):
  plane = np.zeros(shape[1:], np.float32)
  plane[box.rows, box.columns] = crop
  return plane


def _draw_plane(axes, view, hu, map_, box):
  height, width = view.size_mm
  extent = (0, width, height, 0)  # Millimetres, so that the proportions are true.
  axes.imshow(
    pictures.lung_window(view.picture(hu)),
    cmap='gray',
    vmin=0,
    vmax=255,
    extent=extent,
    interpolation='bilinear',
  )
  if map_ is not None:
    plane = view.picture(_on_grid(map_, box, (1, *hu.shape)))
    axes.imshow(pictures.heat_colours(plane), extent=extent, interpolation='bilinear')
  axes.set_anchor('N')  # The colour bar is below.
  for side, x, y in (('left', 0.04, 0.5), ('right', 0.96, 0.5), ('top', 0.5, 0.95)):
    draw_letter(axes, x, y, view.markers[side])
  axes.set_axis_off()


def _trimmed(view):
  """Without the empty rows and columns around a turned scene."""
  margin = round(10 / _VOXEL_MM)
  shown = view[..., 3] > 2
  rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
  return view[
    max(0, rows[0] - margin) : rows[-1] + margin,
    max(0, columns[0] - margin) : columns[-1] + margin,
  ]


def draw_rendering(axes, view, tallest, letters):
  above = (tallest - view.shape[0]) // 2
  canvas = np.zeros((tallest, view.shape[1], 4), np.uint8)
  canvas[above : above + view.shape[0]] = view
  alpha = canvas[..., 3:] / 255
  dark = np.array(matplotlib.colors.to_rgb(_DARK)) * 255
  axes.imshow(np.rint(canvas[..., :3] * alpha + dark * (1 - alpha)).astype(np.uint8))
  for letter, x, y in zip(letters, (0.05, 0.95, 0.5), (0.5, 0.5, 0.96)):
    draw_letter(axes, x, y, letter)
  axes.set_axis_off()


def draw_letter(axes, x, y, letter):
  axes.text(
    x,
    y,
    letter,
    transform=axes.transAxes,
    ha='center',
    va='center',
    color='white',
    fontsize=7,
    fontweight='bold',
    path_effects=[patheffects.withStroke(linewidth=1.5, foreground='black')],
  )


def draw_contour(axes, view, plane, level, colour):
  picture = view.picture(plane)
  if picture.max() <= level:
    return
  down = (np.arange(picture.shape[0]) + 0.5) * view.down.step_mm
  across = (np.arange(picture.shape[1]) + 0.5) * view.across.step_mm
  axes.contour(across, down, picture, [level], colors=colour, linewidths=0.8)


def _colour_bar(figure, beside, threshold):
  place = beside.get_position()
  axes = figure.add_axes((place.x0 + 0.01, place.y0 - 0.07, place.width - 0.02, 0.028))
  values = np.linspace(0, 1, 256)[np.newaxis]
  colours = pictures.heat_colours(values).astype(float)
  alpha = colours[..., 3:] / 255
  axes.imshow(
    (colours[..., :3] * alpha + 75 * (1 - alpha)).astype(np.uint8),
    extent=(0, 1, 0, 1),
    aspect='auto',
  )
  axes.axvline(threshold, color='white', lw=1)
  axes.set(yticks=[], xticks=[0, threshold, 1])
  axes.tick_params(labelsize=6, length=2, pad=1.5)


def write_figures(
  folder: pathlib.Path,
  volume: volume_lib.CTVolume,
  result: results.CaseResult,
  models: interface.Models,
  index: int | None = None,
) -> None:
  """Writes scales.svg, scales.png (Fig. 2 of the paper), map.svg and map.png.

  Args:
    folder: where.
    volume: the CT.
    result: its score.
    models: who gave it; asked once more, for the two scales of one slice.
    index: that slice; None for the one with most of the score.

  Raises:
    errors.ModelError: the models fail.
    errors.OutputError: a file cannot be written.
  """
  if index is None:
    index = int(np.argmax(result.corona_score_by_slice_cm3))
  box = result.lung_box
  turn = orientation.plane_turn(volume.affine)
  slabs = slabs_lib.of_study(volume, result.thresholds)
  slab, _ = max(slabs.shares(index), key=lambda one: one[1])
  crop = slabs.average(volume.hu[:, box.rows, box.columns], slice(slab, slab + 1))
  probability, *cams = models.grad_cam(turn.to_usual(crop))
  explanation = results.SliceExplanation(probability, *map(turn.to_stored, cams))
  save(scales_figure(volume, result, index, explanation), folder / 'scales')
  save(
    map_figure(
      result.lung_mask, result.localization, result.affine, map_caption(result)
    ),
    folder / 'map',
  )
