"""From stored words to Hounsfield units, each image by its own rescale."""

import dataclasses

import numpy as np

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import images

_INT16 = np.iinfo(np.int16)


@dataclasses.dataclass(frozen=True)
class Corrections:
  """How many voxels of an image were set to air.

  Attributes:
    padding: voxels outside the measurement, by the file's own padding value.
    below_air: measured voxels below -1024 HU.
  """

  padding: int = 0
  below_air: int = 0

  def __add__(self, other: 'Corrections') -> 'Corrections':
    return Corrections(
        self.padding + other.padding, self.below_air + other.below_air)


def convert(words: np.ndarray, image: images.Image) -> Corrections:
  """Turns the words of one image into HU in place.

  Args:
    words: uint16 [row, column] as stored; int16 HU when this returns (the same
      memory, seen as int16).
    image: whose rescale, padding and bits hold.

  Returns:
    What was set to -1024.

  Raises:
    CTReadError: a value does not fit 16 bits, so it is no HU.
  """
  rescale = image.rescale
  stored, outside = _stored_and_padding(words, image)
  padding = 0
  if outside is not None:
    padded_hu = np.rint(stored[outside] * rescale.slope + rescale.intercept)
    padding = int(np.count_nonzero(padded_hu != volume.AIR_HU))
    stored[outside] = _stored_air(image)  # Out of the way of the range check.
  lowest = round(int(stored.min()) * rescale.slope + rescale.intercept)
  highest_stored = int(stored.max())
  highest = round(highest_stored * rescale.slope + rescale.intercept)
  if highest > _INT16.max:
    raise errors.CTReadError(
        f'Hounsfield units up to {_INT16.max} are possible, found {highest}: '
        'its rescale or its padding value is wrong.')
  hu = words.view(np.int16)
  if rescale.slope == 1 and rescale.intercept.is_integer() and (
      lowest >= _INT16.min and highest_stored <= _INT16.max
      and abs(rescale.intercept) <= _INT16.max):
    np.add(stored.view(np.int16), np.int16(rescale.intercept), out=hu)
  else:
    exact = stored * rescale.slope + rescale.intercept  # float64
    hu[...] = np.maximum(np.rint(exact), volume.AIR_HU - 1)
  if outside is not None:
    hu[outside] = volume.AIR_HU
  below_air = 0
  if lowest < volume.AIR_HU:
    below_air = int(np.count_nonzero(hu < volume.AIR_HU))
    np.maximum(hu, volume.AIR_HU, out=hu)
  return Corrections(padding, below_air)


def _stored_and_padding(words, image: images.Image):
  """Stored values (in the memory of `words`) and the mask of padding, or None."""
  layout, padding = image.pixels, image.rescale.padding
  if padding is None:
    return _stored_values(words, layout), None
  # A padding value that needs more bits than are stored is looked for in whole
  # words: cut to its low bits it would be the value of some tissue.
  bits = layout.bits_stored - layout.signed
  fits = -layout.signed << bits <= padding[0] and padding[1] < 1 << bits
  if fits:
    stored = values = _stored_values(words, layout)
  else:
    values = words.view(np.int16) if layout.signed else words
  if padding[0] == padding[1]:
    outside = values == padding[0]
  else:
    outside = (values >= padding[0]) & (values <= padding[1])
  if not fits:
    stored = _stored_values(words, layout)
  return stored, outside if outside.any() else None


def _stored_air(image: images.Image) -> int:
  """The stored value nearest to air."""
  layout, rescale = image.pixels, image.rescale
  bits = layout.bits_stored - layout.signed
  value = round((volume.AIR_HU - rescale.intercept) / rescale.slope)
  return max(-layout.signed << bits, min(value, (1 << bits) - 1))


def _stored_values(words, layout: images.PixelLayout) -> np.ndarray:
  """The words with the bits above Bits Stored cleared or filled by the sign."""
  spare = 16 - layout.bits_stored
  if not layout.signed:
    if spare:
      words &= np.uint16((1 << layout.bits_stored) - 1)
    return words
  values = words.view(np.int16)
  if spare:
    values <<= spare
    values >>= spare
  return values
