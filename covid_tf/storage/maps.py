"""The localization map and the lung mask as NIfTI, written and read back."""

from collections.abc import Callable, Iterable
import gzip
import itertools
import os
import pathlib
from typing import cast

import nibabel as nib
import numpy as np

from covid_tf import errors
from covid_tf import results
from covid_tf import volume
from covid_tf.storage import files
from covid_tf.storage import result_json

# The localization map and the lung mask as NIfTI, in line with the CT.
#
# Of a NIfTI file they have its own shape, axes and affine, so that they lie over it
# index by index too; of DICOM, the axes column, row and slice (docs/adr/0115).

MASK_NAME = 'lung_mask.nii.gz'
MAP_NAME = 'localization.nii.gz'

_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT: millimetres of the scanner's own frame.
_HEADER_BYTES = 352  # NIfTI-1 in one file: 348 of header, 4 that say no extension.
# The header's intent_name says which of i, j, k are slices, rows and columns, and
# which way the slices run; without it they are k, j and i, and to the head.
_AXES, _USUAL_AXES = 'ijk', (2, 1, 0)
# A map's slice of 512 x 512: 12 ms and 279 kB; at level 9, 18 ms and 274 kB.
_COMPRESSION = 1


def write_localization(
  path: str | os.PathLike[str], result: results.CaseResult, note: str = ''
) -> None:
  """Writes the 3D localization map as float32 in [0, 1].

  Args:
    path: ends in .nii.gz.
    result: the scored study.
    note: for the header's description, at most 79 bytes.

  Raises:
    errors.OutputError: it cannot be written.
  """
  _write(path, result.localization.slice_map, np.float32, result, note)


def write_lung_mask(
  path: str | os.PathLike[str], result: results.CaseResult, note: str = ''
) -> None:
  """Writes the lung mask as uint8, 0 or 1; arguments as above."""
  _write(path, result.lung_mask.__getitem__, np.uint8, result, note)


def ras_affine(affine: np.ndarray) -> np.ndarray:
  """(slice, row, column) to LPS, turned to NIfTI's (column, row, slice) to RAS.

  Args:
    affine: float64 [4, 4], as in CTVolume.

  Returns:
    float64 [4, 4].
  """
  return volume.LPS_RAS @ affine[:, [2, 1, 0, 3]]


