"""Figures of one case: the system (Fig. 1), both scales (Fig. 2) and the 3D map."""

import pathlib

import matplotlib
from matplotlib import patches
from matplotlib import patheffects
import matplotlib.axes
import matplotlib.colors
import matplotlib.figure
import matplotlib.path
import numpy as np

from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import localization
from covid_tf.analysis import orientation
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.predictors import interface
from covid_tf.reports import figures
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.reports import rendering

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
  with figures.styled():
    figure = figures.new_figure(
      figures.TWO_COLUMNS_INCH / 4 * height_mm / width_mm + 1.05,
      figures.TWO_COLUMNS_INCH,
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
    figures.put_caption(
      figure,
      _scales_caption(result, index, explanation),
      line_characters=figures.CAPTION_CHARACTERS,
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
  with figures.styled():
    figure = figures.new_figure(
      figures.TWO_COLUMNS_INCH * tallest / sum(widths) + 0.72, figures.TWO_COLUMNS_INCH
    )
    all_axes = figure.subplots(1, len(views), width_ratios=widths)
    for axes, view, (title, _, _, letters) in zip(all_axes, views, _SIDES):
      draw_rendering(axes, view, tallest, letters)
      axes.set_title(title, fontsize=8, pad=4)
    figures.put_caption(figure, caption, line_characters=figures.CAPTION_CHARACTERS)
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
  for side, x, y in (('left', 0.04, 0.5), ('right', 0.96, 0.5), ('top', 0.5, 0.92)):
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
  """Draws uint8 RGBA [row, column, 4] on dark, in the middle of `tallest` rows.

  Letters are those of the left and right edge and of the lower one.
  """
  above = (tallest - view.shape[0]) // 2
  canvas = np.zeros((tallest, view.shape[1], 4), np.uint8)
  canvas[above : above + view.shape[0]] = view
  alpha = canvas[..., 3:] / 255
  dark = np.array(matplotlib.colors.to_rgb(_DARK)) * 255
  axes.imshow(np.rint(canvas[..., :3] * alpha + dark * (1 - alpha)).astype(np.uint8))
  for letter, x, y in zip(letters, (0.05, 0.95, 0.5), (0.5, 0.5, 0.93)):
    draw_letter(axes, x, y, letter)
  axes.set_axis_off()


def draw_letter(axes, x, y, letter):
  """Writes a letter of a side at (x, y), shares of the picture from its lower left."""
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
  """Draws where a plane on the CT's grid crosses `level`, in the view's millimetres."""
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


# Fig. 1: the stages of the system, each with its own picture of the case.

_MARGIN_INCH, _TITLE_INCH, _BETWEEN_ROWS_INCH, _FOOT_INCH = 0.12, 0.36, 0.34, 0.80
_UPPER_INCH, _UPPER_GAP_INCH = 1.42, 0.36  # Four panels.
_LOWER_INCH, _LOWER_GAP_INCH = 1.12, 0.25  # Two scales and their product.
_MAP_INCH, _SCORE_INCH = 1.30, 1.06


def system_figure(
  volume: volume_lib.CTVolume,
  result: results.CaseResult,
  index: int,
  explanation: results.SliceExplanation,
) -> matplotlib.figure.Figure:
  """Fig. 1 of the paper: the system as blocks, with what a case gives at each.

  Args:
    volume: the CT; its slices must be nearest to axial.
    result: its score.
    index: the slice that is followed through the system.
    explanation: the classifier's answer for that slice's crop, N = 1.

  Returns:
    The figure, with its caption.
  """
  box = result.lung_box
  whole = pictures.plane_view(volume.affine, volume.shape, 'axial')
  crop = pictures.plane_view(
    volume.affine, volume.shape, 'axial', (slice(None), box.rows, box.columns)
  )
  heights = [
    width * view.size_mm[0] / view.size_mm[1]
    for width, view in ((_UPPER_INCH, whole), (_LOWER_INCH, crop))
  ]
  heights[1] = max(heights[1], 0.9)
  with figures.styled():
    figure = figures.new_figure(
      sum(heights) + 2 * _TITLE_INCH + _BETWEEN_ROWS_INCH + _FOOT_INCH,
      figures.TWO_COLUMNS_INCH,
    )
    upper = _panels(figure, 0, heights[0], (_UPPER_INCH,) * 4, (_UPPER_GAP_INCH,) * 3)
    lower = _panels(
      figure,
      heights[0] + _TITLE_INCH + _BETWEEN_ROWS_INCH,
      heights[1],
      (*(_LOWER_INCH,) * 3, _MAP_INCH, _SCORE_INCH),
      (*(_LOWER_GAP_INCH,) * 2, 0.3, 0.3),
    )
    _draw_networks(upper, whole, crop, volume, result, index)
    _draw_answers(lower, crop, volume, result, index, explanation)
    _connect(figure, upper, lower)
    figures.put_caption(
      figure,
      _system_caption(volume, result, index),
      figures.CAPTION_CHARACTERS,
      tight=False,
    )
    return figure


def _panels(figure, above_inch, height_inch, widths, gaps):
  """Axes in a row, as wide as stated, `above_inch` below the figure's top."""
  left, made = _MARGIN_INCH, []
  full_height, full_width = figure.get_figheight(), figure.get_figwidth()
  bottom = full_height - above_inch - _TITLE_INCH - height_inch
  for width, gap in zip(widths, (*gaps, 0)):
    made.append(
      figure.add_axes(
        (
          left / full_width,
          bottom / full_height,
          width / full_width,
          height_inch / full_height,
        )
      )
    )
    left += width + gap
  return made


def _name(axes, title, below):
  """Above the panel as it was laid out, whatever the picture's proportions."""
  figure, place = axes.figure, axes.get_position(original=True)
  for text, up_inch, style in (
    (title, 0.19, {'fontsize': 8, 'fontweight': 'bold'}),
    (below, 0.06, {'fontsize': 6.5, 'color': figures.GREY}),
  ):
    y = place.y1 + up_inch / figure.get_figheight()
    figure.text((place.x0 + place.x1) / 2, y, text, ha='center', **style)


def _draw_networks(panels, whole, crop, volume, result, index):
  box, hu, mask = result.lung_box, volume.hu[index], result.lung_mask[index]
  for axes, view in zip(panels, (whole, whole, crop)):
    _draw_plane(axes, view, hu, None, box)
    axes.set_anchor('C')
  _name(panels[0], 'CT', f'slice {index} of 0 to {result.shape[0] - 1}')
  for axes, view in ((panels[1], whole), (panels[2], crop)):
    draw_contour(axes, view, mask, 0.5, _LUNGS)
  _name(panels[1], 'Lungs', 'U-Net, every slice')
  places = [
    sorted((axis.place_mm(start - 0.5), axis.place_mm(stop - 0.5)))
    for axis, start, stop in (
      (whole.across, *_ends(box, whole.across)),
      (whole.down, *_ends(box, whole.down)),
    )
  ]
  (left, right), (top, bottom) = places
  panels[1].add_patch(
    patches.Rectangle(
      (left, top), right - left, bottom - top, fill=False, ec=figures.AMBER, lw=1.0
    )
  )
  _name(panels[2], 'Lung box', 'largest of the case')
  _draw_probabilities(panels[3], result, index)


def _ends(box, axis):
  return (box.row0, box.row1) if axis.axis == 1 else (box.column0, box.column1)


def _draw_probabilities(axes, result, index):
  probability = np.asarray(result.slice_probability, float)
  positive = np.zeros(len(probability), bool)
  positive[list(result.positive_slices)] = True
  edges = np.arange(len(probability) + 1) - 0.5
  for chosen, colour in ((~positive, '#A9B4BE'), (positive, figures.ORANGE)):
    axes.stairs(
      np.where(chosen, probability, 0),
      edges,
      orientation='horizontal',
      fill=True,
      color=colour,
      lw=0,
    )
  axes.axvline(result.thresholds.slice_probability, color='black', lw=0.8, ls=':')
  axes.axhline(index, color='black', lw=0.6)
  # Small numbers inside the panel: the arrows need the room around it.
  axes.set(xlim=(0, 1), ylim=(edges[0], edges[-1]), yticks=[])
  axes.set_xticks(
    [0, result.thresholds.slice_probability, 1],
    ['0', f'{result.thresholds.slice_probability:g}', '1'],
  )
  axes.tick_params(labelsize=6, length=2, pad=1.5)
  axes.text(
    0.97, 0.97, 'head', transform=axes.transAxes, ha='right', va='top', fontsize=6
  )
  _name(axes, 'Classifier', 'ResNet-50, COVID-19 probability')


def _draw_answers(panels, crop, volume, result, index, explanation):
  box = result.lung_box
  cams = explanation.cam_28[0], explanation.cam_14[0]
  fused = localization.fuse_scales(*cams, box.shape)
  for axes, map_ in zip(panels, (*(_enlarged(cam, box.shape) for cam in cams), fused)):
    _draw_plane(axes, crop, volume.hu[index], map_, box)
    axes.set_anchor('C')
  for axes, cam in zip(panels, cams):
    _name(axes, 'Grad-CAM', '{} × {}'.format(*cam.shape))
  draw_contour(
    panels[2],
    crop,
    _on_grid(fused, box, volume.shape),
    result.thresholds.map,
    'white',
  )
  _name(panels[2], 'Map', f'product; white: above {result.thresholds.map:g}')
  scene = rendering.lung_scene(result.lung_mask, result.localization, result.affine)
  view = _trimmed(rendering.render(scene, 0))
  draw_rendering(panels[3], view, view.shape[0], 'RLH')
  _name(panels[3], '3D map', 'of the positive slices')
  _draw_score(panels[4], result)


def _draw_score(axes, result):
  axes.set_axis_off()
  axes.add_patch(
    patches.FancyBboxPatch(
      (0.02, 0.02), 0.96, 0.96, transform=axes.transAxes, fc='#F3F5F7', ec=figures.GREY,
      lw=0.6, boxstyle='round,pad=0,rounding_size=0.06', mutation_aspect=1,
    )
  )  # fmt: skip
  lines = (
    (0.66, f'{pages.cm3(result.corona_score_cm3)} cm³', 12, 'bold'),
    (0.40, 'sum of map above', 6.5, 'normal'),
    (0.27, f'{result.thresholds.map:g} × voxel volume', 6.5, 'normal'),
  )
  for y, text, size, weight in lines:
    axes.text(
      0.5, y, text, transform=axes.transAxes, ha='center', va='center',
      fontsize=size, fontweight=weight,
    )  # fmt: skip
  _name(
    axes, 'Corona score', f'{len(result.positive_slices)} of {result.shape[0]} slices'
  )


def _connect(figure, upper, lower):
  """Arrows between the panels, '×' and '=' between scales and product."""
  places = [
    [axes.get_position().transformed(_inches(figure)) for axes in row]
    for row in (upper, lower)
  ]
  for before, after in (
    *zip(places[0], places[0][1:]),
    (places[1][2], places[1][3]),
    (places[1][3], places[1][4]),
  ):
    y = (before.y0 + before.y1) / 2
    _arrow(figure, [(before.x1 + 0.04, y), (after.x0 - 0.04, y)])
  for sign, before, after in zip('×=', places[1], places[1][1:3]):
    figure.text(
      (before.x1 + after.x0) / 2, (before.y0 + before.y1) / 2, sign,
      transform=figure.dpi_scale_trans, ha='center', va='center', fontsize=11,
    )  # fmt: skip
  classifier, first, second = places[0][3], places[1][0], places[1][1]
  between = classifier.y0 - 0.24
  middle = (first.x1 + second.x0) / 2
  _arrow(
    figure,
    [
      ((classifier.x0 + classifier.x1) / 2, classifier.y0 - 0.15),
      ((classifier.x0 + classifier.x1) / 2, between),
      (middle, between),
      (middle, first.y1 + 0.04),
    ],
  )
  figure.text(
    (middle + classifier.x0) / 2, between, ' gradient of the logit at two layers ',
    transform=figure.dpi_scale_trans, ha='center', va='center', fontsize=6.5,
    color=figures.GREY, backgroundcolor='white',
  )  # fmt: skip


def _inches(figure):
  return figure.transFigure - figure.dpi_scale_trans


def _arrow(figure, points):
  figure.add_artist(
    patches.FancyArrowPatch(
      path=matplotlib.path.Path(points),
      transform=figure.dpi_scale_trans,
      arrowstyle='-|>,head_length=3.5,head_width=1.8',
      color='black',
      lw=0.9,
      shrinkA=0,
      shrinkB=0,
      joinstyle='miter',
    )
  )


def _system_caption(volume, result, index) -> str:
  divided = slabs_lib.of_study(volume, result.thresholds)
  averaged = (
    f' The networks are given slabs of {divided.thickness_mm:.4g} mm, averages of '
    f'slices {result.spacing_mm[0]:.4g} mm apart.'
    if divided.is_averaged
    else ''
  )
  smoothing = result.thresholds.smoothing_mm
  smoothed = f'logits smoothed by {smoothing:g} mm; ' if smoothing else ''
  return (
    'The system, with what one case gives at each stage. A U-Net segments the lungs '
    '(blue) slice by slice; the largest box around them (orange) is the crop for all '
    f'slices.{averaged} The classifier gives each slice its probability '
    f'({smoothed}slice {index} is marked; positive above '
    f'{result.thresholds.slice_probability:g}: {len(result.positive_slices)} of '
    f'{result.shape[0]}). Grad-CAM at two scales is multiplied to a map; the maps of '
    'the positive slices are the 3D map, seen from the front. Lung window '
    f"{pages.hu(pictures.WINDOW_HU[0])} to {pictures.WINDOW_HU[1]} HU; patient's right "
    'on the left. Research use only.'
  )


def write_figures(
  folder: pathlib.Path,
  volume: volume_lib.CTVolume,
  result: results.CaseResult,
  models: interface.Models,
  index: int | None = None,
) -> None:
  """Writes system (Fig. 1 of the paper), scales (Fig. 2) and map, each .svg and .png.

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
  figures.save(system_figure(volume, result, index, explanation), folder / 'system')
  figures.save(scales_figure(volume, result, index, explanation), folder / 'scales')
  figures.save(
    map_figure(
      result.lung_mask, result.localization, result.affine, map_caption(result)
    ),
    folder / 'map',
  )
