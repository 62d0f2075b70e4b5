"""Stored words to Hounsfield units, each image by its own rescale."""

import dataclasses

import numpy as np
from scipy import ndimage

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import images

_INT16 = np.iinfo(np.int16)
# Up to here a value is air, whether it was measured or filled in.
_AIR_UP_TO_HU = -900
# The highest value of 12 bits: metal, or what some scanners fill with.
_SATURATED_HU = 3071


@dataclasses.dataclass(frozen=True)
class Corrections:
  """What was set to air in an image, and what was not.

  Attributes:
    padding: voxels outside the measurement, by the file's own padding value.
    below_air: measured voxels below -1024 HU.
    kept: voxels that hold the padding value where it is one of the scanner's.
  """

  padding: int = 0
  below_air: int = 0
  kept: int = 0

  def __add__(self, other: 'Corrections') -> 'Corrections':
    return Corrections(
      self.padding + other.padding,
      self.below_air + other.below_air,
      self.kept + other.kept,
    )


def convert_to_hu(
  words: np.ndarray, image: images.Image, target: np.ndarray | None = None
) -> Corrections:
  """Turns the words of one image into HU.

  Args:
    words: uint16 or uint32 [row, column] as stored; overwritten.
    image: whose rescale, padding and bits hold.
    target: uint16 [row, column] that holds int16 HU when this returns (the same
      memory, seen as int16); None for `words` themselves.

  Returns:
    What was set to -1024.

  Raises:
    CTReadError: a value does not fit 16 bits, so it is no HU.
  """
  target = words if target is None else target
  rescale = image.require_rescale()
  stored, outside, kept = _stored_and_padding(words, image)
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
      'its rescale or its padding value is wrong.'
    )
  hu = target.view(np.int16)
  if (
    rescale.slope == 1
    and rescale.intercept.is_integer()
    and (
      stored.itemsize == 2
      and lowest >= _INT16.min
      and highest_stored <= _INT16.max
      and abs(rescale.intercept) <= _INT16.max
    )
  ):
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
  return Corrections(padding, below_air, kept)


def _stored_and_padding(
  words: np.ndarray, image: images.Image
) -> tuple[np.ndarray, np.ndarray | None, int]:
  """Stored values (in the memory of `words`), mask of padding or None, voxels kept."""
  layout, rescale = image.require_pixels(), image.require_rescale()
  padding = rescale.padding
  if padding is None:
    _require_spare_bits(words, layout)
    return _stored_values(words, layout), None, 0
  # A padding value that needs more bits than are stored is looked for in whole
  # words: cut to its low bits it would be the value of some tissue.
  bits = layout.bits_stored - layout.signed
  fits = -layout.signed << bits <= padding[0] and padding[1] < 1 << bits
  if fits:
    _require_spare_bits(words, layout)
    stored = values = _stored_values(words, layout)
  else:
    values = words.view(_signed_of(words)) if layout.signed else words
  if padding[0] == padding[1]:
    outside = values == padding[0]
  else:
    outside = (values >= padding[0]) & (values <= padding[1])
  kept = 0
  if not fits:
    _require_spare_bits(words, layout, outside)
    stored = _stored_values(words, layout)
  elif outside.any():
    outside, kept = _not_measured(outside, stored, rescale, padding)
  return stored, outside if outside.any() else None, kept


def _not_measured(
  padded: np.ndarray,
  stored: np.ndarray,
  rescale: images.Rescale,
  padding: tuple[int, int],
) -> tuple[np.ndarray, int]:
  """Which voxels with the padding value lie outside the measurement.

  Below air and above 16 bits no scanner measures. Any other value may stand for
  tissue as well: then only what reaches in from the edge of the image is padding,
  and for a value that tissue has only from a corner that is filled with it, since
  a body can reach the edge too. Air stays air, whatever it is.

  Returns:
    (bool [row, column], number of voxels that keep their value).
  """
  low, high = (value * rescale.slope + rescale.intercept for value in padding)
  if high <= volume.AIR_HU or low > _INT16.max:
    return padded, 0
  if low != high:
    below = padded & (stored * rescale.slope + rescale.intercept <= volume.AIR_HU)
  else:
    below = np.zeros_like(padded)
  tissue = low < _SATURATED_HU
  if high <= _AIR_UP_TO_HU or tissue and low != high:
    outside = below  # A range of tissue would lead from a corner through the body.
  else:
    outside = below | _reaching_in(padded, only_corners=tissue)
  return outside, int(np.count_nonzero(padded & ~outside))


def _reaching_in(padded: np.ndarray, only_corners: bool) -> np.ndarray:
  """The part of a mask that is connected with the edge, or with a filled corner."""
  seeds = np.zeros_like(padded)
  if only_corners:
    for rows in (slice(0, 3), slice(-3, None)):
      for columns in (slice(0, 3), slice(-3, None)):
        seeds[rows, columns] = padded[rows, columns].all()
  else:
    seeds[[0, -1]], seeds[:, [0, -1]] = padded[[0, -1]], padded[:, [0, -1]]
  if not seeds.any():
    return seeds
  labels, _ = ndimage.label(padded)
  return np.isin(labels, np.unique(labels[seeds]))


def _stored_air(image: images.Image) -> int:
  """The stored value nearest to air."""
  layout, rescale = image.require_pixels(), image.require_rescale()
  bits = layout.bits_stored - layout.signed
  value = round((volume.AIR_HU - rescale.intercept) / rescale.slope)
  return max(-layout.signed << bits, min(value, (1 << bits) - 1))


def _require_spare_bits(
  words: np.ndarray, layout: images.PixelLayout, outside: np.ndarray | None = None
) -> None:
  """Refuses values that need more bits than the header says are stored.

  The bits above may hold overlays, if they are declared, the sign, or the same of any
  voxel. What differs from voxel to voxel is a part of the values: without it metal
  of 3071 HU in 12 signed bits is air.

  Args:
    words: [row, column] as stored.
    layout: of these words.
    outside: bool [row, column], voxels whose whole word is a padding value, or None.

  Raises:
    CTReadError: how many voxels there are of them.
  """
  bits = layout.bits_stored
  if bits == 8 * words.itemsize:
    return
  if not layout.signed and not int(words.max()) >> bits:
    return
  kind = words.dtype.type
  measured = words if outside is None else words[~outside]
  full = (1 << 8 * words.itemsize) - 1
  above = (measured & kind(full & ~layout.overlay_bits)) >> kind(bits)
  if not above.size or above.min() == above.max():
    return
  odd = above
  if layout.signed:
    negative = measured >> kind(bits - 1) & kind(1)
    odd = above ^ negative * kind((full & ~layout.overlay_bits) >> bits)
    if not odd.any():
      return
  raise errors.CTReadError(
    f'{np.count_nonzero(odd)} voxels have bits set above the {bits} of Bits Stored, '
    'where no overlay is declared: its values need more bits than the header says; '
    'export the series again.'
  )


def _stored_values(words: np.ndarray, layout: images.PixelLayout) -> np.ndarray:
  """The words with the bits above Bits Stored cleared or filled by the sign."""
  spare = 8 * words.itemsize - layout.bits_stored
  if not layout.signed:
    if spare:
      words &= words.dtype.type((1 << layout.bits_stored) - 1)
    return words
  values = words.view(_signed_of(words))
  if spare:
    values <<= spare
    values >>= spare
  return values


def _signed_of(words: np.ndarray) -> np.dtype[np.signedinteger]:
  return np.dtype(f'i{words.itemsize}')
