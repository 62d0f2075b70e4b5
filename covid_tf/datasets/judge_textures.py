"""Density of real lesions for the judge: of slices that training did not cut from."""

import dataclasses

import numpy as np
from scipy import ndimage
from scipy import sparse

from covid_tf import errors
from covid_tf.datasets import judge_grid

WATER_HU = 30.0  # Inflamed tissue without contrast medium.
STRUCTURE_MM = 0.8  # Vessels are wider, noise is not.
_WINDOWS_MM = (60.0, 45.0, 32.0, 22.0)
_OPAQUE_HU = (-720.0, -50.0)
_OPAQUE_SHARE = 0.6  # Of a window that is taken.
_WIDER_THAN_VESSELS_MM = 4.5
_MOST_OVER_GROUND_HU = 150.0


@dataclasses.dataclass(frozen=True)
class Texture:
  """Density of a real lesion.

  Attributes:
    water: float32 [row, column], share of the air that is replaced, in [0, 1].
    pixel_mm: between its pixels.
  """

  water: np.ndarray
  pixel_mm: float


def texture_of(hu: np.ndarray, lung_mask: np.ndarray, pixel_mm: float) -> Texture:
  """Takes the density of the largest opacity of a slice.

  Args:
    hu: int16 [row, column], HU, of a slice with an opacity.
    lung_mask: [row, column], nonzero inside the lungs, opacities included.
    pixel_mm: between pixels.

  Returns:
    The density in the largest square window, 22 to 60 mm wide, of which 0.6 or more is
    opaque lung.

  Raises:
    errors.NoLungsError: the slice shows no such window.
  """
  lung = np.asarray(lung_mask) != 0
  smooth = ndimage.gaussian_filter(hu.astype(np.float32), STRUCTURE_MM / pixel_mm)
  # What a square of 4.5 mm fits into is no vessel of a lung's outer parts.
  wide = ndimage.grey_opening(smooth, max(2, round(_WIDER_THAN_VESSELS_MM / pixel_mm)))
  opaque = lung & (wide > _OPAQUE_HU[0]) & (wide < _OPAQUE_HU[1])
  for window_mm in _WINDOWS_MM:
    side = max(3, round(window_mm / pixel_mm))
    if side >= min(hu.shape):
      continue
    share = ndimage.uniform_filter(opaque.astype(np.float32), side)
    row, column = np.unravel_index(int(np.argmax(share)), share.shape)
    if share[row, column] >= _OPAQUE_SHARE:
      part = tuple(
        slice(max(0, place - side // 2), place + side // 2 + 1)
        for place in (int(row), int(column))
      )
      return _texture(smooth, wide, lung, part, pixel_mm)
  raise errors.NoLungsError(
    f'a slice with an opacity is required, found no window of {_WINDOWS_MM[-1]:g} mm '
    f'of which {_OPAQUE_SHARE:g} is lung of {_OPAQUE_HU[0]:g} to {_OPAQUE_HU[1]:g} HU.'
  )


def _texture(smooth, wide, lung, part, pixel_mm) -> Texture:
  aerated = float(np.clip(np.percentile(smooth[lung], 20), -900, -780))
  # Vessels of the source, which the chest has itself, are cut down to their ground.
  limited = np.minimum(smooth, wide + _MOST_OVER_GROUND_HU)
  water = np.clip((limited - aerated) / (WATER_HU - aerated), 0, 1)[part]
  inside = lung[part]
  water = np.where(inside, water, np.median(water[inside]))  # Chest wall, not lung.
  return Texture(water.astype(np.float32), float(pixel_mm))


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a texture lies in a chest: mirrored at its edges, shifted along z.

  Attributes:
    texture: of a real lesion.
    places: for rows and columns, float64 [row or column], in pixels of the texture.
    shifts: float64 [slice, 2], of both in each slice.
  """

  texture: Texture
  places: tuple[np.ndarray, np.ndarray]
  shifts: np.ndarray

  @classmethod
  def draw(
    cls, texture: Texture, grid: judge_grid.Grid, random: np.random.Generator
  ) -> 'Place':
    """A place by chance, for the chest of a grid."""
    places = tuple(
      random.uniform(0, 200)
      + np.arange(part.stop - part.start) * step / texture.pixel_mm
      for part, step in zip(grid.box[1:], grid.spacing_mm[1:])
    )
    slices = grid.box[0].stop - grid.box[0].start
    # A pattern seen in one plane is continued in a slanting direction that changes.
    steps = random.normal(0, 1, (slices, 2))
    steps = ndimage.gaussian_filter1d(steps, 10.0 / grid.spacing_mm[0], axis=0)
    steps *= 0.6 / max(float(np.abs(steps).mean()), 1e-6)
    shifts = np.cumsum(steps * grid.spacing_mm[0] / texture.pixel_mm, axis=0)
    return cls(texture, (places[0], places[1]), shifts)

  def water(self, index: int) -> np.ndarray:
    """float32 [row, column] of one slice of the grid's box."""
    rows, columns = (
      self._matrix(place + shift, side)
      for place, shift, side in zip(
        self.places, self.shifts[index], self.texture.water.shape
      )
    )
    return (columns @ (rows @ self.texture.water).T).T

  @staticmethod
  def _matrix(place, side) -> sparse.csr_array:
    """float32 [pixel, side]: linear interpolation at mirrored places."""
    place = np.abs((place + side - 1) % (2 * (side - 1)) - (side - 1))
    below = np.minimum(place.astype(int), side - 2)
    share = (place - below).astype(np.float32)
    pixels = np.tile(np.arange(len(place)), 2)
    return sparse.csr_array(
      (
        np.concatenate([1 - share, share]),
        (pixels, np.concatenate([below, below + 1])),
      ),
      shape=(len(place), side),
    )
