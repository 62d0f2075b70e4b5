"""Lung masks by classical segmentation: pseudo-labels for chests without masks.

Good enough to train on where lungs are aerated; consolidated lung is lost, so a
mask is made before a lesion is implanted, never after.
"""

import numpy as np
from scipy import ndimage

AERATED_LUNG_HU = -400  # Between aerated lung and soft tissue; ours.
SMALLEST_LUNG_CM3 = 50.0  # A component below it is bowel gas or airway; ours.


def segment(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
  """Segments aerated lungs with their vessels, without trachea-sized airways.

  Args:
    hu: [slice, row, column] in HU.
    spacing_mm: voxel spacing (slice, row, column).

  Returns:
    uint8 [slice, row, column], 0 or 1.
  """
  air = np.asarray(hu) < AERATED_LUNG_HU
  inside = np.stack([_without_outside_air(plane) for plane in air])
  labels, count = ndimage.label(inside)
  voxel_cm3 = float(np.prod(spacing_mm)) / 1000.0
  sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * voxel_cm3
  kept = np.argsort(sizes)[::-1][:2] + 1
  kept = [label for label in kept if sizes[label - 1] >= SMALLEST_LUNG_CM3]
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
