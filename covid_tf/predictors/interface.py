"""What `analyze` asks of its models, and whole studies in batches that fit."""

import abc
import collections
from collections.abc import Callable, Iterator
import contextlib
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results


class Models(Protocol):
  """The two networks, wherever they run.

  Batching, retries and transport are the predictor's business: callers pass as
  many slices as they have. Slices are in the usual orientation, and the classifier's
  cropped to the lung box of the case (`contract.REQUIRED_INPUT`): `analyze` sees to
  both, and no shape shows where a caller did not. VersionedModels are those that also
  say who they are; `versioned` makes them of any others.
  """

  def segment_lungs(self, hu: np.ndarray) -> np.ndarray:
    """int16 [N, H, W] in HU to uint8 [N, H, W], 0 or 1."""

  def lung_probability(self, hu: np.ndarray) -> np.ndarray:
    """int16 [N, H, W] in HU to float32 [N, h, w], in [0, 1], on a grid of its own."""

  def grad_cam(self, hu: np.ndarray) -> results.SliceExplanation:
    """int16 [N, h, w] lung crops in HU to probabilities and both CAM scales."""

  def features(self, hu: np.ndarray) -> results.SliceFeatures:
    """int16 [N, h, w] lung crops in HU to pooled features and gradients."""


class IdentifiedModels(Models, Protocol):
  """Models that say who answers."""

  def identities(self) -> tuple[results.ModelIdentity, ...]:
    """Who answers, lungs first; () where that is not known."""


@runtime_checkable
class VersionedModels(IdentifiedModels, Protocol):
  """Models that may be replaced while they run, as those of a server are.

  What `covid_tf.load_models` and `covid_tf.connect` give.
  """

  def study(self) -> contextlib.AbstractContextManager[IdentifiedModels]:
    """Pins one version of each network for everything that a study asks.

    Raises:
      errors.ModelVersionChangedError: on leaving or on asking, where a version
        went meanwhile; start the study again.
    """


def versioned(models: Models) -> VersionedModels:
  """The same models with all methods of VersionedModels, whichever they lack.

  Args:
    models: anything with the methods of Models that will be called. What it has
      itself is used. Without `identities` the models are unknown, (); without `study`
      they are taken to stay the same; without `lung_probability` their masks are taken
      for certain.
  """
  return _Versioned(models)


class _Versioned:
  """See `versioned`."""

  def __init__(self, models: Models):
    self._models = models

  def segment_lungs(self, hu: np.ndarray) -> np.ndarray:
    return self._models.segment_lungs(hu)

  def lung_probability(self, hu: np.ndarray) -> np.ndarray:
    own = self._own('lung_probability')
    return own(hu) if own else np.asarray(self.segment_lungs(hu), np.float32)

  def grad_cam(self, hu: np.ndarray) -> results.SliceExplanation:
    return self._models.grad_cam(hu)

  def features(self, hu: np.ndarray) -> results.SliceFeatures:
    return self._models.features(hu)

  def identities(self) -> tuple[results.ModelIdentity, ...]:
    own = self._own('identities')
    return tuple(own()) if own else ()

  @contextlib.contextmanager
  def study(self) -> Iterator[IdentifiedModels]:
    own = self._own('study')
    if not own:
      yield self
      return
    with own() as pinned:
      yield _Versioned(pinned)

  def _own(self, name):
    # Not isinstance(models, VersionedModels): since Python 3.12 it does not see the
    # methods of wrappers that forward by __getattr__, and a result would lose the
    # versions that it was made with.
    return getattr(self._models, name, None)


# Slices a call: enough for a predictor to fill its batches and requests, few
# enough for a bar that moves every few seconds on two cores.
CALL_SLICES = 32

# Whole studies in pieces: as many slices a request as fit in its bytes.

BATCH_BYTES = 4 << 20  # A request; 8 slices of 512 x 512, 16 usual lung crops.
MAX_SLICES = 16  # Where more slices at once gain nothing and cost server memory.

_Started = TypeVar('_Started')
_Finished = TypeVar('_Finished')


