"""Does the score tell patients with disease from those without? (Section 3.2.)"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from covid_tf.cohort import delong
from covid_tf.cohort import first_time_point
from covid_tf.cohort import load_results
from covid_tf.cohort import operating_points
from covid_tf.cohort import roc

# Below this many patients in a group DeLong's interval is known to be too narrow.
_FEW_PATIENTS = 10


@dataclasses.dataclass(frozen=True)
class DetectionOptions:
  """What the user may choose.

  Attributes:
    sensitivity: the one that an operating point must reach, in (0, 1].
    threshold_cm3: a stated cut to report on, or None.
    prevalence: share of disease where the score is to be used, or None.
    bootstrap_draws: resampled cohorts.
    seed: of the bootstrap.
  """

  sensitivity: float = 0.9
  threshold_cm3: float | None = None
  prevalence: float | None = None
  bootstrap_draws: int = roc.BOOTSTRAP_DRAWS
  seed: int = 0


@dataclasses.dataclass(frozen=True)
class ScoreComparison:
  """The Corona score against a second score, on the same patients.

  Attributes:
    second: what the second score is.
    n_positive, n_negative: patients who have both.
    auc, second_auc: areas over those patients.
    paired: DeLong's paired test; None where a group has one patient.
  """

  second: str
  n_positive: int
  n_negative: int
  auc: float
  second_auc: float
  paired: delong.PairedComparison | None


@dataclasses.dataclass(frozen=True)
class Detection:
  """The answer, or why there is none.

  Attributes:
    n_positive, n_negative: patients.
    auc: area under the ROC curve; None without both groups, and so is all below.
    auc_standard_error: DeLong's, or None for a group of one.
    auc_ci95_delong, auc_ci95_bootstrap, auc_ci95_newcombe: 95 % intervals.
    curve: the ROC curve.
    points: operating points, those that exist.
    comparison: with a second score, where one is at hand.
    messages: what a statistician would add.
    options: as asked.
  """

  n_positive: int
  n_negative: int
  options: DetectionOptions
  auc: float | None = None
  auc_standard_error: float | None = None
  auc_ci95_delong: tuple[float, float] | None = None
  auc_ci95_bootstrap: tuple[float, float] | None = None
  auc_ci95_newcombe: tuple[float, float] | None = None
  curve: roc.RocCurve | None = None
  points: tuple[operating_points.OperatingPoint, ...] = ()
  comparison: ScoreComparison | None = None
  messages: tuple[str, ...] = ()


def detect(
    patients: Sequence[first_time_point.Patient],
    options: DetectionOptions = DetectionOptions(),
    second: Mapping[str, float] | None = None, second_name: str = '') -> Detection:
  """Analyzes detection.

  Args:
    patients: one entry a patient.
    options: see DetectionOptions.
    second: another score by study UID, to compare; None: no comparison.
    second_name: what it is.

  Returns:
    The analysis; without both groups only its counts and a message.
  """
  positive, negative = _groups(patients, load_results.CORONA_SCORE)
  counts = (len(positive), len(negative))
  if not len(positive) or not len(negative):
    missing = 'covid 1' if not len(positive) else 'covid 0'
    return Detection(*counts, options, messages=(
        f'Detection needs patients with and without disease; none has {missing}, so '
        'there is no ROC curve.',))
  area = delong.estimate(positive, negative)
  auc = float(area.auc[0])
  curve = roc.curve(positive, negative)
  points, point_messages = _points(curve, positive, negative, options)
  comparison = _compare(patients, second, second_name) if second else None
  intervals = {'auc_ci95_newcombe': roc.newcombe_interval(auc, *counts)}
  if min(counts) >= delong.SMALLEST_GROUP:
    intervals |= {
        'auc_standard_error': float(area.standard_error()[0]),
        'auc_ci95_delong': tuple(float(limit) for limit in area.interval()[0]),
        'auc_ci95_bootstrap': roc.bootstrap_interval(
            positive, negative, options.bootstrap_draws, options.seed)}
  return Detection(
      *counts, options, auc=auc, curve=curve, points=points, comparison=comparison,
      messages=_messages(auc, positive, negative) + point_messages, **intervals)


def _groups(patients, name: str) -> tuple[np.ndarray, np.ndarray]:
  """float64 [m] and [n]: scores with and without disease."""
  positive = [patient.scores[name] for patient in patients if patient.covid]
  negative = [patient.scores[name] for patient in patients if not patient.covid]
  return np.array(positive, np.float64), np.array(negative, np.float64)


def _points(curve, positive, negative, options: DetectionOptions):
  """(operating points, messages)."""
  messages = []
  wanted = [('youden', 'highest sensitivity + specificity - 1 (Youden) in this cohort',
             operating_points.youden_threshold(curve))]
  reached = operating_points.sensitivity_threshold(curve, options.sensitivity)
  if reached is None:
    messages.append(
        f'No threshold reaches a sensitivity of {options.sensitivity:g}: too many '
        'patients with disease score 0 cm³.')
  else:
    wanted.append((
        'sensitivity',
        f'highest threshold with sensitivity of at least {options.sensitivity:g} in '
        'this cohort', reached))
  if options.threshold_cm3 is not None:
    wanted.append(('threshold', 'stated beforehand', options.threshold_cm3))
  messages.append(
      'Thresholds read off this cohort look better here than they will elsewhere; '
      'confirm one on other patients before use.')
  return tuple(
      operating_points.operating_point(
          name, rule, cut, positive, negative, options.prevalence)
      for name, rule, cut in wanted), tuple(messages)


def _compare(
    patients, second: Mapping[str, float], name: str) -> ScoreComparison | None:
  both = [dataclasses.replace(patient, scores=patient.scores | {
      'second': second[patient.study_uid]})
          for patient in patients if patient.study_uid in second]
  positive, negative = _groups(both, load_results.CORONA_SCORE)
  second_positive, second_negative = _groups(both, 'second')
  if not len(positive) or not len(negative):
    return None
  areas = delong.estimate(
      np.stack([positive, second_positive]), np.stack([negative, second_negative]))
  paired = None if areas.covariance is None else delong.compare_paired(areas)
  return ScoreComparison(name, len(positive), len(negative), float(areas.auc[0]),
                         float(areas.auc[1]), paired)


def _messages(auc: float, positive, negative) -> tuple[str, ...]:
  messages = []
  smaller = min(len(positive), len(negative))
  if smaller < delong.SMALLEST_GROUP:
    messages.append(
        'One patient in a group has no spread: no DeLong and no bootstrap interval; '
        "Newcombe's interval alone is given.")
  elif smaller < _FEW_PATIENTS:
    messages.append(
        f'The smaller group has {smaller} patients: intervals are rough and tend to '
        'be too narrow.')
  if len(np.unique(np.concatenate([positive, negative]))) == 1:
    messages.append('All scores are equal: they hold no information on disease.')
  elif auc in (0.0, 1.0) and smaller >= delong.SMALLEST_GROUP:
    messages.append(
        'The groups separate wholly, so the DeLong and bootstrap intervals have no '
        "width; that is no certainty. Newcombe's interval still depends on the "
        'number of patients: quote it.')
  if auc < 0.5:
    messages.append(
        'Patients with disease score lower than those without: look for swapped '
        'labels before anything else.')
  return tuple(messages)
