"""From a file to the raw elements of its header, up to the pixels.

A walk over the bytes does it for the usual encodings and pydicom for the rest
(docs/adr/0010).
"""

import dataclasses
import io
import struct

from pydicom import filereader
from pydicom import uid as pydicom_uid

from covid_tf.readers import acquisition
from covid_tf.readers import elements as elements_lib
from covid_tf.readers import header_walk
from covid_tf.readers import privacy
from covid_tf.readers import sources

_PREAMBLE = 128
_MEDIA_STORAGE_CLASS_UID = 0x00020002
_TRANSFER_SYNTAX_UID = 0x00020010
_META_TAGS = [_MEDIA_STORAGE_CLASS_UID, _TRANSFER_SYNTAX_UID]
_HEADER_TAGS = frozenset(
  (
    *elements_lib.OF_AN_IMAGE,
    *privacy.TAGS,
    *acquisition.TAGS,
  )
)

# Bytes read for a header, one after the other until the pixels are reached. A
# scanner's header has 5 to 30 kB; one with a frame table or private archives
# may have megabytes; beyond the last the file is no image.
_HEADER_BYTES = (1 << 16, 1 << 20, 1 << 26)


class NotDicomError(Exception):
  """The file is something else than DICOM, or a DICOMDIR."""


class IncompleteError(Exception):
  """A DICOM file whose header cannot be read to its pixels.

  Attributes:
    elements, media_class: what could be read of it.
    remedy: what to do where copying the file again is of no use, else ''.
  """

  def __init__(
    self,
    reason: str,
    elements: elements_lib.Elements,
    media_class: str,
    remedy: str = '',
  ):
    super().__init__(reason)
    self.elements = elements
    self.media_class = media_class
    self.remedy = remedy


@dataclasses.dataclass(frozen=True)
class DataSet:
  """The header of one file.

  Attributes:
    elements: tag to pydicom's raw element, for the tags that we look at.
    source: where `pixel_offset` counts; not the file itself if it is deflated.
    syntax: transfer syntax UID, '' if the file has no meta information.
    little_endian: byte order of the data set.
    pixel_tag: which kind of pixel data it has.
    pixel_offset: byte of the first pixel in `source`.
    pixel_length: bytes of pixel data, None if undefined (encapsulated).
  """

  elements: elements_lib.Elements
  source: sources.Source
  syntax: str
  little_endian: bool
  pixel_tag: int
  pixel_offset: int
  pixel_length: int | None


def read(file: sources.SizedSource) -> DataSet:
  """Reads the header of a file.

  Raises:
    NotDicomError: it is none of ours.
    IncompleteError: it is DICOM, but ends or breaks before the pixels.
  """
  source: sources.Source = file
  start = source.read(0, _HEADER_BYTES[0])
  offset, has_prefix = _start(start)
  meta, offset = _read_meta(start, offset)
  media_class = elements_lib.text(meta, _MEDIA_STORAGE_CLASS_UID)
  if media_class == sources.MEDIA_STORAGE_DIRECTORY:
    raise NotDicomError
  syntax = elements_lib.text(meta, _TRANSFER_SYNTAX_UID)
  if syntax == pydicom_uid.DeflatedExplicitVRLittleEndian:
    source, offset = sources.InflatedSource(file, offset), 0
    start = source.read(0, _HEADER_BYTES[0])
  implicit, little = _encoding(start, offset, syntax)
  elements: elements_lib.Elements = {}
  for size in _HEADER_BYTES:
    if size > _HEADER_BYTES[0]:
      start = source.read(0, size)
    elements, place, unknown = _elements(start, offset, implicit, little)
    if place is not None:
      return DataSet(elements, source, syntax, little, *place)
    if len(start) < size:
      break
  if not has_prefix and not meta and not elements:
    raise NotDicomError  # Its first bytes looked like DICOM by chance.
  if unknown:
    raise IncompleteError(
      str(unknown),
      elements,
      media_class,
      'where another program reads it, save it '
      'there as Explicit VR Little Endian, or leave that element out',
    )
  raise IncompleteError(
    'its header ends or breaks before the pixels', elements, media_class
  )


