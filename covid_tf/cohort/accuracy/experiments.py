"""The paper's two questions of a cohort: detection and severity (section 3.2)."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from covid_tf.cohort import labels
from covid_tf.cohort import results
from covid_tf.statistics import groups as groups_lib
from covid_tf.statistics import operating_points
from covid_tf.statistics import roc

# Does the score separate patients with disease from those without? (Section 3.2.)

# Below this many patients in a group DeLong's interval is known to be too narrow.
_FEW_PATIENTS = 10


@dataclasses.dataclass(frozen=True)
class DetectionOptions:
  """What the user may choose.

  Attributes:
    sensitivity: the one that an operating point must reach, in (0, 1].
    threshold_cm3: a stated threshold to report on, or None.
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
  paired: roc.PairedComparison | None


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
  patients: Sequence[labels.Patient],
  options: DetectionOptions = DetectionOptions(),
  second: Mapping[str, float] | None = None,
  second_name: str = '',
) -> Detection:
  """Analyzes detection.

  Args:
    patients: one entry a patient.
    options: see DetectionOptions.
    second: another score by study UID, to compare; None: no comparison.
    second_name: what it is.

  Returns:
    The analysis; without both groups only its counts and a message.
  """
  positive, negative = _groups(patients, results.CORONA_SCORE)
  counts = (len(positive), len(negative))
  if not len(positive) or not len(negative):
    missing = 'covid 1' if not len(positive) else 'covid 0'
    return Detection(
      *counts,
      options,
      messages=(
        f'Detection needs patients with and without disease; none has {missing}, so '
        'there is no ROC curve.',
      ),
    )
  area = roc.estimate_area(positive, negative)
  auc = float(area.auc[0])
  curve = roc.curve(positive, negative)
  points, point_messages = _points(curve, positive, negative, options)
  comparison = compare_scores(patients, second, second_name) if second else None
  intervals: dict[str, Any] = {'auc_ci95_newcombe': roc.newcombe_interval(auc, *counts)}
  error, interval = area.standard_error(), area.interval()
  if error is not None and interval is not None:  # Both groups are large enough.
    intervals |= {
      'auc_standard_error': float(error[0]),
      'auc_ci95_delong': tuple(float(limit) for limit in interval[0]),
      'auc_ci95_bootstrap': roc.bootstrap_interval(
        positive, negative, options.bootstrap_draws, options.seed
      ),
    }
  return Detection(
    *counts,
    options,
    auc=auc,
    curve=curve,
    points=points,
    comparison=comparison,
    messages=_detection_messages(auc, positive, negative) + point_messages,
    **intervals,
  )


def _groups(patients, name: str) -> tuple[np.ndarray, np.ndarray]:
  """float64 [m] and [n]: scores with and without disease."""
  positive = [patient.scores[name] for patient in patients if patient.covid]
  negative = [patient.scores[name] for patient in patients if not patient.covid]
  return np.array(positive, np.float64), np.array(negative, np.float64)


def _points(curve, positive, negative, options: DetectionOptions):
  """(operating points, messages)."""
  messages = []
  wanted = [
    (
      'youden',
      'highest sensitivity + specificity - 1 (Youden) in this cohort',
      operating_points.youden_threshold(curve),
    )
  ]
  reached = operating_points.sensitivity_threshold(curve, options.sensitivity)
  if reached is None:
    messages.append(
      f'No threshold reaches a sensitivity of {options.sensitivity:g}: too many '
      'patients with disease score 0 cm³.'
    )
  else:
    wanted.append(
      (
        'sensitivity',
        f'highest threshold with sensitivity of at least {options.sensitivity:g} in '
        'this cohort',
        reached,
      )
    )
  if options.threshold_cm3 is not None:
    wanted.append(('threshold', 'stated beforehand', options.threshold_cm3))
  messages.append(
    'Thresholds read off this cohort look better here than they will elsewhere; '
    'confirm one on other patients before use.'
  )
  return tuple(
    operating_points.operating_point(
      name, rule, threshold, positive, negative, options.prevalence
    )
    for name, rule, threshold in wanted
  ), tuple(messages)


def compare_scores(
  patients: Sequence[labels.Patient], second: Mapping[str, float], name: str
) -> ScoreComparison | None:
  """Compares the Corona score with another one, on the patients that have both.

  Args:
    patients: one entry a patient.
    second: the other score, by study UID.
    name: what it is.

  Returns:
    The comparison; None without patients of both groups.
  """
  both = [
    dataclasses.replace(
      patient, scores=patient.scores | {'second': second[patient.study_uid]}
    )
    for patient in patients
    if patient.study_uid in second
  ]
  positive, negative = _groups(both, results.CORONA_SCORE)
  second_positive, second_negative = _groups(both, 'second')
  if not len(positive) or not len(negative):
    return None
  areas = roc.estimate_area(
    np.stack([positive, second_positive]), np.stack([negative, second_negative])
  )
  paired = None if areas.covariance is None else roc.compare_paired(areas)
  return ScoreComparison(
    name, len(positive), len(negative), float(areas.auc[0]), float(areas.auc[1]), paired
  )


