"""How well maps point at opacities whose place is known; for localization.py."""

import dataclasses

import numpy as np
import scipy.stats
from sklearn import metrics

from covid_tf import results
from covid_tf.analysis import localization
from covid_tf.analysis import lungs as lungs_lib

BOXES = ('largest', 'union')

# Ways to make one map of both scales, each enlarged to the crop.
WAYS = {
  'fine scale alone (28)': lambda fine, coarse: fine,
  'coarse scale alone (14)': lambda fine, coarse: coarse,
  'product (paper)': lambda fine, coarse: fine * coarse,
  'geometric mean': lambda fine, coarse: np.sqrt(fine * coarse),
  'minimum': np.minimum,
  'mean': lambda fine, coarse: (fine + coarse) / 2,
  'maximum': np.maximum,
}
_PAPER = 'product (paper)'
_CUTS = np.arange(1, 20) / 20
_MAP_CUT = results.Thresholds.map
_SLICE_CUT = results.Thresholds.slice_probability


@dataclasses.dataclass
class Tally:
  """What was seen so far.

  Attributes:
    pointed: way to one truth value a true-positive slice: its highest pixel lies
      in a lesion.
    touched: the same: some pixel above 0.6 lies in a lesion.
    overlap: way to float [cuts] a true-positive slice: intersection over union.
    scores_cm3: way to one score a case.
    lesions_cm3: one true volume a case.
    probability, lesion_slice: one a slice: of COVID; whether it shows a lesion.
    outside: one a case: share of lung outside the box.
  """

  pointed: dict = dataclasses.field(default_factory=lambda: {way: [] for way in WAYS})
  touched: dict = dataclasses.field(default_factory=lambda: {way: [] for way in WAYS})
  overlap: dict = dataclasses.field(default_factory=lambda: {way: [] for way in WAYS})
  scores_cm3: dict = dataclasses.field(
    default_factory=lambda: {way: [] for way in WAYS}
  )
  lesions_cm3: list = dataclasses.field(default_factory=list)
  probability: list = dataclasses.field(default_factory=list)
  lesion_slice: list = dataclasses.field(default_factory=list)
  outside: list = dataclasses.field(default_factory=list)

  def figures(self) -> dict:
    """Named figures; those of the paper's way also at the top."""
    ways = {way: self._way(way) for way in WAYS}
    truth = np.array(self.lesion_slice)
    return {
      'cases': len(self.lesions_cm3),
      'true_positive_slices': len(self.pointed[_PAPER]),
      'slice_auc': float(metrics.roc_auc_score(truth, self.probability)),
      'lung_outside_box': float(np.mean(self.outside)),
      'ways': ways,
    } | ways[_PAPER]

  def _way(self, way) -> dict:
    overlap = np.mean(self.overlap[way], axis=0)
    at_cut = np.array(self.overlap[way])[:, np.argmin(np.abs(_CUTS - _MAP_CUT))]
    scores, truth = np.array(self.scores_cm3[way]), np.array(self.lesions_cm3)
    return {
      'pointing': float(np.mean(self.pointed[way])),
      'touching': float(np.mean(self.touched[way])),
      'iou': float(at_cut.mean()),
      'dice': float(np.mean(2 * at_cut / (1 + at_cut))),
      'best_iou': float(overlap.max()),
      'best_cut': float(_CUTS[overlap.argmax()]),
      'volume_error': float(np.median(np.abs(scores - truth) / truth)),
      'volume_ratio': float(np.median(scores / truth)),
      'rank_correlation': float(scipy.stats.spearmanr(scores, truth).statistic),
    }


def add_case(tally: Tally, drawn, models, box: str) -> None:
  """Runs the models on a phantom and compares every way with its truth.

  Args:
    tally: gets what is seen.
    drawn: a datasets.phantom.Phantom with lesions.
    models: see predictors.interface.Models.
    box: one of BOXES.
  """
  volume = drawn.volume
  lungs = lungs_lib.find_lungs(models.segment_lungs(volume.hu), volume.voxel_volume_mm3)
  crop = lungs.box if box == 'largest' else _union(lungs)
  inside = lungs.mask[:, crop.rows, crop.columns].sum(dtype=np.int64)
  tally.outside.append(1 - inside / lungs.voxel_count)
  explanation = results.SliceExplanation(
    *models.grad_cam(np.ascontiguousarray(volume.hu[:, crop.rows, crop.columns]))
  )
  voxel_cm3 = volume.voxel_volume_mm3 / 1000
  scores = dict.fromkeys(WAYS, 0.0)
  for index, probability in enumerate(explanation.covid_probability):
    lesion = drawn.lesion_mask[index] != 0
    tally.probability.append(float(probability))
    tally.lesion_slice.append(bool(lesion.any()))
    if probability > _SLICE_CUT:
      scales = [_enlarge(cam[index], crop.shape) for cam in explanation[1:]]
      for way, join in WAYS.items():
        map_ = join(*scales)
        scores[way] += map_[map_ > _MAP_CUT].sum(dtype=np.float64) * voxel_cm3
        if lesion.any():
          _add_slice(tally, way, map_, lesion, crop)
  for way, score in scores.items():
    tally.scores_cm3[way].append(score)
  tally.lesions_cm3.append(float(drawn.lesion_mask.sum(dtype=np.int64) * voxel_cm3))


def print_table(figures: dict) -> None:
  """The figures of `Tally.figures` as a table."""
  print(
    f'{figures["cases"]} held-out phantoms with opacities, '
    f'{figures["true_positive_slices"]} true-positive slices; slice AUC '
    f'{figures["slice_auc"]:.3f}; lung outside the box '
    f'{figures["lung_outside_box"]:.2%}'
  )
  columns = (
    'pointing',
    'touching',
    'iou',
    'dice',
    'best_iou',
    'best_cut',
    'volume_error',
    'volume_ratio',
    'rank_correlation',
  )
  print(f'{"":24}' + ''.join(f'{name:>17}' for name in columns))
  for way, values in figures['ways'].items():
    print(f'{way:24}' + ''.join(f'{values[name]:17.3f}' for name in columns))


def _add_slice(tally, way, map_, lesion, crop) -> None:
  lesion_crop = lesion[crop.rows, crop.columns]
  tally.pointed[way].append(bool(lesion_crop.flat[map_.argmax()] and map_.any()))
  tally.touched[way].append(bool((lesion_crop & (map_ > _MAP_CUT)).any()))
  # Lesion outside the crop is missed, so it belongs to the union.
  lesion_pixels = np.count_nonzero(lesion)
  overlap = []
  for cut in _CUTS:
    hot = map_ > float(cut)
    common = np.count_nonzero(hot & lesion_crop)
    overlap.append(common / (np.count_nonzero(hot) + lesion_pixels - common))
  tally.overlap[way].append(overlap)


def _enlarge(cam, size) -> np.ndarray:
  rows, columns = (
    localization.interpolation_matrix(*pair) for pair in zip(cam.shape, size)
  )
  return rows @ cam @ columns.T


def _union(lungs: lungs_lib.Lungs) -> results.LungBox:
  boxes = [box for box in lungs_lib.slice_boxes(lungs.mask) if box is not None]
  return results.LungBox(
    min(box.row0 for box in boxes),
    min(box.column0 for box in boxes),
    max(box.row1 for box in boxes),
    max(box.column1 for box in boxes),
  )
