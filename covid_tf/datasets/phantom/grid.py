"""Where voxels lie, and random fields that are the same on every grid."""

import dataclasses

import numpy as np

REACH_MM = 260.0  # Fields cover [-REACH_MM, REACH_MM] on every axis.


@dataclasses.dataclass(frozen=True)
class Grid:
  """Voxel centres in patient millimetres (LPS), origin at the carina's level.

  Attributes:
    z: float32 [S], ascending: towards the head.
    y: float32 [H, 1], ascending: towards the back.
    x: float32 [1, W], ascending: towards the patient's left.
    thickness_mm: what a slice averages over.
  """

  z: np.ndarray
  y: np.ndarray
  x: np.ndarray
  thickness_mm: float

  @property
  def shape(self) -> tuple[int, int, int]:
    return len(self.z), self.y.shape[0], self.x.shape[1]

  @property
  def pixel_mm(self) -> float:
    return float(self.x[0, 1] - self.x[0, 0])


def make_grid(bottom_mm, top_mm, spacing_mm, thickness_mm, matrix, pixel_mm) -> Grid:
  """A centred grid whose slices cover [bottom, top]."""
  count = int(np.ceil((top_mm - bottom_mm) / spacing_mm)) + 1
  bottom_mm = round(bottom_mm, 1)  # A position that DICOM's decimal string holds.
  z = bottom_mm + spacing_mm * np.arange(count)
  in_plane = (np.arange(matrix) - (matrix - 1) / 2) * pixel_mm
  return Grid(z.astype(np.float32), in_plane.astype(np.float32)[:, np.newaxis],
              in_plane.astype(np.float32)[np.newaxis], float(thickness_mm))


class SmoothField:
  """A random field with unit variance and one length scale, by seed.

  Coefficients on a fixed lattice, cubic B-splines between: any grid sees the
  same field. The splines separate, so a slice costs two small matrix products.
  """

  def __init__(self, seed, stream: int, scale_mm: float, grid: Grid):
    """Draws the field; `scale_mm` is the lattice step, about half a wavelength."""
    count = int(2 * REACH_MM / scale_mm) + 4
    rng = np.random.default_rng([seed, stream])
    # A B-spline's squares sum to 0.479 on average: three axes, unit variance.
    scale = np.float32(0.479**-1.5)
    self._coefficients = scale * rng.standard_normal((count,) * 3, np.float32)
    self._along_z = _basis(grid.z, scale_mm, count)
    self._along_y = _basis(grid.y[:, 0], scale_mm, count)
    self._along_x = _basis(grid.x[0], scale_mm, count)

  def on_slice(self, index: int) -> np.ndarray:
    """float32 [H, W] on one slice of the grid."""
    weights = self._along_z[index]
    near = np.flatnonzero(weights)
    lattice = np.tensordot(weights[near], self._coefficients[near], 1)
    return self._along_y @ lattice @ self._along_x.T


def _basis(position_mm, scale_mm, count):
  """float32 [positions, count]: cubic B-spline weights, four a row."""
  place = np.clip((position_mm + REACH_MM) / scale_mm, 0, count - 4 - 1e-3)
  first = place.astype(int)
  t = (place - first)[:, np.newaxis]
  weights = np.concatenate([
      (1 - t)**3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3],
      axis=1) / 6
  matrix = np.zeros((len(place), count), np.float32)
  np.put_along_axis(matrix, first[:, np.newaxis] + np.arange(4), weights, 1)
  return matrix


def soft_step(distance, width):
  """1 inside (distance < 0), 0 outside, linear over `width`: partial volume."""
  return np.clip(0.5 - distance / width, 0, 1)