def _detection_messages(auc: float, positive, negative) -> tuple[str, ...]:
  messages = []
  smaller = min(len(positive), len(negative))
  if smaller < roc.SMALLEST_GROUP:
    messages.append(
      'One patient in a group has no spread: no DeLong and no bootstrap interval; '
      "Newcombe's interval alone is given."
    )
  elif smaller < _FEW_PATIENTS:
    messages.append(
      f'The smaller group has {smaller} patients: intervals are rough and tend to '
      'be too narrow.'
    )
  if len(np.unique(np.concatenate([positive, negative]))) == 1:
    messages.append('All scores are equal: they hold no information on disease.')
  elif auc in (0.0, 1.0) and smaller >= roc.SMALLEST_GROUP:
    messages.append(
      'The groups separate wholly, so the DeLong and bootstrap intervals have no '
      "width; that is no certainty. Newcombe's interval still depends on the "
      'number of patients: quote it.'
    )
  if auc < 0.5:
    messages.append(
      'Patients with disease score lower than those without: look for swapped '
      'labels before anything else.'
    )
  return tuple(messages)


# Severity of the graded patients, or why none is computed. (Section 3.2.)

_FEW_SEVERITY_PATIENTS = 5


@dataclasses.dataclass(frozen=True)
class SeverityAnalysis:
  """How the score relates to the grades.

  Attributes:
    grades: in the order given, else alphabetical.
    order_given: whether that order means mild to severe.
    scores_cm3: float64 [n] of each grade.
    summaries: median and quartiles of each grade.
    two: comparison of two grades; None for any other number.
    many: comparison of three grades or more; None below.
    messages: what a statistician would add.
  """

  grades: tuple[str, ...] = ()
  order_given: bool = False
  scores_cm3: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  summaries: dict[str, groups_lib.GroupSummary] = dataclasses.field(
    default_factory=dict
  )
  two: groups_lib.TwoGroups | None = None
  many: groups_lib.ManyGroups | None = None
  messages: tuple[str, ...] = ()

  @property
  def p_value(self) -> float | None:
    """Of the rank-sum or Kruskal-Wallis test; None below two grades."""
    if self.two:
      return self.two.rank_sum.p_value
    return self.many.kruskal_wallis_p_value if self.many else None


def grade_severity(
  patients: Sequence[labels.Patient],
  order: Sequence[str] = (),
  score: str = results.CORONA_SCORE,
) -> SeverityAnalysis:
  """Analyzes the graded patients.

  Args:
    patients: one entry a patient; those without a grade are left out.
    order: grades from mild to severe; empty: alphabetical, and no trend.
    score: which of their scores; all of them have it.

  Returns:
    The analysis; for fewer than two grades only the summary.
  """
  found: dict[str, list[float]] = {}
  for patient in patients:
    if patient.severity is not None:
      found.setdefault(patient.severity, []).append(patient.scores[score])
  grades = tuple(grade for grade in (order or sorted(found)) if grade in found)
  scores = {grade: np.array(sorted(found[grade])) for grade in grades}
  groups = [scores[grade] for grade in grades]
  return SeverityAnalysis(
    grades,
    bool(order),
    scores,
    {grade: groups_lib.summarize(scores[grade]) for grade in grades},
    two=groups_lib.compare_two(*groups) if len(groups) == 2 else None,
    many=groups_lib.compare_many(groups, bool(order)) if len(groups) > 2 else None,
    messages=tuple(_severity_messages(scores, order)),
  )


def _severity_messages(scores: dict[str, np.ndarray], order: Sequence[str]):
  if not scores:
    yield 'No patient is graded: there is no comparison of severity.'
    return
  if len(scores) == 1:
    yield (
      f'All graded patients are {next(iter(scores))!r}: at least two grades are '
      'needed for a comparison.'
    )
    return
  absent = [grade for grade in order if grade not in scores]
  if absent:
    yield f'No patient is graded {", ".join(absent)}.'
  small = [
    f'{grade} ({len(values)})'
    for grade, values in scores.items()
    if len(values) < _FEW_SEVERITY_PATIENTS
  ]
  if small:
    yield (
      f'Very few patients: {", ".join(small)}. A large p-value says little here, '
      'and medians will move with the next patient.'
    )
  if len(np.unique(np.concatenate(list(scores.values())))) == 1:
    yield 'All scores are equal: they hold no information on severity.'
  if len(scores) > 2 and not order:
    yield (
      'More than two grades and no order of them: no test for trend '
      '(state the order from mild to severe).'
    )
