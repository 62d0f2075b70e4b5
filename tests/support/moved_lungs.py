"""A pair of lungs without symmetry, moved by an affine and sampled on any grid."""

import numpy as np

# Centre and half axes in LPS millimetres: x to the left, y to the back, z to the head.
_RIGHT, _LEFT = ((-72, 5, -40), (62, 88, 190)), ((72, 8, -40), (56, 84, 186))
_HEART, _SPINE = ((22, -45, -45), (62, 50, 65)), ((0, 75, 0), (24, 30, 400))
# Domes of the diaphragm: (x of the top, half width, lowest z, height).
_RIGHT_DOME, _LEFT_DOME = (-70, 75, -75, 60), (70, 70, -88, 55)


def axial_grid(spacing_mm, *, size_mm=(420, 300, 400), reverse=()):
  """(shape, affine) around the origin; `reverse` lists axes stored backwards."""
  shape = tuple(int(size / step) for size, step in zip(size_mm, spacing_mm))
  affine = np.zeros((4, 4))
  affine[3, 3] = 1
  for axis, world in ((0, 2), (1, 1), (2, 0)):
    affine[world, axis] = spacing_mm[axis] * (-1 if axis in reverse else 1)
    affine[world, 3] = -affine[world, axis] * (shape[axis] - 1) / 2
  return shape, affine


def moved(degrees=(0, 0, 0), scales=(1, 1, 1), shift_mm=(0, 0, 0)) -> np.ndarray:
  """float64 [4, 4]: stretched along x, y, z, turned about them, then shifted."""
  turn = np.eye(3)
  for axis, angle in enumerate(np.radians(degrees)):
    first, second = [other for other in range(3) if other != axis]
    about = np.eye(3)
    about[first, first] = about[second, second] = np.cos(angle)
    about[second, first] = np.sin(angle)
    about[first, second] = -np.sin(angle)
    turn = about @ turn
  matrix = np.eye(4)
  matrix[:3, :3] = turn @ np.diag(scales)
  matrix[:3, 3] = shift_mm
  return matrix


def inside(points_mm: np.ndarray, sides=('right', 'left')) -> np.ndarray:
  """Whether places in LPS millimetres [..., 3] are in the lungs before any movement."""
  x, y, z = np.moveaxis(points_mm, -1, 0)
  found = np.zeros(x.shape, bool)
  for side, lung, dome in (
    ('right', _RIGHT, _RIGHT_DOME),
    ('left', _LEFT, _LEFT_DOME),
  ):
    top_x, half_width, lowest, height = dome
    bowl = np.clip(1 - ((x - top_x) / half_width) ** 2 - ((y + 5) / 95) ** 2, -1, 1)
    if side in sides:
      found |= _in(points_mm, lung) & (z > lowest + height * bowl)
  return found & ~_in(points_mm, _HEART) & ~_in(points_mm, _SPINE)


def mask(shape, affine, matrix=None, sides=('right', 'left')) -> np.ndarray:
  """uint8 [slice, row, column]: the lungs moved by `matrix`."""
  to_lungs = affine if matrix is None else np.linalg.inv(matrix) @ affine
  index = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), axis=-1)
  return inside(index @ to_lungs[:3, :3].T + to_lungs[:3, 3], sides).astype(np.uint8)


def _in(points_mm, ellipsoid):
  centre, half_axes = (np.asarray(part, float) for part in ellipsoid)
  return (((points_mm - centre) / half_axes) ** 2).sum(axis=-1) < 1
