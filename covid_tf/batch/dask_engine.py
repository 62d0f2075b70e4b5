"""Studies on a running Dask cluster. The only module that imports Dask."""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import itertools
import threading
import time
from typing import Any

from covid_tf import errors
from covid_tf.batch import records

# Studies that the scheduler holds at once: enough for a thousand workers, few enough
# that neither it nor this process grows with the archive.
WINDOW = 4000

_CONNECT_S = 10
_FIRST_WORKER_S = 300  # A batch system may still be starting them.
_PAUSE_S = 0.05


def map_dask(
  function: Callable,
  studies: Iterable,
  address: str,
  stop: threading.Event,
  *,
  window: int = WINDOW,
) -> Iterator[tuple[Any, Any]]:
  """See `engines.map_studies`.

  Args:
    function, studies, stop: as there.
    address: of the scheduler, for instance 'tcp://host:8786'.
    window: studies that the scheduler holds at once.
  """
  with _client(address) as client:
    yield from _run(client, function, iter(studies), stop, window)


def dashboard(address: str) -> str:
  """See `engines.dashboard`."""
  with _client(address) as client:
    return client.dashboard_link


def _run(client, function, studies, stop, window) -> Iterator[tuple]:
  suspects = []
  for study, value in _ended(client, function, studies, stop, window):
    if value == records.lost_by_deaths():
      suspects.append(study)  # Or was it the study beside it on that worker?
    else:
      yield study, value
  for study in suspects:
    yield from _ended(client, function, iter([study]), stop, window)


def _ended(client, function, studies, stop, window) -> Iterator[tuple]:
  from distributed import as_completed

  in_hand: dict[str, Any] = {}  # Key of a future to its study.

  def submitted(count: int) -> list:
    chosen = [] if stop.is_set() else list(itertools.islice(studies, count))
    # Not pure: two studies that look alike are two all the same.
    futures = (
      client.map(
        _Ending(function),
        chosen,
        key='study',
        retries=records.MOST_DEATHS,
        pure=False,
        batch_size=1000,
      )
      if chosen
      else []
    )
    in_hand.update(zip((future.key for future in futures), chosen))
    return futures

  ended = as_completed(
    submitted(window), loop=client.loop, with_results=True, raise_errors=False
  )
  # What a worker has begun when `stop` is set, it finishes without a report.
  while in_hand and not stop.is_set():
    _require_scheduler(client)
    batch = ended.next_batch(block=False)
    ended.update(submitted(len(batch)))
    for future, gathered in batch:
      yield in_hand.pop(future.key), _value(gathered)
    if not batch:
      time.sleep(_PAUSE_S)


@dataclasses.dataclass(frozen=True)
class _Ended:
  """What a function returned, so that nothing else can be taken for it."""

  value: Any


@dataclasses.dataclass(frozen=True)
class _Ending:
  """A function whose values are _Ended."""

  function: Callable

  def __call__(self, study) -> _Ended:
    return _Ended(self.function(study))


def _value(gathered):
  # Not by the future's status: while a dead worker's value is made again, that
  # is unrelated to what was gathered.
  if isinstance(gathered, _Ended):
    return gathered.value
  if not isinstance(gathered, tuple):
    raise _vanished()  # The future was cancelled, and not by us.
  error = gathered[1]
  if type(error).__name__ == 'KilledWorker':
    return records.lost_by_deaths()
  return records.Lost(
    f'{type(error).__name__} on a worker; is the same covid-tf installed there?'
  )


def _require_scheduler(client) -> None:
  if client.status != 'running':
    raise _vanished()


def _vanished() -> errors.ClusterError:
  return errors.ClusterError(
    'the scheduler went away; results so far are whole. Start it and the same '
    'command again to go on.'
  )


@contextlib.contextmanager
def _client(address: str):
  try:
    import distributed
  except ImportError:
    raise errors.UsageError(
      f'--scheduler requires Dask, found none; {errors.how_to_install("dask")}.'
    ) from None
  try:
    client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
  except (OSError, ValueError, TimeoutError) as error:
    raise errors.ClusterError(
      f'--scheduler {address}: a running Dask scheduler is required, found none '
      f'({type(error).__name__}).'
    ) from None
  with contextlib.closing(client):
    try:
      client.wait_for_workers(1, timeout=_FIRST_WORKER_S)
    except TimeoutError:
      raise errors.ClusterError(
        f'--scheduler {address}: no worker came within {_FIRST_WORKER_S} s; start '
        'some with dask worker.'
      ) from None
    yield client
