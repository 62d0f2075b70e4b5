"""Densities and grades of the lungs as result.json holds them, written and read."""

import math
from typing import Any

from covid_tf import lung_measures

_SAME = 1e-9  # Relative: volumes of whole voxels that add up.

# What a zone score is by, so that no reader takes it for a radiologist's.
_METHODS = {
  'network': 'share of lung voxels with a network map above its threshold',
  'density': "share of lung voxels in the COVID scheme's dense bins",
}


def densities_dict(densities: lung_measures.Densities | None) -> dict[str, Any] | None:
  """The field `densities`."""
  if densities is None:
    return None
  return {
    'schemes': _schemes_dict(densities.schemes),
    'regions': {
      name: region_dict(region) for name, region in densities.regions.items()
    },
  }


def _schemes_dict(schemes: lung_measures.DensitySchemes) -> dict[str, Any]:
  return {
    **{
      name: {'edges_hu': list(scheme.edges_hu), 'bins': list(scheme.bins)}
      for name, scheme in schemes.by_name().items()
    },
    'low_attenuation_hu': schemes.low_attenuation_hu,
    'percentiles': list(schemes.percentiles),
    'dense_bins': list(schemes.dense_bins),
  }


def region_dict(region: lung_measures.RegionDensity) -> dict[str, Any]:
  """One region: volumes, and each volume's share of the region beside it."""
  return {
    'volume_cm3': region.volume_cm3,
    'mean_hu': region.mean_hu,
    'percentiles_hu': {
      str(percentile): hu for percentile, hu in region.percentiles_hu.items()
    },
    'bins_cm3': {name: dict(bins) for name, bins in region.bins_cm3.items()},
    'bin_shares': {
      name: {part: region.share(cm3) for part, cm3 in bins.items()}
      for name, bins in region.bins_cm3.items()
    },
    'low_attenuation_cm3': region.low_attenuation_cm3,
    'low_attenuation_share': region.share(region.low_attenuation_cm3),
  }


def zone_score_dict(
  score: lung_measures.ZoneScore | None, method: str
) -> dict[str, Any] | None:
  """The field `zone_score`, or `zone_score_by_density`.

  Args:
    score: what to write.
    method: 'network' or 'density'.
  """
  if score is None:
    return None
  return {
    'total': score.total,
    'zones': dict(score.zones),
    'shares': dict(score.shares),
    'method': _METHODS[method],
  }


def label_regions_dict(
  regions: lung_measures.LabelRegions | None,
) -> dict[str, Any] | None:
  """The field `label_regions`."""
  if regions is None:
    return None
  return {
    'labels_sha256': regions.labels_sha256,
    'schemes': _schemes_dict(regions.schemes),
    'unlabelled_lung_cm3': regions.unlabelled_lung_cm3,
    'regions': {
      name: {
        'label': region.label,
        'label_volume_cm3': region.label_volume_cm3,
        'corona_score_in_lung_cm3': region.corona_score_in_lung_cm3,
        'involved_lung_fraction': region.involved_lung_fraction,
        'densities': region_dict(region.densities),
      }
      for name, region in regions.regions.items()
    },
  }


def lobe_score_dict(score: lung_measures.LobeScore | None) -> dict[str, Any] | None:
  """The field `lobe_score`."""
  if score is None:
    return None
  return {
    'total': score.total,
    'lobes': dict(score.lobes),
    'shares': dict(score.shares),
    'method': _METHODS['network'],
  }


# Read back. ValueError says what a value must be, in the words of result_json.


def read_densities(value: Any) -> lung_measures.Densities:
  """The field `densities` of a result.json that is not null.

  Raises:
    ValueError: it is something else, or its parts do not add up.
  """
  said = _object(value, 'schemes', 'regions')
  schemes = _schemes(said['schemes'])
  regions = _object(said['regions'], *lung_measures.DENSITY_REGIONS)
  return lung_measures.Densities(
    schemes,
    {
      name: read_region(regions[name], schemes)
      for name in lung_measures.DENSITY_REGIONS
    },
  )


def read_region(
  value: Any, schemes: lung_measures.DensitySchemes
) -> lung_measures.RegionDensity:
  """One region, whose shares follow from its volumes.

  Raises:
    ValueError: it is something else, or its parts do not add up.
  """
  said = _object(
    value,
    'volume_cm3',
    'mean_hu',
    'percentiles_hu',
    'bins_cm3',
    'low_attenuation_cm3',
  )
  volume = _number(said['volume_cm3'], 0)
  if (volume == 0) != (said['mean_hu'] is None):
    raise ValueError('an object with mean_hu where there is volume')
  wanted = schemes.percentiles if volume else ()
  percentiles = _object(said['percentiles_hu'], *map(str, wanted))
  by_name = schemes.by_name()
  given = _object(said['bins_cm3'], *by_name)
  bins = {name: _bins(given[name], scheme) for name, scheme in by_name.items()}
  for name, parts in bins.items():
    if not math.isclose(math.fsum(parts.values()), volume, rel_tol=_SAME):
      raise ValueError(f'an object whose {name} bins add up to volume_cm3')
  return lung_measures.RegionDensity(
    volume,
    None if said['mean_hu'] is None else _number(said['mean_hu']),
    {percentile: _number(percentiles[str(percentile)]) for percentile in wanted},
    bins,
    _number(said['low_attenuation_cm3'], 0),
  )


