"""What one DICOM file that has just come is, and whether it is what its sender says.

Only headers are walked over and pixels are never decoded: what a sender claims about
lengths must not cost memory or time.
"""

from collections.abc import Iterator
import dataclasses
import mmap
import os
import pathlib
import re
import struct
import threading
from typing import IO
import zlib

from pydicom import config
from pydicom import uid as pydicom_uid

from covid_tf.clinic import verifying
from covid_tf.node import pdus
from covid_tf.readers import elements
from covid_tf.readers import header_walk

# Statuses of C-STORE, PS3.4 B.2.3.
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

_PREAMBLE = 128
_META_CLASS, _META_INSTANCE, _META_SYNTAX = 0x00020002, 0x00020003, 0x00020010
_CLASS, _INSTANCE = 0x00080016, 0x00080018
_STUDY, _SERIES = 0x0020000D, 0x0020000E
_NAMES = {
  _CLASS: 'SOP Class UID',
  _INSTANCE: 'SOP Instance UID',
  _STUDY: 'Study Instance UID',
  _SERIES: 'Series Instance UID',
}
_LONGEST_UID = 64  # PS3.5 section 9.1.
# Where pixels start at the latest; `readers.dataset` looks no further either.
_MOST_HEADER_BYTES = 1 << 26
_MOST_INFLATED_BYTES = 1 << 32
_MOST_FRAGMENTS = 1 << 20
_MOST_DECODED_BYTES = 1 << 29  # Larger files are compared as bytes only.
_CHUNK_BYTES = 1 << 20
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF

_comparing = threading.Lock()  # Two decoded images in memory at a time, not more.


class RefusedError(Exception):
  """An instance that is not taken, for what is wrong with it.

  Attributes:
    status: of the answer to C-STORE.
    identity: what it is, or None where that cannot be known.
  """

  def __init__(self, status: int, reason: str, identity: 'Identity | None' = None):
    super().__init__(reason)
    self.status = status
    self.identity = identity


@dataclasses.dataclass(frozen=True)
class Identity:
  """Legal UIDs of an instance."""

  study_uid: str
  series_uid: str
  sop_instance_uid: str
  sop_class_uid: str


def file_meta(sop_class_uid: str, instance_uid: str, syntax: str) -> bytes:
  """What stands before a data set in a file (PS3.10 section 7.1).

  Args:
    sop_class_uid, instance_uid: legal UIDs, of the command that announces it.
    syntax: transfer syntax UID of its presentation context.
  """
  elements_of_meta = (
    _long_element(1, b'OB', b'\0\1')
    + _uid_element(2, sop_class_uid)
    + _uid_element(3, instance_uid)
    + _uid_element(0x10, syntax)
    + _uid_element(0x12, pdus.IMPLEMENTATION_CLASS_UID)
  )
  length = struct.pack('<HH2sHL', 2, 0, b'UL', 4, len(elements_of_meta))
  return bytes(_PREAMBLE) + b'DICM' + length + elements_of_meta


def _uid_element(element: int, value: str) -> bytes:
  data = value.encode('ascii') + b'\0' * (len(value) % 2)
  return struct.pack('<HH2sH', 2, element, b'UI', len(data)) + data


def _long_element(element: int, vr: bytes, value: bytes) -> bytes:
  return struct.pack('<HH2sxxL', 2, element, vr, len(value)) + value


def identify(path: pathlib.Path) -> Identity:
  """The UIDs of a DICOM file whose data set fits its file meta information.

  Args:
    path: a file with preamble and file meta information, which holds what the
      sender's command and the presentation context said.

  Raises:
    RefusedError: it is damaged, or is not what it is said to be.
    OSError: it cannot be read.
  """
  with (
    open(path, 'rb') as file,
    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
  ):
    start, meta = _meta(content)
    syntax = meta[_META_SYNTAX]
    if syntax == pydicom_uid.DeflatedExplicitVRLittleEndian:
      head, size = _inflated(content, start)
      return _identify(head, 0, size, meta)
    return _identify(content, start, len(content), meta)


def identify_begun(path: pathlib.Path) -> Identity | None:
  """What a file that breaks off anywhere was going to be; None where nobody knows."""
  try:
    return identify(path)
  except RefusedError as error:
    return error.identity
  except (OSError, ValueError):  # An empty file cannot be mapped.
    return None


