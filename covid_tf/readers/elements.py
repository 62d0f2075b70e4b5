"""Values of DICOM elements from their raw bytes, strictly.

A value that is not what the standard says is an error here. pydicom's own
conversion is lenient, warns with the value in the text (which may be a name),
and takes most of the time of reading a header.
"""

import math
import re
import struct

from pydicom import datadict
from pydicom import dataelem

# Python's float() also takes 'nan', 'inf' and '1_000'; a decimal string does not.
_DECIMAL = re.compile(r'[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?')
# Binary VRs of numbers (PS3.5 6.2): some writers use another one than the dictionary's.
_BINARY = {'US': 'H', 'SS': 'h', 'UL': 'L', 'SL': 'l', 'UV': 'Q', 'SV': 'q',
           'FL': 'f', 'FD': 'd'}
_TEXT_NUMBERS = frozenset(('IS', 'DS', 'LO', 'SH', 'CS', 'UC', 'LT', 'ST', 'UT'))
_NOT_PRINTABLE = re.compile('[^A-Za-z0-9 ._+/,:=^()-]')


class ElementError(ValueError):
  """An element is missing or its value cannot be used; the text says which."""


def described(tag: int) -> str:
  """Name and number of a tag, as messages show it."""
  name = datadict.dictionary_description(tag)
  return f'{name} ({tag >> 16:04x},{tag & 0xffff:04x})'


def printable(text: str, most: int = 32) -> str:
  """At most 32 harmless characters of a value, for messages and listings."""
  return _NOT_PRINTABLE.sub('?', text[:most])


def raw(elements, tag: int) -> bytes:
  """The bytes of a value; b'' if it is missing or empty."""
  element = elements.get(tag)
  value = getattr(element, 'value', None)
  return value if isinstance(value, bytes) else b''


def texts(elements, tag: int) -> tuple[str, ...]:
  """The values of a text element, without padding; () if missing or empty."""
  value = raw(elements, tag).decode('latin-1').strip(' \0')
  return tuple(part.strip(' \0') for part in value.split('\\')) if value else ()


def text(elements, tag: int) -> str:
  """The first value of a text element, or ''."""
  return next(iter(texts(elements, tag)), '')


def binary_numbers(elements, tag: int) -> tuple[float, ...] | None:
  """The values of an element with a binary VR of numbers; None for other VRs."""
  code = _BINARY.get(getattr(elements.get(tag), 'VR', None))
  value = raw(elements, tag)
  size = struct.calcsize('<' + code) if code else 0
  if not value or not size or len(value) % size:
    return None
  order = '<' if elements[tag].is_little_endian else '>'
  return struct.unpack(f'{order}{len(value) // size}{code}', value)


def decimals(elements, tag: int, count: int) -> tuple[float, ...]:
  """Exactly `count` finite numbers of an element: decimal strings, or binary.

  Raises:
    ElementError: missing, another number of values, or not finite numbers.
  """
  binary = binary_numbers(elements, tag)
  values = texts(elements, tag) if binary is None else tuple(map(repr, binary))
  if not values:
    raise ElementError(f'{described(tag)} is missing')
  if len(values) == count and all(map(_DECIMAL.fullmatch, values)):
    numbers = tuple(map(float, values))
    if all(map(math.isfinite, numbers)):
      return numbers
  # Only what numbers are written with: a damaged header may hold a name here.
  found = re.sub(r'[^0-9eEnNaAiIfF+., -]', '?', ', '.join(values)[:32])
  raise ElementError(f'{described(tag)} must be {count} finite number'
                     f"{'s' * (count > 1)}, found '{found}'")


def decimal_or_none(elements, tag: int) -> float | None:
  """The number of an element that is only shown; None if it is unusable."""
  try:
    return decimals(elements, tag, 1)[0]
  except ElementError:
    return None


def unsigned(elements, tag: int, default: int | None = None) -> int:
  """The value of an element that should be a 16-bit unsigned one (VR US).

  Raises:
    ElementError: not one whole number from 0 to 65535, or missing where there is no
      default.
  """
  value = raw(elements, tag)
  if not value and default is not None:
    return default
  if not value:
    raise ElementError(f'{described(tag)} is missing')
  if getattr(elements[tag], 'VR', None) in _TEXT_NUMBERS:
    found = decimals(elements, tag, 1)
  elif (found := binary_numbers(elements, tag)) is None:
    if len(value) != 2:
      raise ElementError(f'{described(tag)} has {len(value)} bytes instead of 2')
    found = struct.unpack('<H' if elements[tag].is_little_endian else '>H', value)
  if len(found) != 1 or not 0 <= found[0] <= 0xFFFF or found[0] != int(found[0]):
    raise ElementError(f'{described(tag)} must be one number from 0 to 65535')
  return int(found[0])


def binary_text(elements, tag: int, kind: str) -> str:
  """The number of a binary element as text; '' if it has another length.

  Args:
    elements: tag to raw element.
    tag: the element.
    kind: format of `struct` without byte order.
  """
  value = raw(elements, tag)
  if len(value) != struct.calcsize('=' + kind):
    return ''
  order = '<' if elements[tag].is_little_endian else '>'
  return f'{struct.unpack(order + kind, value)[0]:g}'


def items(elements, tag: int) -> list[dict]:
  """The items of a sequence, each a mapping of tag to raw element."""
  element = elements.get(tag)
  if element is None:
    return []
  if isinstance(element.value, bytes):
    element = dataelem.convert_raw_data_element(element)
  return [{int(key): item.get_item(key) for key in item.keys()}
          for item in element.value or ()]
