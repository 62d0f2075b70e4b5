"""Values of DICOM elements from their raw bytes, strictly.

A value that is not what the standard says is an error here. pydicom's own
conversion is lenient, warns with the value in the text (which may be a name),
and takes most of the time of reading a header.
"""

from collections.abc import Mapping
import datetime
import hashlib
import math
import re
import struct
from typing import Any, cast

from pydicom import datadict
from pydicom import dataelem
from pydicom import uid

# The elements that the reader looks at (PS3.6).

FRAME_TYPE = 0x00089007
IMAGE_TYPE = 0x00080008
SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
SERIES_DATE = 0x00080021
ACQUISITION_DATE = 0x00080022
ACQUISITION_DATE_TIME = 0x0008002A
STUDY_DATE = 0x00080020
MODALITY = 0x00080060
SLICE_THICKNESS = 0x00180050
CONVOLUTION_KERNEL = 0x00181210
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
ACQUISITION_NUMBER = 0x00200012
IMAGE_POSITION_PATIENT = 0x00200032
IMAGE_ORIENTATION_PATIENT = 0x00200037
FRAME_OF_REFERENCE_UID = 0x00200052
CONCATENATION_UID = 0x00209161
IN_CONCATENATION_NUMBER = 0x00209162
IN_CONCATENATION_TOTAL_NUMBER = 0x00209163
SAMPLES_PER_PIXEL = 0x00280002
PHOTOMETRIC_INTERPRETATION = 0x00280004
NUMBER_OF_FRAMES = 0x00280008
ROWS = 0x00280010
COLUMNS = 0x00280011
PIXEL_SPACING = 0x00280030
BITS_ALLOCATED = 0x00280100
BITS_STORED = 0x00280101
HIGH_BIT = 0x00280102
PIXEL_REPRESENTATION = 0x00280103
PIXEL_PADDING_VALUE = 0x00280120
PIXEL_PADDING_RANGE_LIMIT = 0x00280121
RESCALE_INTERCEPT = 0x00281052
RESCALE_SLOPE = 0x00281053
RESCALE_TYPE = 0x00281054
# Of the groups 6000 to 601E: the bit of each word that holds an overlay.
OVERLAY_BIT_POSITIONS = tuple((0x6000 + 2 * k) << 16 | 0x0102 for k in range(16))
LOSSY_IMAGE_COMPRESSION = 0x00282110
SHARED_FUNCTIONAL_GROUPS = 0x52009229
PER_FRAME_FUNCTIONAL_GROUPS = 0x52009230
EXTENDED_OFFSET_TABLE = 0x7FE00001
EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00002
FLOAT_PIXEL_DATA = 0x7FE00008
PIXEL_DATA = 0x7FE00010

# Fields that may distinguish phases of one series, the most certain first: keyword to
# tag and struct format of a binary value ('' for text).
MARKS = {
  'TemporalPositionIdentifier': (0x00200100, ''),
  'TemporalPositionIndex': (0x00209128, 'L'),
  'NominalPercentageOfCardiacPhase': (0x00209241, 'f'),
  'NominalCardiacTriggerDelayTime': (0x00209153, 'd'),
  'TriggerTime': (0x00181060, ''),
  'AcquisitionNumber': (ACQUISITION_NUMBER, ''),
  'FrameAcquisitionNumber': (0x00209156, 'H'),
  'StackID': (0x00209056, ''),
  'IrradiationEventUID': (0x00083010, ''),
  'ConvolutionKernel': (CONVOLUTION_KERNEL, ''),
  'SliceThickness': (SLICE_THICKNESS, ''),
  'ImageType': (IMAGE_TYPE, ''),
  'KVP': (0x00180060, ''),
  'ReconstructionDiameter': (0x00181100, ''),
  'SeriesNumber': (0x00200011, ''),
  'AcquisitionTime': (0x00080032, ''),
  'AcquisitionDateTime': (ACQUISITION_DATE_TIME, ''),
  'FrameAcquisitionDateTime': (0x00189074, ''),
  'ContentTime': (0x00080033, ''),
  'SeriesTime': (0x00080031, ''),
}
SERIES_DESCRIPTION = 0x0008103E

