"""Studies on a real Dask scheduler with workers that are killed."""

import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import free_ports
import pytest

from covid_tf import errors
from covid_tf.batch import engines
from covid_tf.batch import records


def _square(number):
  time.sleep(0.02)
  return number * number, os.getpid()


def _with_a_killer(number):
  if number == 3:
    os.kill(os.getpid(), signal.SIGKILL)
  if number == 4:
    raise ValueError('Secret^Person')
  return number


@contextlib.contextmanager
def _cluster(folder, workers):
  """A scheduler and workers, each with a nanny; yields (address, scheduler)."""
  port = free_ports.free_port()
  address = f'tcp://127.0.0.1:{port}'
  environment = os.environ | {
    'PYTHONPATH': os.pathsep.join(sys.path),
    'DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES': '2',
  }
  with contextlib.ExitStack() as stack:

    def start(*command):
      process = subprocess.Popen(
        [sys.executable, '-m', 'dask', *command],
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
      )
      stack.callback(_end, process)
      return process

    scheduler = start(
      'scheduler',
      '--host',
      '127.0.0.1',
      '--port',
      str(port),
      '--dashboard-address',
      '127.0.0.1:0',
    )
    start(
      'worker',
      address,
      '--nworkers',
      str(workers),
      '--nthreads',
      '1',
      '--no-dashboard',
      '--local-directory',
      str(folder),
    )
    _wait_for(scheduler, port)
    yield address, scheduler


def _wait_for(scheduler, port):
  """Until it listens: who connects waits for a scheduler for some seconds only."""
  end = time.monotonic() + 180
  while True:
    with contextlib.suppress(ConnectionRefusedError):
      socket.create_connection(('127.0.0.1', port), 60).close()
      return
    assert scheduler.poll() is None and time.monotonic() < end
    time.sleep(0.1)


def _end(process):
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def test_every_study_ends_once_although_workers_die(tmp_path):
  with _cluster(tmp_path, 2) as (address, scheduler):
    counts = collections.Counter()
    for study, (value, pid) in engines.map_studies(
      _square, range(60), scheduler=address
    ):
      counts[study] += 1
      assert value == study * study
      if study in (10, 30):
        os.kill(pid, signal.SIGKILL)
    assert counts == dict.fromkeys(range(60), 1)

    ends = dict(engines.map_studies(_with_a_killer, range(8), scheduler=address))
    assert ends.pop(3) == records.lost_by_deaths()
    assert 'ValueError' in ends[4].reason and 'Secret' not in ends.pop(4).reason
    assert ends == {number: number for number in (0, 1, 2, 5, 6, 7)}

    with pytest.raises(errors.ClusterError, match='the scheduler went away'):
      for study, _ in engines.map_studies(_square, range(500), scheduler=address):
        if study == 5:
          scheduler.kill()


def test_no_scheduler_is_said_in_one_line():
  address = f'tcp://127.0.0.1:{free_ports.free_port()}'
  with pytest.raises(errors.ClusterError, match='running Dask scheduler is required'):
    dict(engines.map_studies(_square, [1], scheduler=address))
