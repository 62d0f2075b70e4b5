"""Studies on a running Dask cluster. The only module that imports Dask."""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import itertools
import threading
import time
from typing import Any

from covid_tf import errors
from covid_tf.batch import lost

# Studies known to the scheduler at once: enough for a thousand workers, few enough
# that neither it nor this process grows with the archive.
WINDOW = 4000

_CONNECT_S = 30
_FIRST_WORKER_S = 300  # A batch system may still be starting them.
_PAUSE_S = 0.05


def map_dask(
    function: Callable, studies: Iterable, address: str, stop: threading.Event, *,
    window: int = WINDOW) -> Iterator[tuple[Any, Any]]:
  """See `engine.map_studies`.

  Args:
    function, studies, stop: as there.
    address: of the scheduler, for instance 'tcp://host:8786'.
    window: studies that the scheduler knows of at once.
  """
  with _client(address) as client:
    yield from _run(client, function, iter(studies), stop, window)


def dashboard(address: str) -> str:
  """URL of the scheduler's dashboard; '' if it has none or cannot be reached."""
  try:
    with _client(address) as client:
      return client.dashboard_link
  except Exception:  # Only a convenience: whatever is missing, there is no link.
    return ''


def _run(client, function, studies, stop, window) -> Iterator[tuple]:
  from distributed import as_completed

  in_hand: dict[str, Any] = {}  # Key of a future to its study.

  def submitted(count: int) -> list:
    if stop.is_set():
      return []
    chosen = list(itertools.islice(studies, count))
    # Not pure: two studies that look alike are two all the same.
    futures = client.map(
        function, chosen, retries=lost.MOST_DEATHS, pure=False, batch_size=1000)
    in_hand.update(zip((future.key for future in futures), chosen))
    return futures

  ended = as_completed(submitted(window), with_results=True, raise_errors=False)
  while in_hand:
    _require_scheduler(client)
    batch = ended.next_batch(block=False)
    ended.update(submitted(len(batch)))
    for future, value in batch:
      study = in_hand.pop(future.key)
      yield study, _value(future, value)
    if stop.is_set():
      # What a worker has begun it brings to its end, known or not.
      return
    if not batch:
      time.sleep(_PAUSE_S)


def _value(future, value):
  if future.status == 'finished':
    return value
  if future.status in ('cancelled', 'lost'):
    raise _vanished()
  error = value[1]
  if type(error).__name__ == 'KilledWorker':
    return lost.by_deaths()
  return lost.Lost(
      f'{type(error).__name__} on a worker; is the same covid-tf installed there?')


def _require_scheduler(client) -> None:
  if client.status != 'running':
    raise _vanished()


def _vanished() -> errors.ClusterError:
  return errors.ClusterError(
      'the scheduler went away; results so far are whole. Start it and the same '
      'command again to go on.')


@contextlib.contextmanager
def _client(address: str):
  try:
    import distributed
  except ImportError:
    raise errors.UsageError(
        '--scheduler requires Dask, found none; pip install covid-tf[dask].') from None
  try:
    client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
  except (OSError, ValueError, TimeoutError) as error:
    raise errors.ClusterError(
        f'--scheduler {address}: a running Dask scheduler is required, found none '
        f'({type(error).__name__}).') from None
  with contextlib.closing(client):
    try:
      client.wait_for_workers(1, timeout=_FIRST_WORKER_S)
    except TimeoutError:
      raise errors.ClusterError(
          f'--scheduler {address}: no worker came within {_FIRST_WORKER_S} s; start '
          'some with dask worker.') from None
    yield client
