"""Reads back the map and the lung mask that `covid-tf score` wrote."""

import pathlib

import nibabel as nib
import numpy as np

from covid_tf import errors
from covid_tf import results
from covid_tf.reports import nifti
from covid_tf.reports import stored_result

MASK_NAME = 'lung_mask.nii.gz'
MAP_NAME = 'localization.nii.gz'
_SAME_MM = 1e-3


def has_maps(folder: pathlib.Path) -> bool:
  """Whether map and mask lie in a folder."""
  return all((folder / name).is_file() for name in (MASK_NAME, MAP_NAME))


def read_maps(
    folder: pathlib.Path, result: stored_result.StoredResult
) -> tuple[np.ndarray, results.LocalizationMap, np.ndarray]:
  """Reads map and mask of a scored study.

  Args:
    folder: where they lie.
    result: the result.json beside them.

  Returns:
    (lung mask uint8 [slice, row, column], localization map, affine float64 [4, 4]
    of (slice, row, column, 1) to LPS millimetres).

  Raises:
    errors.UsageError: a file cannot be read or does not belong to the result.
  """
  mask, affine = _read(folder / MASK_NAME, result)
  heat, other = _read(folder / MAP_NAME, result)
  if not np.allclose(affine, other, atol=_SAME_MM):
    raise errors.UsageError(
        f'{folder}: map and mask on one grid are required, found two; score the study '
        'again.')
  box, positive = result.lung_box, list(result.positive_slices)
  crops = heat[positive, box.rows, box.columns].astype(np.float32)
  return (mask > 0).astype(np.uint8), results.LocalizationMap(
      result.shape, box, result.positive_slices, crops), affine


def _read(path, result) -> tuple[np.ndarray, np.ndarray]:
  """[slice, row, column] and its affine to LPS."""
  try:
    stored, affine = nifti.read(path)
  except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
    raise errors.UsageError(
        f'{path}: the file that covid-tf score writes is required, found none that '
        f'can be read ({type(error).__name__}); score the study again.') from error
  spacing = np.linalg.norm(affine[:3, :3], axis=0)
  if stored.shape != result.shape or not np.allclose(
      spacing, result.spacing_mm, atol=_SAME_MM):
    raise errors.UsageError(
        f'{path}: the grid of result.json is required ({result.shape}, '
        f'{_words(result.spacing_mm)} mm), found {stored.shape}, {_words(spacing)} mm; '
        'score the study again.')
  if not np.isfinite(stored).all():
    raise errors.UsageError(
        f'{path}: finite values are required, found others; score the study again.')
  return stored, affine


def _words(spacing) -> str:
  return ' × '.join(f'{step:.3f}' for step in spacing)
