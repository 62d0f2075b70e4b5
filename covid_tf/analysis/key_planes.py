"""Which two planes of a CT show a result, and their Hounsfield units.

The slice with the most of the score, and of the planes that show a good part of the
lungs the coronal one with most of what counts.
"""

import numpy as np

from covid_tf import results
from covid_tf import volume as volume_lib

_GOOD_PART = 0.35  # Of the largest lung area: a coronal plane has to show lungs.


class KeyPlaneTally:
  """Counts where the voxels lie that count; an observer of `corona_score`."""

  def __init__(self, affine: np.ndarray, shape: tuple[int, int, int]):
    """Starts with none.

    Args:
      affine: float64 [4, 4], (slice, row, column, 1) to LPS millimetres.
      shape: (slices, rows, columns).
    """
    directions = np.abs(affine[1, 1:3]) / np.linalg.norm(affine[:3, 1:3], axis=0)
    self._axis = 1 + int(np.argmax(directions))  # Nearest to the back: rows, usually.
    self._counted = np.zeros(shape[self._axis])

  def observe(
    self, slice_: int, rows: np.ndarray, columns: np.ndarray, values: np.ndarray
  ) -> None:
    """See `corona_score.Observer`."""
    del slice_
    indices = rows if self._axis == 1 else columns
    self._counted += np.bincount(indices, values, minlength=len(self._counted))

  def places(self, result: results.CaseResult) -> tuple[int, int, int]:
    """(slice, axis that the coronal plane fixes, its index there)."""
    by_slice = result.corona_score_by_slice_cm3
    if by_slice.max() > 0:
      axial = int(by_slice.argmax())
    else:
      axial = int(result.lung_mask.sum(axis=(1, 2)).argmax())
    lung = result.lung_mask.sum(axis=(0, 3 - self._axis))
    counted = np.where(lung < _GOOD_PART * lung.max(), 0, self._counted)
    coronal = counted if counted.any() else lung
    return axial, self._axis, int(coronal.argmax())


def of_volume(
  volume: volume_lib.CTVolume, places: tuple[int, int, int]
) -> results.KeyPlanes:
  """The planes of a CT at these places, copied out of it."""
  axial, axis, coronal = places
  return results.KeyPlanes(
    axial,
    volume.hu[axial].copy(),
    axis,
    coronal,
    np.ascontiguousarray(np.take(volume.hu, coronal, axis=axis)),
  )


def places_of(result: results.CaseResult) -> tuple[int, int, int]:
  """The places again, from the map of a result, such as one that was stored."""
  tally = KeyPlaneTally(result.affine, result.shape)
  box, localization = result.lung_box, result.localization
  for index, map_ in zip(localization.slices, localization.maps):
    inside = result.lung_mask[index, box.rows, box.columns] > 0
    rows, columns = np.nonzero((map_ > result.thresholds.map) & inside)
    tally.observe(index, rows + box.row0, columns + box.column0, map_[rows, columns])
  return tally.places(result)
