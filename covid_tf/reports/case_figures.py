"""Both figures of a case, as files."""

import pathlib

import numpy as np

from covid_tf import orientation
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.predictors import base
from covid_tf.reports import figure_style
from covid_tf.reports import figures


def write_figures(
    folder: pathlib.Path, volume: volume_lib.CTVolume, result: results.CaseResult,
    models: base.Models, index: int | None = None) -> None:
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
  probability, *cams = models.grad_cam(
      turn.to_usual(volume.hu[index:index + 1, box.rows, box.columns]))
  explanation = results.SliceExplanation(probability, *map(turn.to_stored, cams))
  figure_style.save(
      figures.scales_figure(volume, result, index, explanation), folder / 'scales')
  figure_style.save(
      figures.map_figure(result.lung_mask, result.localization, result.affine,
                         figures.map_caption(result)), folder / 'map')
