"""One patient over time: the paper's discussion proposes the score for follow-up."""

from collections.abc import Iterator, Sequence
import dataclasses
import datetime
import itertools
import pathlib

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf.analysis import coverage
from covid_tf.cohort import results as results_lib
from covid_tf.cohort.accuracy import strata
from covid_tf.storage import result_json

# Ours. Two scans of one patient differ by their depth of breath; beyond these the
# reader is warned. They are no limits of repeatability: see `FollowUp.exceeds`.
_BREATH = 0.20  # Relative difference of lung volume.
_SPACING_RATIO = 1.5
_SAME = 0.005  # Ours: what rounds to 0 % has no direction.

RISING, FALLING, UNCHANGED = 'rising', 'falling', 'unchanged'


@dataclasses.dataclass(frozen=True)
class Measure:
  """A number that is followed: its name in compare.json, its title and its unit."""

  name: str
  title: str
  unit: str
  region: str = ''

  def of(self, result: result_json.StoredResult) -> float:
    """The number, in the unit of result.json (fractions in [0, 1])."""
    if self.region:
      return result.corona_score_by_region_cm3[self.region]
    if self.name in lung_measures.QUOTED:
      return _quoted(result)[self.name]
    return getattr(result, self.name)


SCORE = Measure('corona_score_cm3', 'Corona score', 'cm³')
INVOLVED = Measure('involved_lung_fraction', 'Involved lung', '%')
LUNG_VOLUME = Measure('lung_volume_cm3', 'Lung volume', 'cm³')
THIRDS = tuple(
  Measure(f'{region}_cm3', f'{region.title()} third', 'cm³', region)
  for region in ('apical', 'middle', 'basal')
)
SIDES = tuple(
  Measure(f'{region}_cm3', f'{region.title()} lung', 'cm³', region)
  for region in ('right', 'left')
)
MEASURES = (SCORE, INVOLVED, LUNG_VOLUME, *THIRDS, *SIDES)

# Shown where every study has them.
BESIDE = (
  Measure('zone_score', 'Zone score of the network', 'of 24'),
  Measure('zone_score_by_density', 'Zone score by density', 'of 24'),
  Measure('mean_lung_density_hu', 'Mean lung density', 'HU'),
  Measure('ground_glass_share', 'Ground glass bin', '%'),
  Measure('consolidation_share', 'Consolidation bin', '%'),
  Measure('low_attenuation_share', 'Low attenuation', '%'),
)


def _quoted(result: result_json.StoredResult) -> dict[str, float]:
  return lung_measures.quoted(
    result.densities, result.zone_score, result.zone_score_by_density
  )


@dataclasses.dataclass(frozen=True)
class Change:
  """How a measure moved between two studies.

  Attributes:
    difference: later minus earlier.
    relative: difference over earlier; None where that is not above 0.
    direction: RISING, FALLING, or UNCHANGED below half a percent.
  """

  difference: float
  relative: float | None
  direction: str


@dataclasses.dataclass(frozen=True)
class TimePoint:
  """One study of the patient.

  Attributes:
    result: its numbers.
    folder: where map and mask lie beside result.json.
    days: since the first study; None where a study has no date.
  """

  result: result_json.StoredResult
  folder: pathlib.Path
  days: int | None

  @property
  def label(self) -> str:
    return self.result.acquisition_date or 'no date'