def _meta(content: mmap.mmap) -> tuple[int, dict[int, str]]:
  """Where the data set starts, and the UIDs of the file meta information."""
  place = _PREAMBLE + 4
  head = content[: place + 12]
  is_ours = head[_PREAMBLE:].startswith(b'DICM\x02\0\0\0UL\x04\0')
  if not is_ours or len(head) < place + 12:
    raise RefusedError(CANNOT_UNDERSTAND, 'it has no file meta information')
  (length,) = struct.unpack_from('<L', head, place + 8)
  end = place + 12 + length
  if end > len(content) or length > _CHUNK_BYTES:
    raise RefusedError(CANNOT_UNDERSTAND, 'its file meta information is damaged')
  wanted = frozenset((_META_CLASS, _META_INSTANCE, _META_SYNTAX))
  try:
    walk = header_walk.Walk(content[place + 12 : end], False, True)
    found, _ = walk.to_pixels(0, wanted)
  except (header_walk.UnusualError, ValueError):
    found = {}
  return end, {tag: _text(found, tag) for tag in wanted}


def _identify(
  content: mmap.mmap | bytes, start: int, size: int, meta: dict[int, str]
) -> Identity:
  syntax = pydicom_uid.UID(meta[_META_SYNTAX], validation_mode=config.IGNORE)
  if not syntax.is_transfer_syntax:
    raise RefusedError(CANNOT_UNDERSTAND, 'its transfer syntax is not known')
  with memoryview(content)[:_MOST_HEADER_BYTES] as head:
    if len(head) < start + 8:
      raise RefusedError(CANNOT_UNDERSTAND, 'its data set is empty')
    vr = bytes(head[start + 4 : start + 6])
    if (vr.isalpha() and vr.isupper()) == syntax.is_implicit_VR:
      raise RefusedError(
        CANNOT_UNDERSTAND, 'it is not encoded as its presentation context says'
      )
    uids, pixels = _walked(head, start, syntax)
  identity = _checked(uids, meta)
  _require_pixels(content, size, pixels, syntax, identity)
  return identity


def _walked(
  head: memoryview, start: int, syntax: pydicom_uid.UID
) -> tuple[dict[int, str], tuple[int, int, int | None] | None]:
  """The UIDs, and (tag, first byte, length) of the pixels."""
  implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
  wanted = frozenset(_NAMES)
  try:
    # A view, so that a value which claims to be large is not copied.
    walk = header_walk.Walk(head, implicit, little)  # type: ignore[arg-type]
    found, pixels = walk.to_pixels(start, wanted)
  except (header_walk.UnusualError, RecursionError, ValueError):
    found, pixels = header_walk.parsed_by_pydicom(
      bytes(head), start, implicit, little, wanted
    )
  return {tag: _text(found, tag) for tag in wanted}, pixels


def _text(found: elements.Elements, tag: int) -> str:
  """The UID of an element, or '' where it has none, or one that is too long."""
  value = found[tag].value if tag in found else None
  if value is None or len(value) > _LONGEST_UID + 2:
    return '' if value is None else '?'
  return bytes(value).decode('latin-1').strip(' \0')


def _checked(uids: dict[int, str], meta: dict[int, str]) -> Identity:
  """The identity, where its UIDs are legal and those of the command."""
  for tag, name in _NAMES.items():
    if not uids[tag]:
      raise RefusedError(CANNOT_UNDERSTAND, f'it has no {name}')
    if not elements.legal_uid(uids[tag]):
      raise RefusedError(CANNOT_UNDERSTAND, f'its {name} is illegal')
  identity = Identity(uids[_STUDY], uids[_SERIES], uids[_INSTANCE], uids[_CLASS])
  for tag, said in ((_CLASS, _META_CLASS), (_INSTANCE, _META_INSTANCE)):
    if uids[tag] != meta[said]:
      raise RefusedError(
        DOES_NOT_MATCH, f'its {_NAMES[tag]} is not that of the command', identity
      )
  return identity


def _require_pixels(
  content: mmap.mmap | bytes,
  size: int,
  pixels: tuple[int, int, int | None] | None,
  syntax: pydicom_uid.UID,
  identity: Identity,
) -> None:
  """Raises RefusedError where an image has no pixels, not all, or of another kind."""

  def refused(reason: str) -> RefusedError:
    return RefusedError(CANNOT_UNDERSTAND, reason, identity)

  if pixels is None:
    name = pydicom_uid.UID(identity.sop_class_uid).name
    if name.endswith('Image Storage'):
      raise refused('it is an image and ends or breaks before its pixels')
    return
  _, place, length = pixels
  if (length is None) != syntax.is_encapsulated:
    raise refused('its pixels are not encoded as its presentation context says')
  if length is not None:
    is_whole = place + length <= size
  else:
    is_whole = _encapsulated_ends(content, place)
  if not is_whole:
    raise refused('it breaks off within its pixels')


