"""What is measured of the lungs beside the score: densities, grades, label regions.

docs/densities.md says what each means and where its cuts come from.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

# Sides of the patient and thirds of the lungs' height; ours, while the literature's
# zones follow carina and pulmonary veins.
ZONES = (
  'right_apical',
  'right_middle',
  'right_basal',
  'left_apical',
  'left_middle',
  'left_basal',
)
OPACITY = 'opacity'
# Of `Densities.regions`, in the order of result.json.
DENSITY_REGIONS = ('lungs', 'right', 'left', *ZONES, OPACITY)

BELOW, ABOVE = 'below', 'above'
_HU_RANGE = (-32768, 32767)


@dataclasses.dataclass(frozen=True)
class DensityScheme:
  """Bins of Hounsfield units, of which every voxel is in one.

  Attributes:
    edges_hu: ascending; a voxel of bin i has edges_hu[i] <= HU < edges_hu[i + 1].
    bins: a name for each; voxels under the first edge are in 'below', those at and over
      the last one in 'above'.
  """

  edges_hu: tuple[int, ...]
  bins: tuple[str, ...]

  def __post_init__(self) -> None:
    if not all(
      type(edge) is int and _HU_RANGE[0] < edge <= _HU_RANGE[1]
      for edge in self.edges_hu
    ) or list(self.edges_hu) != sorted(set(self.edges_hu)):
      raise ValueError(
        f'edges_hu must be ascending whole numbers of HU, found {self.edges_hu}.'
      )
    if len(self.edges_hu) != len(self.bins) + 1 or not self.bins:
      raise ValueError(
        f'one edge more than bins is required, found {len(self.edges_hu)} edges and '
        f'{len(self.bins)} bins.'
      )
    if len({*self.bins, BELOW, ABOVE}) != len(self.bins) + 2:
      raise ValueError(
        "bins must have names of their own, none 'below' or 'above', found "
        f'{self.bins}.'
      )

  @property
  def all_bins(self) -> tuple[str, ...]:
    """Names of all the parts of the whole, from the lowest density up."""
    return (BELOW, *self.bins, ABOVE)


# Gattinoni et al. 2001 (doi 10.1164/ajrccm.164.9.2103121) and the quantitative CT of
# ARDS since: -900, -500 and -100 HU between air and tissue.
AERATION = DensityScheme(
  (-1000, -900, -500, -100, 100),
  ('hyperinflated', 'normally_aerated', 'poorly_aerated', 'not_aerated'),
)
# Well-aerated lung: Colombi et al. 2020 (doi 10.1148/radiol.2020201433), -950 to -700
# HU. The cut between ground glass and consolidation differs between papers; of eight, a
# study of suspected cases took -300 HU for ground glass (doi
# 10.1186/s12879-021-06556-z). The upper end is ours, that of the scheme above.
COVID = DensityScheme(
  (-950, -700, -300, 100), ('well_aerated', 'ground_glass', 'consolidation')
)


@dataclasses.dataclass(frozen=True)
class DensitySchemes:
  """What densities are measured by.

  Attributes:
    aeration: the scheme of the literature on ventilation.
    covid: the scheme of the literature on COVID-19.
    low_attenuation_hu: voxels below it are of low attenuation (emphysema; Gevenois et
      al. 1995, doi 10.1164/ajrccm.152.2.7633722: -950 HU on thin slices).
    percentiles: whole numbers from 0 to 100, ascending.
    dense_bins: those of `covid` that count as involved in the zone score by density.
  """

  aeration: DensityScheme = AERATION
  covid: DensityScheme = COVID
  low_attenuation_hu: int = -950
  percentiles: tuple[int, ...] = (5, 10, 15, 25, 50, 75, 90, 95)
  dense_bins: tuple[str, ...] = ('ground_glass', 'consolidation')

  def __post_init__(self) -> None:
    if type(self.low_attenuation_hu) is not int:
      raise ValueError(
        'low_attenuation_hu must be a whole number of HU, found '
        f'{self.low_attenuation_hu!r}.'
      )
    if not all(
      type(part) is int and 0 <= part <= 100 for part in self.percentiles
    ) or list(self.percentiles) != sorted(set(self.percentiles)):
      raise ValueError(
        'percentiles must be ascending whole numbers from 0 to 100, found '
        f'{self.percentiles}.'
      )
    if not self.dense_bins or not set(self.dense_bins) <= set(self.covid.all_bins):
      raise ValueError(
        f'dense_bins must be bins of covid ({", ".join(self.covid.all_bins)}), found '
        f'{self.dense_bins}.'
      )

  def by_name(self) -> dict[str, DensityScheme]:
    """'aeration' and 'covid', as in result.json."""
    return {'aeration': self.aeration, 'covid': self.covid}


@dataclasses.dataclass(frozen=True)
class RegionDensity:
  """The densities of one region's voxels, as scanned.

  Attributes:
    volume_cm3: of the region; 0 where it has no voxels.
    mean_hu: None where it has no voxels.
    percentiles_hu: percentile to HU, linear between neighbours in rank (numpy's
      default); empty where it has no voxels.
    bins_cm3: name of the scheme to bin to volume; those of a scheme add up to
      volume_cm3.
    low_attenuation_cm3: volume below the schemes' low_attenuation_hu.
  """

  volume_cm3: float
  mean_hu: float | None
  percentiles_hu: Mapping[int, float]
  bins_cm3: Mapping[str, Mapping[str, float]]
  low_attenuation_cm3: float

  def share(self, cm3: float) -> float | None:
    """A part's share of the region, in [0, 1]; None where it has no voxels."""
    return cm3 / self.volume_cm3 if self.volume_cm3 else None


