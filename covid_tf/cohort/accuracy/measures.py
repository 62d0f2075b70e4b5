"""Densities and zone scores beside the Corona score: the same questions of each.

Which of several numbers separates two groups best is found by chance where many are
tried: each is compared with the Corona score on the same patients, and none is chosen.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from covid_tf.cohort import labels
from covid_tf.cohort import results
from covid_tf.cohort.accuracy import experiments
from covid_tf.statistics import roc

NONE_MEASURED = (
  'No result states densities or zone scores (results of schema 1 or 2 have none): '
  'there is nothing to set beside the Corona score.'
)


@dataclasses.dataclass(frozen=True)
class Measure:
  """One number beside the score, over the patients whose result has it.

  Attributes:
    name: as in cohort.json and manifest.csv.
    title: in words, with its unit.
    n_positive, n_negative: patients with and without disease.
    auc: area under its ROC curve, larger values called positive; None without both
      groups. Below 0.5: lower in patients with disease.
    auc_ci95_newcombe: its interval.
    curve: the ROC curve; None without both groups.
    comparison: the Corona score against it, on the same patients.
    severity: by grade; its fields named cm3 hold the measure's own unit.
    messages: what its reader must know.
  """

  name: str
  title: str
  n_positive: int
  n_negative: int
  auc: float | None
  auc_ci95_newcombe: tuple[float, float] | None
  curve: roc.RocCurve | None
  comparison: experiments.ScoreComparison | None
  severity: experiments.SeverityAnalysis
  messages: tuple[str, ...]


def measure_all(
  patients: Sequence[labels.Patient], order: Sequence[str] = ()
) -> tuple[Measure, ...]:
  """Asks of each density and zone score what is asked of the Corona score.

  Args:
    patients: one entry a patient.
    order: grades from mild to severe; empty: not stated.

  Returns:
    The measures that any result has; () of results of before they were measured.
  """
  return tuple(
    _measure(name, title, having, len(patients) - len(having), order)
    for name, title in results.MEASURES.items()
    if (having := [patient for patient in patients if name in patient.scores])
  )


def _measure(
  name: str,
  title: str,
  patients: Sequence[labels.Patient],
  missing: int,
  order: Sequence[str],
) -> Measure:
  positive, negative = (
    np.array(
      [patient.scores[name] for patient in patients if patient.covid is covid],
      np.float64,
    )
    for covid in (True, False)
  )
  counts = len(positive), len(negative)
  messages = []
  if missing:
    messages.append(f'{title}: {missing} patients have a result without it.')
  if len(np.unique(np.concatenate([positive, negative]))) == 1:
    messages.append(f'{title}: all values are equal and hold no information.')
  auc = float(roc.estimate_area(positive, negative).auc[0]) if all(counts) else None
  return Measure(
    name,
    title,
    *counts,
    auc,
    None if auc is None else roc.newcombe_interval(auc, *counts),
    roc.curve(positive, negative) if all(counts) else None,
    experiments.compare_scores(
      patients, {patient.study_uid: patient.scores[name] for patient in patients}, title
    ),
    experiments.grade_severity(patients, order, name),
    tuple(messages),
  )


def as_json(found: Sequence[Measure]) -> dict[str, Any]:
  """As cohort.json holds them."""
  return {
    'scores': [_as_dict(measure) for measure in found],
    'messages': (
      [message for measure in found for message in measure.messages]
      if found
      else [NONE_MEASURED]
    ),
  }


def _as_dict(measure: Measure) -> dict[str, Any]:
  curve, comparison = measure.curve, measure.comparison
  severity = measure.severity
  return {
    'name': measure.name,
    'title': measure.title,
    'n_positive': measure.n_positive,
    'n_negative': measure.n_negative,
    'auc': measure.auc,
    'auc_ci95_newcombe': measure.auc_ci95_newcombe,
    'roc': None
    if curve is None
    else {
      'threshold': curve.thresholds.tolist(),
      'sensitivity': curve.sensitivity.tolist(),
      'specificity': curve.specificity.tolist(),
    },
    'corona_score_against_it': (
      None if comparison is None else dataclasses.asdict(comparison)
    ),
    'severity': {
      'n': {grade: group.n for grade, group in severity.summaries.items()},
      'medians': {
        grade: group.median_cm3 for grade, group in severity.summaries.items()
      },
      'quartiles': {
        grade: group.quartiles_cm3 for grade, group in severity.summaries.items()
      },
      'p_value': severity.p_value,
    },
  }
