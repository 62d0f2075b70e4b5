"""The voxels of a stack, slice by slice into one block."""

import numpy as np

from covid_tf import errors
from covid_tf.readers import decoding
from covid_tf.readers import hounsfield
from covid_tf.readers import stacking


def load(stack: stacking.Stack) -> tuple[np.ndarray, tuple[str, ...]]:
  """Decodes all slices.

  Returns:
    (int16 HU [slice, row, column], warnings with the counts of what was changed).

  Raises:
    CTReadError: pixels that cannot be trusted, or different images at one place.
  """
  layout = stack.places[0][0].pixels
  shape = (len(stack.places), layout.rows, layout.columns)
  words = np.empty(shape, np.uint16)  # HU take the place of the words, one by one.
  reader = decoding.PixelReader()
  corrections = hounsfield.Corrections()
  for place, target in zip(stack.places, words):
    corrections += _load_image(reader, place[0], target)
    for copy in place[1:]:
      other = np.empty_like(target)
      _load_image(reader, copy, other)
      if not np.array_equal(target, other):
        raise stacking.conflict(stack, place)
  return words.view(np.int16), _warnings(stack, corrections)


def _load_image(reader, image, target) -> hounsfield.Corrections:
  try:
    return hounsfield.convert(reader.read_into(image, target), image, target)
  except errors.CTReadError as error:
    raise errors.CTReadError(
        f'{image.name} (z = {image.plane.position[2]:.2f} mm): {error}') from None
  except OSError as error:
    raise errors.CTReadError(
        f'{image.name}: it cannot be read any more ({error.strerror}).') from None


def _warnings(stack, corrections) -> tuple[str, ...]:
  warnings = []
  if copies := sum(len(place) - 1 for place in stack.places):
    warnings.append(f'{copies} identical copies of slices were dropped')
  if corrections.padding:
    warnings.append(
        f'{corrections.padding} padding voxels were set to -1024 HU')
  if corrections.kept:
    warnings.append(
        f'{corrections.kept} voxels hold the Pixel Padding Value where it may be a '
        'measured one; they keep their HU')
  if corrections.below_air:
    warnings.append(
        f'{corrections.below_air} voxels below -1024 HU were set to -1024 HU')
  return tuple(warnings)
