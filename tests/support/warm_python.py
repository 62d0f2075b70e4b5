"""Python processes that begin with TensorFlow imported: each a fork of one that has it.

A script's `--help` takes four seconds of imports and one hundredth of its own. A fork
runs it as `python script.py` does, from the import of its own modules to the end of the
interpreter.
"""

import contextlib
import gc
import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from typing import NoReturn

# No module of ours: a script shall find its own flags and logs as it leaves them.
_SLOW = (
  'tensorflow',
  'keras',
  'scipy.stats',
  'sklearn.cluster',
  'matplotlib.figure',
  'nibabel',
  'pydicom',
  'grpc',
)


class WarmPython:
  """Runs scripts and modules, one process each; a context manager."""

  def __enter__(self) -> 'WarmPython':
    self._server = subprocess.Popen(
      [sys.executable, __file__],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
    )
    return self

  def __exit__(self, *exception) -> None:
    self._server.stdin.close()
    self._server.wait()
    self._server.stdout.close()

  def run(self, script: pathlib.Path | str, *flags: str) -> subprocess.CompletedProcess:
    """As subprocess.run of `python script flags` in this folder, with its text.

    Args:
      script: a file, or the name of a module as for `python -m`.
      *flags: its command line.
    """
    with tempfile.TemporaryDirectory() as folder:
      said = [os.path.join(folder, name) for name in ('out', 'err')]
      request = {'script': str(script), 'flags': flags, 'said': said}
      print(json.dumps(request), file=self._server.stdin, flush=True)
      status = json.loads(self._server.stdout.readline())
      texts = [pathlib.Path(path).read_text('utf-8') for path in said]
    return subprocess.CompletedProcess([script, *flags], status, *texts)


def _serve() -> None:
  """Answers requests with exit statuses; a fork leaves by running what was asked."""
  for name in _SLOW:
    with contextlib.suppress(ImportError):
      __import__(name)
  gc.freeze()  # Else each fork copies what its collector looks through: one second.
  for line in sys.stdin:
    process = os.fork()
    if not process:
      _become(**json.loads(line))
    _, status = os.waitpid(process, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)


def _become(script: str, flags: list[str], said: list[str]) -> NoReturn:
  for descriptor, path in enumerate([os.devnull, *said]):
    mode = os.O_WRONLY | os.O_CREAT if descriptor else os.O_RDONLY
    os.dup2(os.open(path, mode), descriptor)
  sys.stdin = open(0, closefd=False)
  sys.argv = [script, *flags]
  if script.endswith('.py'):
    sys.path[0] = os.path.dirname(script)
    runpy.run_path(script, run_name='__main__')
  else:
    sys.path[0] = ''
    runpy.run_module(script, run_name='__main__', alter_sys=True)
  sys.exit()


if __name__ == '__main__':
  _serve()
