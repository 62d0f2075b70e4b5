"""Straightening of a stack whose slices are shifted against each other."""

import dataclasses
import math

import numpy as np
from scipy import ndimage

from covid_tf import volume


def straightened(sheared: volume.CTVolume) -> volume.CTVolume:
  """Resamples a volume with gantry tilt so that its columns are upright.

  Each slice is shifted within its plane, by linear interpolation, and the planes
  are widened so that nothing falls out; what was not measured becomes air.

  Returns:
    The same volume if it is upright already; else one whose first affine column
    lies along the normal, with a warning that tells the angle.
  """
  steps = sheared.affine[:3, :3]
  in_plane = steps[:, 1:] / np.linalg.norm(steps[:, 1:], axis=0)
  normal = np.cross(in_plane[:, 1], in_plane[:, 0])
  normal /= np.linalg.norm(normal)
  along = float(steps[:, 0] @ normal)
  if along < 0:  # Mirrored columns: slices run to the head all the same.
    normal, along = -normal, -along
  angle = math.degrees(math.atan2(np.linalg.norm(steps[:, 0] - along * normal), along))
  # Voxels by which a slice lies further along rows and columns than the last one.
  shift = np.linalg.lstsq(steps[:, 1:], steps[:, 0] - along * normal, rcond=None)[0]
  offsets = np.arange(sheared.shape[0])[:, np.newaxis] * shift
  if np.abs(offsets).max() < 1e-3:
    return sheared
  start = np.floor(offsets.min(axis=0)).astype(int)
  end = np.ceil(offsets.max(axis=0)).astype(int)
  hu = _shifted(sheared.hu, offsets - start, tuple(end - start))
  affine = sheared.affine.copy()
  affine[:3, 0] = along * normal
  affine[:3, 3] += steps[:, 1:] @ start
  return dataclasses.replace(
      sheared, hu=hu, affine=affine, warnings=(*sheared.warnings, (
          f'gantry tilt of {angle:.1f} degrees was straightened by linear '
          'interpolation: HU are resampled')))


def _shifted(hu, offsets, growth) -> np.ndarray:
  """Each slice moved by its offsets (voxels, not negative) in a larger plane."""
  count, rows, columns = hu.shape
  shape = (count, rows + growth[0], columns + growth[1])
  moved = np.full(shape, volume.AIR_HU, np.int16)
  for target, slice_hu, offset in zip(moved, hu, offsets):
    plane = np.full(shape[1:], volume.AIR_HU, np.float32)
    plane[:rows, :columns] = slice_hu
    target[...] = np.rint(ndimage.shift(
        plane, offset, order=1, mode='constant', cval=volume.AIR_HU))
  return moved
