"""Random fields in millimetres, drawn on coarse lattices: as smooth, far cheaper."""

import math

import numpy as np
from scipy import ndimage


def smooth(
  shape: tuple[int, ...],
  spacing_mm: tuple[float, ...],
  scale_mm: float,
  random: np.random.Generator,
) -> np.ndarray:
  """float32 noise of zero mean and unit deviation, correlated over `scale_mm`.

  Args:
    shape: of the field.
    spacing_mm: between its voxels along each axis.
    scale_mm: standard deviation of the Gaussian that white noise is smoothed by.
    random: source of the noise.
  """
  sides, sigmas = [], []
  for side, mm in zip(shape, spacing_mm):
    step = max(1.0, scale_mm / mm / 1.2)  # Lattice points, in voxels apart.
    sides.append(int(math.ceil((side - 1) / step)) + 1 if side > 1 else 1)
    sigmas.append(scale_mm / mm / step if side > 1 else 0.0)
  noise = random.standard_normal(sides, np.float32)
  noise = ndimage.gaussian_filter(noise, sigmas, mode='wrap', truncate=3)
  # As the smoothing leaves it on average; the sample's own deviation would make small
  # blocks as restless as large ones.
  kept = np.prod([_kept(sigma, side) for sigma, side in zip(sigmas, sides)])
  return stretched(noise / np.float32(math.sqrt(kept)), shape)


def stretched(field: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """float32: linear interpolation of a field, ends on ends, to a larger shape."""
  field = np.asarray(field, np.float32)
  for axis, side in enumerate(shape):
    if field.shape[axis] == side:
      continue
    at = np.linspace(0, field.shape[axis] - 1, side)
    low = np.minimum(at.astype(int), max(field.shape[axis] - 2, 0))
    share = (at - low).astype(np.float32)
    share = share.reshape([-1 if a == axis else 1 for a in range(field.ndim)])
    high = np.minimum(low + 1, field.shape[axis] - 1)
    field = field.take(low, axis) * (1 - share) + field.take(high, axis) * share
  return field


def _kept(sigma, side):
  """Variance that white noise keeps along an axis."""
  if not sigma:
    return 1.0
  line = np.zeros(max(side, 3))
  line[0] = 1.0
  return float(
    (ndimage.gaussian_filter1d(line, sigma, mode='wrap', truncate=3) ** 2).sum()
  )
