"""A real `covid-tf serve` beside the demo, ended with it."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

from covid_tf import errors

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
    errors.ModelError: the server ended before it was ready; says its last line.
  """
  command = (sys.executable, '-m', 'covid_tf.cli', 'serve', '--models', str(models),
             '--host', '127.0.0.1', '--port', '0')
  with tempfile.TemporaryFile('w+') as complaints, subprocess.Popen(
      command, stdout=subprocess.PIPE, stderr=complaints, text=True,
      env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '2'}) as process:
    try:
      yield _address(process, complaints)
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
  complaints.seek(0)
  said = complaints.read().strip().splitlines() or ['nothing']
  raise errors.ModelError(
      'covid-tf serve must come up to show the demo, but it ended and said: '
      f'{said[-1]}')
