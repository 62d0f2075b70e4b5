"""Voxels on a grid of any axes to a CTVolume: place, units and histogram checked.

NIfTI, MetaImage, NRRD and images in memory say where a voxel (i, j, k) lies and nothing
of slices, rows or units; what is asked of them is asked here, of all alike.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import chest_histogram

_SPACING_RANGE_MM = (0.05, 50.0)
_INT16 = np.iinfo(np.int16)

Order = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class VoxelGrid:
  """Where the voxels (i, j, k) of a file or an image lie.

  Attributes:
    shape: voxels along i, j and k.
    affine: float64 [4, 4], (i, j, k, 1) to LPS millimetres.
    order: which of i, j, k are slices, rows and columns.
    stored_shape: of the file's array, with trailing axes of one.
    stored_affine: float64 [4, 4], (i, j, k, 1) to NIfTI's RAS in `unit`; None: that of
      `affine`, in millimetres.
    unit: of length, as NIfTI names it.
  """

  shape: tuple[int, int, int]
  affine: np.ndarray
  order: Order
  stored_shape: tuple[int, ...] | None = None
  stored_affine: np.ndarray | None = None
  unit: str = 'mm'

  def stored_grid(self) -> volume.StoredGrid:
    """How results are stored to lie over it, index by index."""
    return volume.StoredGrid(
      self.stored_shape or self.shape,
      self.order,
      bool(self.affine[2, self.order[0]] < 0),
      volume.LPS_RAS @ self.affine
      if self.stored_affine is None
      else self.stored_affine,
      self.unit,
    )


def require_three_axes(shape: tuple[int, ...]) -> tuple[int, int, int]:
  """The first three sizes, where all others are one.

  Raises:
    CTReadError: there are others, or less than two voxels along an axis.
  """
  found = shape
  while len(shape) > 3 and shape[-1] == 1:
    shape = shape[:-1]
  if len(shape) != 3 or min(shape) < 2:
    more = ' (a time axis, or colours?)' if len(found) > 3 else ''
    raise errors.CTReadError(
      f'three axes of 2 voxels or more are required, found {tuple(found)}{more}; give '
      'one volume of slices.'
    )
  return shape[0], shape[1], shape[2]


def require_box(affine: np.ndarray) -> None:
  """Refuses spacings that no CT has, and axes that are not perpendicular.

  Args:
    affine: float64 [4, 4], (i, j, k, 1) to millimetres.

  Raises:
    CTReadError: names what was found.
  """
  steps = np.linalg.norm(affine[:3, :3], axis=0)
  if not (
    np.isfinite(affine).all()
    and steps.min() >= _SPACING_RANGE_MM[0]
    and steps.max() <= _SPACING_RANGE_MM[1]
  ):
    raise errors.CTReadError(
      f'spacings between 0.05 and 50 mm are required, found {steps.tolist()}.'
    )
  directions = affine[:3, :3] / steps
  if abs(directions.T @ directions - np.eye(3)).max() > 1e-2:
    raise errors.CTReadError('its axes are not perpendicular (gantry tilt?).')


def nearest_order(affine: np.ndarray) -> Order:
  """Which of i, j, k are slices, rows and columns: nearest to z, y and x.

  Raises:
    CTReadError: none is within 25 degrees of the patient's length.
  """
  directions = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
  slices, rows, columns = (int(np.argmax(directions[axis])) for axis in (2, 1, 0))
  order = slices, rows, columns
  if len(set(order)) < 3 or directions[2, order[0]] < np.cos(np.radians(25)):
    raise errors.CTReadError(
      'axial slices within 25 degrees are required, these are oblique.'
    )
  return order


def kept_order(affine: np.ndarray) -> Order:
  """As `nearest_order`, but rows stay before columns: k, then j, then i.

  What has slices, rows and columns already keeps them: only where the slices are not
  axial, the axis nearest to the patient's length becomes theirs.

  Raises:
    CTReadError: none is within 25 degrees of the patient's length.
  """
  slices, _, _ = nearest_order(affine)
  rows, columns = (axis for axis in (2, 1, 0) if axis != slices)
  return slices, rows, columns


_AXES = 'ijk'


def name_of_order(order: Order) -> str:
  """'kji' of (2, 1, 0): how an image says which axes are slices, rows and columns."""
  return ''.join(_AXES[axis] for axis in order)


def named_order(name: str, order: Order) -> Order:
  """The order of such a name, if it has the same slices; else `order`.

  Rows and columns alone: an affine cannot tell a plane that was turned from one whose
  axes have another order.
  """
  name = name.rstrip('-')
  if sorted(name) != sorted(_AXES) or _AXES.index(name[0]) != order[0]:
    return order
  return order[0], _AXES.index(name[1]), _AXES.index(name[2])


def to_volume(
  grid: VoxelGrid,
  plane: Callable[[int], np.ndarray],
  *,
  warnings: tuple[str, ...] = (),
  exact: bool = False,
) -> volume.CTVolume:
  """Reads the voxels plane by plane, slice 0 the patient's most inferior.

  Args:
    grid: where they lie, checked.
    plane: k to numbers [i, j].
    warnings: what was accepted so far.
    exact: refuse fractions instead of rounding them.

  Raises:
    CTReadError: values that are not finite, no HU, or none of a chest.
  """
  hu, below = _hounsfield(grid, plane, exact)
  return placed(grid, hu, warnings, below)


def placed(
  grid: VoxelGrid, hu: np.ndarray, warnings: tuple[str, ...] = (), below: int = 0
) -> volume.CTVolume:
  """The volume of voxels that are int16 [slice, row, column], not below -1024.

  Args:
    grid: where they lie, in whose order they are.
    hu: the voxels.
    warnings: what was accepted so far.
    below: how many of them were below -1024.

  Raises:
    CTReadError: they are no HU of a chest.
  """
  affine = grid.affine[:, [*grid.order, 3]]
  hu, affine = _lowest_first(hu, affine)
  if below:
    warnings += (f'{below} voxels below -1024 HU were set to -1024 HU',)
  if note := chest_histogram.judge(hu):
    raise errors.CTReadError(
      f'no Hounsfield units of a chest: {note}; give the CT as it was measured, not '
      'scaled, shifted or limited to a window.'
    )
  return volume.CTVolume(
    hu=hu, affine=affine, warnings=warnings, stored_grid=grid.stored_grid()
  )


def _hounsfield(
  grid: VoxelGrid, plane: Callable[[int], np.ndarray], exact: bool
) -> tuple[np.ndarray, int]:
  """int16 HU [slice, row, column], one plane of the file at a time."""
  hu = np.empty([grid.shape[axis] for axis in grid.order], np.int16)
  by_file = hu.transpose(np.argsort(grid.order))  # A view indexed [i, j, k].
  below = 0
  for k in range(grid.shape[2]):
    values = _whole_numbers(plane(k), k, exact)
    if values.max() > _INT16.max:
      raise errors.CTReadError(
        f'Hounsfield units up to {_INT16.max} are possible, found {values.max():.0f}.'
      )
    if values.min() < volume.AIR_HU:
      below += int(np.count_nonzero(values < volume.AIR_HU))
      values = np.maximum(values, volume.AIR_HU)
    by_file[:, :, k] = values
  return hu, below


def _whole_numbers(values: np.ndarray, k: int, exact: bool) -> np.ndarray:
  if values.dtype.kind in 'iu':
    return values
  if not np.isfinite(values).all():
    raise errors.CTReadError(
      f'finite numbers are required, found NaN or infinity in plane {k}; put air, '
      '-1024, where nothing was measured.'
    )
  rounded = np.rint(values)
  if exact and not np.array_equal(rounded, values):
    odd = float(values[rounded != values][0])
    raise errors.CTReadError(
      f'whole Hounsfield units are required, found {odd:.6g} in slice {k}; if these '
      'are Hounsfield units, round them: np.rint(hu).'
    )
  return rounded


def _lowest_first(hu: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Turns the slice axis so that slice 0 is the most inferior of the patient."""
  if affine[2, 0] > 0:
    return hu, affine
  affine = affine.copy()
  affine[:3, 3] += affine[:3, 0] * (hu.shape[0] - 1)
  affine[:3, 0] *= -1
  return np.ascontiguousarray(hu[::-1]), affine


