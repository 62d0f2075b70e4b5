"""NIfTI volumes of Hounsfield units, with their place in the patient."""

from collections.abc import Callable, Iterator
import contextlib
import functools
import gzip
import io
import logging
import pathlib
import threading
from typing import Any

import nibabel
from nibabel import imageglobals
import numpy as np

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import formats
from covid_tf.readers import sources
from covid_tf.readers import voxel_grids

_PIECE = 1 << 20
_MOST_DEFLATED = 1100  # gzip makes at most 1032 bytes of one.
_SAME_PLACE_MM = 0.1


def read(path: pathlib.Path) -> volume.CTVolume:
  """Reads one file of NIfTI, packed by gzip or not, whatever its name.

  Raises:
    CTReadError: no valid sform or qform, the two disagree, not 3D, not HU, or
      damaged.
  """
  with opened(path) as (image, require_end):
    held = path.stat().st_size * (_MOST_DEFLATED if _is_packed(path) else 1)
    volume_ = volume_of(image, held)
    require_end()
  return volume_


@contextlib.contextmanager
def opened(
  path: pathlib.Path,
) -> Iterator[tuple[nibabel.Nifti1Image, Callable[[], None]]]:
  """Yields an image, and what to call once its voxels are read.

  The call reads to the end of the file, where gzip has its checksum.

  Raises:
    CTReadError: it is no NIfTI, or its end is damaged.
    OSError: it cannot be opened.
  """
  # Opened here, a gzip file is unpacked once and not again for each plane.
  with (gzip.open if _is_packed(path) else open)(path, 'rb') as file:
    yield _image(path, file), functools.partial(_require_end, file)


def _image(path: pathlib.Path, file: io.IOBase) -> nibabel.Nifti1Image:
  try:
    with _silent():
      return _parsed(file)
  except nibabel.spatialimages.HeaderDataError as error:
    if 'slope' not in str(error):
      raise _unreadable(path) from None
    raise errors.CTReadError(
      'a finite scl_slope and scl_inter are required, found others; correct its header.'
    ) from None
  except Exception:  # nibabel raises what it meets in damaged bytes.
    raise _unreadable(path) from None


def _parsed(file: io.IOBase) -> nibabel.Nifti1Image:
  kind = (
    nibabel.Nifti2Image
    if nibabel.Nifti2Header.may_contain_header(
      file.read(nibabel.Nifti2Header.sizeof_hdr)
    )
    else nibabel.Nifti1Image
  )
  file.seek(0)
  return kind.from_stream(file)


def _unreadable(path: pathlib.Path) -> errors.CTReadError:
  with open(path, 'rb') as file:
    cause = formats.not_a_volume(file.read(formats.START_BYTES))
  return errors.CTReadError(
    f'it is no readable NIfTI file{": " + cause if cause else ""}.'
  )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
  """Within the block nibabel logs nothing of what this thread reads.

  It says of each header that it corrected what, on standard error where nobody has
  set up logging.
  """
  own = threading.get_ident()

  def is_of_another(record: logging.LogRecord) -> bool:
    return record.thread != own

  imageglobals.logger.addFilter(is_of_another)
  try:
    yield
  finally:
    imageglobals.logger.removeFilter(is_of_another)


def _require_end(file: io.IOBase) -> None:
  """Reads what is left: the checksum of gzip is the last thing in a file.

  A changed bit makes other voxels, and no error before it.
  """
  try:
    while file.read(_PIECE):
      pass
  except Exception:  # zlib and gzip raise many kinds.
    raise errors.CTReadError(
      'damaged: its checksum does not match, or its end is missing; copy the file '
      'again.'
    ) from None


def _is_packed(path: pathlib.Path) -> bool:
  with open(path, 'rb') as file:
    return file.read(2) == sources.GZIP


