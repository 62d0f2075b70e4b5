"""Stored words to Hounsfield units, and whether a histogram is one of a chest."""

import dataclasses

import numpy as np
from scipy import ndimage

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import images

# From stored words to Hounsfield units, each image by its own rescale.

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


# Whether voxels can be Hounsfield units of a chest, by their histogram.
#
# No voxel says by itself in which unit it is, but air, fat, muscle and bone lie where
# they must in every patient, and nearly nowhere else. How much of the lungs is aerated
# is never asked: the sickest have little (docs/adr/0114).

# Ours, from the histograms of docs/adr/0114; HU where nothing else is said.
_AIR = -850  # Around the body, in airways and bowel; padding too.
_LEAST_AIR = (1e-4, 10)  # Share of all voxels, and count.
_BODY = -250  # Denser than aerated lung: fat, muscle, blood, bone.
_LEAST_BODY = 0.02  # Of all voxels; a thin patient in a wide field has 0.15.
_TISSUE = (-200, 200)  # Fat to enhanced organs.
_LEAST_TISSUE = 0.4  # Of the body; 0.71 and more were found.
_PEAK_WITHIN = (-300, 300)
_PEAK = (-170, 170)
_FAT, _LEAST_FAT = (-150, -30), 0.03
_SOFT, _LEAST_SOFT = (-150, 120), 0.3  # Fat and muscle beside a lung of one density.
_DENSE = 600  # Cortical bone and metal.
_MOST_DENSE = 0.25  # Of the body; 0.03 at most was found.
_BONE, _DENSEST = (350, 750), (800, 1250)
_SECOND_PEAK = 0.02  # Of the body: bone gets rarer with density, soft tissue not.
_NEGATIVE = -20
_LEAST_NEGATIVE = 1e-3  # Of what is not padding.
_ONE_TISSUE = 150  # HU from the 5th to the 95th percentile.
_HIGHEST_CUT, _CUT_SHARE, _BELOW_CUT = 900, 0.01, 50
_SMOOTHED = 9
_MOST_SAMPLED = 1 << 22
_HIGHEST = 4095


def judge(hu: np.ndarray) -> str | None:
  """Why voxels are no Hounsfield units of a chest CT, in words; None if they may be.

  Scaled, shifted, inverted or windowed values are found; a shift by less than about
  100 HU is not. Cropped bodies, white lungs, contrast agent and phantoms of one
  tissue in air pass.

  Args:
    hu: int16 [slice, row, column], not below -1024. Of more than four million voxels
      an even sample is judged.
  """
  histogram = _Histogram(hu)
  for rule in (
    _no_air,
    _inverted_or_stored,
    _scaled,
    _no_body,
    _wrong_tissue,
    _cut_above,
  ):
    if reason := rule(histogram):
      return reason
  return None