def _encapsulated_ends(content: mmap.mmap | bytes, place: int) -> bool:
  """Whether fragments follow each other to their end (PS3.5 A.4)."""
  for _ in range(_MOST_FRAGMENTS):
    if place + 8 > len(content):
      return False
    group, element, length = struct.unpack_from('<HHL', content, place)
    tag = group << 16 | element
    if tag == _SEQUENCE_END:
      return True
    if tag != _ITEM or length == _UNDEFINED:
      return False
    place += 8 + length
  return False


def _inflated(content: mmap.mmap, start: int) -> tuple[bytes, int]:
  """The first bytes of a deflated data set, and its whole size (PS3.5 A.5)."""
  inflater = zlib.decompressobj(-zlib.MAX_WBITS)
  head = bytearray()
  size = 0
  try:
    for piece in _pieces(content, start):
      found = bytes(_CHUNK_BYTES)
      while not inflater.eof and (piece or len(found) == _CHUNK_BYTES):
        found = inflater.decompress(piece, _CHUNK_BYTES)
        piece = inflater.unconsumed_tail
        head += found[: _MOST_HEADER_BYTES - len(head)]
        size += len(found)
        if size > _MOST_INFLATED_BYTES:
          raise RefusedError(CANNOT_UNDERSTAND, 'it is too large when inflated')
      if inflater.eof:
        break
  except zlib.error:
    raise RefusedError(CANNOT_UNDERSTAND, 'its deflated data are damaged') from None
  if not inflater.eof:
    raise RefusedError(CANNOT_UNDERSTAND, 'its deflated data break off')
  return bytes(head), size


def _pieces(content: mmap.mmap, start: int) -> Iterator[bytes]:
  for place in range(start, len(content), _CHUNK_BYTES):
    yield content[place : place + _CHUNK_BYTES]


def has_same_content(new: pathlib.Path, kept: pathlib.Path) -> bool:
  """Whether two files of one SOP Instance UID say the same.

  File meta information, transfer syntax and padding do not count; who the patient is
  does. Files of more than 512 MiB are the same only byte by byte.

  Args:
    new, kept: files that `identify` has passed.
  """
  if _has_same_bytes(new, kept):
    return True
  if max(new.stat().st_size, kept.stat().st_size) > _MOST_DECODED_BYTES:
    return False
  with _comparing:
    try:
      found = verifying.compare(new, kept)
    except Exception:  # pydicom raises whatever it meets in odd bytes.
      return False
  return not (found.differing or found.changed)


def _has_same_bytes(new: pathlib.Path, kept: pathlib.Path) -> bool:
  """Whether all is equal but the preamble."""
  with open(new, 'rb') as one, open(kept, 'rb') as other:
    one.seek(_PREAMBLE)
    other.seek(_PREAMBLE)
    while piece := one.read(_CHUNK_BYTES):
      if piece != other.read(_CHUNK_BYTES):
        return False
    return not other.read(1)


# The preamble of a file that is kept says what follows it: after a power failure
# nothing else does. PS3.10 section 7.1 leaves those 128 bytes to whoever writes it.

_SEAL = re.compile(rb'covid-tf (?P<size>[0-9]+) (?P<digest>[0-9a-f]{8})\0+')


def seal(path: pathlib.Path) -> None:
  """Writes size and CRC-32 of a whole file into its preamble."""
  with open(path, 'r+b') as file:
    digest = _crc_32(file)
    text = f'covid-tf {os.fstat(file.fileno()).st_size} {digest:08x}'
    file.seek(0)
    file.write(text.encode('ascii').ljust(_PREAMBLE, b'\0'))


def is_as_sealed(path: pathlib.Path) -> bool:
  """Whether a file holds what its preamble says; False where that says nothing."""
  with open(path, 'rb') as file:
    found = _SEAL.fullmatch(file.read(_PREAMBLE))
    return (
      found is not None
      and os.fstat(file.fileno()).st_size == int(found['size'])
      and _crc_32(file) == int(found['digest'], 16)
    )


def _crc_32(file: IO[bytes]) -> int:
  """Of what follows the preamble."""
  digest = 0
  file.seek(_PREAMBLE)
  while piece := file.read(_CHUNK_BYTES):
    digest = zlib.crc32(piece, digest)
  return digest
