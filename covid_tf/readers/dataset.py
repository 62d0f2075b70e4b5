"""From a file to the raw elements of its header, up to the pixels.

A walk over the bytes does it for the usual encodings and pydicom for the rest
(docs/adr/0010).
"""

import dataclasses
import io
import struct

from pydicom import dataelem
from pydicom import filereader
from pydicom import tag as pydicom_tag
from pydicom import uid as pydicom_uid
from pydicom import valuerep

from covid_tf.readers import acquisition
from covid_tf.readers import elements as elements_lib
from covid_tf.readers import privacy
from covid_tf.readers import sources

# From element to element through a header in memory, stopping at the pixels.
#
# pydicom parses every sequence on the way and takes five times as long, which was
# half the time of reading a series (docs/adr/0010). This walk jumps over what nobody
# asks for; what it does not know it leaves to pydicom, by raising.

UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG_VRS = frozenset(vr.encode() for vr in valuerep.EXPLICIT_VR_LENGTH_32)
_SHORT_VRS = frozenset(vr.encode() for vr in valuerep.EXPLICIT_VR_LENGTH_16)
_PIXELS_GROUP = 0x7FE0
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


# What a header holds up to the pixels: the elements, and tag, first byte and length
# (None if undefined) of the pixels; None in place of it if the data end before.
_Pixels = tuple[int, int, int | None]
_Found = tuple[dict[int, elements_lib.Element], _Pixels | None]


class UnusualError(Exception):
  """The bytes are damaged, or encoded in a way that is left to pydicom."""


class UnknownVRError(UnusualError):
  """An element whose value representation leaves open where its value ends.

  Attributes:
    beyond: its value may reach over the end of the data.
  """

  def __init__(self, tag: int, vr: bytes, beyond: bool):
    super().__init__(
      f'its element ({tag >> 16:04x},{tag & 0xFFFF:04x}) has the value '
      f"representation '{elements_lib.printable(vr.decode('latin-1'))}', which is none "
      'of the standard'
    )
    self.beyond = beyond