class _Histogram:
  """Counts by HU; `share` is of all voxels that were looked at."""

  def __init__(self, hu: np.ndarray):
    size = _HIGHEST - volume.AIR_HU + 1
    step = max(1, hu.size // _MOST_SAMPLED) | 1
    self.counts = np.zeros(size, np.int64)
    # Slice by slice: bincount wants 64 bits a voxel, which for a whole sample would be
    # half as much again as a volume that was just read.
    for index, image in enumerate(hu):
      values = np.ravel(image)[-index * image.size % step :: step]
      values = np.clip(values, volume.AIR_HU, _HIGHEST) - volume.AIR_HU
      self.counts += np.bincount(values, minlength=size)
    self.total = int(self.counts.sum())
    found = np.flatnonzero(self.counts)
    self.lowest = int(found[0]) + volume.AIR_HU
    self.highest = int(found[-1]) + volume.AIR_HU
    self.body = self.count(_BODY, _HIGHEST + 1)

  def count(self, start: int, stop: int) -> int:
    """Voxels from `start` to below `stop`."""
    low = max(start, volume.AIR_HU) - volume.AIR_HU
    return int(self.counts[low : max(stop - volume.AIR_HU, low)].sum())

  def of_body(self, start: int, stop: int) -> float:
    """The same as a share of all that is denser than aerated lung."""
    return self.count(start, stop) / max(self.body, 1)

  def peak(self, start: int, stop: int) -> int:
    """The most frequent HU there, smoothed against noise and gaps."""
    smooth = np.convolve(self.counts, np.ones(_SMOOTHED), 'same')
    return start + int(np.argmax(smooth[start - volume.AIR_HU : stop - volume.AIR_HU]))


def _no_air(found: _Histogram) -> str | None:
  share, least = _LEAST_AIR
  air = found.count(volume.AIR_HU, _AIR)
  if air >= max(share * found.total, min(least, share * found.total + 1)):
    return None
  if air:
    return (
      f'too few voxels are air, below {_AIR} HU: {air} of {found.total}; the '
      f'lowest is {found.lowest}'
    )
  return f'no voxel is air, below {_AIR} HU; the lowest is {found.lowest}'


def _inverted_or_stored(found: _Histogram) -> str | None:
  dense = found.of_body(_DENSE, _HIGHEST + 1)
  densest = found.of_body(*_DENSEST)
  second_peak = densest > max(_SECOND_PEAK, found.of_body(*_BONE))
  if dense <= _MOST_DENSE and not second_peak:
    return None
  peak = found.peak(_DENSE, _HIGHEST)
  return (
    f'{dense:.0%} of what is denser than lung lies above {_DENSE} HU, mostly '
    f'around {peak}, where only bone and metal lie; stored values (HU + 1024, a '
    'rescale that was lost) look so'
  )


def _scaled(found: _Histogram) -> str | None:
  """What is not padding reaches from 0 up: a picture's grey values, or shares."""
  padding = found.counts[found.lowest - volume.AIR_HU]
  rest = found.total - padding
  negative = found.count(found.lowest + 1, _NEGATIVE)
  if not rest or negative >= _LEAST_NEGATIVE * rest:
    return None
  counts = found.counts.copy()
  counts[found.lowest - volume.AIR_HU] = 0
  low, high = (
    np.searchsorted(np.cumsum(counts), (0.05 * rest, 0.95 * rest)) + volume.AIR_HU
  )
  shares = found.highest <= 1 and np.count_nonzero(counts) > 1
  if high - low <= _ONE_TISSUE and not shares:
    return None
  return (
    f'apart from voxels of {found.lowest} nothing is below {_NEGATIVE} HU, where '
    f'fat and lung lie, and the rest reaches from {low} to {high}; grey values '
    'look so'
  )


def _no_body(found: _Histogram) -> str | None:
  if found.body >= _LEAST_BODY * found.total:
    return None
  return (
    f'only {found.body / found.total:.2%} of the voxels are denser than '
    f'{_BODY} HU, as fat, muscle and bone are'
  )


def _wrong_tissue(found: _Histogram) -> str | None:
  tissue = found.of_body(*_TISSUE)
  if tissue < _LEAST_TISSUE:
    return (
      f'only {tissue:.0%} of what is denser than lung lies from {_TISSUE[0]} to '
      f'{_TISSUE[1]} HU, where fat and muscle lie'
    )
  peak = found.peak(*_PEAK_WITHIN)
  enhanced = peak > 0 and found.of_body(*_FAT) >= _LEAST_FAT  # Blood, with contrast.
  sick = peak < _PEAK[0] and found.of_body(*_SOFT) >= _LEAST_SOFT
  if not (_PEAK[0] <= peak <= _PEAK[1] or enhanced or sick):
    return (
      f'the most frequent tissue lies at {peak} HU; fat lies around -100, muscle '
      'around 50'
    )
  return None


def _cut_above(found: _Histogram) -> str | None:
  """A window's upper end: the values above it lie on it, beside a full histogram."""
  top = found.highest
  at_top = found.count(top, top + 1)
  below = found.count(top - _BELOW_CUT, top)
  # Bone of one value, in a phantom, has few neighbours.
  if (
    top >= _HIGHEST_CUT
    or at_top < _CUT_SHARE * found.body
    or below < at_top / 12
    or at_top < 5 * below / _BELOW_CUT
  ):
    return None
  return f'{at_top / found.body:.0%} of the body is {top}, the end of a window'
