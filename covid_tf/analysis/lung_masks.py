"""Lung masks of slices, from the network's answers to averages of slices.

Lungs end within a few millimetres of height at their bases, where the network's answers
to two neighbouring slabs differ most. Its log-odds are interpolated between the middles
of the slabs, and moved by what a slice shows there: where it is darker than the
interpolated slabs, lung is likelier, by one unit for each 70 HU. Of the designs in
docs/thickness.md this one gives masks nearest to those of every slice.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from covid_tf.analysis import localization
from covid_tf.analysis import orientation
from covid_tf.analysis import slabs as slabs_lib

# Ours, as the three constants below: chosen by measurement (docs/thickness.md).
_HU_PER_UNIT = 70.0  # Of log-odds.
_HU_RANGE = (-800, -100)  # From aerated lung to soft tissue; air and bone say no more.
_MAX_UNITS = 3.0  # A slice moves the network's doubt, and never its certainty.
_SMOOTHING_PIXELS = 1.0  # Standard deviation, on the network's grid: against noise.
_CERTAIN = 1e-4  # Log-odds are finite: a probability is at least this far from 0 and 1.


class SlabAnswers(NamedTuple):
  """The network's answers to some slabs.

  Attributes:
    hu: int16 [slab, row, column], their averages in the usual plane.
    probability: float32 [slab, h, w], on a grid of the network's own.
  """

  hu: np.ndarray
  probability: np.ndarray


def between_slabs(
  slabs: slabs_lib.Slabs,
  answers: Iterable[SlabAnswers],
  hu: np.ndarray,
  turn: orientation.PlaneTurn,
) -> Iterator[tuple[int, np.ndarray]]:
  """Interpolates masks of slices.

  Args:
    slabs: how the study is divided.
    answers: for all slabs, in order.
    hu: int16 [slice, row, column], the study as stored.
    turn: from the stored to the usual plane.

  Yields:
    Each slice's index with its mask, bool [row, column], as stored.
  """
  reduction: _Reduction | None = None

  def values() -> Iterator[np.ndarray]:
    nonlocal reduction
    for averages, probabilities in answers:
      reduction = reduction or _Reduction(averages.shape[1:], probabilities.shape[1:])
      for plane, probability in zip(averages, probabilities, strict=True):
        yield np.stack((_log_odds(probability), reduction.smaller(plane)))

  for index, (log_odds, expected) in slabs.interpolated(values()):
    assert reduction is not None  # The first answers made it.
    mask = np.zeros(reduction.plane, bool)
    # Elsewhere no slice makes lung of it.
    if (box := _box(log_odds > -_MAX_UNITS)) is not None:
      found = reduction.smaller(turn.to_usual(hu[index]), box)
      units = (expected[box] - found) * np.float32(1 / _HU_PER_UNIT)
      moved = log_odds[box] + np.clip(units, -_MAX_UNITS, _MAX_UNITS)
      reduction.enlarge(_probability(moved), box, mask)
    yield index, turn.to_stored(mask)


_Box = tuple[slice, slice]
_EVERYWHERE = (slice(None), slice(None))


def _box(where: np.ndarray) -> _Box | None:
  """Rows and columns around what is set, and one more; None where nothing is."""
  ends = [np.flatnonzero(where.any(axis=axis)) for axis in (1, 0)]
  if not len(ends[0]):
    return None
  rows, columns = (slice(max(0, end[0] - 1), end[-1] + 2) for end in ends)
  return rows, columns


class _Reduction:
  """Between a plane and the grid of the network, where a box of the grid is asked for.

  Attributes:
    plane: its rows and columns.
  """

  def __init__(self, plane: tuple[int, int], grid: tuple[int, int]):
    self.plane = plane
    self._smaller = tuple(map(_smoothed_averages, plane, grid))
    self._larger = tuple(map(localization.interpolation_matrix, grid, plane))

  def smaller(self, hu: np.ndarray, box: _Box = _EVERYWHERE) -> np.ndarray:
    """int16 [row, column] of the plane to averages, float32 of the box."""
    matrices, window = [], []
    for matrix, part in zip(self._smaller, box, strict=True):
      seen = np.flatnonzero(matrix[part].any(axis=0))
      window.append(slice(seen[0], seen[-1] + 1))
      matrices.append(matrix[part, window[-1]])
    part = np.clip(hu[tuple(window)], *_HU_RANGE).astype(np.float32)
    return matrices[0] @ part @ matrices[1].T

  def enlarge(self, probability: np.ndarray, box: _Box, mask: np.ndarray) -> None:
    """Sets the mask, bool [row, column], where the box is lung.

    As the network's own masks are made: bilinear interpolation, then the threshold.
    """
    matrices, window = [], []
    for matrix, part in zip(self._larger, box, strict=True):
      seen = np.flatnonzero(matrix[:, part].any(axis=1))
      window.append(slice(seen[0], seen[-1] + 1))
      matrices.append(matrix[window[-1], part])
    mask[tuple(window)] = matrices[0] @ probability @ matrices[1].T > 0.5


def _smoothed_averages(source: int, size: int) -> np.ndarray:
  """float32 [size, source]: averages of pixels and their neighbours, as a matrix."""
  edges = np.arange(size + 1) * (source / size)
  low = np.maximum(edges[:-1, np.newaxis], np.arange(source))
  high = np.minimum(edges[1:, np.newaxis], np.arange(1, source + 1))
  averages = np.maximum(high - low, 0)
  distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
  smoothing = np.exp(-0.5 * (distance / _SMOOTHING_PIXELS) ** 2)
  matrix = (smoothing * (distance <= 4 * _SMOOTHING_PIXELS)) @ averages
  return np.asarray(matrix / matrix.sum(axis=1, keepdims=True), np.float32)


def _log_odds(probability: np.ndarray) -> np.ndarray:
  probability = np.clip(probability, _CERTAIN, 1 - _CERTAIN)
  return np.log(probability / (1 - probability))


def _probability(log_odds: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-log_odds))