def read_zone_score(value: Any) -> lung_measures.ZoneScore:
  """The field `zone_score` or `zone_score_by_density` that is not null.

  Raises:
    ValueError: it is something else, or its total is another.
  """
  return lung_measures.ZoneScore(*_graded(value, 'zones', lung_measures.ZONES, 4))


def read_lobe_score(value: Any) -> lung_measures.LobeScore:
  """The field `lobe_score` that is not null.

  Raises:
    ValueError: it is something else, or its total is another.
  """
  return lung_measures.LobeScore(*_graded(value, 'lobes', lung_measures.LOBES, 5))


def read_label_regions(value: Any) -> lung_measures.LabelRegions:
  """The field `label_regions` that is not null.

  Raises:
    ValueError: it is something else.
  """
  said = _object(value, 'labels_sha256', 'schemes', 'unlabelled_lung_cm3', 'regions')
  if not isinstance(said['labels_sha256'], str):
    raise ValueError('an object whose labels_sha256 is text')
  schemes = _schemes(said['schemes'])
  return lung_measures.LabelRegions(
    said['labels_sha256'],
    schemes,
    _number(said['unlabelled_lung_cm3'], 0),
    {
      str(name): _label_region(region, schemes)
      for name, region in _object(said['regions']).items()
    },
  )


def _label_region(
  value: Any, schemes: lung_measures.DensitySchemes
) -> lung_measures.LabelRegion:
  said = _object(
    value,
    'label',
    'label_volume_cm3',
    'corona_score_in_lung_cm3',
    'involved_lung_fraction',
    'densities',
  )
  if type(said['label']) is not int or said['label'] < 1:
    raise ValueError('an object whose regions have labels above 0')
  return lung_measures.LabelRegion(
    said['label'],
    _number(said['label_volume_cm3'], 0),
    _number(said['corona_score_in_lung_cm3'], 0),
    _share(said['involved_lung_fraction']),
    read_region(said['densities'], schemes),
  )


def _graded(
  value: Any, parts: str, names: tuple[str, ...], most: int
) -> tuple[int, dict[str, int | None], dict[str, float | None]]:
  """(total, grades, shares) of a score whose parts are `names`."""
  said = _object(value, 'total', parts, 'shares')
  graded, shares = _object(said[parts], *names), _object(said['shares'], *names)
  grades = {name: _grade(graded[name], most) for name in names}
  if said['total'] != sum(filter(None, grades.values())):
    raise ValueError(f'an object whose total is the sum of its {parts}')
  return int(said['total']), grades, {name: _share(shares[name]) for name in names}


def _schemes(value: Any) -> lung_measures.DensitySchemes:
  said = _object(
    value, 'aeration', 'covid', 'low_attenuation_hu', 'percentiles', 'dense_bins'
  )
  return lung_measures.DensitySchemes(
    _scheme(said['aeration']),
    _scheme(said['covid']),
    said['low_attenuation_hu'],
    _tuple(said['percentiles']),
    _tuple(said['dense_bins']),
  )


def _scheme(value: Any) -> lung_measures.DensityScheme:
  said = _object(value, 'edges_hu', 'bins')
  return lung_measures.DensityScheme(_tuple(said['edges_hu']), _tuple(said['bins']))


def _bins(value: Any, scheme: lung_measures.DensityScheme) -> dict[str, float]:
  said = _object(value, *scheme.all_bins)
  return {part: _number(said[part], 0) for part in scheme.all_bins}


def _tuple(value: Any) -> tuple[Any, ...]:
  if not isinstance(value, list):
    raise ValueError('an object whose schemes have lists')
  return tuple(value)


def _object(value: Any, *names: str) -> dict[str, Any]:
  if not isinstance(value, dict) or not set(names) <= set(value):
    raise ValueError(f'an object of {", ".join(names)}')
  return value


def _number(value: Any, least: float = -math.inf) -> float:
  if (
    isinstance(value, bool)
    or not isinstance(value, (int, float))
    or not math.isfinite(value)
    or value < least
  ):
    raise ValueError('an object of finite numbers, volumes not below 0')
  return float(value)


def _grade(value: Any, most: int) -> int | None:
  if value is not None and (type(value) is not int or not 0 <= value <= most):
    raise ValueError(f'an object of grades from 0 to {most}, or null')
  return value


def _share(value: Any) -> float | None:
  if value is not None and not _number(value, 0) <= 1:
    raise ValueError('an object of shares in [0, 1], or null')
  return None if value is None else float(value)
