"""How a process of ours ended, in words: signal or status, last lines, what to do."""

from multiprocessing import context
import re
import signal
from typing import Any

_MOST_LINES = 3
_LONGEST_LINE = 200
# What TensorFlow says of itself at every start: no news of how a process ended.
_GREETING = re.compile(
  r'[IW]\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d .*: [IW] |'
  r'WARNING: All log messages before absl'
)
_SHELL = 128  # A shell adds the signal to it.

# By name: not every system has all of these.
_NAMES = {
  'SIGSEGV': 'segmentation fault',
  'SIGBUS': 'bus error',
  'SIGILL': 'illegal instruction',
  'SIGFPE': 'arithmetic fault',
  'SIGABRT': 'abort, of a library that found its own state broken',
  'SIGKILL': 'killed from outside',
}
_IN_MACHINE_CODE = ('SIGSEGV', 'SIGBUS', 'SIGILL', 'SIGFPE', 'SIGABRT')


class RememberingContext(context.SpawnContext):
  """Starts the processes of a pool by 'spawn', and can say how one of them ended."""

  def __init__(self) -> None:
    """Begins with none."""
    super().__init__()
    self._started: list[context.SpawnProcess] = []

  # A pool calls it by this name, and only calls it: a class would do no more.
  def Process(self, *args: Any, **kwargs: Any) -> context.SpawnProcess:  # type: ignore[override]
    """See `multiprocessing.Process`."""
    self._started.append(context.SpawnProcess(*args, **kwargs))
    return self._started[-1]

  def end(self) -> None:
    """Kills those that still run."""
    for one in self._started:
      one.kill()

  def how_one_ended(self) -> str:
    """Of the process that broke the pool, after its shutdown; with the remedy."""
    # The pool itself ends the others by SIGTERM.
    code = next(
      (
        one.exitcode
        for one in self._started
        if one.exitcode not in (None, 0, -signal.SIGTERM)
      ),
      None,
    )
    return f'{how(code)}: {remedy(code)}'


def how(exit_code: int | None) -> str:
  """Says how a process ended.

  Args:
    exit_code: of `subprocess` or `multiprocessing`, negative for a signal; None if
      it is not known.

  Returns:
    For instance 'was ended by SIGSEGV (segmentation fault)'.
  """
  number = _signal(exit_code)
  if number is None:
    return 'ended' if exit_code is None else f'ended with status {exit_code}'
  name = _NAMES.get(number.name)
  return f'was ended by {number.name}' + (f' ({name})' if name else '')


def remedy(exit_code: int | None) -> str:
  """What a user can do about it, as a clause."""
  number = _signal(exit_code)
  name = number.name if number else ''
  if name in _IN_MACHINE_CODE:
    return (
      'a fault of a library in machine code on this processor, not of your data; try '
      'TF_ENABLE_ONEDNN_OPTS=0 in the environment, and report it'
    )
  if name == 'SIGKILL' or exit_code is None:
    return 'usually memory ran out; close other programs or give it more memory'
  if number is not None:
    return 'somebody ended it; start again'
  return 'what it wrote last says why'


def last_lines(text: str) -> str:
  """The last lines that a process wrote, on one line; 'nothing' if there are none."""
  lines = [
    ' '.join(line.split())[:_LONGEST_LINE]
    for line in text.splitlines()
    if line.strip() and not _GREETING.match(line)
  ]
  return ' | '.join(lines[-_MOST_LINES:]) or 'nothing'


def _signal(exit_code: int | None) -> signal.Signals | None:
  if exit_code is None:
    return None
  number = exit_code - _SHELL if exit_code > _SHELL else -exit_code
  try:
    return signal.Signals(number)
  except ValueError:
    return None
