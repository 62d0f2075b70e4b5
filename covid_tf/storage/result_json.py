"""result.json: the numbers of a scored study, written and read (docs/results.md)."""

from collections.abc import Callable
import dataclasses
import json
import math
import os
import pathlib
from typing import Any, NoReturn

import numpy as np

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.storage import files
from covid_tf.storage import measures_json

# result.json: the numbers of a scored study, for programs (docs/results.md).

FILE_NAME = 'result.json'
DEMO_WARNING = (
  'Scored by the demo models, which were trained on phantoms to show how the '
  'package works: no measurement of a patient.'
)


def marked_as_demo(result: results.CaseResult) -> results.CaseResult:
  """The result as one of demo models, its warnings led by a sentence that says so."""
  others = tuple(text for text in result.warnings if text != DEMO_WARNING)
  return dataclasses.replace(result, warnings=(DEMO_WARNING, *others), demo_models=True)


def write_result(path: str | os.PathLike[str], result: results.CaseResult) -> None:
  """Writes the numbers of a result, whole or not at all.

  Args:
    path: the file.
    result: the scored study.

  Raises:
    errors.OutputError: it cannot be written.
  """
  files.write_atomically(path, to_text(result).encode())


def to_text(result: results.CaseResult) -> str:
  """The file's text: strict JSON, one line a field, so that a diff can be read."""
  # allow_nan: NaN is no JSON, and no result either.
  lines = (
    f'  {json.dumps(name)}: {json.dumps(value, allow_nan=False, ensure_ascii=False)}'
    for name, value in to_dict(result).items()
  )
  return '{\n' + ',\n'.join(lines) + '\n}\n'


def to_dict(result: results.CaseResult) -> dict[str, Any]:
  """The fields of result.json, in the order in which they are written."""
  return {
    'schema_version': results.SCHEMA_VERSION,
    'study_uid': result.study_uid,
    'series_uid': result.series_uid,
    'acquisition_date': result.acquisition_date,
    'patient_key': result.patient_key,
    'shape': list(result.shape),
    'slice_count': result.shape[0],
    'spacing_mm': list(result.spacing_mm),
    'voxel_volume_mm3': result.voxel_volume_mm3,
    'acquisition': _plain(result.acquisition),
    'corona_score_cm3': result.corona_score_cm3,
    'case_detected': result.case_detected,
    'corona_score_in_lung_cm3': result.corona_score_in_lung_cm3,
    'corona_score_by_region_cm3': dict(result.corona_score_by_region_cm3),
    'involved_lung_fraction': result.involved_lung_fraction,
    'lung_volume_cm3': result.lung_volume_cm3,
    'lung_box': result.lung_box.as_list(),
    'lung_outside_box_fraction': result.lung_outside_box_fraction,
    'positive_slices': list(result.positive_slices),
    'slice_probability': _shortest(result.slice_probability),
    'corona_score_by_slice_cm3': np.asarray(result.corona_score_by_slice_cm3).tolist(),
    'thresholds': {
      'slice_probability': result.thresholds.slice_probability,
      'map': result.thresholds.map,
      'case_corona_score_cm3': result.thresholds.case_corona_score_cm3,
      'thickness_mm': result.thresholds.thickness_mm,
      'smoothing_mm': result.thresholds.smoothing_mm or 0.0,
    },
    'models': [
      {'name': model.name, 'version': model.version, 'card_sha256': model.card_sha256}
      for model in result.models
    ],
    'warnings': list(result.warnings),
    'software': result.software,
    'demo_models': result.demo_models,
    'edits': None if result.edits is None else _edits_dict(result.edits),
    'hu_sha256': result.hu_sha256,
    'densities': measures_json.densities_dict(result.densities),
    'zone_score': measures_json.zone_score_dict(result.zone_score, 'network'),
    'zone_score_by_density': measures_json.zone_score_dict(
      result.zone_score_by_density, 'density'
    ),
    'repeatability': (
      None if result.repeatability is None else dataclasses.asdict(result.repeatability)
    ),
    'label_regions': measures_json.label_regions_dict(result.label_regions),
    'lobe_score': measures_json.lobe_score_dict(result.lobe_score),
  }


def _edits_dict(edits: results.Edits) -> dict[str, Any]:
  return {
    'lung_mask_sha256': edits.lung_mask_sha256,
    'excluded_slices': list(edits.excluded_slices),
    'rescored_from_sha256': edits.rescored_from_sha256,
    'thresholds_before': dict(edits.thresholds_before),
  }


