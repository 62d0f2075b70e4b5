"""NIfTI masks brought onto the grid of their CT, or refused."""

import pathlib

import nibabel
import numpy as np

from covid_tf import errors
from covid_tf import volume as volume_lib

_OFF_GRID = 0.05  # Voxels a mask may lie beside the CT's grid; ours, for rounding.


def read_on_grid(
  path: pathlib.Path, volume: volume_lib.CTVolume, affine_ras: np.ndarray | None = None
) -> np.ndarray:
  """Reads a label map in the order of a volume's slices, rows and columns.

  Args:
    path: .nii or .nii.gz with whole numbers from 0 to 255.
    volume: the CT that it belongs to.
    affine_ras: float64 [4, 4], the CT file's own, where masks are known to lie
      voxel on voxel whatever their header says; None: the mask's header counts.

  Returns:
    uint8 [slice, row, column].

  Raises:
    errors.UsageError: there is no such file, its shape or place is another, or it
      holds no labels.
  """
  image = _load(path)
  if len(image.shape) != 3 or sorted(image.shape) != sorted(volume.shape):
    raise _shape_error(path, volume, image.shape)
  affine = image.affine if affine_ras is None else affine_ras
  to_mask = np.linalg.inv(volume_lib.LPS_RAS @ affine) @ volume.affine
  axes = np.abs(to_mask[:3, :3]).argmax(axis=0)
  turned = np.zeros((3, 3))
  turned[axes, range(3)] = np.sign(to_mask[axes, range(3)])
  if (
    sorted(axes) != [0, 1, 2]
    or np.abs((to_mask[:3, :3] - turned) * volume.shape).max() > 1
  ):
    raise errors.UsageError(
      f'{path}: a mask on the grid of its CT is required, found another spacing or '
      "orientation; save it on the CT's grid."
    )
  if tuple(np.array(image.shape)[axes]) != volume.shape:
    raise _shape_error(path, volume, image.shape)
  backwards = tuple(np.flatnonzero(turned[axes, range(3)] < 0).tolist())
  origin = np.zeros(3)
  for axis in backwards:
    origin[axes[axis]] = image.shape[axes[axis]] - 1
  if np.abs(to_mask[:3, 3] - origin).max() > 1 + _OFF_GRID:
    raise errors.UsageError(
      f'{path}: a mask at the place of its CT is required, found one '
      f'{np.abs(to_mask[:3, 3] - origin).max():.1f} voxels away; save it on the '
      "CT's grid."
    )
  return np.ascontiguousarray(np.flip(_labels(path, image).transpose(axes), backwards))


def require_inside(
  path: pathlib.Path, lesion_mask: np.ndarray, lung_mask: np.ndarray
) -> np.ndarray:
  """The lung mask with the lesions inside: consolidated lung is lung.

  Raises:
    errors.UsageError: no lesion voxel lies in the lungs, so the two masks cannot
      belong together.
  """
  lesion = lesion_mask > 0
  if lesion.any() and not lung_mask[lesion].any():
    raise errors.UsageError(
      f'{path}: lesions inside the lung mask are required, found none there; are '
      'the masks of one study?'
    )
  return np.maximum(lung_mask, lesion_mask)


def _load(path):
  try:
    return nibabel.load(path)
  except FileNotFoundError:
    raise errors.UsageError(
      f'{path}: the mask of a study is required, found no such file.'
    ) from None
  except Exception:  # nibabel raises what it meets in damaged bytes.
    raise errors.UsageError(f'{path}: it is no readable NIfTI file.') from None


def _labels(path, image) -> np.ndarray:
  try:
    values = np.asanyarray(image.dataobj)
  except Exception:
    raise errors.UsageError(
      f'{path}: truncated or damaged; copy the file again.'
    ) from None
  if not np.isfinite(values).all():
    raise errors.UsageError(
      f'{path}: whole numbers are required in a mask, found NaN or infinity.'
    )
  labels = values.astype(np.uint8)
  if not np.array_equal(labels, values):
    raise errors.UsageError(
      f'{path}: whole numbers from 0 to 255 are required in a mask, found others.'
    )
  return labels


def _shape_error(path, volume, shape):
  slices, rows, columns = volume.shape
  return errors.UsageError(
    f'{path}: a mask of the shape of its CT is required ({slices} slices of {rows} '
    f'x {columns}), found {" x ".join(map(str, shape))}.'
  )


# Grey values back to Hounsfield units, where a collection has lost them.


def to_hu(grey: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
  """Turns 0 to 255 back into HU; what lies outside the window is lost.

  Args:
    grey: numbers from 0 to 255, any shape.
    window_hu: (low, high) that were mapped to 0 and 255.

  Returns:
    int16 of the same shape, not below -1024.
  """
  low, high = window_hu
  hu = np.rint(np.asarray(grey, np.float32) * ((high - low) / 255.0) + low)
  return np.maximum(hu, volume_lib.AIR_HU).astype(np.int16)


def parse_window(text: str | None) -> tuple[float, float]:
  """Reads 'low,high' in HU, as a flag states it.

  Raises:
    errors.UsageError: it is missing or anything else.
  """
  if not text:
    raise errors.UsageError(
      'these pictures have lost their Hounsfield units: the window that they were '
      'made with is required, found none; state it with --window=LOW,HIGH '
      '(COVIDx-CT: --window=-1350,150).'
    )
  try:
    low, high = (float(part) for part in text.split(','))
  except ValueError:
    low = high = float('nan')
  if not -3000 <= low < high <= 5000:
    raise errors.UsageError(
      f'--window: LOW,HIGH in HU is required, LOW below HIGH, found {text!r}.'
    )
  return low, high
