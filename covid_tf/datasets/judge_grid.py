"""The lungs that the judge implants opacities into, on a grid in millimetres."""

import dataclasses

import numpy as np
from scipy import ndimage
from scipy import sparse

from covid_tf import errors

STEP_MM = 1.5
_SMALLEST_LUNGS_CM3 = 100.0


@dataclasses.dataclass(frozen=True)
class Grid:
  """A grid of one step around the lungs.

  Attributes:
    box: of the chest's voxels that the grid covers.
    spacing_mm: of the chest.
    shape: points along (slice, row, column).
  """

  box: tuple[slice, slice, slice]
  spacing_mm: tuple[float, float, float]
  shape: tuple[int, int, int]

  @classmethod
  def around(
    cls, lung_mask: np.ndarray, spacing_mm: tuple[float, float, float]
  ) -> 'Grid':
    """The grid over the lungs of a mask [slice, row, column].

    Raises:
      errors.NoLungsError: the mask is empty.
    """
    held = []
    for axis in range(3):
      others = tuple(other for other in range(3) if other != axis)
      places = np.flatnonzero(np.any(lung_mask, axis=others))
      if not len(places):
        raise errors.NoLungsError(
          'lung_mask: lungs to implant opacities into are required, found none.'
        )
      held.append(slice(int(places[0]), int(places[-1]) + 1))
    slices, rows, columns = (
      max(2, int(np.ceil((part.stop - part.start) * step / STEP_MM)))
      for part, step in zip(held, spacing_mm)
    )
    return cls((held[0], held[1], held[2]), spacing_mm, (slices, rows, columns))

  def sampled(self, planes: np.ndarray) -> np.ndarray:
    """The chest's voxel nearest to each point."""
    places = []
    for part, step, count in zip(self.box, self.spacing_mm, self.shape):
      index = ((np.arange(count) + 0.5) * STEP_MM / step).astype(int)
      places.append(part.start + np.minimum(index, part.stop - part.start - 1))
    return planes[np.ix_(*places)]

  def matrix(self, axis: int) -> sparse.csr_array:
    """float32 [voxel, point]: a voxel's average over its own length, rows sum to 1.

    Sparse, since a product of full matrices waits for its threads where other programs
    hold the cores.
    """
    part, step, count = self.box[axis], self.spacing_mm[axis], self.shape[axis]
    # So many samples a voxel, each linear between points: the thickness of a slice.
    samples = max(1, round(2 * step / STEP_MM))
    voxels = part.stop - part.start
    place_mm = (np.arange(voxels * samples) + 0.5) * step / samples
    place = np.clip(place_mm / STEP_MM - 0.5, 0, count - 1)
    below = np.minimum(place.astype(int), count - 2)
    share = (place - below) / samples
    rows = np.arange(voxels * samples) // samples
    return sparse.csr_array(
      (
        np.concatenate([1 / samples - share, share]).astype(np.float32),
        (np.tile(rows, 2), np.concatenate([below, below + 1])),
      ),
      shape=(voxels, count),
    )


@dataclasses.dataclass(frozen=True)
class Lungs:
  """The lungs on the grid.

  Attributes:
    inside: bool [slice, row, column].
    piece: int32, which connected piece a point belongs to; 0 outside.
    depth_mm: float32, to the lungs' surface.
    aerated_hu: float32, HU of the air-filled lung around; meaningless far outside.
    odds: float64 [n], summed, that an opacity begins at each of `points`.
    points: int64 [n], aerated ones inside, by their places in the flat grid.
  """

  inside: np.ndarray
  piece: np.ndarray
  depth_mm: np.ndarray
  aerated_hu: np.ndarray
  odds: np.ndarray
  points: np.ndarray

  @classmethod
  def on(cls, grid: Grid, hu: np.ndarray, lung_mask: np.ndarray) -> 'Lungs':
    """The lungs of a chest, both [slice, row, column], on its grid.

    Raises:
      errors.NoLungsError: they hold less than 100 cm³.
    """
    inside = grid.sampled(lung_mask) != 0
    if (found := inside.sum() * STEP_MM**3 / 1000) < _SMALLEST_LUNGS_CM3:
      raise errors.NoLungsError(
        f'lung_mask: lungs of {_SMALLEST_LUNGS_CM3:g} cm³ or more are required to '
        f'implant opacities into, found {found:.0f} cm³.'
      )
    piece, _ = ndimage.label(inside)
    depth_mm = ndimage.distance_transform_edt(inside).astype(np.float32) * STEP_MM
    coarse = grid.sampled(hu).astype(np.float32)
    aerated = (inside & (coarse < -650)).astype(np.float32)
    width = 6.0 / STEP_MM
    mean = ndimage.gaussian_filter(coarse * aerated, width)
    mean /= np.maximum(ndimage.gaussian_filter(aerated, width), 1e-3)
    # Not in airways, vessels or the hilum, where nothing would be seen.
    points = np.flatnonzero(inside & (ndimage.uniform_filter(aerated, 5) > 0.6))
    if not len(points):
      points = np.flatnonzero(inside)
    height, back, _ = np.unravel_index(points, inside.shape)
    # Odds fall to the front, to the apex and from the pleura; ours.
    odds = (
      (0.12 + np.exp(-depth_mm.ravel()[points] / 7.0))
      * (0.15 + back / inside.shape[1])
      * (1.25 - height / inside.shape[0])
    )
    return cls(inside, piece, depth_mm, mean, np.cumsum(odds, dtype=float), points)

  @property
  def volume_cm3(self) -> float:
    """Of the lungs."""
    return np.count_nonzero(self.inside) * STEP_MM**3 / 1000

  def draw_point(self, random: np.random.Generator) -> tuple[int, int, int]:
    """A point where an opacity begins."""
    place = np.searchsorted(self.odds, random.random() * self.odds[-1])
    point = self.points[min(int(place), len(self.points) - 1)]
    height, row, column = np.unravel_index(point, self.inside.shape)
    return int(height), int(row), int(column)
