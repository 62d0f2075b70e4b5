"""result.json: the numbers of a scored study, for programs (docs/results.md)."""

import json
import os

import numpy as np

from covid_tf import files
from covid_tf import results

FILE_NAME = 'result.json'


def write_result(path: str | os.PathLike, result: results.CaseResult) -> None:
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
      f'  {json.dumps(name)}: '
      f'{json.dumps(value, allow_nan=False, ensure_ascii=False)}'
      for name, value in to_dict(result).items())
  return '{\n' + ',\n'.join(lines) + '\n}\n'


def to_dict(result: results.CaseResult) -> dict:
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
      'corona_score_by_slice_cm3': np.asarray(
          result.corona_score_by_slice_cm3).tolist(),
      'thresholds': {
          'slice_probability': result.thresholds.slice_probability,
          'map': result.thresholds.map,
          'case_corona_score_cm3': result.thresholds.case_corona_score_cm3,
      },
      'models': [
          {'name': model.name, 'version': model.version,
           'card_sha256': model.card_sha256}
          for model in result.models],
      'warnings': list(result.warnings),
      'software': result.software,
  }


def _shortest(values: np.ndarray) -> list[float]:
  """Each float32 by the fewest digits that give it back: 0.1, not 0.10000000149."""
  return [float(str(value)) for value in np.asarray(values, np.float32)]