@dataclasses.dataclass(frozen=True)
class Densities:
  """Densities of the lungs and their parts.

  Attributes:
    schemes: what they were measured by.
    regions: those of DENSITY_REGIONS: 'lungs', 'right' and 'left', six zones, and
      'opacity', the voxels of the lung mask that the Corona score counts.
  """

  schemes: DensitySchemes
  regions: Mapping[str, RegionDensity]


@dataclasses.dataclass(frozen=True)
class Repeatability:
  """How far a Corona score moves between two measurements of one unchanged chest.

  The repeatability coefficient: 1.96 √2 times the deviation within a subject, which 95
  of 100 differences do not exceed (Raunig et al., Stat Methods Med Res 2015;24:27). It
  grows with the score, so it has two parts; the larger one counts.

  Attributes:
    cm3: coefficient of differences.
    relative: coefficient of differences over the mean of the two scores.
  """

  cm3: float
  relative: float

  def __post_init__(self) -> None:
    for name in ('cm3', 'relative'):
      value = getattr(self, name)
      if isinstance(value, bool) or not 0 <= value < float('inf'):
        raise ValueError(f'{name} must be finite and not below 0, found {value!r}.')

  def limit_cm3(self, first_cm3: float, second_cm3: float) -> float:
    """The largest difference of two scores that may mean nothing, cm³."""
    return max(self.cm3, self.relative * (first_cm3 + second_cm3) / 2)

  @classmethod
  def of_card(cls, found: Any) -> 'Repeatability | None':
    """What a classifier's card says under `repeatability`; None where it says nothing.

    Raises:
      ValueError: it is no object of the numbers `cm3` and `relative`.
    """
    if found is None:
      return None
    try:
      return cls(float(found['cm3']), float(found['relative']))
    except (KeyError, TypeError, ValueError):
      raise ValueError(
        'repeatability must be an object of the numbers cm3 and relative, not below '
        f'0, found {found!r}'
      ) from None


