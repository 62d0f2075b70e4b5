"""The localization map and the lung mask as NIfTI, in line with the CT."""

from collections.abc import Iterable
import gzip
import os

import nibabel as nib
import numpy as np

from covid_tf import files
from covid_tf import results

_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT: millimetres of the scanner's own frame.
_HEADER_BYTES = 352  # NIfTI-1 in one file: 348 of header, 4 that say no extension.
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
# A map's slice of 512 x 512: 12 ms and 279 kB; at level 9, 18 ms and 274 kB.
_COMPRESSION = 1


def write_localization(
    path: str | os.PathLike, result: results.CaseResult, note: str = '') -> None:
  """Writes the 3D localization map as float32 in [0, 1].

  Args:
    path: ends in .nii.gz.
    result: the scored study.
    note: for the header's description, at most 79 bytes.

  Raises:
    errors.OutputError: it cannot be written.
  """
  planes = (result.localization.slice_map(index) for index in range(result.shape[0]))
  _write(path, planes, np.float32, result, note)


def write_lung_mask(
    path: str | os.PathLike, result: results.CaseResult, note: str = '') -> None:
  """Writes the lung mask as uint8, 0 or 1; arguments as above."""
  _write(path, result.lung_mask, np.uint8, result, note)


def ras_affine(affine: np.ndarray) -> np.ndarray:
  """(slice, row, column) to LPS, turned to NIfTI's (column, row, slice) to RAS.

  Args:
    affine: float64 [4, 4], as in CTVolume.

  Returns:
    float64 [4, 4].
  """
  return _LPS_TO_RAS @ affine[:, [2, 1, 0, 3]]


def _write(
    path: str | os.PathLike, planes: Iterable[np.ndarray], dtype: type,
    result: results.CaseResult, note: str) -> None:
  header = _header(result, dtype, note)
  with files.replacing(path) as temporary, open(temporary, 'wb') as raw:
    # No name and no time in the gzip header: the same result, the same bytes.
    with gzip.GzipFile('', 'wb', _COMPRESSION, raw, mtime=0) as packed:
      header.write_to(packed)
      packed.write(bytes(_HEADER_BYTES - packed.tell()))
      # NIfTI's first axis runs fastest: rows as they are stored, a slice at a time,
      # so that the volume never stands in memory as a whole.
      for plane in planes:
        packed.write(np.ascontiguousarray(plane, dtype))


def _header(
    result: results.CaseResult, dtype: type, note: str) -> nib.Nifti1Header:
  header = nib.Nifti1Header(endianness='<')
  header.set_data_dtype(dtype)
  header.set_data_shape(result.shape[::-1])
  header.set_data_offset(_HEADER_BYTES)
  header.set_slope_inter(1, 0)
  header.set_xyzt_units('mm')
  affine = ras_affine(result.affine)
  # The quaternion cannot hold a shear (a gantry tilt); the sform has it exactly.
  header.set_qform(affine, _SCANNER, strip_shears=True)
  header.set_sform(affine, _SCANNER)
  header['cal_max'] = 1
  header['descrip'] = note or 'covid-tf; research use only'
  return header