class Walk:
  """Walks over one data set.

  Args:
    data: the start of a file.
    implicit: whether elements carry no VR.
    little: byte order.
  """

  def __init__(self, data: bytes, implicit: bool, little: bool):
    order = '<' if little else '>'
    self._data = data
    self._implicit = implicit
    self._little = little
    self._explicit_header = struct.Struct(order + 'HH2sH').unpack_from
    self._implicit_header = struct.Struct(order + 'HHL').unpack_from
    self._length = struct.Struct(order + 'L').unpack_from
    self._short = struct.Struct(order + 'H').unpack_from

  def to_pixels(self, place: int, wanted: frozenset[int]) -> _Found:
    """Collects elements up to the pixel data.

    Args:
      place: byte of the first element.
      wanted: tags to collect.

    Returns:
      Tag to raw element, and (tag, first byte, length or None) of the pixels;
      None in place of it if the data end before.

    Raises:
      UnusualError: see there.
    """
    found: dict[int, elements_lib.Element] = {}
    data, header = self._data, self._header
    try:
      while True:
        tag, vr, length, place = header(place)
        if tag >= elements_lib.FLOAT_PIXEL_DATA and tag >> 16 == _PIXELS_GROUP:
          return found, (tag, place, None if length == UNDEFINED_LENGTH else length)
        end = place + length
        if length == UNDEFINED_LENGTH:
          if tag in wanted and tag not in acquisition.SEQUENCES:
            raise UnusualError
          end = self._after_sequence(vr, place)
          length = end - place
        if tag in wanted:
          found[tag] = dataelem.RawDataElement(
            pydicom_tag.BaseTag(tag),
            vr.decode('latin-1') if vr else None,  # What the bytes are, if damaged.
            length,
            data[place:end],
            place,
            self._implicit,
            self._little,
          )
        place = end
    except struct.error:  # Ran over the end of the data.
      return found, None

  def _header(self, place: int) -> tuple[int, bytes, int, int]:
    """(tag, VR or b'', length, first byte of the value)."""
    if self._implicit:
      group, element, length = self._implicit_header(self._data, place)
      return group << 16 | element, b'', length, place + 8
    group, element, vr, length = self._explicit_header(self._data, place)
    if vr in _LONG_VRS and not length:  # Two reserved bytes.
      length = self._length(self._data, place + 8)[0]
      return group << 16 | element, vr, length, place + 12
    if vr in _SHORT_VRS:
      return group << 16 | element, vr, length, place + 8
    if group == 0xFFFE:
      raise UnusualError
    return self._unusual_header(group << 16 | element, vr, place)

  def _unusual_header(
    self, tag: int, vr: bytes, place: int
  ) -> tuple[int, bytes, int, int]:
    """What `_header` returns of a VR that is not known, or written in another form.

    New VRs have four bytes of length (PS3.5 7.1.2), but '??' and private ones of old
    writers two, and some elements no VR at all. The one is taken after which another
    element stands.
    """
    (two,) = self._short(self._data, place + 6)
    (four,) = self._length(self._data, place + 8)
    (none,) = self._length(self._data, place + 4)
    forms = [(two, place + 8)]
    if not two:
      forms.insert(0, (four, place + 12))
    if not (vr.isalpha() and vr.isupper() or vr == b'??'):
      forms.append((none, place + 8))
    for length, start in forms:
      if tag >> 16 == _PIXELS_GROUP:  # Often the last element, and out of reach.
        return tag, vr, length, start
      if length != UNDEFINED_LENGTH and self._stands_at(start + length, tag):
        return tag, vr, length, start
    raise UnknownVRError(
      tag, vr, any(start + length + 8 > len(self._data) for length, start in forms)
    )

  def _stands_at(self, place: int, before: int) -> bool:
    """Whether an element, or the end of an item, may begin at a byte."""
    if place + 8 > len(self._data):
      return False
    group, element, vr, _ = self._explicit_header(self._data, place)
    tag = group << 16 | element
    if tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
      return True
    return tag > before and (vr.isalpha() and vr.isupper() or vr == b'??')

  def _after_sequence(self, vr: bytes, place: int) -> int:
    """The byte after a sequence of undefined length, which starts at `place`."""
    if vr not in (b'SQ', b''):
      raise UnusualError  # UN holds implicit elements (PS3.5 6.2.2).
    while True:
      group, element, length = self._implicit_header(self._data, place)
      tag, place = group << 16 | element, place + 8
      if tag == _SEQUENCE_END:
        return place
      if tag != _ITEM:
        raise UnusualError
      place = self._after_item(place) if length == UNDEFINED_LENGTH else place + length

  def _after_item(self, place: int) -> int:
    while True:
      group, element, length = self._implicit_header(self._data, place)
      if group << 16 | element == _ITEM_END:
        return place + 8
      _, vr, length, place = self._header(place)
      if length == UNDEFINED_LENGTH:
        place = self._after_sequence(vr, place)
      else:
        place += length


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
) -> tuple[elements_lib.Elements, _Pixels | None, UnknownVRError | None]:
  """The wanted elements, (tag, offset, length) of the pixels or None, and an error.

  The error names the element that neither the walk nor pydicom could pass.
  """
  try:
    walk = Walk(start, implicit, little)
    return *walk.to_pixels(offset, wanted), None
  except UnknownVRError as error:
    found, place = parsed_by_pydicom(start, offset, implicit, little, wanted)
    if place is None or error.beyond:  # pydicom takes a short length for granted.
      return found, None, error
    return found, place, None
  except (UnusualError, RecursionError):
    return *parsed_by_pydicom(start, offset, implicit, little, wanted), None


def parsed_by_pydicom(
  start: bytes,
  offset: int,
  implicit: bool,
  little: bool,
  wanted: frozenset[int] = _HEADER_TAGS,
) -> _Found:
  """What `_elements` returns, of headers with rare encodings."""
  file = io.BytesIO(start)
  file.seek(offset)
  place: _Pixels | None = None

  def at_pixels(tag: pydicom_tag.BaseTag, vr: str | None, length: int) -> bool:
    nonlocal place
    if tag < elements_lib.FLOAT_PIXEL_DATA or tag >> 16 != 0x7FE0:
      return False
    # Called just after the element's header is read.
    undefined = length == UNDEFINED_LENGTH
    place = (int(tag), file.tell(), None if undefined else length)
    return True

  found: dict[int, elements_lib.Element] = {}
  try:
    for element in filereader.data_element_generator(
      file, implicit, little, stop_when=at_pixels, specific_tags=list(wanted)
    ):
      found[int(element.tag)] = element
  except Exception:  # pydicom raises whatever it meets in damaged bytes.
    place = None
  return found, place
