"""Position, rescale and padding of one image, each value checked."""

from collections.abc import Sequence
import dataclasses
import math
import operator
import re
import struct

from covid_tf.readers import elements as elements_lib
from covid_tf.readers import images

# A CT's pixels lie between those of micro-CT and of a 250 cm field of view.
_SPACING_RANGE_MM = (0.05, 5.0)
# Direction cosines written with three decimals are this far from unit vectors.
_DIRECTION_TOLERANCE = 2e-3
# Beyond it a header is damaged: no scanner's coordinate has ten digits.
_FARTHEST_MM = 1e5
_SLOPE_RANGE = (1e-6, 1e4)
_LARGEST_INTERCEPT = 1e6
# Letters of a Rescale Type that says HU: 'HU', 'H.U.', 'Hounsfield', 'HOUNSFIELD
# UNITS', and GE's 'Houndsfield Unit'.
_HU_TYPE = re.compile('(HOUN[DS]*FIELDS?(UNITS?)?)?(HU)?')
# Defined terms of other units (PS3.3 C.11.1.1.2).
_OTHER_UNITS = frozenset(('OD', 'MGML', 'ZEFF', 'ED', 'EDW', 'HUMOD', 'PCT'))


def plane_of(elements: elements_lib.Elements) -> images.Plane:
  """Position, orientation and pixel spacing of an image.

  Raises:
    ElementError: one of them is missing or cannot be true.
  """
  between_rows, between_columns = elements_lib.decimals(
    elements, elements_lib.PIXEL_SPACING, 2
  )
  if not all(
    _SPACING_RANGE_MM[0] <= step <= _SPACING_RANGE_MM[1]
    for step in (between_rows, between_columns)
  ):
    raise elements_lib.ElementError(
      'Pixel Spacing must lie between 0.05 and 5 mm, found '
      f'{between_rows:g}, {between_columns:g}'
    )
  x, y, z = elements_lib.decimals(elements, elements_lib.IMAGE_POSITION_PATIENT, 3)
  farthest = max(abs(x), abs(y), abs(z))
  if farthest > _FARTHEST_MM:
    raise elements_lib.ElementError(f'Image Position (Patient) is {farthest:g} mm away')
  cosines = elements_lib.decimals(elements, elements_lib.IMAGE_ORIENTATION_PATIENT, 6)
  row, column = _directions(cosines)
  return images.Plane((x, y, z), row, column, (between_rows, between_columns))


def _directions(
  cosines: tuple[float, ...],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
  """Unit vectors of Image Orientation (Patient): along a row, along a column."""
  a, b, c, d, e, f = cosines
  row, column = (a, b, c), (d, e, f)
  lengths = math.hypot(*row), math.hypot(*column)
  product = sum(map(operator.mul, row, column))
  if max(abs(length - 1) for length in lengths) > _DIRECTION_TOLERANCE or (
    abs(product) > _DIRECTION_TOLERANCE
  ):
    raise elements_lib.ElementError(
      'Image Orientation (Patient) must be two perpendicular unit vectors, '
      f'found lengths {lengths[0]:.4g} and {lengths[1]:.4g}, product {product:.4g}'
    )
  along_row, along_column = lengths
  return (
    (a / along_row, b / along_row, c / along_row),
    (d / along_column, e / along_column, f / along_column),
  )


def _slope_and_intercept(
  elements: elements_lib.Elements, padding_range: tuple[int, int] | None
) -> images.Rescale:
  """Slope and intercept to Hounsfield units.

  Raises:
    ElementError: missing, not finite, a slope of zero or below, or absurd.
  """
  (slope,) = elements_lib.decimals(elements, elements_lib.RESCALE_SLOPE, 1)
  (intercept,) = elements_lib.decimals(elements, elements_lib.RESCALE_INTERCEPT, 1)
  if not _SLOPE_RANGE[0] <= slope <= _SLOPE_RANGE[1]:
    raise elements_lib.ElementError(
      f'Rescale Slope must be above 0 (1e-6 to 1e4), found {slope:g}'
    )
  if abs(intercept) > _LARGEST_INTERCEPT:
    raise elements_lib.ElementError(
      f'Rescale Intercept of {intercept:g} gives no Hounsfield units'
    )
  return images.Rescale(slope, intercept, padding_range)


def _padding(
  elements: elements_lib.Elements, pixels: images.PixelLayout | None
) -> tuple[int, int] | None:
  """The stored values that stand for no measurement (PS3.3 C.7.5.1.1.2).

  The VR of the element (US or SS) is often wrong, so the sign is taken from the
  pixels' own representation.
  """
  value = _word(elements, elements_lib.PIXEL_PADDING_VALUE, pixels)
  if value is None:
    return None
  limit = _word(elements, elements_lib.PIXEL_PADDING_RANGE_LIMIT, pixels)
  limit = value if limit is None else limit
  return min(value, limit), max(value, limit)


def _word(
  elements: elements_lib.Elements, tag: int, pixels: images.PixelLayout | None
) -> int | None:
  """A stored value; modulo the word, since its VR may have the other sign."""
  value = elements_lib.raw(elements, tag)
  if not value or pixels is None:
    return None
  found: Sequence[float] | None = elements_lib.binary_numbers(elements, tag)
  if elements[tag].VR in ('IS', 'DS'):
    found = elements_lib.decimals(elements, tag, 1)
  elif found is None and len(value) == 2:
    found = struct.unpack(elements_lib.byte_order(elements, tag) + 'H', value)
  if found is None or len(found) != 1 or not float(found[0]).is_integer():
    raise elements_lib.ElementError(
      f'{elements_lib.described(tag)} has {len(value)} bytes instead of 2'
    )
  bits = 16 if -1 << 15 <= found[0] < 1 << 16 else 32
  word = int(found[0]) % (1 << bits)
  return word - (1 << bits) if pixels.signed and word >> (bits - 1) else word


def rescale_of(
  elements: elements_lib.Elements,
  group: elements_lib.Elements,
  pixels: images.PixelLayout | None,
) -> images.Rescale:
  """Slope, intercept, padding and unit of an image.

  Args:
    elements: of its file, which has the padding.
    group: what holds for the image, which has the rescale.
    pixels: their layout; None if that is unknown.

  Raises:
    ElementError: no Hounsfield units, or a value that cannot be true.
  """
  kind = elements_lib.text(group, elements_lib.RESCALE_TYPE)
  letters = re.sub('[^A-Z]', '', kind.upper())
  if letters in _OTHER_UNITS:
    raise elements_lib.ElementError(
      f"Rescale Type must be HU, found '{elements_lib.printable(kind)}'"
    )
  rescale = _slope_and_intercept(group, _padding(elements, pixels))
  if not kind or letters and _HU_TYPE.fullmatch(letters):
    return rescale
  return dataclasses.replace(rescale, unit=elements_lib.printable(kind))