OF_AN_IMAGE = (
  *dict.fromkeys(tag for tag, _ in MARKS.values()),
  SERIES_DESCRIPTION,
  IMAGE_TYPE,
  SOP_CLASS_UID,
  SOP_INSTANCE_UID,
  SERIES_DATE,
  ACQUISITION_DATE,
  ACQUISITION_DATE_TIME,
  STUDY_DATE,
  MODALITY,
  SLICE_THICKNESS,
  CONVOLUTION_KERNEL,
  STUDY_INSTANCE_UID,
  SERIES_INSTANCE_UID,
  ACQUISITION_NUMBER,
  IMAGE_POSITION_PATIENT,
  IMAGE_ORIENTATION_PATIENT,
  FRAME_OF_REFERENCE_UID,
  CONCATENATION_UID,
  IN_CONCATENATION_NUMBER,
  IN_CONCATENATION_TOTAL_NUMBER,
  SAMPLES_PER_PIXEL,
  PHOTOMETRIC_INTERPRETATION,
  NUMBER_OF_FRAMES,
  ROWS,
  COLUMNS,
  PIXEL_SPACING,
  BITS_ALLOCATED,
  BITS_STORED,
  HIGH_BIT,
  PIXEL_REPRESENTATION,
  PIXEL_PADDING_VALUE,
  PIXEL_PADDING_RANGE_LIMIT,
  RESCALE_INTERCEPT,
  RESCALE_SLOPE,
  RESCALE_TYPE,
  *OVERLAY_BIT_POSITIONS,
  LOSSY_IMAGE_COMPRESSION,
  SHARED_FUNCTIONAL_GROUPS,
  PER_FRAME_FUNCTIONAL_GROUPS,
  EXTENDED_OFFSET_TABLE,
  EXTENDED_OFFSET_TABLE_LENGTHS,
)


# UIDs and dates as headers hold them, made safe to print and to name files by.

_UID = re.compile(r'[0-9]+(\.[0-9]+)*')
_LONGEST_UID = 64  # PS3.5 section 9.1.


def legal_uid(uid: str) -> bool:
  """Whether a text is a UID: digits and dots, at most 64 of them."""
  return len(uid) <= _LONGEST_UID and _UID.fullmatch(uid) is not None


def safe_uid(uid: str) -> str:
  """The UID itself; for an illegal text a UID derived from it, always the same.

  Texts like '../x' or '=cmd' reach file names and tables; a UID under 2.25
  (PS3.5 B.2) made from their digest is as unique and harmless.
  """
  if not uid or legal_uid(uid):
    return uid
  digest = hashlib.sha256(uid.encode('utf-8', 'replace')).digest()
  return f'2.25.{int.from_bytes(digest[:16], "big")}'


def iso_date(text: str) -> str | None:
  """'YYYYMMDD…' as 'YYYY-MM-DD'; None if it is no date."""
  digits = text[:8]
  if len(digits) < 8 or not (digits.isascii() and digits.isdigit()):
    return None
  try:  # Not by strptime, which takes a tenth of the time of a header.
    return datetime.date(*map(int, (digits[:4], digits[4:6], digits[6:]))).isoformat()
  except ValueError:
    return None


# Python's float() also takes 'nan', 'inf' and '1_000'; a decimal string does not.
_DECIMAL = re.compile(r'[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?')
# Binary VRs of numbers (PS3.5 6.2): some writers use another one than the dictionary's.
_BINARY = {
  'US': 'H',
  'SS': 'h',
  'UL': 'L',
  'SL': 'l',
  'UV': 'Q',
  'SV': 'q',
  'FL': 'f',
  'FD': 'd',
}
_TEXT_NUMBERS = frozenset(('IS', 'DS', 'LO', 'SH', 'CS', 'UC', 'LT', 'ST', 'UT'))
_NOT_PRINTABLE = re.compile('[^A-Za-z0-9 ._+/,:=^()-]')


# An element as pydicom reads it: raw, or a sequence that it has parsed already.
Element = dataelem.RawDataElement | dataelem.DataElement
# A header, or an item of a sequence: tag to element.
Elements = Mapping[int, Element]


class ElementError(ValueError):
  """An element is missing or its value cannot be used; the text says which."""


def described(tag: int) -> str:
  """Name and number of a tag, as messages show it."""
  name = datadict.dictionary_description(tag)
  return f'{name} ({tag >> 16:04x},{tag & 0xFFFF:04x})'