def _plain(value: volume_lib.Acquisition | None) -> dict[str, Any] | None:
  return None if value is None else dataclasses.asdict(value)


def _shortest(values: np.ndarray) -> list[float]:
  """Each float32 by the fewest digits that give it back: 0.1, not 0.10000000149."""
  return [float(str(value)) for value in np.asarray(values, np.float32)]


# A value as JSON has it to ours; ValueError says what it must be.
_Reader = Callable[[Any], Any]

REGIONS = ('left', 'right', 'apical', 'middle', 'basal')


@dataclasses.dataclass(frozen=True)
class StoredResult:
  """The fields of a result.json (docs/results.md), without map and mask.

  Attributes:
    schema_version: one of results.READ_SCHEMAS.
    study_uid, series_uid, acquisition_date, patient_key, shape, spacing_mm,
      voxel_volume_mm3, corona_score_cm3, case_detected, corona_score_in_lung_cm3,
      corona_score_by_region_cm3, involved_lung_fraction, lung_volume_cm3,
      lung_box, lung_outside_box_fraction, positive_slices, thresholds, models,
      warnings, software, demo_models: as in results.CaseResult.
    acquisition, edits, hu_sha256, densities, zone_score, zone_score_by_density,
      repeatability,
      label_regions, lobe_score: as in results.CaseResult; None where a result of an
      earlier schema has none.
    slice_count: slices of the CT.
    slice_probability: one a slice.
    corona_score_by_slice_cm3: one a slice.
  """

  schema_version: int
  study_uid: str
  series_uid: str
  acquisition_date: str | None
  patient_key: str | None = dataclasses.field(repr=False)
  shape: tuple[int, int, int]
  slice_count: int
  spacing_mm: tuple[float, float, float]
  voxel_volume_mm3: float
  corona_score_cm3: float
  case_detected: bool | None
  corona_score_in_lung_cm3: float
  corona_score_by_region_cm3: dict[str, float]
  involved_lung_fraction: float
  lung_volume_cm3: float
  lung_box: results.LungBox
  lung_outside_box_fraction: float
  positive_slices: tuple[int, ...]
  slice_probability: tuple[float, ...]
  corona_score_by_slice_cm3: tuple[float, ...]
  thresholds: results.Thresholds
  models: tuple[results.ModelIdentity, ...]
  warnings: tuple[str, ...]
  software: str
  demo_models: bool
  acquisition: volume_lib.Acquisition | None = None
  edits: results.Edits | None = None
  hu_sha256: str | None = None
  densities: lung_measures.Densities | None = None
  zone_score: lung_measures.ZoneScore | None = None
  zone_score_by_density: lung_measures.ZoneScore | None = None
  repeatability: lung_measures.Repeatability | None = None
  label_regions: lung_measures.LabelRegions | None = None
  lobe_score: lung_measures.LobeScore | None = None