def _start(start: bytes) -> tuple[int, bool]:
  """Byte of the first element, and whether the DICM prefix says that it is DICOM."""
  if start[_PREAMBLE : _PREAMBLE + 4] == b'DICM':
    return _PREAMBLE + 4, True
  if start.startswith(b'DICM'):  # Its preamble was cut off.
    return 4, True
  if start and (bytes(_PREAMBLE) + b'DICM').startswith(start):
    raise IncompleteError('it ends within the first 132 bytes', {}, '')
  if _looks_bare(start):
    return 0, False
  raise NotDicomError


def _looks_bare(start: bytes) -> bool:
  """Whether a file without prefix starts with an element of group 2 or 8."""
  if len(start) < 16:
    return False
  group, element, vr, _ = struct.unpack_from('<HH2sH', start)
  length = struct.unpack_from('<L', start, 4)[0]
  if group in (0x0200, 0x0800):  # Big endian.
    group, element, vr, _ = struct.unpack_from('>HH2sH', start)
    length = struct.unpack_from('>L', start, 4)[0]
  if group not in (0x0002, 0x0008) or element > 0x0100:
    return False
  return vr.isalpha() and vr.isupper() or length <= 0x80


def _read_meta(start: bytes, offset: int) -> tuple[elements_lib.Elements, int]:
  """Elements of group 2 (always explicit, little endian), and where they end."""
  if start[offset : offset + 2] != b'\x02\0':
    return {}, offset
  file = io.BytesIO(start)
  file.seek(offset)
  try:
    found = filereader.data_element_generator(
      file,
      False,
      True,
      stop_when=lambda tag, vr, length: tag >> 16 != 2,
      specific_tags=_META_TAGS,
    )
    meta = {int(element.tag): element for element in found}
  except Exception:  # pydicom raises whatever it meets in damaged bytes.
    raise IncompleteError('its file meta information is damaged', {}, '') from None
  return meta, file.tell()


def _encoding(start: bytes, offset: int, syntax: str) -> tuple[bool, bool]:
  """(implicit VR, little endian) of the data set, from its first element.

  The transfer syntax says it, but headers contradict theirs, and bare data sets
  have none: letters where the VR would be mean explicit, a group below 256 that
  begins with its high byte big endian.
  """
  little = syntax != pydicom_uid.ExplicitVRBigEndian
  group = start[offset : offset + 2]
  if len(group) == 2 and (group[0] == 0) != (group[1] == 0):
    little = group[1] == 0
  vr = start[offset + 4 : offset + 6]
  return not (vr.isalpha() and vr.isupper()), little


def elements_of(
  source: sources.Source, pixel_offset: int, wanted: frozenset[int]
) -> elements_lib.Elements:
  """Further elements of a header that `read` has read before.

  Args:
    source, pixel_offset: of the DataSet.
    wanted: tags to collect.

  Returns:
    Tag to raw element; what cannot be read is missing.
  """
  start = source.read(0, pixel_offset)
  offset, syntax = 0, str(pydicom_uid.DeflatedExplicitVRLittleEndian)
  if not isinstance(source, sources.InflatedSource):
    meta, offset = _read_meta(start, _start(start)[0])
    syntax = elements_lib.text(meta, _TRANSFER_SYNTAX_UID)
  implicit, little = _encoding(start, offset, syntax)
  return _elements(start, offset, implicit, little, wanted)[0]


def _elements(
  start: bytes,
  offset: int,
  implicit: bool,
  little: bool,
  wanted: frozenset[int] = _HEADER_TAGS,
) -> tuple[
  elements_lib.Elements, header_walk.Pixels | None, header_walk.UnknownVRError | None
]:
  """The wanted elements, (tag, offset, length) of the pixels or None, and an error.

  The error names the element that neither the walk nor pydicom could pass.
  """
  try:
    walk = header_walk.Walk(start, implicit, little)
    return *walk.to_pixels(offset, wanted), None
  except header_walk.UnknownVRError as error:
    found, place = header_walk.parsed_by_pydicom(
      start, offset, implicit, little, wanted
    )
    if place is None or error.beyond:  # pydicom takes a short length for granted.
      return found, None, error
    return found, place, None
  except (header_walk.UnusualError, RecursionError):
    return *header_walk.parsed_by_pydicom(start, offset, implicit, little, wanted), None
