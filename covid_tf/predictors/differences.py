"""How far a model's answers may lie from their reference, and what a difference says.

Other processors and batch sizes round otherwise, a narrower number format rounds more,
and a batch that a fault destroyed is off by far more than either.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import enum
import math
from typing import Any

import numpy as np

from covid_tf import contract
from covid_tf import results

# The design's bounds between float32 answers of two machines.
PROBABILITY_TOLERANCE = 1e-4
MAP_TOLERANCE = 1e-3
MAP_SUM_TOLERANCE = 1e-3  # Of a whole map's sum, relative.
# `lung_mask` is the probability, interpolated and compared with 0.5. Interpolation is a
# weighted mean, so what is interpolated moves by no more than the probability does: a
# pixel may turn only where the reference lies that near to 0.5. The rest is rounding of
# the interpolation itself.
MASK_TOLERANCE = PROBABILITY_TOLERANCE + 1e-5
_MASK_THRESHOLD = 0.5

# Ours. What a narrower number format may change on an average over all values, and at
# most. bfloat16 has 8 bits: of the demo models it moves maps by 0.0003 on an average
# and by 0.015 at most. A batch that a fault destroyed is off by tenths on an average.
_NARROW_MEAN = 0.02
_NARROW_MOST = 0.2
# Each map is divided by its own maximum: where evidence nearly cancels out, a narrower
# format gives another map. So an export in one names in its card what its own answers
# differed by when it was made, and another machine may round so many times as much.
_TIMES_KNOWN = 4
NARROW_TYPES = ('bfloat16', 'float16', 'tensorfloat32')


class Verdict(enum.Enum):
  """What a difference is."""

  RIGHT = 'right'
  NARROWER = 'as a narrower number format gives'
  WRONG = 'wrong'


@dataclasses.dataclass(frozen=True)
class Comparison:
  """One output of a signature beside its reference.

  Attributes:
    signature: of the model.
    output: its name, or 'sum of …' for whole maps.
    difference: the largest, absolute; of a sum, relative; of a mask, how far from its
      threshold the reference of a pixel lies that turned.
    tolerance: what float32 may differ by.
    verdict: what that says.
    average: the difference on an average over all values; of sums, the largest of one
      map by its number of cells; of a mask, the share of pixels that turned.
  """

  signature: str
  output: str
  difference: float
  tolerance: float
  verdict: Verdict
  average: float = 0.0


def compute_dtype(identity: results.ModelIdentity) -> str:
  """The type that the model's card says it computes in."""
  card = identity.card if isinstance(identity.card, Mapping) else {}
  return str(card.get('compute_dtype', 'float32'))


def of_card(identity: results.ModelIdentity) -> Mapping[str, list[float]]:
  """What a model's card says that its narrower type changed when it was exported.

  Returns:
    Output or 'sum of …' to [largest, average] difference, as `Comparison` has them;
    empty for float32, and where the card says nothing that can be used.
  """
  if compute_dtype(identity) not in NARROW_TYPES:
    return {}
  known = identity.card.get(contract.DIFFERENCES)
  return (
    {
      name: pair
      for name, pair in known.items()
      if isinstance(pair, list) and len(pair) == 2 and all(map(_is_measure, pair))
    }
    if isinstance(known, Mapping)
    else {}
  )


def _is_measure(value: Any) -> bool:
  return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def compare(
  reference: Mapping[str, np.ndarray],
  signature: str,
  outputs: Mapping[str, np.ndarray],
  known: Mapping[str, Sequence[float]] | None = None,
) -> list[Comparison]:
  """Holds the answer of one signature against the reference.

  Args:
    reference: the outputs of `self_check`.
    signature: what was asked about `reference['hu']`.
    outputs: the answer, as `answers.check` gives it.
    known: see `of_card`; those of a narrower format are judged beside them.

  Returns:
    A comparison for each output, and one for each map's sum.
  """
  found, known = [], known or {}
  for name, array in outputs.items():
    wanted = reference[name]
    if name == 'lung_mask':
      found.append(_compare_masks(signature, array, reference, known))
      continue
    difference = np.abs(array.astype(np.float64) - wanted)
    is_map = name.startswith('cam_')
    found.append(
      _comparison(
        signature,
        name,
        difference,
        MAP_TOLERANCE if is_map else PROBABILITY_TOLERANCE,
        float(difference.mean()),
        known,
      )
    )
    if is_map:
      sums, wanted_sums = (a.sum((1, 2), np.float64) for a in (array, wanted))
      difference = np.abs(sums - wanted_sums)
      found.append(
        _comparison(
          signature,
          f'sum of {name}',
          # An empty map has nothing to be relative to: one cell of it, then.
          difference / np.maximum(wanted_sums, 1.0),
          MAP_SUM_TOLERANCE,
          float(difference.max(initial=0.0)) / wanted[0].size,
          known,
        )
      )
  return found


def _comparison(signature, name, difference, tolerance, average, known) -> Comparison:
  most = float(difference.max(initial=0.0))
  known_most, known_average = known.get(name, (0.0, 0.0))
  # A part of a small sum is large by any rounding: what counts is the change by cell.
  may_differ = (
    name.startswith('sum of ') or most <= max(_NARROW_MOST, _TIMES_KNOWN * known_most)
  ) and (average <= max(_NARROW_MEAN, _TIMES_KNOWN * known_average))
  if most <= tolerance:
    verdict = Verdict.RIGHT
  else:
    verdict = Verdict.NARROWER if may_differ else Verdict.WRONG
  return Comparison(signature, name, most, tolerance, verdict, average)


def _compare_masks(signature, mask, reference, known) -> Comparison:
  turned = mask != reference['lung_mask']
  distance = np.zeros(mask.shape)
  if turned.any():
    distance[turned] = np.abs(
      _interpolated(reference['lung_probability'], mask.shape[1:]) - _MASK_THRESHOLD
    )[turned]
  return _comparison(
    signature, 'lung_mask', distance, MASK_TOLERANCE, float(turned.mean()), known
  )


def _interpolated(images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Bilinear with aligned pixel centres, as the served graph enlarges."""
  rows, columns = (_matrix(*sizes) for sizes in zip(images.shape[1:], shape))
  return rows @ images.astype(np.float64) @ columns.T


def _matrix(source: int, target: int) -> np.ndarray:
  centres = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
  return np.maximum(0, 1 - np.abs(centres[:, np.newaxis] - np.arange(source)))


def verdict_of(comparisons: Sequence[Comparison]) -> Verdict:
  """The worst of several."""
  verdicts = {found.verdict for found in comparisons}
  return next(
    verdict
    for verdict in (Verdict.WRONG, Verdict.NARROWER, Verdict.RIGHT)
    if verdict in verdicts or verdict is Verdict.RIGHT
  )


def in_words(found: Comparison) -> str:
  """What was compared, what was required and what was found."""
  return (
    f'signature {found.signature}, {found.output}: required within '
    f'{found.tolerance:.2g} of the reference answers, found a difference of '
    f'{found.difference:.3g}'
  )


def narrower_in_words(found: Comparison) -> str:
  """What differs as a narrower number format does, and where such formats come from."""
  return (
    'answers are those of a narrower number format than float32, or of slightly '
    f'other weights ({in_words(found)}): TF32 is the default of NVIDIA GPUs since '
    'Ampere (NVIDIA_TF32_OVERRIDE=0 turns it off), bfloat16 what '
    '--mixed_precision=bfloat16 of a TensorFlow Serving gives'
  )
