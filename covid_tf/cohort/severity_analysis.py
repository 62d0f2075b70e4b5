"""Severity of the graded patients, or why there is nothing to say. (Section 3.2.)"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from covid_tf.cohort import first_time_point
from covid_tf.cohort import load_results
from covid_tf.cohort import severity
from covid_tf.cohort import trend

_FEW_PATIENTS = 5


@dataclasses.dataclass(frozen=True)
class SeverityAnalysis:
  """What the grades say of the score.

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
  summaries: dict[str, severity.GroupSummary] = dataclasses.field(default_factory=dict)
  two: severity.TwoGroups | None = None
  many: trend.ManyGroups | None = None
  messages: tuple[str, ...] = ()


def grade_severity(
    patients: Sequence[first_time_point.Patient],
    order: Sequence[str] = ()) -> SeverityAnalysis:
  """Analyzes the graded patients.

  Args:
    patients: one entry a patient; those without a grade are left out.
    order: grades from mild to severe; empty: alphabetical, and no trend.

  Returns:
    The analysis; for fewer than two grades only what can be said.
  """
  scores = {}
  for patient in patients:
    if patient.severity is not None:
      scores.setdefault(patient.severity, []).append(
          patient.scores[load_results.CORONA_SCORE])
  grades = tuple(grade for grade in (order or sorted(scores)) if grade in scores)
  scores = {grade: np.array(sorted(scores[grade])) for grade in grades}
  groups = [scores[grade] for grade in grades]
  return SeverityAnalysis(
      grades, bool(order), scores,
      {grade: severity.summarize(scores[grade]) for grade in grades},
      two=severity.compare_two(*groups) if len(groups) == 2 else None,
      many=trend.compare_many(groups, bool(order)) if len(groups) > 2 else None,
      messages=tuple(_messages(scores, order)))


def _messages(scores: dict[str, np.ndarray], order: Sequence[str]):
  if not scores:
    yield 'No patient is graded: there is no comparison of severity.'
    return
  if len(scores) == 1:
    yield (f'All graded patients are {next(iter(scores))!r}: at least two grades are '
           'needed for a comparison.')
    return
  absent = [grade for grade in order if grade not in scores]
  if absent:
    yield f'No patient is graded {", ".join(absent)}.'
  small = [f'{grade} ({len(values)})' for grade, values in scores.items()
           if len(values) < _FEW_PATIENTS]
  if small:
    yield (f'Very few patients: {", ".join(small)}. A large p-value says little here, '
           'and medians will move with the next patient.')
  if len(np.unique(np.concatenate(list(scores.values())))) == 1:
    yield 'All scores are equal: they hold no information on severity.'
  if len(scores) > 2 and not order:
    yield ('More than two grades and no order of them: no test for trend '
           '(state the order from mild to severe).')
