"""What of a result the structured report measures, in groups; and the way back.

Groups are plain data here: `structured_report` makes template TID 1411 of each.
docs/dicom_objects.md shows the tree.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import os
from typing import Any

import pydicom
from pydicom.sr import coding

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf import results
from covid_tf.storage.dicom import codes

# Numbers of the segmentation's segments.
LUNGS, ATTENTION = 1, 2


@dataclasses.dataclass(frozen=True)
class Site:
  """Where in the patient: a place, and its side where it has two."""

  place: coding.Code = codes.LUNG
  laterality: coding.Code | None = None

  @property
  def words(self) -> str:
    """'Right upper zone of lung'."""
    side = f'{self.laterality.meaning} ' if self.laterality else ''
    return f'{side}{self.place.meaning}'.capitalize()


@dataclasses.dataclass(frozen=True)
class Measure:
  """One number.

  Attributes:
    quantity, unit: codes of what was measured and in what.
    value: as in result.json, shares times 100.
    method, derivation: codes of how, or None.
    site: where that is not the group's site, or None.
    of_map: it comes from the parametric map.
  """

  quantity: coding.Code
  value: float
  unit: coding.Code
  method: coding.Code | None = None
  derivation: coding.Code | None = None
  site: Site | None = None
  of_map: bool = False


@dataclasses.dataclass(frozen=True)
class Group:
  """Measurements of one region: a Measurement Group of TID 1411.

  Attributes:
    name: the end of its tracking identifier, unique within a report.
    segment: the segment that holds the region, or that it is a part of.
    finding: code of what the group is about.
    measures: its numbers, one at least.
    site: finding site, or None.
    evaluations: (question, answer) as codes.
  """

  name: str
  segment: int
  finding: coding.Code
  measures: tuple[Measure, ...]
  site: Site | None = None
  evaluations: tuple[tuple[coding.Code, coding.Code], ...] = ()


_SIDES = {'right': codes.RIGHT, 'left': codes.LEFT}
_LEVELS = {'apical': codes.APICAL, 'middle': codes.MIDDLE, 'basal': codes.BASAL}


def site_of(region: str) -> Site:
  """The site of a region, zone or lobe of result.json: 'left', 'right_apical', ….

  A name that is none of these is lung somewhere.
  """
  if region in codes.LOBES:
    lobe = codes.LOBES[region]
    # The middle lobe is on one side only, which its code says.
    side = None if region == 'right_middle_lobe' else region.partition('_')[0]
    return Site(lobe, _SIDES[side] if side else None)
  words = region.split('_')
  if not {*words} <= {*_SIDES, *_LEVELS}:
    return Site()
  place = next((_LEVELS[word] for word in words if word in _LEVELS), codes.LUNG)
  return Site(place, next((_SIDES[word] for word in words if word in _SIDES), None))


def groups_of(result: results.CaseResult) -> tuple[Group, ...]:
  """All groups of a result, those of the Corona score first.

  Measures that the result has not (a region without voxels, a result of before there
  were densities) are left out.
  """
  return tuple(
    group
    for group in (
      _lungs(result),
      _counted(result),
      *_regions(result),
      *_graded(result),
      *_densities(result),
      *_label_regions(result),
    )
    if group.measures
  )


def _lungs(result: results.CaseResult) -> Group:
  # Without a site: the finding is the site.
  return Group('lungs', LUNGS, codes.LUNG, (_volume(result.lung_volume_cm3),))


def _counted(result: results.CaseResult) -> Group:
  measures = [
    _of_map(codes.CORONA, result.corona_score_cm3),
    _of_map(codes.CORONA_IN_LUNG, result.corona_score_in_lung_cm3),
    *_share(codes.INVOLVED_LUNG, result.involved_lung_fraction),
  ]
  threshold = result.thresholds.case_corona_score_cm3
  if threshold is not None:
    measures.append(Measure(codes.CASE_THRESHOLD, threshold, codes.CM3))
  if result.repeatability:
    measures += [
      Measure(codes.REPEATABILITY, result.repeatability.cm3, codes.CM3),
      *_share(codes.RELATIVE_REPEATABILITY, result.repeatability.relative),
    ]
  evaluations: tuple[tuple[coding.Code, coding.Code], ...] = ()
  if result.case_detected is not None:
    answer = codes.DETECTED if result.case_detected else codes.NOT_DETECTED
    evaluations = ((codes.CASE_DETECTED, answer),)
  return Group(
    'model attention',
    ATTENTION,
    codes.MODEL_ATTENTION,
    tuple(measures),
    Site(),
    evaluations,
  )


def _regions(result: results.CaseResult) -> Iterator[Group]:
  scores = result.corona_score_by_region_cm3
  for region in (*_SIDES, *_LEVELS):
    measure = _of_map(codes.CORONA_IN_LUNG, scores[region])
    yield Group(
      f'model attention, {region}',
      ATTENTION,
      codes.MODEL_ATTENTION,
      (measure,),
      site_of(region),
    )


def _graded(result: results.CaseResult) -> Iterator[Group]:
  if score := result.zone_score:
    quantities = codes.ZONE_SCORE, codes.ZONE_GRADE, codes.INVOLVED_LUNG
    measures = _grades(score.total, score.zones, score.shares, quantities)
    yield Group('zone score', ATTENTION, codes.ZONE_GRADING, measures, Site())
  if score := result.zone_score_by_density:
    quantities = codes.DENSITY_SCORE, codes.DENSITY_GRADE, codes.DENSE_LUNG
    measures = _grades(score.total, score.zones, score.shares, quantities)
    yield Group('zone score by density', LUNGS, codes.DENSITY_GRADING, measures, Site())
  if lobes := result.lobe_score:
    quantities = codes.LOBE_SCORE, codes.LOBE_GRADE, codes.INVOLVED_LUNG
    measures = _grades(lobes.total, lobes.lobes, lobes.shares, quantities)
    yield Group('lobe score', ATTENTION, codes.LOBE_GRADING, measures, Site())


def _grades(
  total: int,
  grades: Mapping[str, int | None],
  shares: Mapping[str, float | None],
  quantities: tuple[coding.Code, coding.Code, coding.Code],
) -> tuple[Measure, ...]:
  """The total, then grade and share of each part that has lung, at its own site."""
  of_total, of_grade, of_share = quantities
  measures = [Measure(of_total, float(total), codes.NO_UNITS)]
  for part, grade in grades.items():
    site = site_of(part)
    if grade is not None:
      measures.append(Measure(of_grade, float(grade), codes.NO_UNITS, site=site))
    measures += _share(of_share, shares[part], site)
  return tuple(measures)


# Regions whose densities are reported to the last percentile: with all of them for all
# regions, PixelMed's validator ran out of memory after ten minutes.
_WHOLE = ('lungs', lung_measures.OPACITY)


def _densities(result: results.CaseResult) -> Iterator[Group]:
  if not result.densities:
    return
  for name, region in result.densities.regions.items():
    is_counted = name == lung_measures.OPACITY
    yield Group(
      # `opacity` is what the score counts inside the lungs, and no more than that.
      'density, model attention in the lungs' if is_counted else f'density, {name}',
      ATTENTION if is_counted else LUNGS,
      codes.LUNG_DENSITY,
      tuple(_density(region, result.densities.schemes, name in _WHOLE)),
      site_of(name),
    )


def _density(
  region: lung_measures.RegionDensity,
  schemes: lung_measures.DensitySchemes,
  is_whole: bool,
) -> Iterator[Measure]:
  """Volume, mean and parts of a region; percentiles and all schemes if `is_whole`."""
  yield _volume(region.volume_cm3)
  if region.mean_hu is not None:
    yield Measure(
      codes.ATTENUATION, region.mean_hu, codes.HOUNSFIELD, derivation=codes.MEAN
    )
  for percent, hu in region.percentiles_hu.items() if is_whole else ():
    yield Measure(codes.percentile(percent), hu, codes.HOUNSFIELD)
  low = codes.density_bin('low attenuation', None, schemes.low_attenuation_hu)
  volumes = {low.value: Measure(low, region.low_attenuation_cm3, codes.CM3)}
  for scheme, parts in schemes.by_name().items():
    if not (is_whole or scheme == 'covid'):
      continue
    bounds = (None, *parts.edges_hu, None)
    for part, from_hu, below_hu in zip(parts.all_bins, bounds, bounds[1:]):
      code = codes.density_bin(part.replace('_', ' '), from_hu, below_hu)
      # Two schemes may share a range: one quantity, which is measured once.
      cm3 = region.bins_cm3[scheme][part]
      volumes.setdefault(code.value, Measure(code, cm3, codes.CM3))
  yield from volumes.values()


def _label_regions(result: results.CaseResult) -> Iterator[Group]:
  if not (found := result.label_regions):
    return
  unlabelled = Measure(codes.UNLABELLED_LUNG, found.unlabelled_lung_cm3, codes.CM3)
  yield Group(
    'lung in no label region', LUNGS, codes.LABEL_REGION, (unlabelled,), Site()
  )
  for name, region in found.regions.items():
    measures = (
      Measure(codes.LABEL_VOLUME, region.label_volume_cm3, codes.CM3),
      _of_map(codes.CORONA_IN_LUNG, region.corona_score_in_lung_cm3),
      *_share(codes.INVOLVED_LUNG, region.involved_lung_fraction),
      *_density(region.densities, found.schemes, is_whole=False),
    )
    yield Group(
      f'label {region.label}, {name}',
      LUNGS,
      codes.LABEL_REGION,
      measures,
      site_of(name),
    )


def _volume(cm3: float) -> Measure:
  return Measure(codes.VOLUME, cm3, codes.CM3, method=codes.SUM_OF_VOXELS)


def _of_map(quantity: coding.Code, cm3: float) -> Measure:
  return Measure(quantity, cm3, codes.CM3, of_map=True)


def _share(
  quantity: coding.Code, share: float | None, site: Site | None = None
) -> Iterable[Measure]:
  """In percent; nothing where there is no share."""
  if share is None:
    return ()
  return (Measure(quantity, 100 * share, codes.PERCENT, site=site),)


# The way back: any reader of DICOM can do this with these few lines.


def read_measurements(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
  """The numbers of a structured report, by pydicom alone.

  Args:
    path: the report.dcm of a result.

  Returns:
    Tracking identifier of each group to its numbers by code value: {'covid-tf model
    attention': {'CORONA': 12.5, …}, …}. Numbers of a site of their own have it behind
    the code: 'ZONE-GRADE, Right upper zone of lung'.

  Raises:
    errors.UsageError: the file is no structured report with measurement groups.
  """
  try:
    report = pydicom.dcmread(path)
    (container,) = _named(report, '126010')  # Imaging Measurements.
    groups = {
      _named(group, '112039')[0].TextValue: dict(_numbers(group))
      for group in _named(container, '125007')  # Measurement Group.
    }
  except (OSError, pydicom.errors.InvalidDicomError, ValueError, IndexError) as error:
    raise errors.UsageError(
      f'{path}: a structured report of covid-tf is required (report.dcm), found a file '
      f'without imaging measurements ({type(error).__name__}).'
    ) from None
  return groups


def _numbers(group: pydicom.Dataset) -> Iterator[tuple[str, float]]:
  for item in group.ContentSequence:
    if item.ValueType != 'NUM':
      continue
    measured = item.MeasuredValueSequence[0]
    name = item.ConceptNameCodeSequence[0].CodeValue
    sites = _named(item, '363698007')
    yield (
      ', '.join((name, *map(_site_words, sites))),
      float(measured.get('FloatingPointValue', measured.NumericValue)),
    )


def _site_words(item: pydicom.Dataset) -> str:
  sides = _named(item, '272741003')
  words = [found.ConceptCodeSequence[0].CodeMeaning for found in (*sides, item)]
  return ' '.join(words).capitalize()


def _named(item: pydicom.Dataset, code: str) -> list[Any]:
  """Children of a content item by the code of their concept name."""
  return [
    child
    for child in item.get('ContentSequence', ())
    if (names := child.get('ConceptNameCodeSequence')) and names[0].CodeValue == code
  ]
