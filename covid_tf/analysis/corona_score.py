"""The Corona score: localized opacity in cm³ (paper, section 2.4, Eq. 1)."""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from covid_tf import results
from covid_tf.analysis import lungs as lungs_lib

# Is shown the counted voxels of the lung mask, slice by slice: the slice's index, their
# rows and columns (int64 [K]) and the map's values (float64 [K]).
Observer = Callable[[int, np.ndarray, np.ndarray, np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class CoronaScore:
  """Eq. 1, and other measures of the same voxels.

  Attributes:
    total_cm3: the score; the sum of `by_slice_cm3`.
    in_lung_cm3: the same over voxels of the lung mask only; ours, since the
      paper's map also spills over ribs and heart.
    by_slice_cm3: float64 [S].
    by_region_cm3: the in-lung score of 'left' and 'right', which add up to it,
      and of 'apical', 'middle' and 'basal', which do too.
    involved_lung_fraction: share of lung voxels that count, in [0, 1].
    involved_voxels_by_zone: int64 [6], lung voxels that count, in the order of
      `LungRegions.index`; they add up to all.
  """

  total_cm3: float
  in_lung_cm3: float
  by_slice_cm3: np.ndarray
  by_region_cm3: dict[str, float]
  involved_lung_fraction: float
  involved_voxels_by_zone: np.ndarray


def corona_score(
  localization: results.LocalizationMap,
  lungs: lungs_lib.Lungs,
  regions: lungs_lib.LungRegions,
  voxel_volume_mm3: float,
  map_threshold: float,
  observers: Sequence[Observer] = (),
) -> CoronaScore:
  """Sums map * [map > threshold] * voxel volume over the positive slices.

  Args:
    localization: the map of the case.
    lungs: its lungs.
    regions: the planes between them.
    voxel_volume_mm3: volume of one voxel, by the distance between slices (not
      their thickness).
    map_threshold: voxels above it count.
    observers: each is shown what counts inside the lungs, while a slice's map is at
      hand: maps are fused when they are asked for.
  """
  voxel_cm3 = voxel_volume_mm3 / 1000
  box = localization.box
  by_slice = np.zeros(localization.shape[0])
  by_part = np.zeros(len(lungs_lib.SIDES) * len(lungs_lib.LEVELS))
  involved = np.zeros(len(by_part), np.int64)
  for index, map_ in zip(localization.slices, localization.maps):
    # A plain float: 0.6 is compared as float32, and is not above itself.
    hot = np.flatnonzero(map_ > float(map_threshold))
    values = map_.reshape(-1)[hot].astype(np.float64)  # Millions of terms.
    rows, columns = np.divmod(hot, map_.shape[1])
    by_slice[index] = values.sum() * voxel_cm3
    in_lung = lungs.mask[index, rows + box.row0, columns + box.column0] != 0
    rows, columns = rows[in_lung] + box.row0, columns[in_lung] + box.column0
    values = values[in_lung]
    parts = regions.index(index, rows, columns)
    involved += np.bincount(parts, minlength=len(by_part))
    by_part += np.bincount(parts, weights=values, minlength=len(by_part)) * voxel_cm3
    for observe in observers:
      observe(index, rows, columns, values)
  by_place = by_part.reshape(len(lungs_lib.SIDES), len(lungs_lib.LEVELS))
  by_region = dict(zip(lungs_lib.SIDES, by_place.sum(axis=1).tolist()))
  by_region |= dict(zip(lungs_lib.LEVELS, by_place.sum(axis=0).tolist()))
  return CoronaScore(
    total_cm3=float(by_slice.sum()),
    in_lung_cm3=float(by_part.sum()),
    by_slice_cm3=by_slice,
    by_region_cm3=by_region,
    involved_lung_fraction=int(involved.sum()) / lungs.voxel_count,
    involved_voxels_by_zone=involved,
  )
