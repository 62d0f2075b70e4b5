"""Label maps of NIfTI, such as edited lung masks, that lie on the grid of a CT."""

import os
import pathlib

import nibabel
import numpy as np

from covid_tf import errors
from covid_tf import volume as volume_lib
from covid_tf.readers import nifti

# Ours: far below a voxel. A mask that lies beside its CT was made for another one.
SAME_PLACE_MM = 1e-3
_MOST_LABELS = np.iinfo(np.uint16).max
_FEW = 6  # Labels that a refusal names.


def read_label_map(path: str | os.PathLike[str], ct: volume_lib.CTVolume) -> np.ndarray:
  """Reads a label map of a CT in the order of its slices, rows and columns.

  Editors store the axes of a file in an order and with directions of their own: the
  places of its voxels decide, which must be those of the CT.

  Args:
    path: NIfTI of whole numbers, packed by gzip or not.
    ct: the CT that it must lie on, voxel on voxel to 1e-3 mm.

  Returns:
    uint16 [slice, row, column].

  Raises:
    errors.UsageError: there is no such file, it is damaged, lies on another grid or
      holds anything but whole numbers from 0 to 65535.
  """
  path = pathlib.Path(path)
  try:
    with nifti.opened(path) as (image, require_end):
      axes, backwards = _order_on(path, image, ct)
      values = np.asarray(image.dataobj).reshape(image.shape[:3])
      require_end()
  except errors.UsageError:
    raise
  except OSError as error:
    raise errors.UsageError(
      f'{path}: a NIfTI file on the grid of the CT is required, found none that can '
      f'be read ({error.strerror or "damaged"}).'
    ) from None
  except errors.CTReadError as error:
    raise errors.UsageError(f'{path}: {error}') from None
  except Exception:  # nibabel, zlib and gzip raise many kinds for damaged bytes.
    raise errors.UsageError(
      f'{path}: truncated or damaged; copy the file again.'
    ) from None
  labels = _whole_numbers(path, values)
  return np.ascontiguousarray(np.flip(labels.transpose(axes), backwards))


def _order_on(
  path: pathlib.Path, image: nibabel.Nifti1Image, ct: volume_lib.CTVolume
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """(the file's axes in the CT's order, which of the CT's axes then run backwards)."""
  shape = tuple(image.shape)
  if sorted(shape[:3]) != sorted(ct.shape) or max(shape[3:], default=1) > 1:
    raise _other_shape(path, ct, shape)
  affine = volume_lib.LPS_RAS @ image.affine
  affine[:3] *= volume_lib.MILLIMETRES[image.header.get_xyzt_units()[0]]
  if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
    raise errors.UsageError(
      f'{path}: a place in the patient is required, found a header without one; save '
      'it on the grid of the CT.'
    )
  to_file = np.linalg.inv(affine) @ ct.affine
  axes = tuple(int(axis) for axis in np.abs(to_file[:3, :3]).argmax(axis=0))
  if sorted(axes) != [0, 1, 2]:
    raise _other_place(path, float('inf'))
  if tuple(shape[axis] for axis in axes) != ct.shape:
    raise _other_shape(path, ct, shape)
  backwards = tuple(place for place in range(3) if to_file[axes[place], place] < 0)
  _require_place(path, affine, axes, backwards, ct)
  return axes, backwards


def _require_place(
  path: pathlib.Path,
  affine: np.ndarray,
  axes: tuple[int, ...],
  backwards: tuple[int, ...],
  ct: volume_lib.CTVolume,
) -> None:
  """Compares the corners of both grids, in millimetres."""
  corners = np.stack(
    np.meshgrid(*((0.0, size - 1.0) for size in ct.shape), indexing='ij'), axis=-1
  ).reshape(-1, 3)
  own = np.ones((len(corners), 4))
  for place, axis in enumerate(axes):
    along = corners[:, place]
    own[:, axis] = ct.shape[place] - 1 - along if place in backwards else along
  places = (own @ affine.T)[:, :3]
  # A NIfTI header holds float32: far from the origin that alone is more.
  tolerance = SAME_PLACE_MM + 2 * np.finfo(np.float32).eps * np.abs(places).max()
  apart = float(np.abs(places - ct.index_to_lps_mm(corners)).max())
  if not apart <= tolerance:
    raise _other_place(path, apart)


def _whole_numbers(path: pathlib.Path, values: np.ndarray) -> np.ndarray:
  if values.dtype.kind not in 'iufb':
    raise errors.UsageError(
      f'{path}: one number a voxel is required, found {values.dtype}.'
    )
  if values.dtype.kind == 'f' and not np.isfinite(values).all():
    raise errors.UsageError(
      f'{path}: whole numbers are required, found NaN or infinity.'
    )
  low, high = values.min(), values.max()
  labels = values.astype(np.uint16) if 0 <= low and high <= _MOST_LABELS else None
  if labels is None or not np.array_equal(labels, values):
    raise errors.UsageError(
      f'{path}: whole numbers from 0 to {_MOST_LABELS} are required, found numbers '
      f'from {low:g} to {high:g}{"" if labels is None else " with fractions"}; save '
      'labels, not grey values or probabilities.'
    )
  return labels


def in_words(labels: np.ndarray) -> str:
  """Which labels a map holds, for a message: '0, 1, 2'."""
  found = np.unique(labels)
  text = ', '.join(str(label) for label in found[:_FEW])
  return text if len(found) <= _FEW else f'{text} and {len(found) - _FEW} more'


def _other_shape(
  path: pathlib.Path, ct: volume_lib.CTVolume, shape: tuple[int, ...]
) -> errors.UsageError:
  slices, rows, columns = ct.shape
  return errors.UsageError(
    f'{path}: the grid of the CT is required ({slices} slices of {rows} x {columns}), '
    f'found {" x ".join(map(str, shape))}; edit a copy of the lung_mask.nii.gz of this '
    'CT, or save it on its grid.'
  )


def _other_place(path: pathlib.Path, apart_mm: float) -> errors.UsageError:
  where = f'up to {apart_mm:.3g} mm away' if np.isfinite(apart_mm) else 'other axes'
  return errors.UsageError(
    f'{path}: the grid of the CT is required, voxel on voxel, found {where}; edit a '
    'copy of the lung_mask.nii.gz of this CT, or save it on its grid.'
  )
