"""From the network's masks to the lungs: their volume and the box of the case."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from covid_tf import errors
from covid_tf import lung_pieces
from covid_tf import results

# Ours: less is no chest in view (a child's lungs hold more), and no score.
MIN_LUNG_VOLUME_CM3 = 200
# Ours: the paper takes the largest box as it is; we say what it leaves out.
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
    mask: np.ndarray, voxel_volume_mm3: float, affine: np.ndarray | None = None,
    hu: np.ndarray | None = None) -> Lungs:
  """Reduces the network's masks to the lungs and takes the box of the case.

  Args:
    mask: uint8 [slice, row, column], 0 or 1, as the network gave it. It is
      reduced in place: a second one would cost half a CT.
    voxel_volume_mm3: volume of one voxel.
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres; where
      the pieces lie in the patient. None: slices run to the head, rows to the back.
    hu: int16 [slice, row, column], the CT, which tells plain gas from lung; or None.

  Returns:
    The lungs.

  Raises:
    errors.NoLungsError: they hold less than 200 cm³.
  """
  mask = lung_pieces.keep_lungs(mask, affine, hu)
  voxel_count = int(np.count_nonzero(mask))
  volume_cm3 = voxel_count * voxel_volume_mm3 / 1000
  if volume_cm3 < MIN_LUNG_VOLUME_CM3:
    raise errors.NoLungsError(
        f'no lungs found: at least {MIN_LUNG_VOLUME_CM3} cm³ of lung are required, '
        f'found {volume_cm3:.0f} cm³; give a CT series that shows the whole chest.')
  box = largest_box(slice_boxes(mask))
  inside = int(np.count_nonzero(mask[:, box.rows, box.columns]))
  outside = 1 - inside / voxel_count
  warnings = ()
  if outside > MAX_OUTSIDE_FRACTION:
    warnings = (f'{outside:.1%} of the lung lies outside the lung box, where '
                'opacities are not seen.',)
  return Lungs(mask, box, voxel_count, volume_cm3, outside, warnings)


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
      int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