@dataclasses.dataclass(frozen=True)
class FollowUp:
  """The studies of one patient in time.

  Attributes:
    points: the studies, earliest first.
    by_date: their order is that of their dates, else the order given.
    identity: 'patient_key', or 'stated' by --same-patient.
    warnings: to be read before comparing.
  """

  points: tuple[TimePoint, ...]
  by_date: bool
  identity: str
  warnings: tuple[str, ...]

  @property
  def measures(self) -> tuple[Measure, ...]:
    """MEASURES, and those of BESIDE that every study has, measured alike."""
    found = [point.result for point in self.points]
    shared = set.intersection(*(set(_quoted(result)) for result in found))
    if _schemes_differ(found):
      shared &= {'zone_score'}
    return (*MEASURES, *(measure for measure in BESIDE if measure.name in shared))

  @property
  def same_densities(self) -> bool:
    """Whether every study has densities, all by one scheme."""
    found = [point.result for point in self.points]
    return all(result.densities for result in found) and not _schemes_differ(found)

  def overall(self, measure: Measure) -> Change:
    """From the first to the last study."""
    return change(measure.of(self.points[0].result), measure.of(self.points[-1].result))

  @property
  def limit_cm3(self) -> float | None:
    """The largest change of the score, first to last, that may mean nothing.

    None where a result does not say how repeatable its score is; the larger one where
    results differ.
    """
    first, last = self.points[0].result, self.points[-1].result
    if first.repeatability is None or last.repeatability is None:
      return None
    return max(
      stated.limit_cm3(first.corona_score_cm3, last.corona_score_cm3)
      for stated in (first.repeatability, last.repeatability)
    )

  @property
  def exceeds(self) -> bool | None:
    """Whether the score, first to last, changed by more than `limit_cm3`."""
    limit_cm3 = self.limit_cm3
    if limit_cm3 is None:
      return None
    return abs(self.overall(SCORE).difference) > limit_cm3

  @property
  def repeatability_in_words(self) -> str:
    """What the change of the score may mean."""
    if self.limit_cm3 is None:
      return (
        'Each number is one measurement: how far it moves between two scans of an '
        'unchanged patient is not known, so small changes may mean nothing.'
      )
    beyond = 'more than' if self.exceeds else 'no more than'
    return (
      f'The change of the Corona score, first study to last, is {beyond} the '
      f'{self.limit_cm3:.1f} cm³ by which scores of one unchanged chest differ in 95 '
      "of 100 pairs, by the classifier's card: from noise, slice positions and small "
      'tilts; breath and scanner are not in it.'
    )

  def steps(self, measure: Measure) -> tuple[Change, ...]:
    """From each study to the next."""
    values = [measure.of(point.result) for point in self.points]
    return tuple(itertools.starmap(change, itertools.pairwise(values)))


def _schemes_differ(found: Sequence[result_json.StoredResult]) -> bool:
  schemes = [result.densities.schemes for result in found if result.densities]
  return any(other != schemes[0] for other in schemes)


def change(earlier: float, later: float) -> Change:
  """The change between two values of a measure."""
  difference = later - earlier
  if abs(difference) < _SAME * max(abs(earlier), abs(later)) or difference == 0:
    direction = UNCHANGED
  else:
    direction = RISING if difference > 0 else FALLING
  return Change(difference, difference / earlier if earlier > 0 else None, direction)


def follow_up(
  paths: Sequence[pathlib.Path],
  *,
  same_patient: bool = False,
  allow_mixed: bool = False,
) -> FollowUp:
  """Reads results of one patient and puts them in time.

  Args:
    paths: result.json files or their folders, two or more.
    same_patient: the caller states that they are one patient's, where results
      carry no patient_key. Different keys are refused all the same.
    allow_mixed: take results of several models or thresholds.

  Raises:
    errors.UsageError: fewer than two studies, a study twice, different patients,
      or results that do not compare.
  """
  read = [
    (path if path.is_dir() else path.parent, result_json.read_result(path))
    for path in paths
  ]
  _require_two_studies(read)
  identity = _identity(read, same_patient)
  made = [results_lib.provenance_of(folder, result) for folder, result in read]
  warnings = [
    *results_lib.require_comparable(made, allow_mixed),
    *results_lib.software_warnings(made),
    *results_lib.edit_warnings(made),
  ]
  points, by_date = _in_time(read)
  if identity == 'stated':
    warnings.append(
      'No patient key shows that these are studies of one patient: the user stated it.'
    )
  return FollowUp(
    points, by_date, identity, (*warnings, *_comparability_warnings(points, by_date))
  )