def volume_of(image: nibabel.Nifti1Image, held: int | None = None) -> volume.CTVolume:
  """The volume of an image in memory or of one whose voxels are still in a file.

  Args:
    image: NIfTI of version 1 or 2.
    held: bytes that its file can hold, at most; None: it is in memory.

  Raises:
    CTReadError: no valid sform or qform, the two disagree, not 3D or not HU.
  """
  try:
    shape = voxel_grids.require_three_axes(image.shape)
    _require_numbers(image, shape, held)
    affine, warnings = _affine(image, shape)
    order = voxel_grids.named_order(
      image.header['intent_name'].item().decode('latin-1'),
      voxel_grids.nearest_order(affine),
    )
  except errors.CTReadError:
    raise
  except Exception:  # Damaged codes and quaternions raise many kinds.
    raise errors.CTReadError('its header is damaged.') from None
  grid = voxel_grids.VoxelGrid(
    shape,
    affine,
    order,
    tuple(image.shape),
    np.array(image.affine, np.float64),
    image.header.get_xyzt_units()[0],
  )
  spare_axes = len(image.shape) - 3
  return voxel_grids.to_volume(
    grid, lambda k: _plane(image.dataobj, k, spare_axes), warnings=warnings
  )


def _require_numbers(
  image: nibabel.Nifti1Image, shape: tuple[int, int, int], held: int | None
) -> None:
  """Refuses what is not one number a voxel, and more than the file can hold."""
  data: Any = image.dataobj
  in_memory = isinstance(data, np.ndarray)
  dtype = data.dtype if in_memory else image.header.get_data_dtype()
  if dtype.kind not in 'iuf':
    raise errors.CTReadError(f'one number a voxel is required, found {dtype}.')
  needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
  if held is not None and needed > held:
    raise errors.CTReadError(
      f'truncated: {needed} bytes of voxels are required, the file cannot hold them.'
    )


def _affine(
  image: nibabel.Nifti1Image, shape: tuple[int, int, int]
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Index (i, j, k, 1) to LPS millimetres, from sform or qform."""
  header = image.header
  matrices = [
    matrix
    for matrix in (header.get_sform(coded=True)[0], header.get_qform(coded=True)[0])
    if matrix is not None
  ]
  if not matrices:
    raise errors.CTReadError(
      'it has neither sform nor qform, so its place and sides are unknown; save it '
      'again with its affine, or give the voxels to covid_tf.CTVolume.from_array.'
    )
  unit = header.get_xyzt_units()[0]
  scale = volume.MILLIMETRES[unit]
  corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], (1,)))
  corners = corners.reshape(4, -1)
  apart = np.abs((matrices[0] - matrices[-1]) @ corners).max() * scale
  if not apart <= _SAME_PLACE_MM:
    raise errors.CTReadError(
      f'its sform and qform differ by {apart:.1f} mm; remove the wrong one.'
    )
  # Of an image that was made in memory the affine has the digits that the header, in
  # float32, has not; of one from a file the two are the same.
  apart = np.abs((matrices[0] - image.affine) @ corners).max() * scale
  if not apart <= _SAME_PLACE_MM:
    raise errors.CTReadError(
      f'its affine and the sform or qform of its header differ by {apart:.1f} mm; set '
      'both: image.set_sform(image.affine, code=1), image.set_qform(None, code=0).'
    )
  affine: np.ndarray = volume.LPS_RAS @ image.affine
  affine[:3] *= scale
  try:
    voxel_grids.require_box(affine)
  except errors.CTReadError as error:
    if unit == 'mm':
      raise
    said = 'no unit of length' if unit == 'unknown' else f'lengths in {unit}s'
    raise errors.CTReadError(f'{str(error)[:-1]}; its header says {said}.') from None
  return affine, () if unit != 'unknown' else ('no unit of length given, mm assumed',)


def _plane(proxy: Any, k: int, spare_axes: int) -> np.ndarray:
  index = (slice(None), slice(None), k) + (0,) * spare_axes
  try:
    return np.asarray(proxy[index])
  except Exception:  # Short files and damaged gzip data raise many kinds.
    raise errors.CTReadError(
      f'truncated or damaged: plane {k} cannot be read; copy the file again.'
    ) from None
