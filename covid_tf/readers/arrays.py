"""Arrays, SimpleITK and nibabel images in memory to a CTVolume, and back.

Behind `CTVolume.from_array`, `from_sitk`, `from_nibabel`, `to_sitk` and `to_nibabel`,
which have the words for their users.
"""

from collections.abc import Sequence
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any, cast

import nibabel
import numpy as np
import numpy.typing as npt

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import nifti
from covid_tf.readers import reading
from covid_tf.readers import voxel_grids

if TYPE_CHECKING:
  import SimpleITK

# Letters of a direction: the LPS axis, and which way.
_LETTERS = {'L': (0, 1), 'R': (0, -1), 'P': (1, 1), 'A': (1, -1), 'S': (2, 1)}
_LETTERS['I'] = (2, -1)
_NO_LETTER = (-1, 0)
# Which of an image's axes are slices, rows and columns, where its directions say
# something else.
_AXES_KEY = 'covid_tf_axes'
_UNIT = 1e-3  # A direction of another length has the spacing in it.
# Ours, beyond every scanner: the table moves 2 m, the bore is 0.9 m wide.
_LONGEST_MM, _WIDEST_MM = 2500.0, 1200.0
# Ours: from here on a cross-section is a body's, and none is four times as wide as
# deep.
_BODY_MM, _MOST_ASPECT = 200.0, 4.0
_MATRIX = 128  # Rows and columns of CT images are as many, from here up.


def as_volume(given: object) -> volume.CTVolume:
  """A volume of what `analyze` takes: itself, a path, or an image in memory.

  Raises:
    UsageError: it is something else; names the constructor to use.
    CTReadError: it is no CT whose millimetres and HU can be trusted.
  """
  if isinstance(given, volume.CTVolume):
    return given
  if isinstance(given, (str, os.PathLike)):
    return reading.read_ct(given)
  if _is_sitk(given):
    return from_sitk(cast('SimpleITK.Image', given))
  if isinstance(given, nibabel.spatialimages.SpatialImage):
    return from_nibabel(given)
  raise errors.UsageError(
    'volume: a covid_tf.CTVolume, a path, a SimpleITK or a nibabel image is required, '
    f'found {type(given).__name__}; {_which(given)}.'
  )


def _which(given: object) -> str:
  """Which constructor makes a volume of something, in words."""
  if isinstance(given, volume.CTVolume):
    return 'it is a volume already'
  if isinstance(given, (str, os.PathLike)):
    return 'covid_tf.read_ct(path) reads files'
  if _is_sitk(given):
    return 'covid_tf.CTVolume.from_sitk(image) takes it'
  if isinstance(given, nibabel.spatialimages.SpatialImage):
    return 'covid_tf.CTVolume.from_nibabel(image) takes it'
  if _is_dicom(given):
    return 'covid_tf.read_ct(folder) reads the DICOM files of a series'
  return (
    "covid_tf.CTVolume.from_array(hu, spacing_mm=(5, 0.7, 0.7), orientation='LPS') "
    'makes one of an array [slice, row, column] in Hounsfield units, '
    'covid_tf.read_ct(path) of files'
  )


def _is_sitk(given: object) -> bool:
  # Where nobody has imported it, nothing can be of it.
  sitk = sys.modules.get('SimpleITK')
  return sitk is not None and isinstance(given, sitk.Image)


# Arrays: what the caller says of their axes, checked as far as it can be.


def from_array(
  hu: npt.ArrayLike,
  spacing_mm: Sequence[float],
  orientation: str | None,
  origin: npt.ArrayLike | None,
  direction: npt.ArrayLike | None,
) -> volume.CTVolume:
  """See `CTVolume.from_array`."""
  voxels = _voxels(hu)
  affine = _affine(spacing_mm, orientation, origin, direction)
  shape = voxels.shape[2], voxels.shape[1], voxels.shape[0]
  try:
    voxel_grids.require_box(affine)
    grid = voxel_grids.VoxelGrid(shape, affine, voxel_grids.kept_order(affine))
    _require_likely_axes(grid)
    if voxels.dtype == np.int16 and voxels.min() >= volume.AIR_HU:
      ordered = voxels.T.transpose(grid.order)
      return voxel_grids.placed(grid, np.ascontiguousarray(ordered))
    return voxel_grids.to_volume(grid, lambda k: voxels[k].T, exact=True)
  except errors.CTReadError as error:
    raise errors.CTReadError(f'hu: {error}') from None


