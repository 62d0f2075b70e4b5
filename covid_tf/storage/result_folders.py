"""Result folders read back: one as a result, many as a table."""

from collections.abc import Iterable, Iterator
import dataclasses
import importlib.util
import os
import pathlib
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf import results
from covid_tf.storage import maps
from covid_tf.storage import result_json

if TYPE_CHECKING:
  import pandas

# Of an acquisition, what tables of many results have, by the same names.
ACQUISITION_FIELDS = (
  'manufacturer',
  'model',
  'kernel',
  'kvp',
  'slice_thickness_mm',
  'slice_distance_mm',
  'contrast',
)


def load_result(folder: str | os.PathLike[str]) -> results.CaseResult:
  """Reads a scored study back, with its lung mask and its map.

    result = covid_tf.load_result('result/')
    print(result.corona_score_cm3)

  Args:
    folder: what `covid-tf score` or `CaseResult.save` wrote, or the result.json in it.

  Returns:
    The result. Cards of models and the CT itself are not stored: `plot` takes the
    volume. Numbers, mask and map are those that were saved; the affine has the digits
    of a NIfTI header.

  Raises:
    errors.UsageError: no result is there, its fields contradict each other, or
      lung_mask.nii.gz and localization.nii.gz are missing, damaged or of another
      result.
  """
  path = _checked_path('folder', folder)
  stored = result_json.read_result(path)
  place = path if path.is_dir() else path.parent
  lung_mask, localization, affine = maps.read_maps(place, stored)
  fields = {
    field.name: getattr(stored, field.name)
    for field in dataclasses.fields(stored)
    if field.name not in ('schema_version', 'slice_count')
  }
  fields |= {
    'corona_score_by_slice_cm3': np.array(stored.corona_score_by_slice_cm3, np.float64),
    'slice_probability': np.array(stored.slice_probability, np.float32),
    'corona_score_by_region_cm3': dict(stored.corona_score_by_region_cm3),
  }
  return results.CaseResult(
    lung_mask=np.ascontiguousarray(lung_mask),
    localization=localization,
    affine=affine,
    stored_grid=maps.read_grid(place / maps.MASK_NAME),
    **fields,
  )


def results_table(
  folders: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> 'pandas.DataFrame':
  """The main numbers of many results, one row each.

    table = covid_tf.results_table('results/')
    table[['folder', 'corona_score_cm3', 'involved_lung_fraction']]

  Args:
    folders: result folders, or their result.json; or one folder that is searched
      through for them.

  Returns:
    A pandas DataFrame where pandas is installed (extra [pandas]), else a list of
    dicts, one a row, with the same keys. Columns: `folder`, UIDs and date, scores in
    cm³, shares in [0, 1], volumes in cm³, spacing in mm, `zone_score` (0 to 24),
    densities of both lungs, thresholds, models, how the CT was acquired,
    `demo_models`, `edits` and the number of `warnings`. What a result does not have is
    None.

  Raises:
    errors.UsageError: there is no result, or one of them cannot be read; names it.
  """
  if isinstance(folders, (str, os.PathLike)):
    paths = _searched(_checked_path('folders', folders))
  else:
    try:
      paths = [_checked_path('folders', one) for one in folders]
    except TypeError:
      raise errors.UsageError(
        'folders: a folder, or several result folders, are required, found '
        f'{type(folders).__name__}.'
      ) from None
  rows = [_row(path, result_json.read_result(path)) for path in paths]
  if importlib.util.find_spec('pandas') is None:
    # As declared only where pandas is; documented above.
    return cast('pandas.DataFrame', rows)
  import pandas

  return pandas.DataFrame(rows)


def _checked_path(name: str, given: object) -> pathlib.Path:
  if not isinstance(given, (str, os.PathLike)):
    raise errors.UsageError(
      f'{name}: a result folder (str or path) is required, found '
      f'{type(given).__name__}.'
    )
  return pathlib.Path(os.fsdecode(given))


def _searched(root: pathlib.Path) -> list[pathlib.Path]:
  """Result files below a folder, in order of name."""
  if root.is_file():
    return [root]
  found = []
  for folder, inner, names in os.walk(root):
    # A name with a dot in front is a result that is still being written.
    inner[:] = sorted(name for name in inner if not name.startswith('.'))
    if result_json.FILE_NAME in names:
      found.append(pathlib.Path(folder))
  if not found:
    raise errors.UsageError(
      f'{root}: result folders of covid-tf score are required below it, found none.'
    )
  return found


def _row(path: pathlib.Path, stored: result_json.StoredResult) -> dict[str, Any]:
  """The main numbers of one result."""
  regions = stored.corona_score_by_region_cm3
  return {
    'folder': os.fspath(path if path.is_dir() else path.parent),
    'study_uid': stored.study_uid,
    'series_uid': stored.series_uid,
    'acquisition_date': stored.acquisition_date,
    'patient_key': stored.patient_key,
    'corona_score_cm3': stored.corona_score_cm3,
    'case_detected': stored.case_detected,
    'corona_score_in_lung_cm3': stored.corona_score_in_lung_cm3,
    **{f'corona_score_{name}_cm3': value for name, value in regions.items()},
    'involved_lung_fraction': stored.involved_lung_fraction,
    'lung_volume_cm3': stored.lung_volume_cm3,
    'slice_count': stored.slice_count,
    'positive_slice_count': len(stored.positive_slices),
    'highest_slice_probability': max(stored.slice_probability),
    **dict(zip(('slice_mm', 'row_mm', 'column_mm'), stored.spacing_mm)),
    **dict.fromkeys(lung_measures.QUOTED),
    **lung_measures.quoted(
      stored.densities, stored.zone_score, stored.zone_score_by_density
    ),
    **dict(_analysis_columns(stored)),
    **{name: getattr(stored.acquisition, name, None) for name in ACQUISITION_FIELDS},
    'demo_models': stored.demo_models,
    'edits': ', '.join(stored.edits.kinds) if stored.edits else None,
    'warnings': len(stored.warnings),
    'software': stored.software,
  }


def _analysis_columns(stored: result_json.StoredResult) -> Iterator[tuple[str, Any]]:
  thresholds = stored.thresholds
  yield 'slice_threshold', thresholds.slice_probability
  yield 'map_threshold', thresholds.map
  yield 'case_threshold_cm3', thresholds.case_corona_score_cm3
  yield 'thickness_mm', thresholds.thickness_mm
  yield 'smoothing_mm', thresholds.smoothing_mm
  for model in stored.models:
    yield f'{model.name}_version', model.version
    yield f'{model.name}_card_sha256', model.card_sha256
