"""Slices averaged to the thickness that the networks are asked at (docs/thickness.md).

N neighbouring slices fill N times their distance; that height is divided into K slabs
of one thickness, the nearest to the stated one that divides it. A slab is the average
of the slices in it, each weighted by its overlap in millimetres, and a slice gets the
answers of the slabs that cover it, weighted by the same overlaps. Whole numbers give
the weights exactly: with the distance divided into K parts and a slab into as many
times N, every overlap is a count of parts. The distance of neighbouring positions
decides, not the nominal thickness of a slice: with a gap or an overlap between slices,
averages still keep each position's share of the body's height.

A network judges each slab by itself, but an opacity is rarely thinner than one: what
neighbours show is evidence too, so logits are smoothed along the body. Where slabs
begin is chance, and moves a logit: so the classifier is asked about the slab between
each two as well, and the mean is over twice as many (docs/adr, 142).
"""

import abc
from collections.abc import Iterable, Iterator
import dataclasses
from typing import Any, Protocol

import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results

# Ours, in the range of the paper's slices (5 to 10 mm): the thinner end, where small
# opacities keep their contrast.
DEFAULT_THICKNESS_MM = 5.0
# Slices this near to the stated thickness are taken as they are: an average would mix
# each with a part of its neighbour and save a fifth of the work at most
# (docs/thickness.md has what was measured).
NEAR_ENOUGH = 0.8
# Ours: what raised the AUC of slices most on real patients (docs/thickness.md).
DEFAULT_SMOOTHING_MM = 6.0
# Farther neighbours weigh less than a millionth.
_FARTHEST_DEVIATIONS = 5.5
# Next to 1 in float32. A probability of 0 or 1 is one that was rounded: the network is
# as sure as it can say, not infinitely so.
_SUREST = 1 - 2.0**-24
# Positions are rounded in files: slices of 4 mm may lie 3.9999 mm apart.
_ROUNDING = 1e-3


