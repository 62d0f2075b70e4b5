"""Geometry and rescale of one image, each value checked."""

import math
import operator
import struct

import numpy as np

from covid_tf.readers import elements as elements_lib
from covid_tf.readers import images
from covid_tf.readers import tags

# A CT's pixels lie between those of micro-CT and of a 250 cm field of view.
_SPACING_RANGE_MM = (0.05, 5.0)
# Direction cosines written with three decimals are this far from unit vectors.
_DIRECTION_TOLERANCE = 2e-3
# Beyond it a header is damaged: no scanner's coordinate has ten digits.
_FARTHEST_MM = 1e5
_SLOPE_RANGE = (1e-6, 1e4)
_LARGEST_INTERCEPT = 1e6


def tried(problems: list[str], function, *args):
  """The result of `function`, or None with the reason added to `problems`."""
  try:
    return function(*args)
  except elements_lib.ElementError as error:
    problems.append(str(error))
    return None


def plane(elements) -> images.Plane:
  """Position, orientation and pixel spacing of an image.

  Raises:
    ElementError: one of them is missing or cannot be true.
  """
  spacing = elements_lib.decimals(elements, tags.PIXEL_SPACING, 2)
  if not all(_SPACING_RANGE_MM[0] <= step <= _SPACING_RANGE_MM[1] for step in spacing):
    raise elements_lib.ElementError(
        'Pixel Spacing must lie between 0.05 and 5 mm, found '
        f'{spacing[0]:g}, {spacing[1]:g}')
  position = elements_lib.decimals(elements, tags.IMAGE_POSITION_PATIENT, 3)
  if max(map(abs, position)) > _FARTHEST_MM:
    raise elements_lib.ElementError(
        f'Image Position (Patient) is {max(map(abs, position)):g} mm away')
  cosines = elements_lib.decimals(elements, tags.IMAGE_ORIENTATION_PATIENT, 6)
  return images.Plane(position, *_directions(cosines), spacing)


def _directions(cosines):
  row, column = cosines[:3], cosines[3:]
  lengths = math.hypot(*row), math.hypot(*column)
  product = sum(map(operator.mul, row, column))
  if max(abs(length - 1) for length in lengths) > _DIRECTION_TOLERANCE or (
      abs(product) > _DIRECTION_TOLERANCE):
    raise elements_lib.ElementError(
        'Image Orientation (Patient) must be two perpendicular unit vectors, '
        f'found lengths {lengths[0]:.4g} and {lengths[1]:.4g}, product {product:.4g}')
  return tuple(tuple(value / length for value in direction)
               for direction, length in zip((row, column), lengths))


def rescale(elements, padding_range) -> images.Rescale:
  """Slope and intercept to Hounsfield units.

  Raises:
    ElementError: missing, not finite, a slope of zero or below, or absurd.
  """
  slope, = elements_lib.decimals(elements, tags.RESCALE_SLOPE, 1)
  intercept, = elements_lib.decimals(elements, tags.RESCALE_INTERCEPT, 1)
  if not _SLOPE_RANGE[0] <= slope <= _SLOPE_RANGE[1]:
    raise elements_lib.ElementError(
        f'Rescale Slope must be above 0 (1e-6 to 1e4), found {slope:g}')
  if abs(intercept) > _LARGEST_INTERCEPT:
    raise elements_lib.ElementError(
        f'Rescale Intercept of {intercept:g} gives no Hounsfield units')
  return images.Rescale(slope, intercept, padding_range)


def padding(elements, pixels) -> tuple[int, int] | None:
  """The stored values that stand for no measurement (PS3.3 C.7.5.1.1.2).

  The VR of the element (US or SS) is often wrong, so the sign is taken from the
  pixels' own representation.
  """
  value = _word(elements, tags.PIXEL_PADDING_VALUE, pixels)
  if value is None:
    return None
  limit = _word(elements, tags.PIXEL_PADDING_RANGE_LIMIT, pixels)
  limit = value if limit is None else limit
  return min(value, limit), max(value, limit)


def _word(elements, tag: int, pixels) -> int | None:
  """A stored value; modulo the word, since its VR may have the other sign."""
  value = elements_lib.raw(elements, tag)
  if not value or pixels is None:
    return None
  found = elements_lib.binary_numbers(elements, tag)
  if elements[tag].VR in ('IS', 'DS'):
    found = elements_lib.decimals(elements, tag, 1)
  elif found is None and len(value) == 2:
    found = struct.unpack('<H' if elements[tag].is_little_endian else '>H', value)
  if found is None or len(found) != 1 or not float(found[0]).is_integer():
    raise elements_lib.ElementError(
        f'{elements_lib.described(tag)} has {len(value)} bytes instead of 2')
  bits = 16 if -1 << 15 <= found[0] < 1 << 16 else 32
  word = int(found[0]) % (1 << bits)
  return word - (1 << bits) if pixels.signed and word >> (bits - 1) else word


def angle_deg(first, second) -> float:
  """Angle between two unit vectors, 0 to 180 degrees."""
  return math.degrees(math.acos(float(np.clip(np.dot(first, second), -1, 1))))
