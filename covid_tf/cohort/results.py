"""Every result below a folder, and every study there that has none.

Reads only what a cohort needs, so that results of another schema version can be
seen, counted and refused by name rather than fail to load.
"""

from collections.abc import Sequence
import dataclasses
import json
import math
import pathlib

from covid_tf import errors
from covid_tf.cohort import find_results
from covid_tf.reports import study_files

CORONA_SCORE = 'corona_score_cm3'
# Numbers of a result that also grow with disease, for the paired comparison.
SECOND_SCORES = (
    'involved_lung_fraction', 'corona_score_in_lung_cm3', 'positive_slice_fraction',
    'highest_slice_probability')


@dataclasses.dataclass(frozen=True)
class StudyResult:
  """What one result.json says.

  Attributes:
    path: the file.
    study_uid: its Study Instance UID; the folder's name where it has none.
    scores: name to value: CORONA_SCORE and those of SECOND_SCORES it holds.
    schema_version: of the file.
    models: name to (version, card digest), as text.
    cuts: the slice and map thresholds, name to value.
    patient_key: pseudonym of the patient, or None.
    demo_models: whether the demo models made it.
  """

  path: pathlib.Path
  study_uid: str
  scores: dict[str, float]
  schema_version: int | None
  models: dict[str, tuple[str, str]]
  cuts: dict[str, float]
  patient_key: str | None = dataclasses.field(default=None, repr=False)
  demo_models: bool = False


def load_results(
    root: pathlib.Path | str
) -> tuple[tuple[StudyResult, ...], tuple[find_results.FailedStudy, ...]]:
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
  results, failed = [], []
  for path in ([root] if root.is_file() else find_results.result_files(root, failed)):
    try:
      results.append(_read(path))
    except (OSError, ValueError) as error:
      failed.append(find_results.FailedStudy(path, str(error)))
  if not results:
    seen = f'; {len(failed)} failed, the first: {failed[0].reason}' if failed else ''
    raise errors.UsageError(
        f'{root}: at least one usable {find_results.RESULT_NAME} is required below it, '
        f'found none{seen}.')
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
        f'{content.get(CORONA_SCORE)!r}')
  thresholds = content.get('thresholds')
  for name in ('study_uid', 'patient_key'):
    if not isinstance(content.get(name), str | None):
      raise ValueError(f'{name} must be text')
  return StudyResult(
      path, content.get('study_uid') or path.parent.name,
      {CORONA_SCORE: score} | _second_scores(content),
      content.get('schema_version'), _models(content.get('models')),
      {name: value for name, value in (thresholds or {}).items()
       if 'case' not in name}, content.get('patient_key'),
      study_files.DEMO_WARNING in (content.get('warnings') or ()))


def _second_scores(content: dict) -> dict[str, float]:
  probabilities = content.get('slice_probability') or []
  positive = content.get('positive_slices')
  values = {name: _number(content.get(name)) for name in SECOND_SCORES}
  if probabilities:
    values['highest_slice_probability'] = _number(max(probabilities))
    if positive is not None:
      values['positive_slice_fraction'] = len(positive) / len(probabilities)
  return {name: value for name, value in values.items() if value is not None}


def _models(entries) -> dict[str, tuple[str, str]]:
  if isinstance(entries, dict):
    entries = [{'name': name} | (entry if isinstance(entry, dict) else
                                 {'card_sha256': entry})
               for name, entry in entries.items()]
  return {str(entry['name']): (str(entry.get('version', '')),
                               str(entry.get('card_sha256', '')))
          for entry in entries or ()}


def _number(value) -> float | None:
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return None
  return float(value) if math.isfinite(value) else None


def _check_unique(results: Sequence[StudyResult]) -> None:
  first = {}
  for result in results:
    earlier = first.setdefault(result.study_uid, result)
    if earlier is not result:
      raise errors.UsageError(
          f'one result per study is required, found two for {result.study_uid}: '
          f'{earlier.path} and {result.path}; move one of them away.')
