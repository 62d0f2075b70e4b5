"""Worker processes of this machine, each replaced when it dies.

concurrent.futures gives up all work when one worker is killed; here the studies
that a dead worker was working on are known, and each is tried again, by itself.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import contextlib
import dataclasses
import multiprocessing
from multiprocessing import connection as connection_lib
import os
import signal
import socket
import threading
from typing import Any, Generic, TypeVar
import warnings

from covid_tf import errors
from covid_tf import process_end
from covid_tf.batch import records

_Item = TypeVar('_Item')
_Value = TypeVar('_Value')

# Studies that come one by one, from another thread, for as long as it likes.


class Feed(Generic[_Item]):
  """Studies for `map_studies`, which may have none at the moment.

  Any thread puts studies in; `map_studies` sleeps until one comes, a worker has
  something to say, or the feed is ended. May be given to one call after the other:
  what the first one has not taken, the next one gets.
  """

  def __init__(self) -> None:
    self._waiting: collections.deque[_Item] = collections.deque()
    self._is_ended = False
    self._bell, self._rope = socket.socketpair()
    self._bell.setblocking(False)
    self._rope.setblocking(False)

  def __len__(self) -> int:
    """Studies that nobody has taken."""
    return len(self._waiting)

  def taken(self) -> Iterator[_Item | None]:
    """Yields a study, or None where there is none yet; ends with the feed."""
    while self._waiting or not self._is_ended:
      try:
        study = self._waiting.popleft()
      except IndexError:  # Perhaps cleared since.
        study = None
      yield study

  def put(self, study: _Item) -> None:
    """Adds a study."""
    self._waiting.append(study)
    self._ring()

  def clear(self) -> None:
    """Takes out what nobody has taken."""
    self._waiting.clear()

  def end(self) -> None:
    """Says that no more studies will come; what is in it is still handed out."""
    self._is_ended = True
    self._ring()

  @property
  def bell(self) -> socket.socket:
    """Becomes readable when there is something new."""
    return self._bell

  def heard(self) -> None:
    """Makes the bell unreadable until there is something newer."""
    with contextlib.suppress(BlockingIOError):
      self._bell.recv(4096)

  def close(self) -> None:
    """Frees what the system gave."""
    self._bell.close()
    self._rope.close()

  def _ring(self) -> None:
    # A bell that rings already is enough, and after `close` nobody listens.
    with contextlib.suppress(OSError):
      self._rope.send(b'.')


# The inside of a local worker process: studies in, values out, over one pipe.

STUDIES_AT_A_TIME = 2  # One has the models; the other is read or written.
READY = 'ready'
VALUE = 'value'
RAISED = 'raised'


def serve_worker(connection, function: Callable, environment: dict[str, str]) -> None:
  """Works until the pipe delivers None or closes.

  Args:
    connection: brings (number, study), takes (READY,), then for each study
      (VALUE, number, value) or (RAISED, number, name of the exception).
    function: applied to each study.
    environment: set before anything heavy is imported.
  """
  # Both reach the whole process group; the parent decides what ends when.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  os.environ.update(environment)
  sending = threading.Lock()

  def send(*message) -> None:
    with sending:
      connection.send(message)

  def work(number: int, study) -> None:
    try:
      value = function(study)
    except Exception as error:
      send(RAISED, number, type(error).__name__)
    else:
      send(VALUE, number, value)

  with (
    warnings.catch_warnings(action='ignore'),
    futures.ThreadPoolExecutor(STUDIES_AT_A_TIME) as pool,
  ):
    try:
      send(READY)
      while (message := connection.recv()) is not None:
        pool.submit(work, *message)
    except (EOFError, OSError):
      # The parent is gone. Nobody waits for the running studies, and all of it is
      # either whole under its name or not there.
      os._exit(1)


def map_local(
  function: Callable, studies: Iterable | Feed, processes: int, stop: threading.Event
) -> Iterator[tuple[Any, Any]]:
  """See `engines.map_studies`."""
  crew = _Crew(function, processes)
  try:
    if isinstance(studies, Feed):
      yield from crew.run(studies.taken(), stop, studies)
    else:
      yield from crew.run(iter(studies), stop, None)
  finally:
    crew.end()


@dataclasses.dataclass
class _Task:
  """A study on its way, and how many workers died while scoring it."""

  number: int
  study: Any
  deaths: int = 0


class _Worker:
  """One process with the tasks that it works on."""

  def __init__(self, function: Callable, environment: dict[str, str]):
    # Not fork: gRPC and TensorFlow do not survive it.
    context = multiprocessing.get_context('spawn')
    self.connection, theirs = context.Pipe()
    self.process = context.Process(
      target=serve_worker, args=(theirs, function, environment), daemon=True
    )
    self.process.start()
    theirs.close()  # So that the pipe closes with the process.
    self.tasks: dict[int, _Task] = {}
    self.is_ready = False

  def give(self, task: _Task) -> None:
    """Hands a task over; a worker that is dead by now is found out later."""
    self.tasks[task.number] = task
    try:
      self.connection.send((task.number, task.study))
    except OSError:
      pass

  def has_capacity(self) -> bool:
    """Whether it takes one more; a task that outlived a worker stays alone."""
    alone = any(task.deaths for task in self.tasks.values())
    return not alone and len(self.tasks) < STUDIES_AT_A_TIME


class _Crew:
  """All workers of a run."""

  def __init__(self, function: Callable, processes: int):
    self._function = function
    # TensorFlow would take every core in every process.
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    self._environment = {'TF_NUM_INTRAOP_THREADS': threads}
    self._workers = [self._hired() for _ in range(processes)]
    self._suspects: collections.deque[_Task] = collections.deque()
    self._deaths_before_ready = 0
    self._count = 0
    self._has_ended = False  # No further study comes.

  def run(
    self, studies: Iterator, stop: threading.Event, feed: Feed | None
  ) -> Iterator[tuple]:
    """Yields (study, value) until all studies have ended, or the running ones.

    Args:
      studies: None among them: nothing at the moment.
      stop: see `map_studies`.
      feed: what `studies` iterates over, if it may have nothing at the moment.
    """
    bells = [] if feed is None else [feed.bell]
    while True:
      for worker in self._workers:
        self._fill(worker, studies, stop)
      is_over = feed is None or self._has_ended or stop.is_set()
      if is_over and not any(worker.tasks for worker in self._workers):
        return
      connections = [worker.connection for worker in self._workers]
      for ready in connection_lib.wait([*connections, *bells]):
        if feed is not None and ready is feed.bell:
          feed.heard()
          continue
        yield from self._heard(
          next(worker for worker in self._workers if worker.connection is ready)
        )

  def end(self) -> None:
    """Lets idle workers go and kills busy ones."""
    for worker in self._workers:
      if worker.tasks:
        worker.process.kill()
      else:
        try:
          worker.connection.send(None)
        except OSError:
          pass
    for worker in self._workers:
      worker.process.join(10)
      worker.process.kill()
      worker.connection.close()

  def _hired(self) -> _Worker:
    return _Worker(self._function, self._environment)

  def _fill(self, worker: _Worker, studies: Iterator, stop: threading.Event) -> None:
    while worker.has_capacity() and not stop.is_set():
      if self._suspects:
        # One of them kills workers: each gets one for itself, to find out which.
        if not worker.tasks:
          worker.give(self._suspects.popleft())
        return
      study = next(studies, self)
      if study is self:
        self._has_ended = True
        return
      if study is None:
        return
      self._count += 1
      worker.give(_Task(self._count, study))

  def _heard(self, worker: _Worker) -> Iterator[tuple]:
    try:
      kind, *message = worker.connection.recv()
    except (EOFError, OSError):
      yield from self._buried(worker)
      return
    if kind == READY:
      worker.is_ready = True
      self._deaths_before_ready = 0
      return
    number, value = message
    if kind == RAISED:
      value = records.Lost(f'{value} while it was worked on')
    yield worker.tasks.pop(number).study, value

  def _buried(self, worker: _Worker) -> Iterator[tuple]:
    worker.process.join()
    code = worker.process.exitcode
    worker.connection.close()
    if not worker.is_ready:
      self._deaths_before_ready += 1
      if self._deaths_before_ready >= records.MOST_DEATHS:
        raise errors.ClusterError(
          'worker processes must start, but the last of '
          f'{records.MOST_DEATHS} {process_end.how(code)} before it did: '
          f'{process_end.remedy(code)}.'
        )
    self._workers[self._workers.index(worker)] = self._hired()
    for task in worker.tasks.values():
      task.deaths += worker.is_ready
      if task.deaths >= records.MOST_DEATHS:
        yield task.study, records.lost_by_deaths(code)
      else:
        self._suspects.append(task)


# One seam between an archive and whatever runs its studies.
#
# `map_studies` hands studies to worker processes and yields what became of each,
# once, in the order in which they end. Workers may be killed at any moment.


def map_studies(
  function: Callable[[_Item], _Value],
  studies: Iterable[_Item] | Feed[_Item],
  *,
  processes: int = 1,
  scheduler: str | None = None,
  stop: threading.Event | None = None,
) -> Iterator[tuple[_Item, _Value | records.Lost]]:
  """Applies a function to every study, in processes that may die.

  Args:
    function: gets one study; picklable, as is what it returns. It returns refusals
      and failures as values; an exception of it loses the study at once.
    studies: taken as workers become free, never all at once. A Feed may have none at
      the moment.
    processes: workers of this machine, two studies at a time in each.
    scheduler: address of a running Dask cluster to use instead.
    stop: once it is set no further study is begun; the running ones end.

  Yields:
    (study, what the function returned), or (study, Lost) for a study whose
    workers died as often as is tolerated.

  Raises:
    errors.ClusterError: no worker can be started or reached.
  """
  stop = stop or threading.Event()
  if scheduler is None:
    return map_local(function, studies, processes, stop)
  if isinstance(studies, Feed):
    raise errors.UsageError(
      '--scheduler: a list of studies is required, found studies that come one by '
      'one; use worker processes of this machine.'
    )
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


# How many worker processes this machine takes.

# A worker holds two studies: 500 slices of 512 x 512 are 0.26 GB in int16, and
# masks, crops, maps and the report's pictures come on top.
_WORKER_BYTES = 1.5e9
# TensorFlow, both networks and their largest batch, in a worker of its own.
_MODELS_BYTES = 2.5e9


def worker_count(models_in_process: bool) -> int:
  """Workers by cores and memory, at least one.

  Args:
    models_in_process: whether each worker loads the models.
  """
  each = _WORKER_BYTES + (_MODELS_BYTES if models_in_process else 0)
  return max(1, min(_cores(), int(_available_bytes() // each)))


def _cores() -> int:
  """Cores that this process may use; where the system cannot say, all."""
  allowed = getattr(os, 'sched_getaffinity', None)
  return len(allowed(0)) if allowed else os.cpu_count() or 1


def _available_bytes() -> int:
  """Memory that can be had without swapping."""
  try:
    with open('/proc/meminfo', encoding='ascii') as lines:
      for line in lines:
        if line.startswith('MemAvailable:'):
          return int(line.split()[1]) * 1024
  except OSError:
    pass
  if not hasattr(os, 'sysconf'):
    return 0  # Not known: one worker.
  return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
