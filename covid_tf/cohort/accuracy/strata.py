"""Scanner, kernel, thickness and contrast of a cohort: results and groups by each.

Where patients with disease were imaged by other scanners or kernels than those without,
a score may tell the scanners apart. No statistics can divide the two afterwards, but
the tables show it, and the area within one stratum is free of it.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from covid_tf import volume as volume_lib
from covid_tf.cohort import labels
from covid_tf.cohort import paper
from covid_tf.cohort import results
from covid_tf.statistics import groups as groups_lib
from covid_tf.statistics import roc

NOT_STATED = 'not stated'
# Ours: thin for lung detail, for reading, for routine, and those of before.
_THICKNESS_EDGES_MM = (1.5, 3.5, 6.0)
_SIGNIFICANT = 0.05
_NAMED = 3  # Strata that a warning names.


@dataclasses.dataclass(frozen=True)
class Stratum:
  """The patients whose CT were acquired in one way.

  Attributes:
    name: what they have in common, or NOT_STATED.
    n_positive, n_negative: patients with and without disease.
    median_positive_cm3, median_negative_cm3: of their Corona scores; None without any.
    auc: of the Corona score within the stratum; None without both groups.
    auc_ci95_newcombe: its interval.
  """

  name: str
  n_positive: int
  n_negative: int
  median_positive_cm3: float | None
  median_negative_cm3: float | None
  auc: float | None
  auc_ci95_newcombe: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Factor:
  """One property of the acquisition over the cohort.

  Attributes:
    name: 'scanner', 'kernel', 'slice thickness' or 'contrast'.
    strata: most patients first, NOT_STATED last.
    p_value: that patients with and without disease fall into the strata alike
      (chi-squared, simulated); None where there is one stratum, or one group.
    separates: no stratum holds patients of both groups.
  """

  name: str
  strata: tuple[Stratum, ...]
  p_value: float | None
  separates: bool


def factors(
  patients: Sequence[labels.Patient],
  acquisitions: Mapping[str, volume_lib.Acquisition | None],
) -> tuple[Factor, ...]:
  """Groups patients by what their results say of the acquisition.

  Args:
    patients: one entry a patient.
    acquisitions: study UID to that of its result.

  Returns:
    The factors that any result states; () for results of before they were stated.
  """
  found = []
  for name, value in FACTORS.items():
    members: dict[str, list[labels.Patient]] = {}
    for patient in patients:
      acquisition = acquisitions.get(patient.study_uid) or volume_lib.Acquisition()
      members.setdefault(value(acquisition) or NOT_STATED, []).append(patient)
    if set(members) - {NOT_STATED}:
      found.append(_factor(name, members))
  return tuple(found)


def _scanner(acquisition: volume_lib.Acquisition) -> str:
  # The same maker is written in capitals or not, by one scanner and the next.
  words = [acquisition.manufacturer, acquisition.model]
  return ' '.join(word.upper() for word in words if word)


def _thickness(acquisition: volume_lib.Acquisition) -> str:
  """Of slices, or where it is not stated, the distance between them."""
  value = acquisition.slice_thickness_mm or acquisition.slice_distance_mm
  if value is None:
    return ''
  edges = [f'{edge:g}' for edge in _THICKNESS_EDGES_MM]
  names = (
    f'below {edges[0]} mm',
    *(f'{low} to below {high} mm' for low, high in zip(edges, edges[1:])),
    f'{edges[-1]} mm and more',
  )
  return names[int(np.searchsorted(_THICKNESS_EDGES_MM, value, side='right'))]


def _contrast(acquisition: volume_lib.Acquisition) -> str:
  words = {True: 'given', False: 'none given'}
  return '' if acquisition.contrast is None else words[acquisition.contrast]


# Name of each factor to the stratum of an acquisition; blank where it is not stated.
FACTORS: dict[str, Callable[[volume_lib.Acquisition], str | None]] = {
  'scanner': _scanner,
  'kernel': lambda acquisition: acquisition.kernel,
  'slice thickness': _thickness,
  'contrast': _contrast,
}


def _factor(name: str, members: Mapping[str, Sequence[labels.Patient]]) -> Factor:
  strata = sorted(
    (_stratum(stratum, patients) for stratum, patients in members.items()),
    key=lambda each: (
      each.name == NOT_STATED,
      -(each.n_positive + each.n_negative),
      each.name,
    ),
  )
  table = np.array([(each.n_positive, each.n_negative) for each in strata])
  is_tested = len(strata) > 1 and table.sum(axis=0).all()
  return Factor(
    name,
    tuple(strata),
    groups_lib.association_p_value(table) if is_tested else None,
    bool(is_tested and not table.all(axis=1).any()),
  )


def _stratum(name: str, patients: Sequence[labels.Patient]) -> Stratum:
  scores = [
    np.array(
      [
        patient.scores[results.CORONA_SCORE]
        for patient in patients
        if patient.covid is covid
      ]
    )
    for covid in (True, False)
  ]
  positive, negative = scores
  counts = len(positive), len(negative)
  auc = float(roc.estimate_area(positive, negative).auc[0]) if all(counts) else None
  return Stratum(
    name,
    *counts,
    float(np.median(positive)) if len(positive) else None,
    float(np.median(negative)) if len(negative) else None,
    auc,
    None if auc is None else roc.newcombe_interval(auc, *counts),
  )


def warnings(found: Sequence[Factor]) -> tuple[str, ...]:
  """What a reader of the cohort's numbers must know of how the groups were imaged."""
  texts = []
  for factor in found:
    positive = sum(stratum.n_positive for stratum in factor.strata)
    negative = sum(stratum.n_negative for stratum in factor.strata)
    differs = factor.p_value is not None and factor.p_value < _SIGNIFICANT
    # As many strata as patients separate them always.
    separated = factor.separates and len(factor.strata) <= min(positive, negative)
    if not differs and not separated:
      continue
    counts = '; '.join(
      f'{stratum.name}: {stratum.n_positive} of {positive} with and '
      f'{stratum.n_negative} of {negative} without'
      for stratum in factor.strata[:_NAMED]
    )
    more = '; …' * (len(factor.strata) > _NAMED)
    p_value = '' if factor.p_value is None else f', {paper.p_value(factor.p_value)}'
    texts.append(
      f'Patients with and without disease differ in {factor.name} ({counts}{more}'
      f'{p_value}). {_meaning(factor)}'
    )
  return tuple(texts)


def _meaning(factor: Factor) -> str:
  if factor.separates:
    return (
      f'No {factor.name} has patients of both groups: whether the score sees disease '
      f'or the {factor.name}, these data cannot tell.'
    )
  return (
    f'A part of the AUC may be of the {factor.name}; see the AUC within one, and match '
    'the groups where that can be done.'
  )


def as_json(found: Sequence[Factor]) -> list[dict[str, Any]]:
  """As cohort.json holds them."""
  return [dataclasses.asdict(factor) for factor in found]
