"""What the scanner adds: table, blur, noise, motion, the scan circle."""

import numpy as np
from scipy import ndimage

from covid_tf import volume as volume_lib

_STREAM = 105


def table_share(x, y, top_mm, width):
  """float32 [H, W]: share of a pixel in the table's shell, below the back."""
  sag = (x / 215)**2
  shell = np.abs(y - (top_mm + 14 - 8 * sag)) - 1.2
  under = np.abs(y - (top_mm + 52 - 42 * sag)) - 1.2
  inside = (np.abs(x) < 215)
  return np.clip(0.5 - np.minimum(shell, under) / width, 0, 1) * inside


def acquire(hu: np.ndarray, case, grid) -> np.ndarray:
  """int16 [S, H, W]: the scan of ideal HU float32 [S, H, W] (overwritten)."""
  rng = np.random.default_rng([case.seed, _STREAM])
  pixel = grid.pixel_mm
  smooth = (0.75 - 0.35 * case.kernel_sharpness) / pixel
  falloff = 1 + 0.45 * np.exp(-(grid.x**2 + grid.y**2) / 90**2)
  circle = grid.x**2 + grid.y**2 > (len(grid.y) * pixel / 2)**2
  scan = np.empty(hu.shape, np.int16)
  for index, plane in enumerate(hu):
    if case.motion_mm:
      plane = _move(plane, case.motion_mm, grid, index)
    if smooth > 0.2:
      plane = ndimage.gaussian_filter(plane, smooth)
    if case.kernel_sharpness > 0.5:
      edge = plane - ndimage.gaussian_filter(plane, 1.1 / pixel)
      plane = plane + (case.kernel_sharpness - 0.5) * edge
    plane = plane + case.noise_hu * 0.7 * falloff * _noise(
        plane.shape, case.kernel_sharpness, pixel, rng)
    if case.padded:
      plane[circle] = volume_lib.AIR_HU
    scan[index] = np.clip(np.rint(plane), volume_lib.AIR_HU, 3071)
  return scan


def _noise(shape, sharpness, pixel, rng):
  """float32 [H, W]: unit noise, correlated as a reconstruction kernel leaves it."""
  grain = rng.standard_normal(shape, np.float32)
  sigma = (1.05 - 0.45 * sharpness) / pixel
  if sigma < 0.25:
    return grain
  soft = ndimage.gaussian_filter(grain, sigma, mode='wrap')
  # The ramp of filtered backprojection leaves little of the lowest frequencies.
  soft -= 0.8 * ndimage.gaussian_filter(soft, 2.5 * sigma, mode='wrap')
  return soft / soft.std()


def _move(plane, motion_mm, grid, index):
  """Two phases of a breath in one slice: strongest in the lower half."""
  fall = 1 - index / len(grid.z)
  shift = motion_mm * fall / grid.pixel_mm
  return 0.55 * plane + 0.45 * ndimage.shift(
      plane, (-shift, 0.4 * shift), order=1, mode='nearest')
