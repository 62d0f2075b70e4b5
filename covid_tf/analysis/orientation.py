"""Slices as the networks were trained on them, whatever way a file stores them.

A volume keeps rows and columns as they are stored, and files store them both ways:
DICOM mostly with the back below, NIfTI mostly with the front below. To a network
that has only seen one way the other is another picture (docs/adr/0036).
"""

import dataclasses

import numpy as np

_X, _Y = 0, 1  # LPS: x grows to the patient's left, y to the back.
_ROW, _COLUMN = 1, 2  # Axes of a volume.


@dataclasses.dataclass(frozen=True)
class PlaneTurn:
  """Quarter turns and mirrorings between the stored and the usual plane.

  In the usual plane columns run to the patient's left and rows to the back.

  Attributes:
    swapped: rows are stored as columns.
    flipped: (rows, columns) of the stored plane that run the other way.
  """

  swapped: bool
  flipped: tuple[bool, bool]

  def to_usual(self, planes: np.ndarray) -> np.ndarray:
    """[..., row, column] as stored, to the usual plane; contiguous, maybe a copy."""
    planes = self._flip(planes)
    return np.ascontiguousarray(planes.swapaxes(-1, -2) if self.swapped else planes)

  def to_stored(self, planes: np.ndarray) -> np.ndarray:
    """[..., row, column] of the usual plane, such as a mask or a map, as stored."""
    return self._flip(planes.swapaxes(-1, -2) if self.swapped else planes)

  def _flip(self, planes: np.ndarray) -> np.ndarray:
    axes = tuple(axis for axis, flip in zip((-2, -1), self.flipped) if flip)
    return np.flip(planes, axes) if axes else planes


def plane_turn(affine: np.ndarray) -> PlaneTurn:
  """How the planes of a volume are turned for the networks.

  Args:
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres. An
      oblique plane is turned to the nearest usual one.
  """
  steps = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
  swapped = abs(steps[_X, _ROW]) > abs(steps[_X, _COLUMN])
  along_rows, along_columns = (_X, _Y) if swapped else (_Y, _X)
  return PlaneTurn(
    bool(swapped),
    (bool(steps[along_rows, _ROW] < 0), bool(steps[along_columns, _COLUMN] < 0)),
  )
