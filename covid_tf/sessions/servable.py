"""SavedModels in TF1 sessions, as TF Serving runs them, and their version folders."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import ctypes
import functools
import gc
import logging
import os
import pathlib
import threading

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from covid_tf.sessions import refusal

# One version of one model in a TF1 session, as TF Serving runs it.


class Servable:
  """A loaded SavedModel; safe to run and to close from several threads at once.

  Attributes:
    path: its folder.
    signatures: name to SignatureDef (TensorFlow's own message).
  """

  def __init__(self, path: str | os.PathLike):
    """Loads the SavedModel at `path` with the tag 'serve'.

    Raises:
      refusal.Refusal: it cannot be loaded; with the loader's code and words.
    """
    self.path = pathlib.Path(path)
    self._changed = threading.Condition()  # Guards the two below.
    self._running = 0
    self._is_closed = False
    self._callable = functools.lru_cache(maxsize=64)(self._make_callable)
    config = tf.compat.v1.ConfigProto()
    config.gpu_options.allow_growth = True  # Leave the rest to the next version.
    self._graph = tf.Graph()
    self._session = tf.compat.v1.Session(graph=self._graph, config=config)
    try:
      with self._graph.as_default(), without_advice():
        meta_graph = tf.compat.v1.saved_model.load(
          self._session, [tf.saved_model.SERVING], os.fspath(path)
        )
    except Exception as error:  # The loader raises whatever it meets in the file.
      self.close()
      raise _refusal_of(error) from error
    self.signatures = dict(meta_graph.signature_def)

  def run(
    self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]
  ) -> list[np.ndarray]:
    """Runs the graph.

    Unlike `Session.run`, nothing is compared with the declared shapes: a server
    does not, and the graph reports shape errors.

    Args:
      feeds: tensor name to value.
      fetches: tensor names.

    Returns:
      A value for each fetch.

    Raises:
      refusal.Refusal: an op refused, with its code and words; or the model was closed.
    """
    with self._in_use():
      run = self._callable(tuple(feeds), tuple(fetches))
      try:
        return run(*feeds.values())
      except tf.errors.OpError as error:
        raise refusal.Refusal(error.error_code, error.message) from error
      except (TypeError, ValueError, RuntimeError) as error:
        raise refusal.invalid_argument(str(error)) from error

  @contextlib.contextmanager
  def _in_use(self) -> Iterator[None]:
    with self._changed:
      if self._is_closed:
        raise refusal.failed_precondition(
          f'{self.path}: an open model is required, found it closed; load it again.'
        )
      self._running += 1
    try:
      yield
    finally:
      with self._changed:
        self._running -= 1
        self._changed.notify_all()

  def close(self) -> None:
    """Frees the session and its variables, once nobody runs it; later runs are refused.

    To close it again does nothing.
    """
    with self._changed:
      if self._is_closed:
        return
      self._is_closed = True
      self._changed.wait_for(lambda: not self._running)
    self._callable.cache_clear()
    self._session.close()
    # A closed session frees its variables when it is deleted, and a graph is full of
    # cycles: left to themselves, both would outlive many versions.
    self._session = self._graph = None
    _give_memory_back()

  def _make_callable(self, feeds, fetches):
    options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
    # Private, but the only way to feed without Session.run's check of shapes.
    return self._session._make_callable_from_options(options)


def computes_on_gpu() -> bool:
  """Whether float32 may be computed in TF32 here."""
  return bool(tf.config.list_physical_devices('GPU'))


def _give_memory_back() -> None:
  gc.collect()
  # glibc keeps what many threads have freed; a server that swaps versions for months
  # would only ever grow.
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
  if trim:
    trim(0)


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
  """Keeps TensorFlow from recommending its TF2 loader: a server has a TF1 session."""
  logger = logging.getLogger('tensorflow')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)


def _refusal_of(error: Exception) -> refusal.Refusal:
  if isinstance(error, tf.errors.OpError):
    return refusal.Refusal(error.error_code, error.message)
  if isinstance(error, OSError):
    return refusal.not_found(str(error))
  return refusal.invalid_argument(str(error))


# Which versions lie on the disk, and which of them the policy wants served.

_READY_FILES = ('saved_model.pb', 'saved_model.pbtxt')


def versions_on_disk(base_path: str) -> dict[int, pathlib.Path]:
  """Finds the versions of a model that are whole enough to be loaded.

  A version is a folder with a number for a name ('00000123' is 123). Without its
  saved_model.pb it is still being copied, and not there yet.

  Args:
    base_path: the model's folder.

  Returns:
    Version number to folder.

  Raises:
    OSError: the folder cannot be listed.
  """
  found: dict[int, pathlib.Path] = {}
  for path in sorted(pathlib.Path(base_path).iterdir()):
    if (
      path.name.isascii()
      and path.name.isdigit()
      and any((path / name).is_file() for name in _READY_FILES)
    ):
      found.setdefault(int(path.name), path)
  return found


def fingerprint(folder: pathlib.Path) -> frozenset[tuple[str, int, int]]:
  """Whether the files of a version have changed.

  Args:
    folder: the version's.

  Returns:
    (path, bytes, time of the last change in ns) of every file; what cannot be
    looked at is left out.
  """
  found = set()
  for path in folder.rglob('*'):
    try:
      status = path.stat()
    except OSError:
      continue
    found.add((str(path), status.st_size, status.st_mtime_ns))
  return frozenset(found)


def wanted_versions(on_disk: dict[int, pathlib.Path], policy) -> set[int]:
  """Chooses by a ServableVersionPolicy; an empty one means the newest.

  Args:
    on_disk: as `versions_on_disk` gives it.
    policy: the `model_version_policy` of a ModelConfig.

  Returns:
    The versions to serve.
  """
  choice = policy.WhichOneof('policy_choice')
  if choice == 'all':
    return set(on_disk)
  if choice == 'specific':
    return set(policy.specific.versions) & set(on_disk)
  count = policy.latest.num_versions if choice == 'latest' else 1
  return set(sorted(on_disk)[-max(count, 1) :])
