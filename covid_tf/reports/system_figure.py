"""The system as blocks (Fig. 1 of the paper), with what a case gives at each stage."""

from matplotlib import patches
import matplotlib.figure
import matplotlib.path
import numpy as np

from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import localization
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.reports import figure_panels
from covid_tf.reports import figures
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.reports import rendering

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
    figure_panels.draw_plane(axes, view, hu, None, box)
    axes.set_anchor('C')
  _name(panels[0], 'CT', f'slice {index} of 0 to {result.shape[0] - 1}')
  for axes, view in ((panels[1], whole), (panels[2], crop)):
    figure_panels.draw_contour(axes, view, mask, 0.5, figure_panels.LUNGS)
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
  for axes, map_ in zip(
    panels, (*(figure_panels.enlarged(cam, box.shape) for cam in cams), fused)
  ):
    figure_panels.draw_plane(axes, crop, volume.hu[index], map_, box)
    axes.set_anchor('C')
  for axes, cam in zip(panels, cams):
    _name(axes, 'Grad-CAM', '{} × {}'.format(*cam.shape))
  figure_panels.draw_contour(
    panels[2],
    crop,
    figure_panels.on_grid(fused, box, volume.shape),
    result.thresholds.map,
    'white',
  )
  _name(panels[2], 'Map', f'product; white: above {result.thresholds.map:g}')
  scene = rendering.lung_scene(result.lung_mask, result.localization, result.affine)
  view = figure_panels.trimmed(rendering.render(scene, 0))
  figure_panels.draw_rendering(panels[3], view, view.shape[0], 'RLH')
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
