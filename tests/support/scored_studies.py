"""Result folders of made-up studies, as `covid-tf score` leaves them."""

import pathlib

import numpy as np
import synthetic_case

from covid_tf.storage import maps as maps_lib
from covid_tf.storage import result_json

SHAPE = (17, 42, 64)
SPACING_MM = (16.0, 6.0, 6.0)


def write_study(
  folder: pathlib.Path,
  *,
  maps: bool = True,
  measured: bool = False,
  lesions=synthetic_case.LESIONS,
  reverse=(),
  changes: dict | None = None,
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
    **fields: of the CTVolume.
  """
  affine = synthetic_case.axial_affine(SPACING_MM, SHAPE, reverse)
  fields = {'series_uid': f'1.2.3.{folder.name}'} | fields
  volume = synthetic_case.make_volume(affine, SHAPE, lesions, **fields)
  result = synthetic_case.make_result(volume, lesions, **(changes or {}))
  if measured:
    result = synthetic_case.measured(volume, result)
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
