"""How well probabilities separate slices and patients, and masks match lungs."""

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import ndimage

from covid_tf.statistics import operating_points
from covid_tf.statistics import roc

# How well probabilities separate positives from negatives, of slices or of patients.

DECISION_THRESHOLD = 0.5  # Paper, section 3.1.
_CALIBRATION_BINS = 10  # Ours.
_CLUSTER_DRAWS = 1000
# Ours: a patient's score is the mean of the three highest slice probabilities, so
# that a single stray slice does not make a patient.
_PATIENT_SLICES = 3


@dataclasses.dataclass(frozen=True)
class Point:
  """What a threshold does; shares with Wilson's 95 % interval.

  Attributes:
    rule: how it was chosen, in words.
    threshold: `probability > threshold` is a positive call.
    sensitivity, specificity, ppv: shares.
  """

  rule: str
  threshold: float
  sensitivity: operating_points.Share
  specificity: operating_points.Share
  ppv: operating_points.Share


@dataclasses.dataclass(frozen=True)
class CalibrationBin:
  """Calls of about one probability: how many, the mean, and how many were right."""

  count: int
  mean_probability: float
  positive_share: float


@dataclasses.dataclass(frozen=True)
class Discrimination:
  """Metrics of one set of labelled probabilities.

  Attributes:
    n_positive, n_negative: how many.
    auc: area under the ROC curve; None where a class is empty.
    auc_ci95_delong, auc_ci95_bootstrap: 95 % intervals over the units themselves;
      None where a class has fewer than two.
    auc_ci95_newcombe: 95 % interval that stays one where the classes separate wholly,
      when the other two say "no uncertainty".
    auc_ci95_patients: bootstrap over patients, all of whose units are drawn
      together: slices of one patient are alike. None for patients, and where a
      class is empty.
    points: at 0.5, and at Youden's point of these very cases.
    calibration: bins of equal width that hold any.
    brier: mean squared error of the probability.
    calibration_error: mean distance of the bins from the diagonal, by count.
    curve: the ROC curve, or None.
  """

  n_positive: int
  n_negative: int
  auc: float | None
  auc_ci95_delong: tuple[float, float] | None
  auc_ci95_bootstrap: tuple[float, float] | None
  auc_ci95_newcombe: tuple[float, float] | None
  auc_ci95_patients: tuple[float, float] | None
  points: tuple[Point, ...]
  calibration: tuple[CalibrationBin, ...]
  brier: float
  calibration_error: float
  curve: roc.RocCurve | None = dataclasses.field(repr=False)


def discriminate(
  labels: np.ndarray,
  probability: np.ndarray,
  patients: Sequence[str] | None,
  seed: int = 0,
) -> Discrimination:
  """Computes the metrics.

  Args:
    labels: int [n], 1 positive, 0 negative; at least one.
    probability: float [n], in [0, 1].
    patients: whose each is; None: each is another patient.
    seed: of the bootstraps.

  Returns:
    The metrics.
  """
  labels = np.asarray(labels) > 0
  probability = np.asarray(probability, np.float64)
  positive, negative = probability[labels], probability[~labels]
  bins, error = _calibration(labels, probability)
  points = [_point("the paper's threshold", DECISION_THRESHOLD, positive, negative)]
  area = dict.fromkeys(
    (
      'auc',
      'auc_ci95_delong',
      'auc_ci95_bootstrap',
      'auc_ci95_newcombe',
      'auc_ci95_patients',
      'curve',
    )
  )
  if len(positive) and len(negative):
    curve = roc.curve(positive, negative)
    youden = operating_points.youden_threshold(curve)
    points.append(
      _point("Youden's point, chosen on these cases", youden, positive, negative)
    )
    area = _area(positive, negative, seed) | {
      'curve': curve,
      'auc_ci95_patients': (
        None
        if patients is None
        else _cluster_interval(labels, probability, np.asarray(patients), seed)
      ),
    }
  return Discrimination(
    len(positive),
    len(negative),
    points=tuple(points),
    calibration=bins,
    brier=float(np.mean((probability - labels) ** 2)),
    calibration_error=error,
    **area,
  )


def patient_scores(
  labels: np.ndarray,
  probability: np.ndarray,
  patients: Sequence[str],
  case_labels: np.ndarray | Sequence[int],
) -> tuple[list[str], np.ndarray, np.ndarray]:
  """One score a patient: the mean of the three highest slice probabilities.

  Args:
    labels: int [n], of slices: 1, 0, or -1 for unknown.
    probability: float [n].
    patients: [n], whose slice each is.
    case_labels: int [n], of the patient: 1, 0, or -1 for unknown.

  Returns:
    (patients, labels int [p], scores float [p]) of the patients whose label is
    known: their own, else 1 with a positive slice, else 0 with negative ones alone.
  """
  labels = np.asarray(labels)
  case_labels = np.asarray(case_labels)
  probability = np.asarray(probability, np.float64)
  names, places = np.unique(np.asarray(patients), return_inverse=True)
  kept, known, scores = [], [], []
  for number, name in enumerate(names):
    own = places == number
    label = int(case_labels[own].max())
    if label < 0:
      label = 1 if (labels[own] == 1).any() else int((labels[own] == 0).all()) - 1
    if label >= 0:
      kept.append(str(name))
      known.append(label)
      scores.append(np.sort(probability[own])[-_PATIENT_SLICES:].mean())
  return kept, np.array(known, int), np.array(scores)


