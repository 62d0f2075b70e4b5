"""From element to element through a header in memory, stopping at the pixels.

pydicom parses every sequence on the way and takes five times as long, which was half
the time of reading a series (docs/adr/0010). This walk jumps over what nobody asks for;
what it does not know it leaves to pydicom, by raising.
"""

import io
import struct

from pydicom import dataelem
from pydicom import filereader
from pydicom import tag as pydicom_tag
from pydicom import valuerep

from covid_tf.readers import acquisition
from covid_tf.readers import elements as elements_lib

UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG_VRS = frozenset(vr.encode() for vr in valuerep.EXPLICIT_VR_LENGTH_32)
_SHORT_VRS = frozenset(vr.encode() for vr in valuerep.EXPLICIT_VR_LENGTH_16)
_PIXELS_GROUP = 0x7FE0
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


# What a header holds up to the pixels: the elements, and tag, first byte and length
# (None if undefined) of the pixels; None in place of it if the data end before.
Pixels = tuple[int, int, int | None]
Found = tuple[dict[int, elements_lib.Element], Pixels | None]


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

  def to_pixels(self, place: int, wanted: frozenset[int]) -> Found:
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


def parsed_by_pydicom(
  start: bytes,
  offset: int,
  implicit: bool,
  little: bool,
  wanted: frozenset[int],
) -> Found:
  """What `Walk.to_pixels` finds, of headers with rare encodings."""
  file = io.BytesIO(start)
  file.seek(offset)
  place: Pixels | None = None

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
