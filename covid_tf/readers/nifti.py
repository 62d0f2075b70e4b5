"""NIfTI volumes of Hounsfield units, with their place in the patient."""

from collections.abc import Callable, Iterator
import contextlib
import functools
import gzip
import io
import pathlib
from typing import Any

import nibabel
import numpy as np

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import sources

_PIECE = 1 << 20
_MOST_DEFLATED = 1100  # gzip makes at most 1032 bytes of one.
_SPACING_RANGE_MM = (0.05, 50.0)
_SAME_PLACE_MM = 0.1
_INT16 = np.iinfo(np.int16)


def read(path: pathlib.Path) -> volume.CTVolume:
  """Reads one file of NIfTI, packed by gzip or not, whatever its name.

  Raises:
    CTReadError: no valid sform or qform, the two disagree, not 3D, not HU, or
      damaged.
  """
  with opened(path) as (image, require_end):
    volume_ = _volume(image, path)
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
    yield _image(file), functools.partial(_require_end, file)


def _image(file: io.IOBase) -> nibabel.Nifti1Image:
  try:
    kind = (
      nibabel.Nifti2Image
      if nibabel.Nifti2Header.may_contain_header(
        file.read(nibabel.Nifti2Header.sizeof_hdr)
      )
      else nibabel.Nifti1Image
    )
    file.seek(0)
    return kind.from_stream(file)
  except Exception:  # nibabel raises what it meets in damaged bytes.
    raise errors.CTReadError('it is no readable NIfTI file.') from None


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


def _volume(image: nibabel.Nifti1Image, path: pathlib.Path) -> volume.CTVolume:
  try:
    shape = _shape(image, path)
    affine, warnings = _affine(image.header, shape)
    order = _axis_order(affine)
  except errors.CTReadError:
    raise
  except Exception:  # Damaged codes and quaternions raise many kinds.
    raise errors.CTReadError('its header is damaged.') from None
  hu, below = _hounsfield(image, shape, order)
  affine = affine[:, [*order, 3]]
  stored = volume.StoredGrid(
    tuple(image.shape),
    order,
    bool(affine[2, 0] < 0),
    image.affine,
    image.header.get_xyzt_units()[0],
  )
  hu, affine = _lowest_first(hu, affine)
  if below:
    warnings.append(f'{below} voxels below -1024 HU were set to -1024 HU')
  return volume.CTVolume(
    hu=hu, affine=affine, warnings=tuple(warnings), stored_grid=stored
  )


def _shape(image: nibabel.Nifti1Image, path: pathlib.Path) -> tuple[int, int, int]:
  """Size along i, j, k; never more than the file can hold."""
  shape = image.shape
  while len(shape) > 3 and shape[-1] == 1:
    shape = shape[:-1]
  if len(shape) != 3 or min(shape) < 2:
    raise errors.CTReadError(
      f'three axes of 2 voxels or more are required, found {image.shape}.'
    )
  dtype = image.header.get_data_dtype()
  if dtype.kind not in 'iuf':
    raise errors.CTReadError(f'one number a voxel is required, found {dtype}.')
  needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
  held = path.stat().st_size * (_MOST_DEFLATED if _is_packed(path) else 1)
  if needed > held:
    raise errors.CTReadError(
      f'truncated: {needed} bytes of voxels are required, the file cannot hold them.'
    )
  return shape


def _affine(
  header: nibabel.Nifti1Header, shape: tuple[int, int, int]
) -> tuple[np.ndarray, list[str]]:
  """Index (i, j, k, 1) to LPS millimetres, from sform or qform."""
  matrices = [
    matrix
    for matrix in (header.get_sform(coded=True)[0], header.get_qform(coded=True)[0])
    if matrix is not None
  ]
  if not matrices:
    raise errors.CTReadError(
      'it has neither sform nor qform, so its place and sides are unknown.'
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
  affine = volume.LPS_RAS @ matrices[0]
  affine[:3] *= scale
  steps = np.linalg.norm(affine[:3, :3], axis=0)
  if not (
    np.isfinite(affine).all()
    and steps.min() >= _SPACING_RANGE_MM[0]
    and steps.max() <= _SPACING_RANGE_MM[1]
  ):
    raise errors.CTReadError(
      f'spacings between 0.05 and 50 mm are required, found {steps.tolist()}.'
    )
  directions = affine[:3, :3] / steps
  if abs(directions.T @ directions - np.eye(3)).max() > 1e-2:
    raise errors.CTReadError('its axes are not perpendicular (gantry tilt?).')
  warnings = [] if unit != 'unknown' else ['no unit of length given, mm assumed']
  return affine, warnings


def _axis_order(affine: np.ndarray) -> tuple[int, int, int]:
  """Which of i, j, k are slices, rows and columns: nearest to z, y and x."""
  directions = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
  slices, rows, columns = (int(np.argmax(directions[axis])) for axis in (2, 1, 0))
  order = slices, rows, columns
  if len(set(order)) < 3 or directions[2, order[0]] < np.cos(np.radians(25)):
    raise errors.CTReadError(
      'axial slices within 25 degrees are required, these are oblique.'
    )
  return order


def _hounsfield(
  image: nibabel.Nifti1Image, shape: tuple[int, int, int], order: tuple[int, int, int]
) -> tuple[np.ndarray, int]:
  """int16 HU [slice, row, column], one plane of the file at a time."""
  hu = np.empty([shape[axis] for axis in order], np.int16)
  by_file = hu.transpose(np.argsort(order))  # A view indexed [i, j, k].
  proxy, below = image.dataobj, 0
  for k in range(shape[2]):
    plane = _plane(proxy, k, len(image.shape) - 3)
    if not np.isfinite(plane).all():
      raise errors.CTReadError(f'voxels of plane {k} are not finite numbers.')
    plane = np.rint(plane)
    if plane.max() > _INT16.max:
      raise errors.CTReadError(
        f'Hounsfield units up to {_INT16.max} are possible, found {plane.max():.0f}.'
      )
    below += int(np.count_nonzero(plane < volume.AIR_HU))
    by_file[:, :, k] = np.maximum(plane, volume.AIR_HU)
  return hu, below


def _plane(proxy: Any, k: int, spare_axes: int) -> np.ndarray:
  index = (slice(None), slice(None), k) + (0,) * spare_axes
  try:
    return np.asarray(proxy[index], np.float64)
  except Exception:  # Short files and damaged gzip data raise many kinds.
    raise errors.CTReadError(
      f'truncated or damaged: plane {k} cannot be read; copy the file again.'
    ) from None


def _lowest_first(hu: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Turns the slice axis so that slice 0 is the most inferior of the patient."""
  if affine[2, 0] > 0:
    return hu, affine
  affine = affine.copy()
  affine[:3, 3] += affine[:3, 0] * (hu.shape[0] - 1)
  affine[:3, 0] *= -1
  return np.ascontiguousarray(hu[::-1]), affine
