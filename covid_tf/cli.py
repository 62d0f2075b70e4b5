"""`covid-tf`: one command a job; each lives in `covid_tf.commands`."""

import argparse
import codecs
from collections.abc import Callable, Iterator
import contextlib
import errno
import io
import os
import sys
from typing import Any, TextIO
import warnings

from covid_tf import commands
from covid_tf import errors
from covid_tf.commands import messages
from covid_tf.commands import site_configuration
from covid_tf.version import __version__

# Standard output and error that take every text, wherever they lead.
#
# Under cron or Slurm they may be ASCII or Latin-1, closed, a pipe whose reader has
# left, or a file on a full disk. None of that is a reason to lose what a command has
# done, so printing never raises here: what the encoding lacks is replaced, and what
# nobody takes is dropped. Whether something was dropped can be asked afterwards.

# For readers: what an ASCII terminal shows instead. Others become \xNN or \uNNNN.
_PLAIN = str.maketrans(
  {
    '³': '3',
    '²': '2',
    '×': 'x',
    '·': '.',
    '–': '-',
    '—': '-',
    '−': '-',
    '…': '...',
    '“': '"',
    '”': '"',
    '‘': "'",
    '’': "'",
    '≥': '>=',
    '≤': '<=',
    '±': '+-',
    '→': '->',
    'µ': 'u',
    '°': ' deg',
    '\u00a0': ' ',
    '\u2009': ' ',
    '\u202f': ' ',
  }
)
_REPLACED = 'covid_tf.plain'


class Streams:
  """What became of standard output.

  Attributes:
    failure: the first error of writing to it, or None. That the reader of a pipe has
      left (`| head`) is none.
  """

  def __init__(self) -> None:
    self.failure: OSError | None = None

  def note(self, error: OSError) -> None:
    """Remembers an error of standard output."""
    if error.errno not in (errno.EPIPE, errno.ECONNRESET):
      self.failure = self.failure or error


@contextlib.contextmanager
def safe_streams() -> Iterator[Streams]:
  """Within the block, printing to standard output and error never raises.

  What others have put in the place of sys.stdout or sys.stderr is left alone.

  Yields:
    What became of standard output; final once the block has ended.
  """
  codecs.register_error(_REPLACED, _replaced)
  _keep_descriptors()
  streams = Streams()
  before = sys.stdout, sys.stderr
  if sys.stdout is sys.__stdout__:
    sys.stdout = _safe(sys.stdout, 1, streams.note)
  if sys.stderr is sys.__stderr__:
    sys.stderr = _safe(sys.stderr, 2, lambda error: None)
  try:
    yield streams
  finally:
    for now, earlier in zip((sys.stdout, sys.stderr), before):
      if now is not earlier:
        now.flush()
    sys.stdout, sys.stderr = before


def _keep_descriptors() -> None:
  """Of closed standard streams, lets no file that is opened later take the number."""
  while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
    os.set_inheritable(descriptor, True)
  os.close(descriptor)


def _safe(
  stream: TextIO | None, descriptor: int, note: Callable[[OSError], None]
) -> io.TextIOWrapper:
  if stream is not None:
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  raw = _Raw(descriptor, note)
  return io.TextIOWrapper(
    io.BufferedWriter(raw),
    encoding=getattr(stream, 'encoding', None) or 'utf-8',
    errors=_REPLACED,
    line_buffering=descriptor == 2 or raw.isatty(),
  )


class _Raw(io.FileIO):
  """A descriptor that takes what its system refuses, and notes the error."""

  def __init__(self, descriptor: int, note: Callable[[OSError], None]):
    super().__init__(descriptor, 'wb', closefd=False)
    self._note = note

  def write(self, data: Any) -> int:
    """Writes `data`, or drops it."""
    try:
      return super().write(data)
    except OSError as error:
      self._note(error)
      return len(data)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
  """Plain characters for what an encoding lacks; of surrogates, the bytes' numbers."""
  if not isinstance(error, UnicodeEncodeError):
    raise error
  found = error.object[error.start : error.end].translate(_PLAIN)
  # A name whose bytes are no text: each as \xNN, which is what the disk holds.
  return ''.join(
    f'\\x{ord(letter) - 0xDC00:02x}'
    if '\udc80' <= letter <= '\udcff'
    else letter.encode('ascii', 'backslashreplace').decode('ascii')
    for letter in found
  ), error.end


def main(argv: list[str] | None = None) -> int:
  """Runs one command; returns its status (0, 2 use, 3 study, 4 model, 5 output)."""
  argv = sys.argv[1:] if argv is None else argv
  with safe_streams() as streams:
    status, writes_files = _run(argv)
    with contextlib.suppress(ValueError):  # Closed by somebody.
      sys.stdout.flush()
    if status == 0 and streams.failure and not writes_files:
      # Of a command that has written its files, these are what was asked for.
      print(
        f'covid-tf: standard output cannot be written: '
        f'{streams.failure.strerror}; send it to another place.',
        file=sys.stderr,
      )
      status = errors.OutputError.exit_status
  return status


def _run(argv: list[str]) -> tuple[int, bool]:
  """Status, and whether the command writes files (else its output is the result)."""
  name, writes_files = 'covid-tf', False
  try:
    if not argv or argv[0] not in commands.COMMANDS:
      _parser().parse_args(argv or ['--help'])
    name = f'covid-tf {argv[0]}'
    command = commands.module(argv[0])
    parser = argparse.ArgumentParser(name, description=commands.COMMANDS[argv[0]])
    command.add_arguments(parser)
    messages.add_arguments(parser)
    if parse := getattr(command, 'parse', None):
      arguments = parse(parser, argv[1:])  # `serve` takes flags of another program too.
    else:
      site_configuration.add_arguments(parser)
      arguments = site_configuration.parse(parser, argv[0], argv[1:])
    writes_files = hasattr(arguments, 'output')
    # Warnings of libraries quote values of headers and lines of their source. What
    # a person should know is in our own words in the results.
    with (
      warnings.catch_warnings(action='ignore'),
      messages.spoken(name, arguments),
    ):
      return command.run(arguments), writes_files
  except SystemExit as end:  # Of argparse, after the help or a wrong argument.
    return int(end.code or 0), writes_files
  except errors.CovidTFError as error:
    print(f'{name}: {error}', file=sys.stderr)
    return error.exit_status, writes_files
  except KeyboardInterrupt:
    print(f'{name}: interrupted', file=sys.stderr)
    return 130, writes_files  # The shell's convention: 128 + SIGINT.


def _parser() -> argparse.ArgumentParser:
  width = max(map(len, commands.COMMANDS)) + 2
  listing = '\n'.join(
    f'  {name:{width}}{help_}' for name, help_ in commands.COMMANDS.items()
  )
  parser = argparse.ArgumentParser(
    'covid-tf',
    description='COVID-19 opacities on chest CT: found, localized, measured in cm³.',
    epilog=f'commands:\n{listing}\n\nResearch use only.',
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--version', action='version', version=__version__)
  parser.add_argument('command', choices=tuple(commands.COMMANDS), metavar='COMMAND')
  return parser


if __name__ == '__main__':
  sys.exit(main())
