"""Result folders of made-up studies, as `covid-tf score` leaves them."""

import dataclasses
import pathlib

import dicom_series
import numpy as np
import synthetic_case

from covid_tf.analysis import case_score
from covid_tf.storage import maps as maps_lib
from covid_tf.storage import result_json

SHAPE = (17, 42, 64)
SPACING_MM = (16.0, 6.0, 6.0)
CT_GRID = {'shape': (17, 50, 76), 'spacing_mm': (16.0, 5.0, 5.0)}  # DICOM ends at 5 mm.


def write_study(
  folder: pathlib.Path,
  *,
  maps: bool = True,
  measured: bool = False,
  lesions=synthetic_case.LESIONS,
  reverse=(),
  changes: dict | None = None,
  ct: pathlib.Path | None = None,
  spacing_mm=SPACING_MM,
  shape=SHAPE,
  shift_mm=(0, 0, 0),
  **fields,
) -> pathlib.Path:
  """Scores the patient of synthetic_case and writes the result.

  Args:
    folder: where.
    maps: whether map and mask are written too.
    measured: whether densities and zone scores are in the result.
    lesions: of the patient.
    reverse: axes stored backwards.
    changes: fields of the CaseResult to replace.
    ct: where the CT is written too: a folder for DICOM, or a NIfTI file, which has no
      UIDs; None: nowhere.
    spacing_mm, shape: of its grid.
    shift_mm: of the whole patient, in LPS.
    **fields: of the CTVolume.
  """
  affine = synthetic_case.axial_affine(spacing_mm, shape, reverse)
  fields = {'series_uid': f'1.2.3.{folder.name}'} | fields
  volume = synthetic_case.make_volume(affine, shape, lesions, **fields)
  if ct:
    changes = {'hu_sha256': case_score.hu_digest(volume)} | (changes or {})
  result = synthetic_case.make_result(volume, lesions, **(changes or {}))
  if measured:
    result = synthetic_case.measured(volume, result)
  affine[:3, 3] += shift_mm
  volume = dataclasses.replace(volume, affine=affine)
  result = dataclasses.replace(result, affine=affine)
  if ct:
    _write_ct(ct, volume)
  # As the slices were decided: result.json is checked when it is read back.
  assert result.positive_slices == tuple(
    np.flatnonzero(result.slice_probability > 0.5).tolist()
  )
  folder.mkdir(parents=True)
  if maps:
    maps_lib.write_lung_mask(folder / 'lung_mask.nii.gz', result)
    maps_lib.write_localization(folder / 'localization.nii.gz', result)
  result_json.write_result(folder / 'result.json', result)
  return folder


def _write_ct(path: pathlib.Path, volume) -> None:
  if path.name.endswith('.nii'):
    path.parent.mkdir(parents=True, exist_ok=True)
    synthetic_case.write_nifti(path, volume)
    return

  def identify(index, dataset):
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = '1.2.9', volume.series_uid
    dataset.SOPInstanceUID = f'{volume.series_uid}.{index + 1}'

  dicom_series.write(path, volume, identify)
