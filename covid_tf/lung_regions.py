"""Left and right, apical, middle and basal: regions of the lungs by the affine.

Planes in patient millimetres, so that a feet-first or prone patient's sides and
ends are right whatever the order of slices, rows and columns.
"""

import dataclasses

import numpy as np

SIDES = ('right', 'left')
LEVELS = ('basal', 'middle', 'apical')

_X, _Z = 0, 2  # LPS: x grows to the patient's left, z to the head.
_SAMPLED_ROWS = 128  # Enough rows of a slice to see where the lungs part.


@dataclasses.dataclass(frozen=True)
class LungRegions:
  """The planes that part the lungs.

  Attributes:
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres.
    midline_x_mm: the sagittal plane between right (below) and left.
    level_z_mm: the two transverse planes between basal, middle and apical.
  """

  affine: np.ndarray
  midline_x_mm: float
  level_z_mm: tuple[float, float]

  def index(self, slice_: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The region of voxels of one slice.

    Args:
      slice_: the slice's index.
      rows: int [K].
      columns: int [K].

    Returns:
      int64 [K]: len(LEVELS) * (place in SIDES) + (place in LEVELS).
    """
    x = _coordinate(self.affine, _X, slice_, rows, columns)
    z = _coordinate(self.affine, _Z, slice_, rows, columns)
    lower, upper = self.level_z_mm
    # Sums of comparisons: several times faster than a search, at millions of voxels.
    level = (z > lower).astype(np.int64) + (z > upper)
    return len(LEVELS) * (x > self.midline_x_mm) + level


def find_regions(mask: np.ndarray, affine: np.ndarray) -> LungRegions:
  """Parts the lungs of one case (ours: the paper reports no regions).

  Levels are thirds of the lungs' height. The midline is where a sagittal plane
  in the middle third of their width meets the least lung: at the mediastinum,
  also where it is shifted and where the lungs touch in front of the heart.

  Args:
    mask: uint8 [slice, row, column], 0 or 1, not empty.
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres.
  """
  ends = _row_ends(mask)
  bottom, top = _bounds(ends, affine, _Z)
  third = (top - bottom) / 3
  return LungRegions(
      affine, _midline(mask, affine, _bounds(ends, affine, _X)),
      (bottom + third, top - third))


def _coordinate(affine, axis, slice_, rows, columns):
  offset = affine[axis, 0] * slice_ + affine[axis, 3]
  return offset + affine[axis, 1] * rows + affine[axis, 2] * columns


def _row_ends(mask) -> np.ndarray:
  """int64 [3, 2K]: slice, row and column of the first and last voxel of each row."""
  ends = []
  for slice_, plane in enumerate(mask):
    rows = np.flatnonzero(plane.any(axis=1))
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    ends += [(np.full_like(rows, slice_), rows, columns) for columns in (first, last)]
  return np.concatenate(ends, axis=1)


def _bounds(row_ends, affine, axis) -> tuple[float, float]:
  """Where the mask begins and ends along an axis of the patient, in mm."""
  # The coordinate is linear along a row, so its ends hold the extremes.
  centres = _coordinate(affine, axis, *row_ends)
  half_voxel = np.abs(affine[axis, :3]).sum() / 2  # From centres to faces.
  return float(centres.min() - half_voxel), float(centres.max() + half_voxel)


def _midline(mask, affine, bounds) -> float:
  begin, width = bounds[0], bounds[1] - bounds[0]
  stride = max(1, mask.shape[1] // _SAMPLED_ROWS)
  # Two samples wide: bins as narrow as one would be empty by rounding. Where rows
  # run from side to side, a sample is a stride.
  sample = np.abs(affine[_X, 1:3] * (stride, 1)).max()
  bins = max(3, int(width / (2 * sample)))
  histogram = np.zeros(bins, np.int64)
  for slice_, plane in enumerate(mask):
    rows, columns = np.divmod(np.flatnonzero(plane[::stride]), mask.shape[2])
    x = _coordinate(affine, _X, slice_, rows * stride, columns)
    place = ((x - begin) * (bins / width)).astype(np.int64)
    histogram += np.bincount(place, minlength=bins)[:bins]
  middle = np.arange(bins // 3, bins - bins // 3)
  distance = np.abs(middle - (bins - 1) / 2)
  best = middle[np.lexsort((distance, histogram[middle]))[0]]
  return begin + (best + 0.5) * width / bins
