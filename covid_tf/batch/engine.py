"""One seam between an archive and whatever runs its studies.

`map_studies` hands studies to worker processes and yields what became of each,
once, in the order in which they end. Workers may be killed at any moment.
"""

from collections.abc import Callable, Iterable, Iterator
import threading
from typing import TypeVar

from covid_tf.batch import local_engine
from covid_tf.batch import lost

_Item = TypeVar('_Item')
_Value = TypeVar('_Value')


def map_studies(
    function: Callable[[_Item], _Value], studies: Iterable[_Item], *,
    processes: int = 1, scheduler: str | None = None,
    stop: threading.Event | None = None,
) -> Iterator[tuple[_Item, _Value | lost.Lost]]:
  """Applies a function to every study, in processes that may die.

  Args:
    function: gets one study; picklable, as is what it returns. It returns refusals
      and failures as values; an exception of it loses the study at once.
    studies: taken as workers become free, never all at once.
    processes: workers of this machine, two studies at a time in each.
    scheduler: address of a running Dask cluster to use instead.
    stop: once it is set no further study is handed out; those in hand end.

  Yields:
    (study, what the function returned), or (study, Lost) for a study whose
    workers died as often as is tolerated.

  Raises:
    errors.ClusterError: no worker can be started or reached.
  """
  stop = stop or threading.Event()
  if scheduler is None:
    return local_engine.map_local(function, studies, processes, stop)
  # Here, because Dask is an extra.
  from covid_tf.batch import dask_engine
  return dask_engine.map_dask(function, studies, scheduler, stop)


def dashboard(scheduler: str) -> str:
  """URL of a Dask scheduler's dashboard.

  Raises:
    errors.ClusterError: there is no such scheduler.
  """
  from covid_tf.batch import dask_engine
  return dask_engine.dashboard(scheduler)
