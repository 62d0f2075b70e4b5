"""Whether voxels can be Hounsfield units of a chest, by their histogram.

No voxel says by itself in which unit it is, but air, fat, muscle and bone lie where
they must in every patient, and nearly nowhere else. How much of the lungs is aerated
is never asked: the sickest have little (docs/adr/0114).
"""

import numpy as np

from covid_tf import volume

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
