"""A real `covid-tf serve` beside the demo, ended with it."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

from covid_tf import errors
from covid_tf import process_end

_READY = 'ready on '
_STOP_S = 40  # The server drains for 30 seconds at most.


@contextlib.contextmanager
def serving(models: pathlib.Path) -> Iterator[str]:
  """Starts `covid-tf serve` on a free loopback port and stops it afterwards.

  Args:
    models: folder with lungs/1 and classifier/1.

  Yields:
    'HOST:PORT'.

  Raises:
    errors.ModelError: the server ended by itself, before it was ready or while it was
      used; says by which signal or status, its last lines and what to do.
  """
  with tempfile.TemporaryFile('w+') as complaints, subprocess.Popen(
      _command(models), stdout=subprocess.PIPE, stderr=complaints, text=True,
      env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '2'}) as process:
    try:
      address = _address(process, complaints)
      try:
        yield address
      except errors.ModelError as error:
        # Its client saw no more than that nobody answers.
        if process.poll() is None:
          raise
        raise _ended(process, complaints, 'while it was used') from error
    finally:
      process.terminate()
      try:
        process.wait(_STOP_S)
      except subprocess.TimeoutExpired:
        process.kill()


def _address(process, complaints) -> str:
  for line in process.stdout:
    if _READY in line:
      return line.partition(_READY)[2].split(',')[0].split()[0]
  process.wait()  # Its output has ended, and so does it.
  raise _ended(process, complaints, 'before it was ready')


def _command(models: pathlib.Path) -> tuple[str, ...]:
  return (sys.executable, '-m', 'covid_tf.cli', 'serve', '--models', str(models),
          '--host', '127.0.0.1', '--port', '0')


def _ended(process, complaints, when: str) -> errors.ModelError:
  complaints.seek(0)
  code = process.returncode
  return errors.ModelError(
      f'covid-tf serve, which the demo started, {process_end.how(code)} {when} and '
      f'said: {process_end.last_lines(complaints.read())}: {process_end.remedy(code)}.')