class Averages(abc.ABC):
  """Averages of neighbouring slices, of one thickness, that a network is asked about.

  Attributes:
    slices: of the study.
    count: averages; as many as slices where each is taken as it is.
  """

  slices: int
  count: int

  @property
  @abc.abstractmethod
  def is_averaged(self) -> bool:
    """Whether an average is more than one slice."""

  @property
  @abc.abstractmethod
  def positions_mm(self) -> np.ndarray:
    """Middles of the averages, float64 [count], mm above the study's lower end."""

  @property
  @abc.abstractmethod
  def _parts(self) -> int:
    """How many equal parts a slice is cut into, so that averages hold whole ones."""

  @abc.abstractmethod
  def _span(self, place: int) -> tuple[int, int]:
    """The first part that an average holds, and the first one above it."""

  def covered(self, place: int) -> range:
    """The slices of which an average holds a part."""
    begin, end = self._span(place)
    return range(begin // self._parts, -(-end // self._parts))

  def middles(self, part: slice) -> list[int]:
    """The slice in the middle of each average, the lower one of two."""
    return [
      (sum(self._span(place)) - 1) // (2 * self._parts)
      for place in range(*part.indices(self.count))
    ]

  def average(self, hu: np.ndarray, part: slice) -> np.ndarray:
    """Averages slices.

    Args:
      hu: int16 [slice, row, column] of the whole study, or a crop of every slice.
      part: which averages are wanted.

    Returns:
      int16 [average, row, column], Hounsfield units, rounded; a view of `hu` where each
      slice is taken as it is.
    """
    if not self.is_averaged:
      return hu[part]
    places = range(*part.indices(self.count))
    averages = np.empty((len(places), *hu.shape[1:]), np.int16)
    begin, end = self._span(0)
    # Whole numbers: the same bits on every machine, in whatever order they add up.
    exact = np.int32 if end - begin < 1 << 15 else np.int64
    for row, place in enumerate(places):
      total = np.zeros(hu.shape[1:], exact)
      for index in self.covered(place):
        total += np.multiply(hu[index], self._overlap(index, place), dtype=exact)
      averages[row] = np.rint(total / (end - begin))
    return averages

  def _overlap(self, index: int, place: int) -> int:
    """How many parts of a slice an average holds."""
    begin, end = self._span(place)
    return min((index + 1) * self._parts, end) - max(index * self._parts, begin)


@dataclasses.dataclass(frozen=True)
class Slabs(Averages):
  """How the slices of a study are divided into `count` slabs.

  Attributes:
    thickness_mm: of a slab; the stated one as nearly as the study's height allows, or
      the distance of slices where each is taken as it is.
  """

  slices: int
  count: int
  thickness_mm: float

  @property
  def is_averaged(self) -> bool:
    """Whether a slab is more than one slice."""
    return self.count < self.slices

  @property
  def positions_mm(self) -> np.ndarray:
    """Middles of the slabs, float64 [slab], mm above the study's lower end."""
    return (np.arange(self.count) + 0.5) * self.thickness_mm

  def shares(self, index: int) -> tuple[tuple[int, float], ...]:
    """The one or two slabs that cover a slice, each with its share; they sum to 1."""
    first = index * self.count // self.slices
    share = self._overlap(index, first) / self.count
    return ((first, share),) if share == 1 else ((first, share), (first + 1, 1 - share))

  def to_slices(self, values: np.ndarray) -> np.ndarray:
    """Numbers of slabs to those of slices, weighted by their shares.

    Args:
      values: floats [slab, …].

    Returns:
      The same dtype [slice, …].
    """
    if not self.is_averaged:
      return values
    return np.stack(
      [
        sum(share * values[slab] for slab, share in self.shares(index))
        for index in range(self.slices)
      ]
    ).astype(values.dtype)

  def interpolated(
    self, values: Iterable[np.ndarray]
  ) -> Iterator[tuple[int, np.ndarray]]:
    """Interpolates between the middles of slabs, where it is a shape that is sought.

    Args:
      values: float32 […] of every slab, from the first on; two at a time are held.

    Yields:
      Each slice with its value, float32 […]; beyond the outer middles it stays.
    """
    index, below = 0, None
    for slab, above in enumerate(values):
      below = above if below is None else below
      while index < self.slices and self._place(index) <= slab:
        fraction = np.float32(self._place(index) - slab + 1)
        yield index, below + fraction * (above - below)
        index += 1
      below = above

  @property
  def _parts(self) -> int:
    return self.count

  def _span(self, place: int) -> tuple[int, int]:
    return place * self.slices, (place + 1) * self.slices

  def _place(self, index: int) -> float:
    """Where a slice lies on a scale on which the middles of slabs are 0, 1, 2, …"""
    place = (index + 0.5) * self.count / self.slices - 0.5
    return min(max(place, 0.0), self.count - 1.0)


@dataclasses.dataclass(frozen=True)
class HalfSteps(Averages):
  """The slabs of a study and, between each two, one that holds half of both.

  Attributes:
    slabs: of the study; every second one of these averages, from the first on.
  """

  slabs: Slabs

  @property
  def slices(self) -> int:  # type: ignore[override]  # Read only, as all of it is.
    """Of the study."""
    return self.slabs.slices

  @property
  def count(self) -> int:  # type: ignore[override]
    """Slabs and those between them."""
    return 2 * self.slabs.count - 1

  @property
  def is_averaged(self) -> bool:
    """Always: slices as they are have nothing between them."""
    return True

  @property
  def positions_mm(self) -> np.ndarray:
    """Middles, float64 [count], mm above the study's lower end."""
    return (np.arange(self.count) + 1) * (self.slabs.thickness_mm / 2)

  @property
  def _parts(self) -> int:
    return 2 * self.slabs.count

  def _span(self, place: int) -> tuple[int, int]:
    return place * self.slices, (place + 2) * self.slices


def classified(slabs: Slabs, smoothing_mm: float) -> Averages:
  """What the classifier is asked about.

  Args:
    slabs: of the study.
    smoothing_mm: of logits along the body. With 0 each slab answers for itself, so
      nothing between them counts.

  Returns:
    Half steps, of which every second one is a slab; the slabs themselves where nothing
    is smoothed or averaged, or where there is only one.
  """
  if smoothing_mm and slabs.is_averaged and slabs.count > 1:
    return HalfSteps(slabs)
  return slabs


def of_slabs(averages: Averages, values: np.ndarray) -> np.ndarray:
  """Of values of `classified` averages those of slabs: [average, …] to [slab, …]."""
  return values[::2] if isinstance(averages, HalfSteps) else values


def divide(slices: int, distance_mm: float, thickness_mm: float | None) -> Slabs:
  """Divides the height of a study into slabs of the stated thickness.

  Args:
    slices: of the study.
    distance_mm: between neighbouring slice positions.
    thickness_mm: stated; None: every slice is taken as it is, as it also is where the
      distance is 0.8 times the stated thickness or more.

  Returns:
    The slabs.
  """
  every_slice = Slabs(slices, slices, distance_mm)
  if thickness_mm is None:
    return every_slice
  if distance_mm >= NEAR_ENOUGH * thickness_mm * (1 - _ROUNDING):
    return every_slice
  height_mm = slices * distance_mm
  count = max(1, round(height_mm / thickness_mm))
  return Slabs(slices, count, height_mm / count) if count < slices else every_slice


def smoothed(
  probability: np.ndarray, positions_mm: np.ndarray, smoothing_mm: float
) -> np.ndarray:
  """Smooths the logits of slices or slabs along the body.

  Each becomes the mean of its neighbours' and its own, weighted by a Gaussian of their
  distance; at the ends the weights of those that are there sum to 1. A mean of logits,
  so that a sure answer outweighs an unsure one.

  Args:
    probability: float32 [K], in [0, 1].
    positions_mm: float [K], ascending, in whatever steps.
    smoothing_mm: standard deviation of the Gaussian; 0: nothing is smoothed.

  Returns:
    float32 [K], within the range of what was given; the same array where nothing is
    smoothed.
  """
  if not smoothing_mm:
    return probability
  p = np.clip(probability.astype(np.float64), 1 - _SUREST, _SUREST)
  logits = np.log(p) - np.log1p(-p)
  means = np.empty_like(logits)
  reach_mm = _FARTHEST_DEVIATIONS * smoothing_mm
  firsts = np.searchsorted(positions_mm, positions_mm - reach_mm, 'left')
  lasts = np.searchsorted(positions_mm, positions_mm + reach_mm, 'right')
  for index, near in enumerate(map(slice, firsts, lasts)):
    distance = (positions_mm[near] - positions_mm[index]) / smoothing_mm
    weights = np.exp(-0.5 * distance**2)
    means[index] = np.sum(weights * logits[near]) / np.sum(weights)
  smooth = (1 / (1 + np.exp(-means))).astype(np.float32)
  return np.clip(smooth, probability.min(), probability.max())


class Stack(Protocol):
  """A CT, or a result of one."""

  @property
  def shape(self) -> tuple[int, int, int]:
    """(slices, rows, columns)."""

  @property
  def spacing_mm(self) -> tuple[float, float, float]:
    """Millimetres between voxel centres along (slice, row, column)."""


def of_study(stack: Stack, thresholds: results.Thresholds) -> Slabs:
  """Divides a study as it is, or was, analysed.

  Args:
    stack: the CT, or its result.
    thresholds: with the thickness that is used, as `as_used` gives them.
  """
  return divide(stack.shape[0], stack.spacing_mm[0], thresholds.thickness_mm)


def as_used(
  thresholds: results.Thresholds, models: Iterable[results.ModelIdentity]
) -> results.Thresholds:
  """The thresholds with thickness and smoothing as used, where none is stated.

  Args:
    thresholds: as a caller gave them.
    models: who answers; the classifier's card may say for which thickness and which
      smoothing its weights were made (`thickness_mm`, `smoothing_mm`).

  Returns:
    The same, with `smoothing_mm`, and with `thickness_mm` unless every slice is taken
    as it is.

  Raises:
    errors.ModelError: what the card says is no thickness, or no smoothing.
  """
  card: dict[str, Any] = {}
  for model in models:
    if model.name == contract.CLASSIFIER_MODEL:
      card = model.card
  if not thresholds.every_slice:
    thresholds = _filled(thresholds, card, 'thickness_mm', DEFAULT_THICKNESS_MM)
    return _filled(thresholds, card, 'smoothing_mm', DEFAULT_SMOOTHING_MM)
  if thresholds.smoothing_mm is None:
    return dataclasses.replace(thresholds, smoothing_mm=0.0)
  return thresholds


def _filled(
  thresholds: results.Thresholds, card: dict[str, Any], name: str, default_mm: float
) -> results.Thresholds:
  """The thresholds with one length in millimetres: stated, of the card, or default."""
  if getattr(thresholds, name) is not None:
    return thresholds
  found = card.get(name)
  try:
    length: dict[str, Any] = {name: default_mm if found is None else float(found)}
    return dataclasses.replace(thresholds, **length)
  except (TypeError, ValueError):
    required = (
      f'above 0 and at most {results.MAX_THICKNESS_MM:g}'
      if name == 'thickness_mm'
      else f'0 or more and at most {results.MAX_SMOOTHING_MM:g}'
    )
    raise errors.ModelError(
      f'the classifier: its card must say {name} as a number {required}, found '
      f'{found!r}; state one yourself, or export the model again.'
    ) from None


def warnings(slabs: Slabs, stated: results.Thresholds) -> tuple[str, ...]:
  """What a reader of the score should know of a thickness that was asked for.

  Args:
    slabs: of the study.
    stated: the thresholds as a caller gave them.
  """
  if stated.thickness_mm is None or slabs.thickness_mm <= stated.thickness_mm:
    return ()
  if slabs.is_averaged:
    return ()
  return (
    f'A thickness of {stated.thickness_mm:g} mm was asked for, but the slices lie '
    f'{slabs.thickness_mm:g} mm apart: each was taken as it is.',
  )
