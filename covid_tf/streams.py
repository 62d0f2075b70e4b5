"""Standard output and error that take every text, wherever they lead."""

import codecs
from collections.abc import Callable, Iterator
import contextlib
import errno
import io
import os
import sys
from typing import Any, TextIO

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
