"""How far a scored phantom agrees with its truth."""

import dataclasses
import json

import numpy as np

from covid_tf.datasets import phantom_truth
from covid_tf.demo import layout
from covid_tf.reports import stored_result


@dataclasses.dataclass(frozen=True)
class CaseAgreement:
  """Truth beside result of one phantom.

  Attributes:
    name: the case's folder.
    truth: what is so.
    corona_score_cm3, involved_lung_fraction, lung_volume_cm3, positive_slices,
      slice_probability: what was found (see results.CaseResult).
    lung_dice: overlap of found and true lung masks, in [0, 1].
    true_positive_slices: slices detected positive that hold lesion.
    hit_slices: those of them where a map above its threshold touches lesion.
    seconds: that scoring took, reading and reports included.
  """

  name: str
  truth: phantom_truth.Truth
  corona_score_cm3: float
  involved_lung_fraction: float
  lung_volume_cm3: float
  positive_slices: tuple[int, ...]
  slice_probability: tuple[float, ...]
  lung_dice: float
  true_positive_slices: int
  hit_slices: int
  seconds: float


def compare(folder: layout.DemoFolder, name: str) -> CaseAgreement:
  """Reads a case's truth and result and compares them.

  Args:
    folder: the demo's.
    name: of the case.

  Raises:
    errors.UsageError: truth or result is absent or damaged.
  """
  truth = phantom_truth.read_truth(folder.truth(name))
  result = stored_result.read_result(folder.result(name))
  lung_dice = dice(
      phantom_truth.read_mask(folder.truth(name) / phantom_truth.LUNG_MASK_NAME),
      phantom_truth.read_mask(folder.result(name) / 'lung_mask.nii.gz'))
  seconds = json.loads(folder.timing(name).read_text('utf-8'))['seconds']
  both = sorted(set(truth.positive_slices) & set(result.positive_slices))
  hits = 0
  if both:
    lesion = phantom_truth.read_mask(
        folder.truth(name) / phantom_truth.LESION_MASK_NAME)
    localization = phantom_truth.read_mask(
        folder.result(name) / 'localization.nii.gz')
    hits = sum(
        bool((localization[i][lesion[i] > 0] > result.thresholds.map).any())
        for i in both)
  return CaseAgreement(
      name, truth, result.corona_score_cm3, result.involved_lung_fraction,
      result.lung_volume_cm3, result.positive_slices, result.slice_probability,
      lung_dice, len(both), hits, seconds)


def dice(first: np.ndarray, second: np.ndarray) -> float:
  """Twice the overlap of two masks over their sum; 1 where both are empty."""
  first, second = first > 0, second > 0
  total = np.count_nonzero(first) + np.count_nonzero(second)
  return 2 * np.count_nonzero(first & second) / total if total else 1.0
