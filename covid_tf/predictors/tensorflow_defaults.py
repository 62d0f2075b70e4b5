"""Settings that TensorFlow reads once, when it is imported, and its silence.

TensorFlow greets on standard error while it is imported, before it has read how much
it may say: that oneDNN is on, which instructions the processor has. A filter process
reads standard error meanwhile and passes on all but such lines. It is a process, not
a thread or a file, so that the last words of an import that ends this process (a
processor without AVX) are seen too.
"""

import contextlib
import importlib.abc
import os
import subprocess
import sys

_NAME = 'TF_CPP_MIN_LOG_LEVEL'
# Reads standard input, prints the lines that are no greeting. The forms are Abseil's
# (I0000 00:00:1795900251.095852 24637 port.cc:153]) and TensorFlow's own before it
# (2026-11-28 21:00:00.000000: I tensorflow/core/...), of information and warnings,
# with the second lines of two of them; and the errors that every import with a GPU
# build prints, though nothing is wrong.
_FILTER = r'''
import os, re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
greeting = re.compile(
    rb'WARNING: All log messages before absl::InitializeLog'
    rb'|[IW]\d{4} [\d:.]+ +\d+ [\w./]+:\d+\]'
    rb'|\d{4}-\d\d-\d\d [\d:.]+: [IW] [\w./]+:\d+\]'
    rb'|To enable the following instructions: '
    rb'|.*Unable to register cu\w+ factory: Attempting to register factory')
for line in sys.stdin.buffer:
  if not greeting.match(line):
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
'''


def set_defaults() -> None:
  """Sets what its user has not set; call it before TensorFlow is imported.

  TensorFlow is then imported without its greetings, unless the user has set
  TF_CPP_MIN_LOG_LEVEL to 0 or 1, which asks for them.
  """
  is_quiet = os.environ.get(_NAME, '2') not in ('0', '1')
  os.environ.setdefault(_NAME, '2')  # Its greetings are no news.
  # gRPC's notes about processes that are started while it runs.
  os.environ.setdefault('GRPC_VERBOSITY', 'ERROR')
  # oneDNN's convolutions, which TensorFlow takes by itself only on processors with
  # AVX-512: with AVX2 alone they answer in 3/4 of the time (docs/grad_cam.md).
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
  if is_quiet and 'tensorflow' not in sys.modules and not any(
      isinstance(finder, _QuietFinder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(importlib.abc.MetaPathFinder):
  """Finds TensorFlow as Python does, and lets it be imported quietly, once."""

  def find_spec(self, name, path, target=None):
    """The usual specification, with a loader that filters; else None."""
    if name != 'tensorflow':
      return None
    others = (finder for finder in sys.meta_path if finder is not self)
    found = (finder.find_spec(name, path, target) for finder in others)
    spec = next(filter(None, found), None)
    if spec is None or spec.loader is None:
      return None
    execute = spec.loader.exec_module

    def execute_quietly(module):
      with contextlib.suppress(ValueError):  # Another thread may have removed it.
        sys.meta_path.remove(self)
      with _without_greetings():
        execute(module)

    spec.loader.exec_module = execute_quietly
    return spec


@contextlib.contextmanager
def _without_greetings():
  """Within the block, standard error passes through the filter."""
  try:
    before = os.dup(2)
  except OSError:  # Closed: there is nothing to keep silent.
    yield
    return
  try:
    filter_ = subprocess.Popen(
        [sys.executable, '-I', '-S', '-c', _FILTER], stdin=subprocess.PIPE,
        stdout=before, stderr=subprocess.DEVNULL)
  except (OSError, ValueError):  # No more processes allowed: greetings do no harm.
    os.close(before)
    yield
    return
  os.dup2(filter_.stdin.fileno(), 2)
  filter_.stdin.close()
  try:
    yield
  finally:
    with contextlib.suppress(AttributeError, OSError, ValueError):
      sys.stderr.flush()
    os.dup2(before, 2)
    os.close(before)
    filter_.wait()