@dataclasses.dataclass(frozen=True)
class ZoneScore:
  """Grades of six zones by the share of them that is involved, and their sum.

  Attributes:
    total: 0 to 24.
    zones: those of ZONES to 0 to 4: 0 for nothing, 1 below 25 %, 2 below 50 %, 3 below
      75 %, 4 from 75 %; None where a zone has no lung, which adds nothing.
    shares: involved share of each zone's lung voxels, in [0, 1], or None.
  """

  total: int
  zones: Mapping[str, int | None]
  shares: Mapping[str, float | None]


# Of the whole lungs: what lists of many results, and one patient over time, show.
QUOTED = (
  'zone_score',
  'zone_score_by_density',
  'mean_lung_density_hu',
  'ground_glass_share',
  'consolidation_share',
  'low_attenuation_share',
)


def quoted(
  densities: Densities | None,
  zone_score: ZoneScore | None,
  zone_score_by_density: ZoneScore | None,
) -> dict[str, float]:
  """Those of QUOTED that a result has: totals of zones, HU, shares in [0, 1]."""
  totals = {
    'zone_score': zone_score,
    'zone_score_by_density': zone_score_by_density,
  }
  found: dict[str, float | None] = {
    name: score.total for name, score in totals.items() if score
  }
  if densities:
    lungs = densities.regions['lungs']
    bins = lungs.bins_cm3['covid']
    found['mean_lung_density_hu'] = lungs.mean_hu
    for name in ('ground_glass', 'consolidation'):
      if name in bins:  # Other schemes may have other bins.
        found[f'{name}_share'] = lungs.share(bins[name])
    found['low_attenuation_share'] = lungs.share(lungs.low_attenuation_cm3)
  return {name: value for name, value in found.items() if value is not None}


# The lobes of both lungs, as result.json names them.
LOBES = (
  'right_upper_lobe',
  'right_middle_lobe',
  'right_lower_lobe',
  'left_upper_lobe',
  'left_lower_lobe',
)
# Involved share above which each grade after the first begins; a lobe with any is 1.
# Francone et al. 2020 (doi 10.1007/s00330-020-07033-y) grade by eye, below 5, 5 to 25,
# 26 to 50, 51 to 75 and above 75 %; here a cut itself, 5 % too, has the lower grade.
LOBE_CUTS = (0.05, 0.25, 0.50, 0.75)


@dataclasses.dataclass(frozen=True)
class LabelRegion:
  """One region of a label map.

  Attributes:
    label: its number in the map.
    label_volume_cm3: of all voxels with the label, lung mask or not.
    corona_score_in_lung_cm3: the score over its voxels of the lung mask.
    involved_lung_fraction: share of its lung voxels that the score counts; None where
      it covers no lung.
    densities: of its voxels of the lung mask; their volume is in it.
  """

  label: int
  label_volume_cm3: float
  corona_score_in_lung_cm3: float
  involved_lung_fraction: float | None
  densities: RegionDensity


@dataclasses.dataclass(frozen=True)
class LabelRegions:
  """Regions of a label map that was given.

  Attributes:
    labels_sha256: of its voxels, as uint16 little-endian [slice, row, column].
    schemes: what their densities were measured by.
    unlabelled_lung_cm3: lung in none of the regions.
    regions: name to what was measured.
  """

  labels_sha256: str
  schemes: DensitySchemes
  unlabelled_lung_cm3: float
  regions: Mapping[str, LabelRegion]


@dataclasses.dataclass(frozen=True)
class LobeScore:
  """Grades of five lobes by the share of them that is involved, and their sum.

  Attributes:
    total: 0 to 25.
    lobes: those of LOBES to 0 to 5: 0 for nothing, then 1 up to 5 %, 2 up to 25 %, 3 up
      to 50 %, 4 up to 75 %, 5 above; None where a lobe covers no lung, which adds
      nothing.
    shares: involved share of each lobe's lung voxels, in [0, 1], or None.
  """

  total: int
  lobes: Mapping[str, int | None]
  shares: Mapping[str, float | None]