def _voxels(hu: npt.ArrayLike) -> np.ndarray:
  """The array, if it is one of real numbers with three axes."""
  if isinstance(hu, (list, tuple)) or not hasattr(hu, '__array__') or _is_image(hu):
    raise errors.UsageError(
      'hu: an array [slice, row, column] is required, found '
      f'{type(hu).__name__}; {_how_to_array(hu)}.'
    )
  if isinstance(hu, np.ma.MaskedArray) and np.ma.is_masked(hu):
    raise errors.UsageError(
      'hu: an array without a mask is required, found masked voxels; fill them with '
      'air: hu.filled(-1024).'
    )
  try:
    voxels = np.asarray(hu)
  except Exception as error:  # Tensors of a GPU, or with gradients, raise their own.
    raise errors.UsageError(
      'hu: an array [slice, row, column] in memory is required, found '
      f'{type(hu).__name__}, which NumPy cannot read ({type(error).__name__}); of a '
      'tensor give hu.detach().cpu().numpy().'
    ) from None
  if voxels.dtype.kind not in 'iuf':
    raise errors.UsageError(
      'hu: integers or floating-point numbers in Hounsfield units are required, found '
      f'{voxels.dtype}.'
    )
  if voxels.ndim != 3:
    more = ' (a time axis, or colours? give one volume of them)'
    raise errors.UsageError(
      'hu: three axes [slice, row, column] are required, found '
      f'{voxels.ndim} of sizes {voxels.shape}{more if voxels.ndim > 3 else ""}.'
    )
  if min(voxels.shape) < 2:
    raise errors.UsageError(
      f'hu: 2 slices, 2 rows and 2 columns or more are required, found {voxels.shape}.'
    )
  return voxels


def _how_to_array(given: object) -> str:
  """What to give instead of something that is no array, in words."""
  if isinstance(given, (list, tuple)):
    return 'np.stack(slices) makes one of a list of slices'
  if type(given).__module__.startswith('PIL'):
    return 'pictures hold no Hounsfield units; covid_tf.read_ct(folder) reads DICOM'
  if _is_image(given) or isinstance(given, (str, os.PathLike)):
    return _which(given)
  return 'covid_tf.read_ct(path) reads files'


def _is_image(given: object) -> bool:
  return (
    isinstance(given, (volume.CTVolume, nibabel.spatialimages.SpatialImage))
    or _is_sitk(given)
    or _is_dicom(given)
  )


def _is_dicom(given: object) -> bool:
  return type(given).__module__.startswith('pydicom')


def _affine(
  spacing_mm: Sequence[float],
  orientation: str | None,
  origin: npt.ArrayLike | None,
  direction: npt.ArrayLike | None,
) -> np.ndarray:
  """float64 [4, 4], (column, row, slice, 1) to LPS millimetres."""
  spacing = _numbers('spacing_mm', spacing_mm, (3,), 'millimetres (slice, row, column)')
  if not (spacing > 0).all():
    raise errors.UsageError(
      'spacing_mm: millimetres above 0 are required (slice, row, column), found '
      f'{spacing.tolist()}; directions belong into orientation.'
    )
  if orientation is None and direction is None:
    raise errors.UsageError(
      "orientation: three letters are required, such as 'LPS' (columns to the left, "
      'rows to the back, slices to the head), or a direction, found neither: sides '
      'are not guessed.'
    )
  letters = None if orientation is None else _letters(orientation)
  directions = letters if direction is None else _directions(direction)
  assert directions is not None
  if letters is not None and direction is not None:
    _require_same_sides(str(orientation), letters, directions)
  affine = np.eye(4)
  affine[:3, :3] = directions * spacing[::-1]
  if origin is not None:
    affine[:3, 3] = _numbers('origin', origin, (3,), 'LPS millimetres (x, y, z)')
  return affine


def _numbers(
  name: str, given: npt.ArrayLike, shape: tuple[int, ...], what: str
) -> np.ndarray:
  try:
    found = np.array(given, np.float64)
  except (TypeError, ValueError):
    found = np.array(np.nan)
  if found.size == np.prod(shape):
    found = found.reshape(shape)
  if found.shape != shape or not np.isfinite(found).all():
    raise errors.UsageError(
      f'{name}: {" x ".join(map(str, shape))} finite numbers are required, {what}, '
      f'found {_shown(given, shape)}.'
    )
  return found


