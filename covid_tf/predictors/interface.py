"""Whole studies in pieces: as many slices a request as fit in its bytes."""

import collections
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from covid_tf import errors

BATCH_BYTES = 4 << 20  # A request; 8 slices of 512 x 512, 16 usual lung crops.
MAX_SLICES = 16  # Where more slices at once gain nothing and cost server memory.

_Started = TypeVar('_Started')
_Finished = TypeVar('_Finished')


def check_hu(hu: np.ndarray) -> None:
  """Raises errors.UsageError unless `hu` is int16 [N, H, W] with H and W above 0."""
  found = f'{getattr(hu, "dtype", type(hu).__name__)} {list(np.shape(hu))}'
  if not isinstance(hu, np.ndarray) or hu.dtype != np.int16 or hu.ndim != 3 or (
      not all(hu.shape[1:])):
    raise errors.UsageError(
        'hu: required int16 Hounsfield units [slices, rows, columns] with at least '
        f'one row and column, found {found}.')


def ranges(shape: tuple[int, int, int], batch_bytes: int) -> list[range]:
  """Cuts N slices into consecutive runs of at most `batch_bytes` and 16 slices.

  The cut depends on the shape alone: the same study is always asked in the same
  batches, from a server and in process, and so gets the same bits.

  Args:
    shape: [N, H, W] of the int16 study.
    batch_bytes: limit for one request; a single slice may exceed it.

  Returns:
    Slice indices of every batch, in order.
  """
  slice_bytes = shape[1] * shape[2] * np.dtype(np.int16).itemsize
  size = max(1, min(MAX_SLICES, batch_bytes // slice_bytes))
  return [range(first, min(first + size, shape[0]))
          for first in range(0, shape[0], size)]


def in_order(
    pieces: list[range], in_flight: int,
    start: Callable[[range], _Started],
    finish: Callable[[range, _Started], _Finished],
    cancel: Callable[[_Started], None]) -> Iterator[tuple[range, _Finished]]:
  """Keeps several requests on their way and hands the answers out in order.

  Args:
    pieces: the batches.
    in_flight: how many may be on their way at once.
    start: sends one.
    finish: waits for one.
    cancel: drops one that nobody waits for, when the caller stops early.

  Yields:
    Every piece with its answer, in the order of `pieces`.
  """
  waiting = collections.deque()
  try:
    for piece in pieces:
      if len(waiting) == in_flight:
        yield _finish_first(waiting, finish)
      waiting.append((piece, start(piece)))
    while waiting:
      yield _finish_first(waiting, finish)
  finally:
    for _, started in waiting:
      cancel(started)


def _finish_first(waiting, finish):
  piece, started = waiting.popleft()
  return piece, finish(piece, started)
