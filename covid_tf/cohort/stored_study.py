"""A study as `covid-tf score` left it on disk, so that it is not scored twice."""

import pathlib

import nibabel as nib
import numpy as np

from covid_tf import errors
from covid_tf import volume as volume_lib
from covid_tf.cohort import manifestation_slices
from covid_tf.reports import nifti
from covid_tf.reports import stored_result

_MASK = 'lung_mask.nii.gz'
_MAP = 'localization.nii.gz'
_SAME_PLACE_MM = 0.1


def read_study(
    result_path: pathlib.Path, volume: volume_lib.CTVolume
) -> manifestation_slices.ScoredStudy:
  """Reads result.json, map and mask of a study.

  Args:
    result_path: its result.json; map and mask lie beside it.
    volume: the CT that was scored.

  Returns:
    The scored study.

  Raises:
    errors.UsageError: a file is missing, damaged or of another CT.
  """
  result = stored_result.read_result(result_path)
  if (result.shape, result.series_uid) != (volume.shape, volume.series_uid):
    raise errors.UsageError(
        f'{result_path}: a result of the CT at hand is required, found one of another '
        'series; score the study again.')
  box = result.lung_box
  maps = _read(result_path.with_name(_MAP), volume)
  positive = list(result.positive_slices)
  return manifestation_slices.ScoredStudy(
      result.study_uid, box, _read(result_path.with_name(_MASK), volume),
      np.array(result.slice_probability, np.float32), result.positive_slices,
      maps[positive, box.rows, box.columns].astype(np.float32), result.thresholds,
      {model.name: model.card_sha256 for model in result.models})


def _read(path: pathlib.Path, volume: volume_lib.CTVolume) -> np.ndarray:
  """[slice, row, column] of a NIfTI file that `covid-tf score` wrote."""
  try:
    stored, affine = nifti.read(path)
  except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
    raise errors.UsageError(
        f'{path}: the file that covid-tf score writes is required, found none that '
        f'can be read ({type(error).__name__}); score the study again.') from error
  if stored.shape != volume.shape:
    raise errors.UsageError(
        f'{path}: shape {volume.shape} is required, found {stored.shape}; score the '
        'study again.')
  ends = np.array([(0, 0, 0, 1), (*np.subtract(volume.shape, 1), 1)])
  # Slices of mirrored files ran to the feet before docs/adr/0115.
  if not np.abs(ends @ (affine - volume.affine).T).max() <= _SAME_PLACE_MM:
    raise errors.UsageError(
        f'{path}: a map in the place and the order of its CT is required, found '
        'another (slices that run the other way?); score the study again.')
  return stored