def _shown(given: object, shape: tuple[int, ...]) -> str:
  """A wrong value on one line; of an array of another shape, the shape."""
  if isinstance(given, np.ndarray) and given.shape != shape:
    return f'an array of {given.shape}'
  return ' '.join(repr(given).split())[:80]


def _letters(orientation: str) -> np.ndarray:
  """float64 [3, 3]: unit vectors of the three letters, as columns."""
  text = orientation.upper() if isinstance(orientation, str) else ''
  axes = [_LETTERS.get(letter, _NO_LETTER) for letter in text]
  if sorted(axis for axis, _ in axes) != [0, 1, 2]:
    raise errors.UsageError(
      'orientation: three letters are required, to where the column, row and slice '
      'indices increase: one of L and R, one of P and A, one of S and I in their '
      f"order, such as 'LPS' or 'RAS', found {orientation!r:.40}."
    )
  directions = np.zeros((3, 3))
  for column, (axis, sign) in enumerate(axes):
    directions[axis, column] = sign
  return directions


def _directions(direction: npt.ArrayLike) -> np.ndarray:
  found = _numbers(
    'direction',
    direction,
    (3, 3),
    'unit vectors in LPS as columns: of the growing column, row and slice index',
  )
  lengths = np.linalg.norm(found, axis=0)
  if abs(lengths - 1).max() > _UNIT:
    raise errors.UsageError(
      'direction: columns of length 1 are required, found lengths '
      f'{lengths.round(6).tolist()}; the spacing belongs into spacing_mm.'
    )
  directions: np.ndarray = found / lengths
  return directions


def _require_same_sides(
  orientation: str, letters: np.ndarray, directions: np.ndarray
) -> None:
  # Of each column, the letter's axis must be the nearest one, and its sign that way.
  along = (letters * directions).sum(axis=0)
  if not (along >= abs(directions).max(axis=0) - 1e-9).all():
    raise errors.UsageError(
      f'orientation and direction contradict each other: {orientation!r} against '
      f'columns {directions.T.round(3).tolist()}; give one of the two.'
    )


def _require_likely_axes(grid: voxel_grids.VoxelGrid) -> None:
  """Refuses axes that can hardly be what the caller says they are.

  Files state their axes; of an array somebody says them, and arrays [row, column,
  slice] are as common as [slice, row, column].
  """
  sizes = [grid.shape[axis] for axis in grid.order]
  steps = np.linalg.norm(grid.affine[:3, :3], axis=0)[list(grid.order)].tolist()
  if max(sizes) < _MATRIX:  # A cut-out, or a phantom: anything may be true of it.
    return
  slices_mm, rows_mm, columns_mm = (size * step for size, step in zip(sizes, steps))
  wide, narrow = max(rows_mm, columns_mm), min(rows_mm, columns_mm)
  same = [
    number
    for number in (1, 2)
    if sizes[0] == sizes[number] >= _MATRIX and steps[0] == steps[number]
  ]
  odd = ''
  if slices_mm > _LONGEST_MM or wide > _WIDEST_MM:
    odd = 'longer than any CT'
  elif wide > _BODY_MM and wide > _MOST_ASPECT * narrow:
    odd = 'no cross-section of a body'
  elif len(same) == 1 and sizes[1] != sizes[2] and steps[1] != steps[2]:
    odd = 'slices as many and as far apart as the pixels of one side'
  if odd:
    raise errors.CTReadError(
      f'axes [slice, row, column] are required, found {sizes[0]} slices of {sizes[1]} '
      f'x {sizes[2]} that take {slices_mm:.0f} x {rows_mm:.0f} x {columns_mm:.0f} mm, '
      f'{odd}; if it is [row, column, slice], give np.moveaxis(hu, 2, 0) and its '
      'spacing_mm in the same order.'
    )


# Images of SimpleITK and nibabel.


def from_sitk(
  image: 'SimpleITK.Image', *, notes: tuple[str, ...] = (), name: str = 'image: '
) -> volume.CTVolume:
  """See `CTVolume.from_sitk`.

  Args:
    image: of SimpleITK.
    notes: become warnings of the volume.
    name: how messages begin; '' where a file's name will stand before them.
  """
  if not _is_sitk(image):
    raise errors.UsageError(
      f'image: a SimpleITK.Image is required, found {type(image).__name__}; '
      f'{_which(image)}.'
    )
  try:
    return _of_sitk(image, notes)
  except errors.CTReadError as error:
    raise errors.CTReadError(f'{name}{error}') from None


