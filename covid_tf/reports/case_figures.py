"""Figures of one case: the system (Fig. 1), both scales (Fig. 2) and the 3D map."""

import pathlib

import matplotlib.figure
import numpy as np

from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import localization
from covid_tf.analysis import orientation
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.predictors import interface
from covid_tf.reports import figure_panels
from covid_tf.reports import figures
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.reports import rendering
from covid_tf.reports import system_figure

_VOXEL_MM = 1.5
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
    ('28 × 28', figure_panels.enlarged(explanation.cam_28[0], box.shape)),
    ('14 × 14', figure_panels.enlarged(explanation.cam_14[0], box.shape)),
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
      figure_panels.draw_plane(axes, view, volume.hu[index], map_, box)
      axes.set_title(title, fontsize=8, pad=4)
    figure_panels.draw_contour(
      all_axes[0], view, result.lung_mask[index], 0.5, figure_panels.LUNGS
    )
    figure_panels.draw_contour(
      all_axes[3],
      view,
      figure_panels.on_grid(fused, box, volume.shape),
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
  views = [
    figure_panels.trimmed(rendering.render(scene, turn, tilt))
    for _, turn, tilt, _ in _SIDES
  ]
  widths = [view.shape[1] for view in views]
  tallest = max(view.shape[0] for view in views)
  with figures.styled():
    figure = figures.new_figure(
      figures.TWO_COLUMNS_INCH * tallest / sum(widths) + 0.72, figures.TWO_COLUMNS_INCH
    )
    all_axes = figure.subplots(1, len(views), width_ratios=widths)
    for axes, view, (title, _, _, letters) in zip(all_axes, views, _SIDES):
      figure_panels.draw_rendering(axes, view, tallest, letters)
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
  figures.save(
    system_figure.system_figure(volume, result, index, explanation), folder / 'system'
  )
  figures.save(scales_figure(volume, result, index, explanation), folder / 'scales')
  figures.save(
    map_figure(
      result.lung_mask, result.localization, result.affine, map_caption(result)
    ),
    folder / 'map',
  )