def _require_two_studies(read) -> None:
  if len(read) < 2:
    raise errors.UsageError(
      f'two or more results of one patient are required, found {len(read)}.'
    )
  for (folder, one), (other_folder, other) in itertools.combinations(read, 2):
    same_series = one.series_uid and one.series_uid == other.series_uid
    same_voxels = one.hu_sha256 and one.hu_sha256 == other.hu_sha256
    if same_voxels and not same_series:
      raise errors.UsageError(
        f'{other_folder}: another study is required, found the voxels of {folder} '
        'again; leave one of them out.'
      )
    if same_series or folder.resolve() == other_folder.resolve():
      raise errors.UsageError(
        f'{other_folder}: another study is required, found the series of {folder} '
        'again; leave one of them out.'
      )


def _identity(read, same_patient) -> str:
  keyed = [
    (folder, result.patient_key) for folder, result in read if result.patient_key
  ]
  for folder, key in keyed[1:]:
    if key != keyed[0][1]:
      raise errors.UsageError(
        f'{folder}: a study of the patient of {keyed[0][0]} is required, found '
        'another patient_key; compare one patient at a time, scored with one '
        '--patient-key-file.'
      )
  if len(keyed) == len(read):
    return 'patient_key'
  if not same_patient:
    without = next(folder for folder, result in read if not result.patient_key)
    raise errors.UsageError(
      f'{without}: a patient_key is required to identify the patient, found none; '
      'score with --patient-key-file, or state it with --same-patient.'
    )
  return 'stated'


def _in_time(read) -> tuple[tuple[TimePoint, ...], bool]:
  known = [_date(result.acquisition_date) for _, result in read]
  dates = [date for date in known if date is not None]
  if len(dates) < len(known):
    return tuple(TimePoint(result, folder, None) for folder, result in read), False
  # Stable: studies of one day stay in the order in which they were given.
  order = sorted(range(len(read)), key=dates.__getitem__)
  first = dates[order[0]]
  return tuple(
    TimePoint(read[i][1], read[i][0], (dates[i] - first).days) for i in order
  ), True


def _date(text) -> datetime.date | None:
  try:
    return datetime.date.fromisoformat(text) if text else None
  except ValueError:
    return None


def _comparability_warnings(points, by_date):
  if not by_date:
    yield 'Not every study has a date: they are shown in the order given.'
  elif len({point.days for point in points}) < len(points):
    yield 'Studies of one day are shown in the order given.'
  volumes = [point.result.lung_volume_cm3 for point in points]
  if max(volumes) > (1 + _BREATH) * min(volumes):
    yield (
      f'Lung volume differs by up to {max(volumes) / min(volumes) - 1:.0%}: a '
      'different depth of breath alone moves density, volume and involved '
      'fraction.'
    )
  spacings = [point.result.spacing_mm[0] for point in points]
  if max(spacings) > _SPACING_RATIO * min(spacings):
    yield (
      f'Slice spacing differs, from {min(spacings):.1f} to {max(spacings):.1f} '
      'mm: small opacities may be seen in one study and missed in another.'
    )
  yield from _scan_warnings([point.result for point in points])


def _scan_warnings(found: Sequence[result_json.StoredResult]) -> Iterator[str]:
  """Scans of other kinds, or of other parts of the lungs, change scores too."""
  if _schemes_differ(found):
    yield (
      'The studies measured densities by different schemes: densities are not compared.'
    )
  for name, value in strata.FACTORS.items():
    acquisitions = [result.acquisition for result in found if result.acquisition]
    kinds = dict.fromkeys(filter(None, map(value, acquisitions)))
    if len(kinds) > 1 and name != 'slice thickness':  # Told by their distance.
      yield (
        f'The studies differ in {name} ({", ".join(kinds)}), which changes densities '
        'and probabilities by itself.'
      )
  parts = [
    any(text.startswith(coverage.OF_LUNGS[:2]) for text in result.warnings)
    for result in found
  ]
  if any(parts):
    yield (
      f'In {sum(parts)} of {len(parts)} studies lungs are cut off or one is missing: a '
      'change may be of the part that was scored.'
    )