def _of_sitk(image: 'SimpleITK.Image', notes: tuple[str, ...]) -> volume.CTVolume:
  sitk = sys.modules['SimpleITK']
  components = image.GetNumberOfComponentsPerPixel()
  kind = image.GetPixelIDTypeAsString()
  # SimpleITK ends the process where an array of a label map is asked for.
  if components != 1 or 'complex' in kind or 'label' in kind:
    raise errors.CTReadError(
      f'one number a voxel is required, found {components} ({kind}); give the CT '
      'itself.'
    )
  shape = voxel_grids.require_three_axes(image.GetSize())
  while image.GetDimension() > 3:
    image = image[..., 0]
  affine = np.eye(4)
  affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
  affine[:3, 3] = image.GetOrigin()
  voxel_grids.require_box(affine)
  kept = voxel_grids.kept_order(affine)
  if image.HasMetaDataKey(_AXES_KEY):
    kept = voxel_grids.named_order(image.GetMetaData(_AXES_KEY), kept)
  grid = voxel_grids.VoxelGrid(shape, affine, kept)
  voxels = sitk.GetArrayViewFromImage(image)
  return voxel_grids.to_volume(grid, lambda k: voxels[k].T, warnings=notes)


def from_nibabel(image: nibabel.filebasedimages.FileBasedImage) -> volume.CTVolume:
  """See `CTVolume.from_nibabel`."""
  if not isinstance(image, nibabel.Nifti1Pair):
    known = isinstance(image, nibabel.spatialimages.SpatialImage)
    if isinstance(image, nibabel.AnalyzeImage):  # nibabel takes a default for sides.
      raise errors.UsageError(
        f'image: a nibabel image of NIfTI is required, found {type(image).__name__}, '
        'which does not state the sides of the patient; if you know them, '
        'covid_tf.CTVolume.from_array takes its voxels.'
      )
    remedy = 'nibabel.Nifti1Image.from_image(image) converts it'
    raise errors.UsageError(
      'image: a nibabel image of NIfTI is required, found '
      f'{type(image).__name__}; {remedy if known else _which(image)}.'
    )
  try:
    return nifti.volume_of(cast(nibabel.Nifti1Image, image))
  except errors.CTReadError as error:
    raise errors.CTReadError(f'image: {error}') from None


def to_sitk(ct: volume.CTVolume) -> 'SimpleITK.Image':
  """See `CTVolume.to_sitk`."""
  if importlib.util.find_spec('SimpleITK') is None:
    raise errors.UsageError(
      'to_sitk requires SimpleITK, found none; pip install SimpleITK (the extra [itk] '
      'of covid_tf), or use to_nibabel.'
    )
  import SimpleITK as sitk

  grid = voxel_grids.own_grid(ct)
  affine = voxel_grids.lps_affine(grid)
  spacing = np.linalg.norm(affine[:3, :3], axis=0)
  directions = affine[:3, :3] / spacing
  if abs(directions.T @ directions - np.eye(3)).max() > 1e-4:
    raise errors.UsageError(
      'to_sitk: perpendicular axes are required, which is all that SimpleITK holds, '
      'found sheared ones (gantry tilt?); use to_nibabel.'
    )
  image = sitk.GetImageFromArray(
    np.ascontiguousarray(voxel_grids.as_stored(ct, grid).T)
  )
  image.SetSpacing(spacing.tolist())
  image.SetDirection(directions.ravel().tolist())
  image.SetOrigin(affine[:3, 3].tolist())
  if grid.axes != voxel_grids.kept_order(affine):
    image.SetMetaData(_AXES_KEY, voxel_grids.name_of_order(grid.axes))
  return image


def to_nibabel(ct: volume.CTVolume) -> nibabel.Nifti1Image:
  """See `CTVolume.to_nibabel`."""
  grid = voxel_grids.own_grid(ct)
  # In memory as NIfTI has it, the first axis the fastest.
  hu = np.asfortranarray(voxel_grids.as_stored(ct, grid))
  image: Any = nibabel.Nifti1Image(hu, grid.affine)
  image.header.set_xyzt_units(grid.unit)
  # The quaternion cannot hold a shear (a gantry tilt); the sform has it exactly.
  image.header.set_qform(grid.affine, 1, strip_shears=True)
  image.header.set_sform(grid.affine, 1)
  if grid.axes != voxel_grids.nearest_order(voxel_grids.lps_affine(grid)):
    image.header['intent_name'] = voxel_grids.name_of_order(grid.axes)
  return cast(nibabel.Nifti1Image, image)
