"""DICOM files in messages of several parts (RFC 2046, PS3.18 8.7), whatever their size.

Files are read from the disk while they are sent, and written to it as they come.
"""

from collections.abc import Iterator, Sequence
import io
import pathlib
import re
from typing import BinaryIO

from covid_tf import errors
from covid_tf.clinic import pacs

_PIECE = 1 << 20
_MOST_HEADER_BYTES = 1 << 16
# Ours: few round trips for thin slices, and below the usual limits of servers.
_REQUEST_BYTES = 16_000_000


def groups(instances: Sequence[pacs.Instance]) -> Iterator[list[pacs.Instance]]:
  """Instances in groups of a request's size, each at least one."""
  group: list[pacs.Instance] = []
  size = 0
  for instance in instances:
    if group and size + instance.size_bytes > _REQUEST_BYTES:
      yield group
      group, size = [], 0
    group.append(instance)
    size += instance.size_bytes
  if group:
    yield group


class Body:
  """A multipart message of files, read from the disk while it is sent.

  No file of Python's: requests asks these where they are, and without an answer sends
  no Content-Length, which some servers ask for.
  """

  def __init__(self, group: Sequence[pacs.Instance], boundary: str):
    head = f'--{boundary}\r\nContent-Type: application/dicom\r\n\r\n'.encode()
    self._parts: list[bytes | pathlib.Path] = []
    self._length = 0
    for instance in group:
      self._parts += [head, instance.path, b'\r\n']
      self._length += len(head) + instance.size_bytes + 2
    end = f'--{boundary}--\r\n'.encode()
    self._parts.append(end)
    self._length += len(end)
    self._source: BinaryIO = io.BytesIO()

  def __len__(self) -> int:
    """Bytes in all, for the header Content-Length."""
    return self._length

  def __iter__(self) -> Iterator[bytes]:
    """Its pieces."""
    return iter(self.read, b'')

  def read(self, size: int = -1) -> bytes:
    """The next bytes, at most `size`; b'' at the end."""
    del size  # Larger pieces than the 16 kB that are asked for take less time.
    while True:
      if piece := self._source.read(_PIECE):
        return piece
      self._source.close()
      if not self._parts:
        self._source = io.BytesIO()
        return b''
      part = self._parts.pop(0)
      self._source = io.BytesIO(part) if isinstance(part, bytes) else open(part, 'rb')


def boundary(content_type: str) -> bytes | None:
  """What stands between the parts, of a header Content-Type; None where it has none.

  In quotes it may hold every sign that separates parameters (RFC 2046 5.1.1).
  """
  found = re.search(
    r'[;\s]boundary\s*=\s*(?:"((?:[^"\\]|\\.)+)"|([^";,\s]+))',
    content_type,
    re.IGNORECASE,
  )
  if not found:
    return None
  quoted, plain = found.groups()
  text = plain or re.sub(r'\\(.)', r'\1', quoted)
  return text.rstrip().encode('latin-1', 'replace')


class Message:
  """Parts of a multipart message (RFC 2046) as they come, whatever their size."""

  def __init__(self, pieces: Iterator[bytes], boundary: bytes, name: str):
    self._pieces = pieces
    self._mark = b'\r\n--' + boundary
    self._data = bytearray(b'\r\n')  # The first mark may stand at the very start.
    self._name = name
    self._is_in_part = False

  def next_part(self) -> bool:
    """Goes to the content of the next part; False at the end of the message."""
    if not self._is_in_part:
      self.copy_part(None)
    while len(self._data) < 2:
      self._more()
    if self._data.startswith(b'--'):
      return False
    while (end := self._data.find(b'\r\n\r\n')) < 0:
      if len(self._data) > _MOST_HEADER_BYTES:
        raise self._malformed()
      self._more()
    del self._data[: end + 4]
    return True

  def copy_part(self, target: BinaryIO | None) -> None:
    """Writes the content up to the next mark to a file, or leaves it out."""
    overlap = len(self._mark) - 1
    start = 0
    while (found := self._data.find(self._mark, start)) < 0:
      keep = max(len(self._data) - overlap, 0)
      if target:
        target.write(memoryview(self._data)[:keep])
      del self._data[:keep]
      self._more()
    if target:
      target.write(bytes(self._data[:found]))
    del self._data[: found + len(self._mark)]
    self._is_in_part = True

  def _more(self) -> None:
    piece = next(self._pieces, None)
    if piece is None:
      raise self._malformed()
    self._data += piece

  def _malformed(self) -> errors.PACSError:
    return pacs.TransientError(
      f'{self._name}: WADO-RS answered a multipart message that is damaged or ends in '
      'the middle; nothing is kept.'
    )
