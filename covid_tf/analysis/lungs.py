"""From the network's masks to the lungs: their components, volume, box and regions."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from covid_tf import errors
from covid_tf import results
from covid_tf.analysis import lung_pieces

# From the network's masks to the lungs: their volume and the box of the case.

# Ours: less is no chest in view (a child's lungs hold more), and no score.
MIN_LUNG_VOLUME_CM3 = 200
# Ours: the paper takes the largest box as it is; a warning reports what it leaves out.
MAX_OUTSIDE_FRACTION = 0.02


@dataclasses.dataclass(frozen=True)
class Lungs:
  """The lungs of a case.

  Attributes:
    mask: uint8 [slice, row, column], 0 or 1.
    box: the crop of every slice (paper, section 2.1).
    voxel_count: voxels of the mask.
    volume_cm3: their volume.
    outside_box_fraction: share of them outside the box, in [0, 1].
    warnings: what a reader of the score should know of them.
  """

  mask: np.ndarray
  box: results.LungBox
  voxel_count: int
  volume_cm3: float
  outside_box_fraction: float
  warnings: tuple[str, ...] = ()


def find_lungs(
  mask: np.ndarray,
  voxel_volume_mm3: float,
  affine: np.ndarray | None = None,
  hu: np.ndarray | None = None,
) -> Lungs:
  """Reduces the network's masks to the lungs and takes the box of the case.

  Args:
    mask: uint8 [slice, row, column], 0 or 1, as the network gave it. It is
      reduced in place: a second one would cost half a CT.
    voxel_volume_mm3: volume of one voxel.
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres; where
      the pieces lie in the patient. None: slices run to the head, rows to the back.
    hu: int16 [slice, row, column], the CT, by which plain gas is found; or None.

  Returns:
    The lungs.

  Raises:
    errors.NoLungsError: they hold less than 200 cm³.
  """
  return measured_lungs(lung_pieces.keep_lungs(mask, affine, hu), voxel_volume_mm3)


def measured_lungs(
  mask: np.ndarray, voxel_volume_mm3: float, box: results.LungBox | None = None
) -> Lungs:
  """The lungs of a mask that is taken as it is, with every piece of it.

  Args:
    mask: uint8 [slice, row, column], 0 or 1.
    voxel_volume_mm3: volume of one voxel.
    box: the crop that the classifier saw; None: the largest of the mask's slices.

  Returns:
    The lungs.

  Raises:
    errors.NoLungsError: they hold less than 200 cm³.
  """
  voxel_count = int(np.count_nonzero(mask))
  volume_cm3 = voxel_count * voxel_volume_mm3 / 1000
  if volume_cm3 < MIN_LUNG_VOLUME_CM3:
    raise errors.NoLungsError(
      f'no lungs found: at least {MIN_LUNG_VOLUME_CM3} cm³ of lung are required, '
      f'found {volume_cm3:.0f} cm³; give a CT series that shows the whole chest.'
    )
  box = box or largest_box(slice_boxes(mask))
  inside = int(np.count_nonzero(mask[:, box.rows, box.columns]))
  outside = 1 - inside / voxel_count
  return Lungs(mask, box, voxel_count, volume_cm3, outside, outside_warnings(outside))


def outside_warnings(fraction: float) -> tuple[str, ...]:
  """A warning where more of the lung lies outside its box than may.

  Args:
    fraction: share of the lung outside the box.
  """
  return (
    (
      f'{fraction:.1%} of the lung lies outside the lung box, where '
      'opacities are not seen.',
    )
    if fraction > MAX_OUTSIDE_FRACTION
    else ()
  )


def slice_boxes(mask: np.ndarray) -> list[results.LungBox | None]:
  """The box around the mask of every slice; None for a slice without any.

  Args:
    mask: uint8 [slice, row, column], 0 or 1.
  """
  return [_box(plane) for plane in mask]


def largest_box(boxes: Sequence[results.LungBox | None]) -> results.LungBox:
  """The box of largest area; of equal ones, that of the lower slice.

  Args:
    boxes: one a slice, lowest slice first; at least one is not None.
  """
  # max() keeps the first of equal ones.
  return max((box for box in boxes if box is not None), key=lambda box: box.area)


def _box(plane: np.ndarray) -> results.LungBox | None:
  rows = np.flatnonzero(plane.any(axis=1))
  if not len(rows):
    return None
  columns = np.flatnonzero(plane.any(axis=0))
  return results.LungBox(
    int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
  )


# Left and right, apical, middle and basal: regions of the lungs by the affine.
#
# Planes in patient millimetres, so that a feet-first or prone patient's sides and
# ends are right whatever the order of slices, rows and columns.

SIDES = ('right', 'left')
LEVELS = ('basal', 'middle', 'apical')

_X, _Z = 0, 2  # LPS: x grows to the patient's left, z to the head.
_SAMPLED_ROWS = 128  # Enough rows of a slice to see where the lungs separate.


@dataclasses.dataclass(frozen=True)
class LungRegions:
  """The planes that divide the lungs.

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
      columns: int [K]; or arrays that broadcast with `rows`.

    Returns:
      int64 [K], or of the shape of both:
        len(LEVELS) * (place in SIDES) + (place in LEVELS).
    """
    x = _coordinate(self.affine, _X, slice_, rows, columns)
    z = _coordinate(self.affine, _Z, slice_, rows, columns)
    lower, upper = self.level_z_mm
    # Sums of comparisons: several times faster than a search, at millions of voxels.
    level = (z > lower).astype(np.int64) + (z > upper)
    return len(LEVELS) * (x > self.midline_x_mm) + level


def find_regions(mask: np.ndarray, affine: np.ndarray) -> LungRegions:
  """Divides the lungs of one case (ours: the paper reports no regions).

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
    affine,
    _midline(mask, affine, _bounds(ends, affine, _X)),
    (bottom + third, top - third),
  )


def _coordinate(
  affine: np.ndarray,
  axis: int,
  slice_: int | np.ndarray,
  rows: np.ndarray,
  columns: np.ndarray,
) -> np.ndarray:
  offset = affine[axis, 0] * slice_ + affine[axis, 3]
  return offset + affine[axis, 1] * rows + affine[axis, 2] * columns


def _row_ends(mask: np.ndarray) -> np.ndarray:
  """int64 [3, 2K]: slice, row and column of the first and last voxel of each row."""
  ends = []
  for slice_, plane in enumerate(mask):
    rows = np.flatnonzero(plane.any(axis=1))
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    ends += [(np.full_like(rows, slice_), rows, columns) for columns in (first, last)]
  return np.concatenate(ends, axis=1)


def _bounds(row_ends: np.ndarray, affine: np.ndarray, axis: int) -> tuple[float, float]:
  """Where the mask begins and ends along an axis of the patient, in mm."""
  # The coordinate is linear along a row, so its ends hold the extremes.
  centres = _coordinate(affine, axis, *row_ends)
  half_voxel = np.abs(affine[axis, :3]).sum() / 2  # From centres to faces.
  return float(centres.min() - half_voxel), float(centres.max() + half_voxel)


def _midline(
  mask: np.ndarray, affine: np.ndarray, bounds: tuple[float, float]
) -> float:
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