def printable(text: str, most: int = 32) -> str:
  """At most 32 harmless characters of a value, for messages and listings."""
  return _NOT_PRINTABLE.sub('?', text[:most])


def raw(elements: Elements, tag: int) -> bytes:
  """The bytes of a value; b'' if it is missing or empty."""
  element = elements.get(tag)
  value = getattr(element, 'value', None)
  return value if isinstance(value, bytes) else b''


def byte_order(elements: Elements, tag: int) -> str:
  """The byte order of an element that has bytes, as `struct` writes it."""
  # Only sequences come parsed, and they have no bytes.
  return '<' if cast(dataelem.RawDataElement, elements[tag]).is_little_endian else '>'


def texts(elements: Elements, tag: int) -> tuple[str, ...]:
  """The values of a text element, without padding; () if missing or empty."""
  value = raw(elements, tag).decode('latin-1').strip(' \0')
  return tuple(part.strip(' \0') for part in value.split('\\')) if value else ()


def text(elements: Elements, tag: int) -> str:
  """The first value of a text element, or ''."""
  return next(iter(texts(elements, tag)), '')


def binary_numbers(elements: Elements, tag: int) -> tuple[float, ...] | None:
  """The values of an element with a binary VR of numbers; None for other VRs."""
  code = _BINARY.get(getattr(elements.get(tag), 'VR', None) or '')
  value = raw(elements, tag)
  size = struct.calcsize('<' + code) if code else 0
  if not value or not size or len(value) % size:
    return None
  return struct.unpack(f'{byte_order(elements, tag)}{len(value) // size}{code}', value)


def decimals(elements: Elements, tag: int, count: int) -> tuple[float, ...]:
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
  raise ElementError(
    f'{described(tag)} must be {count} finite number'
    f"{'s' * (count > 1)}, found '{found}'"
  )


def decimal_or_none(elements: Elements, tag: int) -> float | None:
  """The number of an element that is only shown; None if it is unusable."""
  try:
    return decimals(elements, tag, 1)[0]
  except ElementError:
    return None


def unsigned(elements: Elements, tag: int, default: int | None = None) -> int:
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
  elif (binary := binary_numbers(elements, tag)) is not None:
    found = binary
  elif len(value) != 2:
    raise ElementError(f'{described(tag)} has {len(value)} bytes instead of 2')
  else:
    found = struct.unpack(byte_order(elements, tag) + 'H', value)
  if len(found) != 1 or not 0 <= found[0] <= 0xFFFF or found[0] != int(found[0]):
    raise ElementError(f'{described(tag)} must be one number from 0 to 65535')
  return int(found[0])


def binary_text(elements: Elements, tag: int, kind: str) -> str:
  """The number of a binary element as text; '' if it has another length.

  Args:
    elements: tag to raw element.
    tag: the element.
    kind: format of `struct` without byte order.
  """
  value = raw(elements, tag)
  if len(value) != struct.calcsize('=' + kind):
    return ''
  return f'{struct.unpack(byte_order(elements, tag) + kind, value)[0]:g}'


def items(elements: Elements, tag: int) -> list[dict[int, Element]]:
  """The items of a sequence, each a mapping of tag to raw element."""
  element = elements.get(tag)
  if element is None:
    return []
  found: Any = element.value
  if isinstance(element, dataelem.RawDataElement) and isinstance(found, bytes):
    found = dataelem.convert_raw_data_element(element).value
  return [{int(key): item.get_item(key) for key in item.keys()} for item in found or ()]


# Kinds of DICOM objects, by SOP Class UID (PS3.6 annex A).

CT_SOP_CLASSES = frozenset(
  (
    uid.CTImageStorage,
    uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
  )
)
MULTI_FRAME_CT = frozenset(
  (uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)
)

_LABEL_MAP_SEGMENTATION_STORAGE = '1.2.840.10008.5.1.4.1.1.66.7'

# They have rows and columns, but lie over a series instead of being part of one;
# some writers give them the series UID of the CT.
OVER_A_SERIES = frozenset(
  (
    uid.SegmentationStorage,
    uid.ParametricMapStorage,
    uid.RTDoseStorage,
    _LABEL_MAP_SEGMENTATION_STORAGE,
  )
)


def sop_class_name(sop_class: str) -> str:
  """The class in words, fit to print."""
  return printable(uid.UID(sop_class).name if legal_uid(sop_class) else 'no legal UID')