def check_hu(hu: np.ndarray) -> None:
  """Raises errors.UsageError unless `hu` is int16 [N, H, W] with H and W above 0."""
  found = f'{getattr(hu, "dtype", type(hu).__name__)} {list(np.shape(hu))}'
  if (
    not isinstance(hu, np.ndarray)
    or hu.dtype != np.int16
    or hu.ndim != 3
    or (not all(hu.shape[1:]))
  ):
    raise errors.UsageError(
      'hu: required int16 Hounsfield units [slices, rows, columns] with at least '
      f'one row and column, found {found}.'
    )


def ranges(shape: tuple[int, int, int], batch_bytes: int) -> list[range]:
  """Divides N slices into consecutive runs of at most `batch_bytes` and 16 slices.

  They depend on the shape alone: the same study is always asked in the same
  batches, from a server and in process, and so gets the same bits.

  Args:
    shape: [N, H, W] of the int16 study.
    batch_bytes: limit for one request; a single slice may exceed it.

  Returns:
    Slice indices of every batch, in order.
  """
  slice_bytes = shape[1] * shape[2] * np.dtype(np.int16).itemsize
  size = max(1, min(MAX_SLICES, batch_bytes // slice_bytes))
  return [
    range(first, min(first + size, shape[0])) for first in range(0, shape[0], size)
  ]


def in_order(
  pieces: list[range],
  in_flight: int,
  start: Callable[[range], _Started],
  finish: Callable[[range, _Started], _Finished],
  cancel: Callable[[_Started], None],
) -> Iterator[tuple[range, _Finished]]:
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
  waiting: collections.deque[tuple[range, Any]] = collections.deque()
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


# The two networks as `analyze` asks for them, whatever carries the batches.


class Networks(abc.ABC):
  """segment_lungs, grad_cam and features over batches of one signature."""

  @abc.abstractmethod
  def answers(
    self, model: str, signature: str, hu: np.ndarray
  ) -> Iterator[tuple[range, dict[str, np.ndarray]]]:
    """Yields (slices, checked outputs) for all of `hu`, in order."""

  def segment_lungs(self, hu: np.ndarray) -> np.ndarray:
    """Finds the lungs.

    Args:
      hu: int16 [N, H, W].

    Returns:
      uint8 [N, H, W], 1 inside the lungs.

    Raises:
      errors.ModelError: the model or its server failed.
    """
    return self._collect(contract.LUNGS_MODEL, contract.SERVING_DEFAULT, hu)[
      'lung_mask'
    ]

  def lung_probability(self, hu: np.ndarray) -> np.ndarray:
    """float32 [N, 256, 256] of int16 [N, H, W]; raises ModelError."""
    return self._collect(contract.LUNGS_MODEL, contract.PROBABILITY, hu)[
      'lung_probability'
    ]

  def grad_cam(self, hu: np.ndarray) -> results.SliceExplanation:
    """Classifies and localizes int16 [N, h, w] lung crops; raises ModelError."""
    return results.SliceExplanation(
      **self._collect(contract.CLASSIFIER_MODEL, contract.GRAD_CAM, hu)
    )

  def features(self, hu: np.ndarray) -> results.SliceFeatures:
    """Describes int16 [N, h, w] lung crops by features; raises ModelError."""
    return results.SliceFeatures(
      **self._collect(contract.CLASSIFIER_MODEL, contract.FEATURES, hu)
    )

  def _collect(self, model, signature, hu) -> dict[str, np.ndarray]:
    check_hu(hu)
    # One block an output, made before the first answer: no second copy at the end.
    whole = {
      spec.name: np.empty(
        (
          hu.shape[0],
          *(
            asked if size is None else size
            for size, asked in zip(spec.shape[1:], hu.shape[1:], strict=False)
          ),
        ),
        spec.dtype,
      )
      for spec in contract.SIGNATURES[model][signature].outputs
    }
    if hu.shape[0]:
      for slices, outputs in self.answers(model, signature, hu):
        for name, array in outputs.items():
          whole[name][slices.start : slices.stop] = array
    return whole