def _area(positive, negative, seed) -> dict:
  estimate = roc.estimate_area(positive, negative)
  interval = estimate.interval()
  auc = float(estimate.auc[0])
  return {
    'auc': auc,
    'auc_ci95_newcombe': roc.newcombe_interval(auc, len(positive), len(negative)),
    'auc_ci95_delong': None if interval is None else tuple(map(float, interval[0])),
    'auc_ci95_bootstrap': (
      None
      if interval is None
      else roc.bootstrap_interval(positive, negative, seed=seed)
    ),
  }


def _point(rule, threshold, positive, negative) -> Point:
  point = operating_points.operating_point(
    'threshold', rule, threshold, positive, negative
  )
  return Point(rule, threshold, point.sensitivity, point.specificity, point.ppv)


def _calibration(labels, probability):
  place = np.minimum(
    (probability * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1
  )
  bins = tuple(
    CalibrationBin(
      int((place == number).sum()),
      float(probability[place == number].mean()),
      float(labels[place == number].mean()),
    )
    for number in np.unique(place)
  )
  error = sum(b.count * abs(b.mean_probability - b.positive_share) for b in bins)
  return bins, float(error / len(labels))


def _cluster_interval(labels, probability, patients, seed):
  """Percentile bootstrap of the area over patients; None where too few draws hold
  both classes."""
  names, places = np.unique(patients, return_inverse=True)
  members = [np.flatnonzero(places == number) for number in range(len(names))]
  random = np.random.default_rng(seed)
  areas = []
  for _ in range(_CLUSTER_DRAWS):
    drawn = np.concatenate(
      [members[number] for number in random.integers(0, len(names), len(names))]
    )
    positive, negative = (probability[drawn][labels[drawn] == kind] for kind in (1, 0))
    if len(positive) and len(negative):
      areas.append(float(roc.estimate_area(positive, negative).auc[0]))
  if len(areas) < _CLUSTER_DRAWS // 2:
    return None
  return tuple(float(limit) for limit in np.percentile(areas, (2.5, 97.5)))


# How well a lung mask agrees with the true one: overlap, and distance in mm.


@dataclasses.dataclass(frozen=True)
class LungAgreement:
  """Agreement of the masks of one case.

  Attributes:
    dice: `2 |A and B| / (|A| + |B|)`, in [0, 1]; None where both masks are empty.
    iou: `|A and B| / |A or B|`, in [0, 1]; None likewise.
    hausdorff95_mm: 95th percentile of the distances from each surface to the other,
      the larger of both directions; None where a mask is empty or pixels have no
      known size.
    in_3d: whether distances were measured in space, or slice by slice because the
      slices are no stack.
  """

  dice: float | None
  iou: float | None
  hausdorff95_mm: float | None
  in_3d: bool


def compare_masks(
  found: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]
) -> LungAgreement:
  """Compares two masks of one case.

  Args:
    found, truth: [slice, row, column], nonzero in the lungs.
    spacing_mm: between (slices, rows, columns); a slice spacing of 0 means slices
      that are no stack, a pixel spacing of 0 an unknown one.

  Returns:
    Their agreement.
  """
  found, truth = np.asarray(found, bool), np.asarray(truth, bool)
  if found.shape != truth.shape:
    raise ValueError(
      f'found and truth must have one shape, found {found.shape}, {truth.shape}.'
    )
  common = int(np.count_nonzero(found & truth))
  total = int(np.count_nonzero(found)) + int(np.count_nonzero(truth))
  in_3d = spacing_mm[0] > 0
  if not total:
    return LungAgreement(None, None, None, in_3d)
  distance = None
  if min(spacing_mm[1:]) > 0:
    distance = _hausdorff95_mm(found, truth, spacing_mm, in_3d)
  return LungAgreement(2 * common / total, common / (total - common), distance, in_3d)


def _hausdorff95_mm(found, truth, spacing_mm, in_3d) -> float | None:
  if in_3d:
    there, back = _surface_distances(found, truth, spacing_mm)
  else:
    pairs = [
      _surface_distances(a, b, spacing_mm[1:])
      for a, b in zip(found, truth)
      if a.any() and b.any()
    ]
    there, back = (
      np.concatenate([pair[way] for pair in pairs] or [np.empty(0)]) for way in (0, 1)
    )
  if not there.size or not back.size:
    return None
  return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _surface_distances(first, second, spacing_mm):
  """Distances in mm from first's surface voxels to second's, and back."""
  both = np.argwhere(first | second)
  if not first.any() or not second.any():
    return np.empty(0), np.empty(0)
  box = tuple(slice(low, high + 1) for low, high in zip(both.min(0), both.max(0)))
  edges = [_surface(mask[box]) for mask in (first, second)]
  to_second, to_first = (
    ndimage.distance_transform_edt(~edge, sampling=spacing_mm)
    for edge in (edges[1], edges[0])
  )
  return to_second[edges[0]], to_first[edges[1]]


def _surface(mask):
  return mask & ~ndimage.binary_erosion(mask)
