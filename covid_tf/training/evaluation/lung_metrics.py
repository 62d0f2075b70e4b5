"""How well a lung mask agrees with the true one: overlap, and distance in mm."""

import dataclasses

import numpy as np
from scipy import ndimage


@dataclasses.dataclass(frozen=True)
class LungAgreement:
  """Agreement of the masks of one case.

  Attributes:
    dice: 2 |A and B| / (|A| + |B|), in [0, 1]; None where both masks are empty.
    iou: |A and B| / |A or B|, in [0, 1]; None likewise.
    hausdorff95_mm: 95th percentile of the distances from each surface to the other,
      the larger of both directions; None where a mask is empty or pixels have no
      known size.
    in_3d: whether distances were measured in space, or slice by slice because the
      slices are no stack.
  """

  dice: float | None
  iou: float | None
  hausdorff95_mm: float | None
  in_3d: bool


def compare(
    found: np.ndarray, truth: np.ndarray,
    spacing_mm: tuple[float, float, float]) -> LungAgreement:
  """Compares two masks of one case.

  Args:
    found, truth: [slice, row, column], nonzero in the lungs.
    spacing_mm: between (slices, rows, columns); a slice spacing of 0 means slices
      that are no stack, a pixel spacing of 0 an unknown one.

  Returns:
    Their agreement.
  """
  found, truth = np.asarray(found, bool), np.asarray(truth, bool)
  if found.shape != truth.shape:
    raise ValueError(
        f'found and truth must have one shape, found {found.shape}, {truth.shape}.')
  common = int(np.count_nonzero(found & truth))
  total = int(np.count_nonzero(found)) + int(np.count_nonzero(truth))
  in_3d = spacing_mm[0] > 0
  if not total:
    return LungAgreement(None, None, None, in_3d)
  distance = None
  if min(spacing_mm[1:]) > 0:
    distance = _hausdorff95_mm(found, truth, spacing_mm, in_3d)
  return LungAgreement(
      2 * common / total, common / (total - common), distance, in_3d)


def _hausdorff95_mm(found, truth, spacing_mm, in_3d) -> float | None:
  if in_3d:
    there, back = _surface_distances(found, truth, spacing_mm)
  else:
    pairs = [_surface_distances(a, b, spacing_mm[1:]) for a, b in zip(found, truth)
             if a.any() and b.any()]
    there, back = (np.concatenate([pair[way] for pair in pairs] or [np.empty(0)])
                   for way in (0, 1))
  if not there.size or not back.size:
    return None
  return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _surface_distances(first, second, spacing_mm):
  """Distances in mm from first's surface voxels to second's, and back."""
  both = np.argwhere(first | second)
  if not first.any() or not second.any():
    return np.empty(0), np.empty(0)
  cut = tuple(slice(low, high + 1) for low, high in zip(both.min(0), both.max(0)))
  edges = [_surface(mask[cut]) for mask in (first, second)]
  to_second, to_first = (
      ndimage.distance_transform_edt(~edge, sampling=spacing_mm)
      for edge in (edges[1], edges[0]))
  return to_second[edges[0]], to_first[edges[1]]


def _surface(mask):
  return mask & ~ndimage.binary_erosion(mask)
