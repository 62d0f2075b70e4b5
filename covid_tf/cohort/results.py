"""Every result below a folder, and every study there that has none.

Reads only what a cohort needs, so that results of another schema version can be
seen, counted and refused by name rather than fail to load.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json
import math
import os
import pathlib

from covid_tf import errors
from covid_tf import results as score_results
from covid_tf import volume as volume_lib
from covid_tf.reports import scored_study
from covid_tf.storage import result_json

# Where results lie below a folder, and which studies there have none.

OWN_OUTPUT = 'cohort.json'  # A cohort written among its results is none of them.
CONTACT_SHEET = 'contact_sheet.html'  # Nor is a review.
_REASON_KEYS = ('error', 'reason', 'refusal', 'message')
_LARGEST_NOTE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class FailedStudy:
  """A study folder without a usable result.

  Attributes:
    path: the folder or file.
    reason: why it gives no score.
  """

  path: pathlib.Path
  reason: str


def result_files(
  root: pathlib.Path, failed: list[FailedStudy]
) -> Iterator[pathlib.Path]:
  """Yields result files; adds the studies that end without one to `failed`.

  A folder that ends without a result is a failed study where its neighbours have
  results, or where something of a study was left in it; not every folder below is
  one.

  Args:
    root: the folder to search.
    failed: grows.

  Yields:
    Paths of result.json, in order of name.
  """
  yield from _search(root, failed, set())


def _search(
  folder: pathlib.Path, failed: list[FailedStudy], seen: set[str]
) -> Iterator[pathlib.Path]:
  seen.add(os.path.realpath(folder))
  try:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
  except OSError as error:
    failed.append(FailedStudy(folder, f'cannot be listed: {error.strerror}'))
    return
  names = {entry.name for entry in entries}
  is_result = result_json.FILE_NAME in names
  if is_result:
    yield folder / result_json.FILE_NAME
  elif OWN_OUTPUT in names:
    return
  # A name with a dot in front is a result that is still being written.
  folders = [
    folder / entry.name
    for entry in entries
    if entry.is_dir() and not entry.name.startswith('.')
  ]
  among_results = any((inner / result_json.FILE_NAME).exists() for inner in folders)
  for inner in folders:
    if os.path.realpath(inner) in seen:  # A link may lead back up.
      continue
    # What else lies in a result's folder is of that study, unless it has a result.
    if not is_result and (among_results or _was_a_study(inner)):
      _add_failure(inner, failed)
    yield from _search(inner, failed, seen)


def relative_name(path: pathlib.Path, root: pathlib.Path) -> str:
  """`path` below `root`, with forward slashes; results travel without their disk."""
  return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _was_a_study(folder: pathlib.Path) -> bool:
  """Whether a folder is empty or holds what scoring leaves, but maybe no result."""
  try:
    names = {entry.name for entry in os.scandir(folder)}
  except OSError:
    return False  # Listed when it is searched.
  return (
    not names
    or any(name in names for name in scored_study.FILE_NAMES)
    or (_noted_reason(folder, names) is not None)
  )


def _add_failure(folder: pathlib.Path, failed: list[FailedStudy]) -> None:
  """Adds a folder that ends without a result to `failed`."""
  try:
    entries = list(os.scandir(folder))
  except OSError:
    return
  names = {entry.name for entry in entries}
  if names & {result_json.FILE_NAME, OWN_OUTPUT, CONTACT_SHEET} or any(
    entry.is_dir() for entry in entries
  ):
    return
  failed.append(
    FailedStudy(folder, _noted_reason(folder, names) or f'no {result_json.FILE_NAME}')
  )


def _noted_reason(folder: pathlib.Path, names: set[str]) -> str | None:
  """The reason that whoever failed left in a JSON file, if any."""
  for name in sorted(names):
    path = folder / name
    if not name.endswith('.json') or path.stat().st_size > _LARGEST_NOTE_BYTES:
      continue
    try:
      note = json.loads(path.read_text('utf-8'))
    except (OSError, ValueError):
      continue
    for key in _REASON_KEYS if isinstance(note, dict) else ():
      if isinstance(note.get(key), str):
        return note[key]
  return None


CORONA_SCORE = 'corona_score_cm3'
_NAMED = 3  # Results that a warning names.
# Numbers of a result that also grow with disease, for the paired comparison.
SECOND_SCORES = (
  'involved_lung_fraction',
  'corona_score_in_lung_cm3',
  'positive_slice_fraction',
  'highest_slice_probability',
)

# Name and title of densities and zone scores, which cohorts set beside the score.
MEASURES = {
  'zone_score': 'Zone score of the network (0 to 24)',
  'zone_score_by_density': 'Zone score by density (0 to 24)',
  'mean_lung_density_hu': 'Mean lung density (HU)',
  'ground_glass_share': 'Ground glass bin (share of lung)',
  'consolidation_share': 'Consolidation bin (share of lung)',
  'low_attenuation_share': 'Low attenuation (share of lung)',
}


@dataclasses.dataclass(frozen=True)
class Provenance:
  """What made a score, besides its CT.

  Attributes:
    path: of the result.
    schema_version: of its file.
    models: name to (version, card digest), as text.
    thresholds: of slices and of maps, the thickness that slices were averaged to
      (None: every slice as it is) and the smoothing of their logits, name to value.
      The case threshold is none of them: it does not change a score.
    software: name and version of the package that made it; '' where it is not stated.
    edits: what a person changed; None where nothing was.
  """

  path: pathlib.Path
  schema_version: int | None
  models: Mapping[str, tuple[str, str]]
  thresholds: Mapping[str, float | None]
  software: str = ''
  edits: score_results.Edits | None = None


def provenance_of(path: pathlib.Path, stored: result_json.StoredResult) -> Provenance:
  """What made a stored result."""
  return Provenance(
    path,
    stored.schema_version,
    {model.name: (str(model.version), model.card_sha256) for model in stored.models},
    {
      'slice_probability': stored.thresholds.slice_probability,
      'map': stored.thresholds.map,
      'thickness_mm': stored.thresholds.thickness_mm,
      'smoothing_mm': stored.thresholds.smoothing_mm,
    },
    stored.software,
    stored.edits,
  )


def require_comparable(
  provenances: Sequence[Provenance], allow_mixed: bool = False
) -> tuple[str, ...]:
  """Refuses results whose scores do not compare.

  Args:
    provenances: of the results that are compared.
    allow_mixed: warn instead.

  Returns:
    A warning for each kind of difference; empty unless `allow_mixed`.

  Raises:
    errors.UsageError: several models, or thresholds, thicknesses and smoothings;
      says which, and in how many results.
  """
  warnings = []
  for kind, key, in_words in (
    ('models', lambda made: sorted(made.models.items()), _models_in_words),
    (
      'slice and map thresholds, thicknesses or smoothings',
      lambda made: sorted(made.thresholds.items()),
      _thresholds_in_words,
    ),
  ):
    groups: dict[str, list[Provenance]] = {}
    for made in provenances:
      groups.setdefault(repr(key(made)), []).append(made)
    if len(groups) == 1:
      continue
    found = '; '.join(
      f'{in_words(members[0])} in {len(members)} ({members[0].path}, …)'
      for members in groups.values()
    )
    if not allow_mixed:
      raise errors.UsageError(
        f'results of one kind are required, found {len(groups)} {kind}: {found}. '
        'Their scores do not compare: score all studies alike, or pass '
        '--allow-mixed.'
      )
    warnings.append(
      f'Mixed results were asked for, with different {kind}: {found}. Their scores '
      'do not compare.'
    )
  return tuple(warnings)


def software_warnings(provenances: Sequence[Provenance]) -> tuple[str, ...]:
  """A warning where several versions of this package made the results.

  Scores of two versions are compared all the same: most changes move no score, and
  CHANGELOG.md names those that do.
  """
  versions = sorted({made.software for made in provenances if made.software})
  return (
    ()
    if len(versions) < 2
    else (
      f'The results were made by {", ".join(versions)}: whether the score changed '
      'between them is in CHANGELOG.md.',
    )
  )


def edit_warnings(provenances: Sequence[Provenance]) -> tuple[str, ...]:
  """A warning where a person changed what results were scored by.

  They are compared all the same: a mask that was mended is the better one. But whoever
  reads the comparison must know how many and which (docs/adr, 162).
  """
  edited = [
    (made, made.edits.kinds) for made in provenances if made.edits and made.edits.kinds
  ]
  if not edited:
    return ()
  kinds = sorted({kind for _, found in edited for kind in found})
  paths = ', '.join(str(made.path) for made, _ in edited[:_NAMED])
  return (
    f'Edited results are among those compared: {len(edited)} of {len(provenances)} '
    f'({"; ".join(kinds)}): {paths}{", …" * (len(edited) > _NAMED)}.',
  )


def _models_in_words(made: Provenance) -> str:
  return (
    ', '.join(
      f'{name} version {version or "unknown"} (card {digest[:12] or "unknown"})'
      for name, (version, digest) in sorted(made.models.items())
    )
    or 'none named'
  )


def _thresholds_in_words(made: Provenance) -> str:
  return (
    ', '.join(
      f'{name} {"every slice" if value is None else value}'
      for name, value in sorted(made.thresholds.items())
    )
    or 'none named'
  )


@dataclasses.dataclass(frozen=True)
class StudyResult:
  """The content of one result.json.

  Attributes:
    path: the file.
    study_uid: its Study Instance UID; the folder's name where it has none.
    scores: name to value: CORONA_SCORE and those of SECOND_SCORES and MEASURES it
      holds.
    schema_version: of the file.
    models: name to (version, card digest), as text.
    thresholds: as in Provenance.
    patient_key: pseudonym of the patient, or None.
    demo_models: whether the demo models made it.
    software: name and version of the package that made it; '' where it is not stated.
    edits: what a person changed; None where nothing was.
    acquisition: how the CT was acquired; None where that is not stated.
  """

  path: pathlib.Path
  study_uid: str
  scores: dict[str, float]
  schema_version: int | None
  models: dict[str, tuple[str, str]]
  thresholds: dict[str, float | None]
  patient_key: str | None = dataclasses.field(default=None, repr=False)
  demo_models: bool = False
  software: str = ''
  edits: score_results.Edits | None = None
  acquisition: volume_lib.Acquisition | None = None

  @property
  def provenance(self) -> Provenance:
    """What made its scores, besides the CT."""
    return Provenance(
      self.path,
      self.schema_version,
      self.models,
      self.thresholds,
      self.software,
      self.edits,
    )


def load_results(
  root: pathlib.Path | str,
) -> tuple[tuple[StudyResult, ...], tuple[FailedStudy, ...]]:
  """Finds and reads the results below `root`, at any depth.

  Args:
    root: a folder, or one result.json.

  Returns:
    (results, failed studies), each in order of path.

  Raises:
    errors.UsageError: no such folder, nothing in it, or a study found twice.
  """
  root = pathlib.Path(root)
  if not root.exists():
    raise errors.UsageError(f'{root}: a folder of results is required, found nothing.')
  results: list[StudyResult] = []
  failed: list[FailedStudy] = []
  for path in [root] if root.is_file() else result_files(root, failed):
    try:
      results.append(_read(path))
    except (OSError, ValueError) as error:
      failed.append(FailedStudy(path, str(error)))
  if not results:
    seen = f'; {len(failed)} failed, the first: {failed[0].reason}' if failed else ''
    raise errors.UsageError(
      f'{root}: at least one usable {result_json.FILE_NAME} is required below it, '
      f'found none{seen}.'
    )
  _check_unique(results)
  return tuple(results), tuple(sorted(failed, key=lambda study: str(study.path)))


def _read(path: pathlib.Path) -> StudyResult:
  try:
    content = json.loads(path.read_text('utf-8'))
  except ValueError as error:
    raise ValueError('not a whole JSON file') from error
  try:
    return _study_result(path, content)
  except (AttributeError, KeyError, OverflowError, TypeError) as error:
    raise ValueError('its fields are not those of a result') from error


def _study_result(path: pathlib.Path, content: dict) -> StudyResult:
  score = _number(content.get(CORONA_SCORE))
  if score is None or score < 0:
    raise ValueError(
      f'{CORONA_SCORE} must be a finite number not below 0, found '
      f'{content.get(CORONA_SCORE)!r}'
    )
  thresholds = content.get('thresholds')
  if thresholds:  # Of before slices were averaged, or smoothed: as they were.
    thresholds = {'thickness_mm': None, 'smoothing_mm': 0.0} | thresholds
  for name in ('study_uid', 'patient_key'):
    if not isinstance(content.get(name), str | None):
      raise ValueError(f'{name} must be text')
  return StudyResult(
    path,
    content.get('study_uid') or path.parent.name,
    {CORONA_SCORE: score} | _second_scores(content) | _measures(content),
    content.get('schema_version'),
    _models(content.get('models')),
    {
      name: None if value is None else float(value)  # 6 and 6.0 are one smoothing.
      for name, value in (thresholds or {}).items()
      if 'case' not in name
    },
    content.get('patient_key'),
    result_json.is_demo(content),
    str(content.get('software') or ''),
    _edits(content.get('edits')),
    _acquisition(content.get('acquisition')),
  )


def _edits(value: object) -> score_results.Edits | None:
  try:
    return None if value is None else result_json.read_edits(value)
  except ValueError as error:
    raise ValueError(f'edits must be {error}') from error


def _acquisition(value: object) -> volume_lib.Acquisition | None:
  try:
    return None if value is None else result_json.read_acquisition(value)
  except ValueError as error:
    raise ValueError(f'acquisition must be {error}') from error


def _second_scores(content: dict) -> dict[str, float]:
  probabilities = content.get('slice_probability') or []
  positive = content.get('positive_slices')
  values = {name: _number(content.get(name)) for name in SECOND_SCORES}
  if probabilities:
    values['highest_slice_probability'] = _number(max(probabilities))
    if positive is not None:
      values['positive_slice_fraction'] = len(positive) / len(probabilities)
  return {name: value for name, value in values.items() if value is not None}


def _measures(content: dict) -> dict[str, float]:
  """Those of MEASURES; none of what files of schemas 1 and 2 lack."""
  values = {
    name: _number((content.get(name) or {}).get('total'))
    for name in ('zone_score', 'zone_score_by_density')
  }
  if content.get('densities'):
    lungs = content['densities']['regions']['lungs']
    shares = lungs['bin_shares']['covid']
    values |= {
      'mean_lung_density_hu': _number(lungs['mean_hu']),
      'low_attenuation_share': _number(lungs['low_attenuation_share']),
      # Other schemes may have other bins.
      'ground_glass_share': _number(shares.get('ground_glass')),
      'consolidation_share': _number(shares.get('consolidation')),
    }
  return {name: value for name, value in values.items() if value is not None}


def _models(entries) -> dict[str, tuple[str, str]]:
  if isinstance(entries, dict):
    entries = [
      {'name': name} | (entry if isinstance(entry, dict) else {'card_sha256': entry})
      for name, entry in entries.items()
    ]
  return {
    str(entry['name']): (
      str(entry.get('version', '')),
      str(entry.get('card_sha256', '')),
    )
    for entry in entries or ()
  }


def _number(value) -> float | None:
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return None
  return float(value) if math.isfinite(value) else None


def _check_unique(results: Sequence[StudyResult]) -> None:
  first: dict[str, StudyResult] = {}
  for result in results:
    earlier = first.setdefault(result.study_uid, result)
    if earlier is not result:
      raise errors.UsageError(
        f'one result per study is required, found two for {result.study_uid}: '
        f'{earlier.path} and {result.path}; move one of them away.'
      )
