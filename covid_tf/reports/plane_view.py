"""Which way up: how a plane of the CT is laid on a page, decided by the affine.

Radiology's convention: the patient's right on the viewer's left, the front at the
top of an axial picture, the head at the top of a coronal or sagittal one.
"""

import dataclasses

from nibabel import orientations
import numpy as np

_LETTERS = (('R', 'L'), ('A', 'P'), ('F', 'H'))  # Low and high end of LPS x, y, z.
_NAMES = {0: 'sagittal', 1: 'coronal', 2: 'axial'}  # By the LPS axis looked along.
_X, _Y, _Z = 0, 1, 2
# An edge that leans 15 degrees or more to a second axis names that one too ('HA').
_SECOND_LETTER = np.sin(np.radians(15))


@dataclasses.dataclass(frozen=True)
class PictureAxis:
  """One side of a picture.

  Attributes:
    axis: the array axis (0 slice, 1 row, 2 column) that runs along it.
    start, stop: the indices shown, half open.
    reversed: the array runs against the picture (up, or to the left).
    step_mm: millimetres between voxel centres.
  """

  axis: int
  start: int
  stop: int
  reversed: bool
  step_mm: float

  @property
  def length_mm(self) -> float:
    """From the outer face of the first voxel to that of the last."""
    return (self.stop - self.start) * self.step_mm

  @property
  def shown(self) -> slice:
    """Cuts an array to what is shown, in the order of the picture."""
    if not self.reversed:
      return slice(self.start, self.stop)
    return slice(self.stop - 1, self.start - 1 if self.start else None, -1)

  def place_mm(self, index: float) -> float:
    """Millimetres from the picture's top or left edge to a voxel's centre."""
    steps = self.stop - index if self.reversed else index + 1 - self.start
    return (steps - 0.5) * self.step_mm


@dataclasses.dataclass(frozen=True)
class PlaneView:
  """How planes that fix one array axis are shown.

  Attributes:
    name: 'axial', 'coronal' or 'sagittal', the nearest.
    fixed_axis: the array axis that a plane fixes.
    down, across: the picture's sides.
    markers: 'top', 'bottom', 'left' and 'right' to letters of R L A P H F.
  """

  name: str
  fixed_axis: int
  down: PictureAxis
  across: PictureAxis
  markers: dict[str, str]

  @property
  def size_mm(self) -> tuple[float, float]:
    """(height, width)."""
    return self.down.length_mm, self.across.length_mm

  @property
  def step_mm(self) -> tuple[float, float]:
    """Millimetres between pixel centres, (down, across)."""
    return self.down.step_mm, self.across.step_mm

  def picture(self, plane: np.ndarray) -> np.ndarray:
    """Cuts, turns and flips `plane` [first other axis, second other axis]."""
    if self.down.axis > self.across.axis:
      plane = plane.T
    return plane[self.down.shown, self.across.shown]


def plane_view(
    affine: np.ndarray, shape: tuple[int, int, int], looked_along: str,
    shown: tuple[slice, slice, slice] = (slice(None),) * 3) -> PlaneView:
  """The view of a volume along one direction of the patient.

  Args:
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres.
    shape: (slices, rows, columns).
    looked_along: 'axial', 'coronal' or 'sagittal'.
    shown: the part of each array axis to show.
  """
  world = orientations.io_orientation(affine)[:, 0].astype(int)  # Of array axes.
  world_fixed = {name: axis for axis, name in _NAMES.items()}[looked_along]
  # Across runs to the patient's left, or to the back where x is looked along;
  # down runs to the feet, or to the back where z is.
  across_world = _Y if world_fixed == _X else _X
  down_world = _Y if world_fixed == _Z else _Z
  down_direction = -1 if down_world == _Z else 1
  axis_of = {int(axis): number for number, axis in enumerate(world)}
  sides = {}
  for name, world_axis, direction in (
      ('down', down_world, down_direction), ('across', across_world, 1)):
    axis = axis_of[world_axis]
    start, stop, _ = shown[axis].indices(shape[axis])
    sides[name] = PictureAxis(
        axis, start, stop, bool(affine[world_axis, axis] * direction < 0),
        float(np.linalg.norm(affine[:3, axis])))
  return PlaneView(
      looked_along, axis_of[world_fixed], **sides,
      markers=_markers(affine, sides['down'], sides['across']))


def _markers(affine, down, across) -> dict[str, str]:
  markers = {}
  for side, low, high in ((down, 'top', 'bottom'), (across, 'left', 'right')):
    direction = affine[:3, side.axis] / np.linalg.norm(affine[:3, side.axis])
    direction = -direction if side.reversed else direction
    markers |= {low: _letters(-direction), high: _letters(direction)}
  return markers


def _letters(direction) -> str:
  """The end of the patient a unit vector points to, and a second one if oblique."""
  order = np.argsort(-np.abs(direction))
  return ''.join(
      _LETTERS[axis][int(direction[axis] > 0)] for number, axis in enumerate(order)
      if number == 0 or (number == 1 and abs(direction[axis]) >= _SECOND_LETTER))
