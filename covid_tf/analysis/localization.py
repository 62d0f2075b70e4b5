"""Two Grad-CAM scales to one map on the CT's grid (paper, sections 2.3 and 2.4)."""

from collections.abc import Container, Sequence

import numpy as np
import numpy.typing as npt

from covid_tf import results
from covid_tf.analysis import slabs as slabs_lib

# Rows are enlarged in strips of so many pixels: the strip of one scale is still in
# the cache when the other multiplies it, and the product is too small for a BLAS to
# wait for its threads. Seen at 512 x 512: 0.33 ms a slice instead of 0.6, and
# instead of 30 where other programs hold the cores.
_STRIP_PIXELS = 1 << 14


def interpolation_matrix(source: int, size: int) -> np.ndarray:
  """Bilinear interpolation along one axis, as a matrix.

  Pixel centres are aligned: both grids cover the same length, so source pixel i
  lies at (i + 0.5) / source of it. Beyond the outer centres the value stays.

  Args:
    source: pixels of the map.
    size: pixels wanted.

  Returns:
    float32 [size, source]; rows are not negative and sum to 1.
  """
  centre = (np.arange(size) + 0.5) * (source / size) - 0.5
  centre = np.clip(centre, 0, source - 1)
  below = np.minimum(centre.astype(np.int64), max(source - 2, 0))
  above = np.minimum(below + 1, source - 1)
  fraction = centre - below
  matrix = np.zeros((size, source), np.float32)
  pixels = np.arange(size)
  matrix[pixels, below] = 1 - fraction
  matrix[pixels, above] += fraction
  return matrix


def fuse_scales(
  cam_28: np.ndarray, cam_14: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
  """Brings both scales of a slice to one size and multiplies them (section 2.3).

  Args:
    cam_28: float32 [28, 28], in [0, 1].
    cam_14: float32 [14, 14], in [0, 1].
    size: (rows, columns) of the crop that the network saw.

  Returns:
    float32 [rows, columns], in [0, 1].
  """
  return FusedMaps(cam_28[np.newaxis], cam_14[np.newaxis], size)[0]


# The slabs of which a slice's map is made, each with its share.
Shares = Sequence[tuple[int, float]]


class FusedMaps(Sequence[np.ndarray]):
  """The fused maps of N slices, each made when it is asked for.

  Two scales as the network gives them are 4 kB a slice, fused they are half a
  megabyte: a thousand slices would take as much memory as the CT itself.
  `numpy.asarray` gives them all at once.

  Attributes:
    shape: (N, rows, columns).
  """

  def __init__(
    self,
    cam_28: np.ndarray,
    cam_14: np.ndarray,
    size: tuple[int, int],
    shares: Sequence[Shares] | None = None,
  ):
    """Keeps the scales.

    Args:
      cam_28: float32 [K, 28, 28], in [0, 1].
      cam_14: float32 [K, 14, 14], in [0, 1].
      size: (rows, columns) of the crop that the network saw.
      shares: for each of the N slices, of which of the K maps its own is the weighted
        sum; None: of its own, whole.
    """
    self._shares = shares or [((index, 1.0),) for index in range(len(cam_28))]
    self.shape = (len(self._shares), *size)
    self._cams = (cam_28, cam_14)
    self._matrices = tuple(
      (
        interpolation_matrix(cams.shape[1], size[0]),
        np.ascontiguousarray(interpolation_matrix(cams.shape[2], size[1]).T),
      )
      for cams in self._cams
    )
    # Neighbouring slices share slabs: the last two are kept. Replaced as a whole, so
    # that threads may read together.
    self._recent: tuple[tuple[int, np.ndarray], ...] = ()

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]  # One.
    """float32 [rows, columns] of one slice, in [0, 1]; not to be written to."""
    shares = self._shares[index]
    if len(shares) == 1 and shares[0][1] == 1:
      return self._fused(shares[0][0])
    mixed = np.zeros(self.shape[1:], np.float32)
    for slab, share in shares:
      mixed += np.float32(share) * self._fused(slab)
    return np.minimum(mixed, 1, out=mixed)  # Rounding may leave 1 by a last bit.

  def _fused(self, slab: int) -> np.ndarray:
    for known, fused in self._recent:
      if known == slab:
        return fused
    fused = self._fuse(slab)
    fused.setflags(write=False)
    self._recent = (*self._recent[-1:], (slab, fused))
    return fused

  def _fuse(self, slab: int) -> np.ndarray:
    (fine, fine_columns), (coarse, coarse_columns) = (
      (rows @ cams[slab], columns)
      for cams, (rows, columns) in zip(self._cams, self._matrices)
    )
    fused = np.empty(self.shape[1:], np.float32)
    step = max(1, _STRIP_PIXELS // self.shape[2])
    for start in range(0, self.shape[1], step):
      rows = slice(start, start + step)
      strip = np.matmul(fine[rows], fine_columns, out=fused[rows])
      strip *= coarse[rows] @ coarse_columns
    return np.minimum(fused, 1, out=fused)  # As above.

  def __array__(
    self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
  ) -> np.ndarray:
    if copy is False:
      raise ValueError('Fused maps are computed: an array of them is a copy.')
    maps = np.empty(self.shape, dtype or np.float32)
    for index, fused in enumerate(self):
      maps[index] = fused
    return maps


def localize(
  explanation: results.SliceExplanation,
  box: results.LungBox,
  shape: tuple[int, int, int],
  slice_threshold: float,
  slabs: slabs_lib.Slabs | None = None,
  excluded: Container[int] = (),
) -> results.LocalizationMap:
  """The 3D localization map of a case (paper, section 2.4).

  Each slice's map is normalized by itself, so a healthy slice would glow too:
  only slices above the threshold have a map, only inside the box. The same holds for
  slabs: one below the threshold adds nothing to the map of a slice that it covers.

  Args:
    explanation: the classifier's answer for every slice, or slab, of the case.
    box: the crop that the classifier saw.
    shape: (slices, rows, columns) of the CT.
    slice_threshold: a slice whose probability is above it is positive.
    slabs: of the case, where the classifier saw these; None: slices.
    excluded: slices that are not positive, whatever their probability.

  Returns:
    The map, as crops of the positive slices.
  """
  slabs = slabs or slabs_lib.divide(shape[0], 1.0, None)
  threshold = float(slice_threshold)
  probability = explanation.covid_probability
  kept = np.flatnonzero(probability > threshold)
  place = {slab: index for index, slab in enumerate(kept.tolist())}
  positive = [
    index
    for index in np.flatnonzero(slabs.to_slices(probability) > threshold).tolist()
    if index not in excluded
  ]
  shares = [
    tuple((place[slab], share) for slab, share in slabs.shares(index) if slab in place)
    for index in positive
  ]
  maps = FusedMaps(
    explanation.cam_28[kept], explanation.cam_14[kept], box.shape, shares
  )
  return results.LocalizationMap(shape, box, tuple(positive), maps)
