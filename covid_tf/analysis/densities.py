"""Densities of the lungs and their parts, and the grades of zones that follow.

From the voxels as they were scanned, never from averaged slices: an average moves
voxels from both ends of the histogram to its middle. Each voxel is counted once, by
region and Hounsfield unit; all else is read from these counts, exactly.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from covid_tf import lung_measures
from covid_tf import volume as volume_lib
from covid_tf.analysis import lungs as lungs_lib

# In the order of `LungRegions.index`.
_ZONES = tuple(
  f'{side}_{level}' for side in lungs_lib.SIDES for level in lungs_lib.LEVELS
)


class VoxelCounts:
  """How many voxels of each region have each Hounsfield unit.

  Attributes:
    lowest_hu: HU of the first column of `counts`.
    counts: int64 [region, HU - lowest_hu].
  """

  def __init__(self, regions: int = 1) -> None:
    self.lowest_hu = volume_lib.AIR_HU
    self.counts = np.zeros((regions, 1), np.int64)

  def add(self, hu: np.ndarray, region: np.ndarray | int = 0) -> None:
    """Counts voxels.

    Args:
      hu: int16 [K].
      region: int [K], the region of each, from 0; or that of all.
    """
    if not len(hu):
      return
    low, high = int(hu.min()), int(hu.max())
    self._reach(low, high)
    regions, width = len(self.counts), high - low + 1
    place = hu.astype(np.intp) - low + np.asarray(region, np.intp) * width
    found = np.bincount(place, minlength=regions * width).reshape(regions, width)
    start = low - self.lowest_hu
    self.counts[:, start : start + width] += found

  def _reach(self, low: int, high: int) -> None:
    before = max(0, self.lowest_hu - low)
    after = max(0, high - (self.lowest_hu + self.counts.shape[1] - 1))
    if before or after:
      self.counts = np.pad(self.counts, ((0, 0), (before, after)))
      self.lowest_hu -= before


def count_lung_voxels(
  hu: np.ndarray, mask: np.ndarray, regions: lungs_lib.LungRegions
) -> VoxelCounts:
  """Counts the voxels of six zones.

  Args:
    hu: int16 [slice, row, column].
    mask: uint8 [slice, row, column], 0 or 1.
    regions: the planes that divide it.

  Returns:
    Counts by zone, in the order of `LungRegions.index`.
  """
  counts = VoxelCounts(len(_ZONES))
  # A whole plane's zones are found faster than where each voxel of the mask lies.
  rows, columns = np.ogrid[: mask.shape[1], : mask.shape[2]]
  for slice_, (plane, lung) in enumerate(zip(hu, mask)):
    inside = lung != 0
    if inside.any():
      counts.add(plane[inside], regions.index(slice_, rows, columns)[inside])
  return counts


def densities(
  zones: VoxelCounts,
  opacity: VoxelCounts,
  voxel_volume_mm3: float,
  schemes: lung_measures.DensitySchemes,
) -> lung_measures.Densities:
  """Densities of lungs, sides, zones and counted opacity.

  Args:
    zones: voxels of the lung mask by zone (`count_lung_voxels`).
    opacity: those of them that the Corona score counts, as one region.
    voxel_volume_mm3: volume of one voxel.
    schemes: what to measure by.
  """
  by_zone = dict(zip(_ZONES, zones.counts))
  counts = {
    'lungs': zones.counts.sum(axis=0),
    **{
      side: sum(by_zone[f'{side}_{level}'] for level in lungs_lib.LEVELS)
      for side in lungs_lib.SIDES
    },
    **{zone: by_zone[zone] for zone in lung_measures.ZONES},
  }
  measured = {
    name: of_counts(count, zones.lowest_hu, voxel_volume_mm3, schemes)
    for name, count in counts.items()
  }
  measured[lung_measures.OPACITY] = of_counts(
    opacity.counts[0], opacity.lowest_hu, voxel_volume_mm3, schemes
  )
  return lung_measures.Densities(schemes, measured)


def of_counts(
  counts: np.ndarray,
  lowest_hu: int,
  voxel_volume_mm3: float,
  schemes: lung_measures.DensitySchemes,
) -> lung_measures.RegionDensity:
  """The densities of one region.

  Args:
    counts: int64 [HU - lowest_hu], its voxels of each HU.
    lowest_hu: HU of the first.
    voxel_volume_mm3: volume of one voxel.
    schemes: what to measure by.
  """
  below = np.concatenate(([0], np.cumsum(counts)))  # Voxels under each HU.
  count = int(below[-1])

  def under(hu: int) -> int:
    return int(below[min(max(hu - lowest_hu, 0), len(counts))])

  def cm3(voxels: int) -> float:
    return voxels * voxel_volume_mm3 / 1000

  bins = {}
  for name, scheme in schemes.by_name().items():
    ends = [0, *map(under, scheme.edges_hu), count]
    bins[name] = {
      part: cm3(after - before)
      for part, before, after in zip(scheme.all_bins, ends, ends[1:])
    }
  hu = np.arange(lowest_hu, lowest_hu + len(counts))
  return lung_measures.RegionDensity(
    volume_cm3=cm3(count),
    mean_hu=int(counts @ hu) / count if count else None,
    percentiles_hu=(
      _percentiles(below[1:], lowest_hu, schemes.percentiles) if count else {}
    ),
    bins_cm3=bins,
    low_attenuation_cm3=cm3(under(schemes.low_attenuation_hu)),
  )


def _percentiles(
  up_to: np.ndarray, lowest_hu: int, percentiles: Sequence[int]
) -> dict[int, float]:
  """Linear between the two nearest ranks, as numpy.percentile has it.

  Args:
    up_to: int64, voxels up to each HU.
    lowest_hu: HU of the first.
    percentiles: from 0 to 100.
  """
  last = int(up_to[-1]) - 1
  found = {}
  for percentile in percentiles:
    rank, part = divmod(last * percentile, 100)  # Whole numbers: exact.
    low, high = np.searchsorted(up_to, (rank, min(rank + 1, last)), side='right')
    found[percentile] = float(lowest_hu + low + (high - low) * part / 100)
  return found


def involved_voxels(
  by_zone: np.ndarray, zones: VoxelCounts
) -> dict[str, tuple[int, int]]:
  """(counted, all) lung voxels of each zone, as of lung_measures.ZONES.

  Args:
    by_zone: int64 [6], counted voxels, in the order of `LungRegions.index`.
    zones: voxels of the lung mask by zone.
  """
  totals = zones.counts.sum(axis=1).tolist()
  found = dict(zip(_ZONES, zip(by_zone.tolist(), totals)))
  return {zone: found[zone] for zone in lung_measures.ZONES}


def zone_score(voxels: Mapping[str, tuple[int, int]]) -> lung_measures.ZoneScore:
  """Grades zones by the share of their lung voxels that is involved.

  Args:
    voxels: zone to (involved voxels, all voxels of it); a zone without voxels has no
      grade and adds nothing.
  """
  # In whole numbers: 25 of 100 voxels are 25 %, whatever a division rounds to.
  grades = {
    zone: _grade(involved, total) if total else None
    for zone, (involved, total) in voxels.items()
  }
  shares = {
    zone: involved / total if total else None
    for zone, (involved, total) in voxels.items()
  }
  return lung_measures.ZoneScore(sum(filter(None, grades.values())), grades, shares)


def _grade(involved: int, total: int) -> int:
  return (involved > 0) + sum(4 * involved >= part * total for part in (1, 2, 3))


def dense_voxels(
  zones: VoxelCounts, schemes: lung_measures.DensitySchemes
) -> dict[str, tuple[int, int]]:
  """(dense, all) lung voxels of each zone, as of lung_measures.ZONES.

  Args:
    zones: voxels of the lung mask by zone.
    schemes: its dense bins of `covid` are those that are involved.
  """
  scheme = schemes.covid
  edge = np.searchsorted(
    scheme.edges_hu,
    zones.lowest_hu + np.arange(zones.counts.shape[1]),
    side='right',
  )
  wanted = [scheme.all_bins.index(name) for name in schemes.dense_bins]
  dense = zones.counts[:, np.isin(edge, wanted)].sum(axis=1)
  return involved_voxels(dense, zones)