def read(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
  """Reads a map or mask back, whatever the axes it is stored along.

  Args:
    path: what `write_localization` or `write_lung_mask` wrote.

  Returns:
    ([slice, row, column], float64 [4, 4] of (slice, row, column, 1) to LPS mm).

  Raises:
    OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError: it cannot
      be read.
  """
  image = cast(nib.Nifti1Image, nib.load(path))
  stored = np.asarray(image.dataobj)
  axes, slices_reversed = _named_axes(image.header['intent_name'].item().decode())
  stored = stored.reshape(stored.shape[:3]).transpose(axes)
  affine = volume.LPS_RAS @ image.affine[:, [*axes, 3]]
  affine[:3] *= volume.MILLIMETRES[image.header.get_xyzt_units()[0]]
  if slices_reversed:
    stored = stored[::-1]
    affine[:3, 3] += affine[:3, 0] * (len(stored) - 1)
    affine[:3, 0] *= -1
  return stored, affine


def read_grid(path: str | os.PathLike[str]) -> volume.StoredGrid | None:
  """The grid that a map or mask is stored on; None where its axes are the usual ones.

  Raises:
    As `read`.
  """
  image = cast(nib.Nifti1Image, nib.load(path))
  axes, slices_reversed = _named_axes(image.header['intent_name'].item().decode())
  unit = image.header.get_xyzt_units()[0]
  if (axes, slices_reversed, unit, len(image.shape)) == (_USUAL_AXES, False, 'mm', 3):
    return None
  slices, rows, columns = axes
  return volume.StoredGrid(
    tuple(image.shape),
    (slices, rows, columns),
    slices_reversed,
    np.array(image.affine, np.float64),
    unit,
  )


def _named_axes(name: str) -> tuple[tuple[int, ...], bool]:
  if sorted(name.rstrip('-')) != sorted(_AXES):
    return _USUAL_AXES, False
  return tuple(map(_AXES.index, name[:3])), name.endswith('-')


def _grid(result: results.CaseResult) -> volume.StoredGrid:
  """How the files of a result are stored."""
  return result.stored_grid or volume.StoredGrid(
    result.shape[::-1], _USUAL_AXES, False, ras_affine(result.affine)
  )


def _in_file_order(
  planes: Iterable[np.ndarray], grid: volume.StoredGrid, dtype: type
) -> Iterable[np.ndarray]:
  """Pieces in the order of the file, whose first axis runs fastest."""
  slices, rows, columns = grid.axes
  if slices == 2:  # A plane at a time: the volume never stands in memory as a whole.
    for plane in planes:
      plane = np.asarray(plane, dtype)
      yield np.ascontiguousarray(plane if columns < rows else plane.T)
    return
  block: np.ndarray = np.stack([np.asarray(plane, dtype) for plane in planes])
  yield np.ascontiguousarray(block.transpose(np.argsort(grid.axes)).T)


def _write(
  path: str | os.PathLike[str],
  slice_map: Callable[[int], np.ndarray],
  dtype: type,
  result: results.CaseResult,
  note: str,
) -> None:
  grid = _grid(result)
  header = _header(grid, dtype, note)
  indices = range(result.shape[0])
  planes = map(slice_map, reversed(indices) if grid.slices_reversed else indices)
  with files.replacing(path) as temporary, open(temporary, 'wb') as raw:
    # No name and no time in the gzip header: the same result, the same bytes.
    with gzip.GzipFile('', 'wb', _COMPRESSION, raw, mtime=0) as packed:
      header.write_to(packed)
      packed.write(bytes(_HEADER_BYTES - packed.tell()))
      for piece in _in_file_order(planes, grid, dtype):
        packed.write(piece.data)


def _header(grid: volume.StoredGrid, dtype: type, note: str) -> nib.Nifti1Header:
  header = nib.Nifti1Header(endianness='<')
  header.set_data_dtype(dtype)
  header.set_data_shape(grid.shape)
  header.set_data_offset(_HEADER_BYTES)
  header.set_slope_inter(1, 0)
  header.set_xyzt_units(grid.unit)
  if (grid.axes, grid.slices_reversed) != (_USUAL_AXES, False):
    header['intent_name'] = ''.join(_AXES[axis] for axis in grid.axes) + (
      '-' if grid.slices_reversed else ''
    )
  # The quaternion cannot hold a shear (a gantry tilt); the sform has it exactly.
  header.set_qform(grid.affine, _SCANNER, strip_shears=True)
  header.set_sform(grid.affine, _SCANNER)
  header['cal_max'] = 1
  header['descrip'] = note or 'covid-tf; research use only'
  return header


# Reads back the map and the lung mask that `covid-tf score` wrote.

_SAME_MM = 1e-3


def has_maps(folder: pathlib.Path) -> bool:
  """Whether map and mask lie in a folder."""
  return all((folder / name).is_file() for name in (MASK_NAME, MAP_NAME))


def read_maps(
  folder: pathlib.Path,
  result: result_json.StoredResult,
  ct: volume.CTVolume | None = None,
) -> tuple[np.ndarray, results.LocalizationMap, np.ndarray]:
  """Reads map and mask of a scored study.

  Args:
    folder: where they lie.
    result: the result.json beside them.
    ct: the CT that they must lie on, or None where it is not at hand. A CT of NIfTI
      has no series UID: there only its place identifies it.

  Returns:
    (lung mask uint8 [slice, row, column], localization map, affine float64 [4, 4]
    of (slice, row, column, 1) to LPS millimetres).

  Raises:
    errors.UsageError: a file cannot be read, or does not belong to the result or to
      the CT.
  """
  if ct is not None and (result.shape, result.series_uid) != (ct.shape, ct.series_uid):
    raise errors.UsageError(
      f'{folder / result_json.FILE_NAME}: a result of the CT at hand is required '
      f'({ct.shape}, series {ct.series_uid or "without UID"}), found one of another '
      f'series ({result.shape}, series {result.series_uid or "without UID"}); score '
      'the study again.'
    )
  mask, affine = _read(folder / MASK_NAME, result)
  heat, other = _read(folder / MAP_NAME, result)
  if not _same_place(affine, other, result.shape):
    raise errors.UsageError(
      f'{folder}: map and mask on one grid are required, found two; score the study '
      'again.'
    )
  # Slices of mirrored files ran to the feet before docs/adr/0115.
  if ct is not None and not _same_place(affine, ct.affine, result.shape):
    raise errors.UsageError(
      f'{folder / MASK_NAME}: a mask in the place and the order of its CT is '
      'required, found another (another study, or slices that run the other way?); '
      'score the study again.'
    )
  box, positive = result.lung_box, list(result.positive_slices)
  crops = heat[positive, box.rows, box.columns].astype(np.float32)
  return (
    (mask > 0).astype(np.uint8),
    results.LocalizationMap(result.shape, box, result.positive_slices, crops),
    affine,
  )


def _read(
  path: pathlib.Path, result: result_json.StoredResult
) -> tuple[np.ndarray, np.ndarray]:
  """[slice, row, column] and its affine to LPS."""
  try:
    stored, affine = read(path)
  except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
    raise errors.UsageError(
      f'{path}: the file that covid-tf score writes is required, found none that '
      f'can be read ({type(error).__name__}); score the study again.'
    ) from error
  spacing = np.linalg.norm(affine[:3, :3], axis=0)
  if stored.shape != result.shape or not np.allclose(
    spacing, result.spacing_mm, atol=_SAME_MM
  ):
    raise errors.UsageError(
      f'{path}: the grid of result.json is required ({result.shape}, '
      f'{_words(result.spacing_mm)} mm), found {stored.shape}, {_words(spacing)} mm; '
      'score the study again.'
    )
  if not np.isfinite(stored).all():
    raise errors.UsageError(
      f'{path}: finite values are required, found others; score the study again.'
    )
  return stored, affine


def _same_place(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> bool:
  """Whether two grids of one shape agree at their corners."""
  corners = np.array(
    [(*corner, 1) for corner in itertools.product(*((0, size - 1) for size in shape))]
  )
  places = corners @ other.T
  # A NIfTI header holds float32: far from the origin that alone is more.
  tolerance = _SAME_MM + 2 * np.finfo(np.float32).eps * np.abs(places).max()
  return bool(np.abs(corners @ affine.T - places).max() <= tolerance)


def _words(spacing: Iterable[float]) -> str:
  return ' × '.join(f'{step:.3f}' for step in spacing)
