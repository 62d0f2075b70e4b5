"""Lung masks by classical segmentation: pseudo-labels for chests without masks.

Good enough to train on where lungs are aerated; consolidated lung is lost, so a
mask is made before a lesion is implanted, never after.
"""

import numpy as np
from scipy import ndimage

AERATED_LUNG_HU = -400  # Between aerated lung and soft tissue; ours.
# Ours: a second component smaller than this share of the first is no lung (the two
# often touch and make one component).
SMALLEST_SHARE = 0.1


def segment(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
  """Segments aerated lungs with their vessels, without trachea-sized airways.

  Args:
    hu: [slice, row, column] in HU.
    spacing_mm: voxel spacing (slice, row, column).

  Returns:
    uint8 [slice, row, column], 0 or 1; all 0 where no lung is found.
  """
  air = np.asarray(hu) < AERATED_LUNG_HU
  inside = np.stack([_without_outside_air(plane) for plane in air])
  labels, count = ndimage.label(inside)
  if not count:
    return np.zeros(inside.shape, np.uint8)
  sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
  largest = np.argsort(sizes)[::-1][:2]
  kept = [i + 1 for i in largest if sizes[i] >= SMALLEST_SHARE * sizes.max()]
  mask = np.isin(labels, kept)
  return np.stack(
      [_close_vessels(plane, spacing_mm[1]) for plane in mask]).astype(np.uint8)


def segment_slice(hu: np.ndarray, pixel_mm: float) -> np.ndarray:
  """Segments one slice [row, column]: its large inner air regions; uint8."""
  inside = _without_outside_air(np.asarray(hu) < AERATED_LUNG_HU)
  labels, count = ndimage.label(inside)
  areas_cm2 = np.bincount(
      labels.ravel(), minlength=count + 1)[1:] * pixel_mm**2 / 100.0
  mask = np.isin(labels, np.flatnonzero(areas_cm2 > 6.0) + 1)
  return _close_vessels(mask, pixel_mm).astype(np.uint8)


def _without_outside_air(air):
  """Takes away air that touches the slice's border: the room, not the patient."""
  labels, _ = ndimage.label(air)
  border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
  return air & ~np.isin(labels, np.unique(border[border > 0]))


def _close_vessels(mask, pixel_mm):
  """Takes vessels and juxtapleural nodules back into the lung."""
  radius = max(1, int(round(5.0 / pixel_mm)))
  rows, columns = np.ogrid[-radius:radius + 1, -radius:radius + 1]
  disk = rows**2 + columns**2 <= radius**2
  padded = np.pad(mask, radius)
  closed = ndimage.binary_closing(padded, disk)[radius:-radius, radius:-radius]
  return ndimage.binary_fill_holes(closed)