# And back: a volume's voxels as the file or the image that it came from has them.


def own_grid(ct: volume.CTVolume) -> volume.StoredGrid:
  """The grid that a volume came on; else its columns, rows and slices as i, j, k."""
  stored = ct.stored_grid
  if stored is not None and _is_grid_of(stored, ct):
    return stored
  return volume.StoredGrid(
    ct.shape[::-1], (2, 1, 0), False, volume.LPS_RAS @ ct.affine[:, [2, 1, 0, 3]]
  )


def lps_affine(grid: volume.StoredGrid) -> np.ndarray:
  """float64 [4, 4], (i, j, k, 1) of a stored grid to LPS millimetres."""
  affine: np.ndarray = volume.LPS_RAS @ grid.affine
  affine[:3] *= volume.MILLIMETRES[grid.unit]
  return affine


def as_stored(ct: volume.CTVolume, grid: volume.StoredGrid) -> np.ndarray:
  """int16 [i, j, k]: a view of the volume's voxels in the order of its grid."""
  hu = ct.hu[::-1] if grid.slices_reversed else ct.hu
  return hu.transpose(np.argsort(grid.axes))


def _is_grid_of(grid: volume.StoredGrid, ct: volume.CTVolume) -> bool:
  """Whether a grid is still that of the volume: voxels may have been cut off since."""
  shape = tuple(grid.shape[axis] for axis in grid.axes)
  if shape != ct.shape:
    return False
  affine = lps_affine(grid)[:, [*grid.axes, 3]]
  if grid.slices_reversed:
    affine[:3, 3] += affine[:3, 0] * (ct.shape[0] - 1)
    affine[:3, 0] *= -1
  return np.allclose(affine, ct.affine, rtol=1e-6, atol=1e-6)
