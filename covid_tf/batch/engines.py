"""Worker processes of this machine, each replaced when it dies.

concurrent.futures gives up all work when one worker is killed; here the studies
that a dead worker had in hand are known, and each is tried again, by itself.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
import dataclasses
import multiprocessing
from multiprocessing import connection as connection_lib
import os
import threading
from typing import Any

from covid_tf import errors
from covid_tf import process_end
from covid_tf.batch import lost
from covid_tf.batch import worker as worker_lib


def map_local(
    function: Callable, studies: Iterable, processes: int,
    stop: threading.Event) -> Iterator[tuple[Any, Any]]:
  """See `engine.map_studies`."""
  crew = _Crew(function, processes)
  try:
    yield from crew.run(iter(studies), stop)
  finally:
    crew.end()


@dataclasses.dataclass
class _Task:
  """A study on its way, and how many workers died with it in hand."""

  number: int
  study: Any
  deaths: int = 0


class _Worker:
  """One process with the tasks that it has in hand."""

  def __init__(self, function: Callable, environment: dict[str, str]):
    # Not fork: gRPC and TensorFlow do not survive it.
    context = multiprocessing.get_context('spawn')
    self.connection, theirs = context.Pipe()
    self.process = context.Process(
        target=worker_lib.serve, args=(theirs, function, environment), daemon=True)
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

  def has_room(self) -> bool:
    """Whether it takes one more; a task that outlived a worker stays alone."""
    alone = any(task.deaths for task in self.tasks.values())
    return not alone and len(self.tasks) < worker_lib.STUDIES_AT_A_TIME


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

  def run(self, studies: Iterator, stop: threading.Event) -> Iterator[tuple]:
    """Yields (study, value) until all studies have ended, or those in hand."""
    while True:
      for worker in self._workers:
        self._fill(worker, studies, stop)
      if not any(worker.tasks for worker in self._workers):
        return
      for connection in connection_lib.wait(
          [worker.connection for worker in self._workers]):
        yield from self._heard(next(
            worker for worker in self._workers if worker.connection is connection))

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
    while worker.has_room() and not stop.is_set():
      if self._suspects:
        # One of them kills workers: each gets one for itself, to find out which.
        if not worker.tasks:
          worker.give(self._suspects.popleft())
        return
      study = next(studies, self)
      if study is self:
        return
      self._count += 1
      worker.give(_Task(self._count, study))

  def _heard(self, worker: _Worker) -> Iterator[tuple]:
    try:
      kind, *message = worker.connection.recv()
    except (EOFError, OSError):
      yield from self._buried(worker)
      return
    if kind == worker_lib.READY:
      worker.is_ready = True
      self._deaths_before_ready = 0
      return
    number, value = message
    if kind == worker_lib.RAISED:
      value = lost.Lost(f'{value} while it was worked on')
    yield worker.tasks.pop(number).study, value

  def _buried(self, worker: _Worker) -> Iterator[tuple]:
    worker.process.join()
    code = worker.process.exitcode
    worker.connection.close()
    if not worker.is_ready:
      self._deaths_before_ready += 1
      if self._deaths_before_ready >= lost.MOST_DEATHS:
        raise errors.ClusterError(
            'worker processes must start, but the last of '
            f'{lost.MOST_DEATHS} {process_end.how(code)} before it did: '
            f'{process_end.remedy(code)}.')
    self._workers[self._workers.index(worker)] = self._hired()
    for task in worker.tasks.values():
      task.deaths += worker.is_ready
      if task.deaths >= lost.MOST_DEATHS:
        yield task.study, lost.by_deaths(code)
      else:
        self._suspects.append(task)
