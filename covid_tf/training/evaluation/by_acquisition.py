"""An evaluation by scanner, kernel and thickness, where the cases know them."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from covid_tf import volume as volume_lib
from covid_tf.cohort.accuracy import strata
from covid_tf.statistics import roc
from covid_tf.training.evaluation import metrics


@dataclasses.dataclass(frozen=True)
class Stratum:
  """The cases of one kind of scan.

  Attributes:
    factor: 'scanner', 'kernel', 'slice thickness' or 'contrast'.
    name: what they have in common, or strata.NOT_STATED.
    series: how many.
    n_positive, n_negative: labelled slices.
    auc: of the slices; None without both kinds.
    sensitivity, specificity: of the slices at probability > 0.5; None without any.
    dice: mean over its lung cases; None without any.
  """

  factor: str
  name: str
  series: int
  n_positive: int
  n_negative: int
  auc: float | None
  sensitivity: float | None
  specificity: float | None
  dice: float | None


def divide(
  acquisitions: Mapping[str, volume_lib.Acquisition | None],
  slices: Sequence[tuple[str, int, float]],
  dice: Sequence[tuple[str, float]],
) -> tuple[Stratum, ...]:
  """Divides an evaluation by each property that any case states.

  Args:
    acquisitions: series to how it was acquired.
    slices: (series, label, probability) of labelled slices.
    dice: (series, Dice) of cases whose lungs were compared.

  Returns:
    Strata, factor by factor, most series first and those that state nothing last.
  """
  found = []
  for factor, value in strata.FACTORS.items():
    names = {
      series: value(acquisition or volume_lib.Acquisition()) or strata.NOT_STATED
      for series, acquisition in acquisitions.items()
    }
    kinds = [
      _stratum(factor, name, names, slices, dice)
      for name in sorted(set(names.values()))
    ]
    if any(each.name != strata.NOT_STATED for each in kinds):
      found += sorted(kinds, key=lambda each: (_is_unstated(each), -each.series))
  return tuple(found)


def _is_unstated(stratum: Stratum) -> bool:
  return stratum.name == strata.NOT_STATED


def _stratum(
  factor: str,
  name: str,
  names: Mapping[str, str],
  slices: Sequence[tuple[str, int, float]],
  dice: Sequence[tuple[str, float]],
) -> Stratum:
  positive, negative = (
    np.array(
      [p for series, label, p in slices if names[series] == name and label == of]
    )
    for of in (1, 0)
  )
  both = len(positive) and len(negative)
  overlaps = [value for series, value in dice if names[series] == name]
  threshold = metrics.DECISION_THRESHOLD
  return Stratum(
    factor,
    name,
    sum(found == name for found in names.values()),
    len(positive),
    len(negative),
    float(roc.estimate_area(positive, negative).auc[0]) if both else None,
    float((positive > threshold).mean()) if len(positive) else None,
    float((negative <= threshold).mean()) if len(negative) else None,
    float(np.mean(overlaps)) if overlaps else None,
  )


def as_json(found: Sequence[Stratum]) -> list[dict[str, Any]]:
  """As evaluation.json holds them."""
  return [dataclasses.asdict(stratum) for stratum in found]
