"""Servers in processes of their own, and what they use."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import re
import subprocess
import sys

import psutil

from covid_tf import process_end


class Server:
  """A running server.

  Attributes:
    address: 'host:port'.
  """

  def __init__(self, process: subprocess.Popen, address: str):
    self.address = address
    self._process = psutil.Process(process.pid)

  def cpu_s(self) -> float:
    """Processor seconds so far, of all its threads."""
    times = self._process.cpu_times()
    return times.user + times.system

  def memory_mb(self) -> float:
    """Resident memory."""
    return self._process.memory_info().rss / 1e6


@contextlib.contextmanager
def _running(*command: str) -> Iterator[Server]:
  process = subprocess.Popen(
    command,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    stderr=subprocess.DEVNULL,
  )
  try:
    found = re.search(r'ready on ([\w.]+:\d+)', process.stdout.readline())
    if not found:
      process.terminate()
      raise RuntimeError(
        f'{" ".join(command[1:])} did not start: it {process_end.how(process.wait())}'
      )
    yield Server(process, found.group(1))
  finally:
    process.stdin.close()
    process.terminate()
    process.wait()


@contextlib.contextmanager
def canned_server() -> Iterator[str]:
  """Address of a server that computes nothing (canned_server.py)."""
  path = pathlib.Path(__file__).with_name('canned_server.py')
  with _running(sys.executable, str(path)) as server:
    yield server.address


def local_server(models_dir, *flags: str) -> contextlib.AbstractContextManager[Server]:
  """`covid-tf serve` on a folder of models."""
  return _running(
    sys.executable,
    '-m',
    'covid_tf.cli',
    'serve',
    '--models',
    os.fspath(models_dir),
    '--port',
    '0',
    *flags,
  )


def demo_models() -> pathlib.Path:
  """The exported demo models."""
  from covid_tf.predictors import in_process

  return in_process.demo_models()