def read_result(path: str | os.PathLike[str]) -> StoredResult:
  """Reads a result.json.

  Args:
    path: the file, or the folder that `covid-tf score` wrote.

  Returns:
    Its fields, checked one by one and against each other.

  Raises:
    errors.UsageError: no such file, or not a result of this schema; names the
      field, what was required and what was found.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    path = path / FILE_NAME
  try:
    content = json.loads(path.read_text('utf-8'), parse_constant=_refuse_constant)
    return from_dict(content)
  except OSError as error:
    raise errors.UsageError(
      f'{path}: a result.json of covid-tf score is required, found none that can '
      f'be read ({error.strerror}).'
    ) from error
  except ValueError as error:  # UnicodeDecodeError and JSONDecodeError too.
    raise errors.UsageError(
      f'{path}: not a result.json of covid-tf score: {error}; score the study again.'
    ) from error


def from_dict(content: dict[str, Any]) -> StoredResult:
  """Fields as result.json holds them to a checked result; others are ignored.

  Raises:
    ValueError: a field is missing or wrong.
  """
  if not isinstance(content, dict):
    raise ValueError(f'an object is required, found {type(content).__name__}')
  version = content.get('schema_version')
  if version not in results.READ_SCHEMAS:
    *earlier, latest = results.READ_SCHEMAS
    raise ValueError(
      f'schema_version {", ".join(map(str, earlier))} or {latest} is required, '
      f'found {version!r}'
    )
  content = _ABSENT | {'demo_models': is_demo(content)} | content
  stored = StoredResult(
    **{
      field.name: _field(content, field.name, _READERS[field.name])
      for field in dataclasses.fields(StoredResult)
    }
  )
  _check_consistent(stored)
  return stored


def is_demo(content: dict[str, Any]) -> bool:
  """Whether the fields of a result.json say that demo models made it.

  Results without the field `demo_models` said it by DEMO_WARNING alone.
  """
  if 'demo_models' in content:
    return content['demo_models'] is True
  warnings = content.get('warnings')
  return isinstance(warnings, list) and DEMO_WARNING in warnings


def _check_consistent(stored: StoredResult) -> None:
  count = stored.slice_count
  # In float32, as the slices were decided.
  probability = np.asarray(stored.slice_probability, np.float32)
  excluded = set(stored.edits.excluded_slices if stored.edits else ())
  positive = tuple(
    index
    for index in np.flatnonzero(
      probability > stored.thresholds.slice_probability
    ).tolist()
    if index not in excluded
  )
  box = stored.lung_box
  checks = {
    'slice_count': stored.shape[0] == count,
    'slice_probability': len(stored.slice_probability) == count,
    'corona_score_by_slice_cm3': (
      len(stored.corona_score_by_slice_cm3) == count
      and math.isclose(
        math.fsum(stored.corona_score_by_slice_cm3),
        stored.corona_score_cm3,
        rel_tol=1e-9,
        abs_tol=1e-9,
      )
    ),
    'positive_slices': stored.positive_slices == positive,
    'edits': all(index < count for index in excluded),
    'lung_box': (
      box.row0 < box.row1 <= stored.shape[1]
      and box.column0 < box.column1 <= stored.shape[2]
    ),
  }
  for name, good in checks.items():
    if not good:
      raise ValueError(f'{name} contradicts the other fields')


def _field(content: dict[str, Any], name: str, read: _Reader) -> Any:
  if name not in content:
    raise ValueError(f'{name} is required, found nothing')
  try:
    return read(content[name])
  except (TypeError, KeyError, ValueError) as error:
    found = json.dumps(content[name])
    found = found if len(found) <= 60 else f'{found[:60]}…'
    raise ValueError(f'{name} must be {error.args[0]}, found {found}') from error


def _refuse_constant(name: str) -> NoReturn:
  raise ValueError(f'numbers are required, found {name}')


def _text(value: Any) -> str:
  if not isinstance(value, str):
    raise ValueError('text')
  return value


def _integer(value: Any) -> int:
  if not isinstance(value, int) or isinstance(value, bool) or value < 0:
    raise ValueError('an integer not below 0')
  return value


def _number(value: Any) -> float:
  if (
    isinstance(value, bool)
    or not isinstance(value, (int, float))
    or not (0 <= value < math.inf)
  ):
    raise ValueError('a finite number not below 0')
  return float(value)


def _share(value: Any) -> float:
  if not _number(value) <= 1:
    raise ValueError('a number in [0, 1]')
  return float(value)


def _truth(value: Any) -> bool:
  if not isinstance(value, bool):
    raise ValueError('true, false or null')
  return value


def _optional(read: _Reader) -> _Reader:
  return lambda value: None if value is None else read(value)


def _list(read: _Reader, length: int | None = None) -> _Reader:
  def read_list(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list) or length not in (None, len(value)):
      raise ValueError('a list' if length is None else f'a list of {length}')
    return tuple(map(read, value))

  return read_list


def _regions(value: Any) -> dict[str, float]:
  if not isinstance(value, dict) or set(value) != set(REGIONS):
    raise ValueError(f'an object of {", ".join(REGIONS)}')
  return {name: _number(value[name]) for name in REGIONS}


def _thresholds(value: Any) -> results.Thresholds:
  names = ('slice_probability', 'map', 'case_corona_score_cm3')
  # Results of before slices were averaged, or smoothed, lack these: theirs were not.
  later = {'thickness_mm', 'smoothing_mm'}
  if not isinstance(value, dict) or set(value) - later != set(names):
    raise ValueError(f'an object of {", ".join(names)}, thickness_mm and smoothing_mm')
  thickness_mm = _optional(_number)(value.get('thickness_mm'))
  return results.Thresholds(
    _share(value['slice_probability']),
    _share(value['map']),
    _optional(_number)(value['case_corona_score_cm3']),
    thickness_mm,
    every_slice=thickness_mm is None,
    smoothing_mm=_number(value.get('smoothing_mm', 0.0)),
  )


def read_acquisition(value: Any) -> volume_lib.Acquisition:
  """The field `acquisition` of a result.json; ValueError says what it must be."""
  if not isinstance(value, dict):
    raise ValueError('an object or null')
  fields = {}
  for field in dataclasses.fields(volume_lib.Acquisition):
    try:
      fields[field.name] = _optional(_acquired(field))(value.get(field.name))
    except ValueError as error:
      raise ValueError(f'an object whose {field.name} is {error} or null') from None
  return volume_lib.Acquisition(**fields)


def _acquired(field: dataclasses.Field[Any]) -> _Reader:
  if field.name == 'gantry_tilt_deg':
    return _finite
  if field.name == 'contrast':
    return _truth
  return _number if str(field.type).startswith('float') else _text


def _finite(value: Any) -> float:
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    raise ValueError('a finite number')
  if not math.isfinite(value):
    raise ValueError('a finite number')
  return float(value)


def _model(value: Any) -> results.ModelIdentity:
  if not isinstance(value, dict) or not {'name', 'version', 'card_sha256'} <= set(
    value
  ):
    raise ValueError('objects of name, version and card_sha256')
  return results.ModelIdentity(
    _text(value['name']), _integer(value['version']), _text(value['card_sha256'])
  )


def read_edits(value: Any) -> results.Edits:
  """The field `edits` of a result.json that is not null.

  Raises:
    ValueError: it is something else.
  """
  names = (
    'lung_mask_sha256',
    'excluded_slices',
    'rescored_from_sha256',
    'thresholds_before',
  )
  if not isinstance(value, dict) or not set(names) <= set(value):
    raise ValueError(f'an object of {", ".join(names)}, or null')
  before = value['thresholds_before']
  if not isinstance(before, dict):
    raise ValueError('an object whose thresholds_before names numbers')
  excluded = _list(_integer)(value['excluded_slices'])
  if list(excluded) != sorted(set(excluded)):
    raise ValueError('an object whose excluded_slices ascend')
  return results.Edits(
    _optional(_text)(value['lung_mask_sha256']),
    excluded,
    _optional(_text)(value['rescored_from_sha256']),
    {str(name): _optional(_number)(number) for name, number in before.items()},
  )


# Fields that files of schemas 1 and 2 lack.
_ABSENT: dict[str, Any] = dict.fromkeys(
  (
    'acquisition',
    'edits',
    'hu_sha256',
    'densities',
    'zone_score',
    'zone_score_by_density',
    'repeatability',
    'label_regions',
    'lobe_score',
  )
)
_READERS: dict[str, _Reader] = {
  'schema_version': _integer,
  'study_uid': _text,
  'series_uid': _text,
  'acquisition_date': _optional(_text),
  'patient_key': _optional(_text),
  'shape': _list(_integer, 3),
  'slice_count': _integer,
  'spacing_mm': _list(_number, 3),
  'voxel_volume_mm3': _number,
  'corona_score_cm3': _number,
  'case_detected': _optional(_truth),
  'corona_score_in_lung_cm3': _number,
  'corona_score_by_region_cm3': _regions,
  'involved_lung_fraction': _share,
  'lung_volume_cm3': _number,
  'lung_box': lambda value: results.LungBox(*_list(_integer, 4)(value)),
  'lung_outside_box_fraction': _share,
  'positive_slices': _list(_integer),
  'slice_probability': _list(_share),
  'corona_score_by_slice_cm3': _list(_number),
  'thresholds': _thresholds,
  'models': _list(_model),
  'warnings': _list(_text),
  'software': _text,
  'demo_models': _truth,
  'acquisition': _optional(read_acquisition),
  'edits': _optional(read_edits),
  'hu_sha256': _optional(_text),
  'densities': _optional(measures_json.read_densities),
  'zone_score': _optional(measures_json.read_zone_score),
  'zone_score_by_density': _optional(measures_json.read_zone_score),
  'repeatability': _optional(lung_measures.Repeatability.of_card),
  'label_regions': _optional(measures_json.read_label_regions),
  'lobe_score': _optional(measures_json.read_lobe_score),
}
