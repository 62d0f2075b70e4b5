"""Single labelled slices, which are no volume: DICOM, NIfTI or NumPy files.

Some collections publish one slice of a patient. No millimetres between slices, so no
score; but whether the classifier finds them can be asked.
"""

import dataclasses
import os
import pathlib

import nibabel
import numpy as np

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import chest_histogram
from covid_tf.readers import decoding
from covid_tf.readers import formats
from covid_tf.readers import header
from covid_tf.readers import hounsfield
from covid_tf.readers import privacy
from covid_tf.readers import series
from covid_tf.readers import sources
from covid_tf.storage import tables

_MOST_HU = np.iinfo(np.int16).max


@dataclasses.dataclass(frozen=True)
class SliceEntry:
  """A row of the table.

  Attributes:
    path: DICOM, .nii, .nii.gz or .npy file.
    label: 1 COVID, 0 not.
    patient: whose slice it is.
  """

  path: pathlib.Path
  label: int
  patient: str


def list_slices(table: str | os.PathLike) -> list[SliceEntry]:
  """Reads a CSV with the columns `file`, `label` (0 or 1) and, if known, `patient`.

  Files are named from the table's folder on. Without a patient each slice counts as
  another one.

  Raises:
    errors.UsageError: a row is damaged or there twice, or names no file.
  """
  table = pathlib.Path(table)
  entries, seen = [], set()
  for row in tables.read_table(table, ('file', 'label'), ('patient',)):
    path = tables.path_of(row.cells['file'], table.parent).resolve()
    label = tables.truth(row.cells['label'])
    problem: str | None
    if label is None:
      problem = f'label must be 0 or 1, found {row.cells["label"]!r}'
    elif not row.cells['file'] or not path.is_file():
      problem = f'file must name a file, found {row.cells["file"]!r}'
    elif path in seen:
      problem = 'it repeats the file of an earlier row'
    else:
      problem = tables.patient_problem('patient', row.cells['patient'])
    if problem:
      raise errors.UsageError(f'{table}, row {row.number}: {problem}.')
    seen.add(path)
    entries.append(
      SliceEntry(
        path,
        int(bool(label)),
        row.cells['patient'] or f'{table.stem}, row {row.number}',
      )
    )
  return entries


def read_slice(path: pathlib.Path) -> tuple[np.ndarray, float]:
  """Reads an axial slice.

  Args:
    path: a DICOM file, a NIfTI file of one slice, or a NumPy array of HU.

  Returns:
    int16 [row, column] in HU, not below -1024, and millimetres between pixels (0
    for NumPy, which does not say).

  Raises:
    errors.CTReadError: it is no axial CT slice in HU.
  """
  path = pathlib.Path(path)
  if formats.is_nifti(path.name):
    return _read_nifti(path)
  if path.suffix == '.npy':
    return _read_numpy(path), 0.0
  return _read_dicom(path)


def read_acquisition(path: pathlib.Path) -> volume.Acquisition | None:
  """How a DICOM slice was acquired; None of other files, and of what is no slice."""
  path = pathlib.Path(path)
  if formats.is_nifti(path.name) or path.suffix == '.npy':
    return None
  images = header.images_of(sources.FileSource(path), privacy.PatientHasher())
  return images[0].settings if isinstance(images, list) and len(images) == 1 else None


def _read_dicom(path):
  images = header.images_of(sources.FileSource(path), privacy.PatientHasher())
  if not isinstance(images, list) or len(images) != 1:
    raise errors.CTReadError(f'{path.name}: a DICOM file of one CT slice is required.')
  (image,) = images
  if image.problems or image.plane is None or not series.is_axial(image):
    reason = '; '.join(image.problems) or 'it is not axial'
    raise errors.CTReadError(f'{path.name}: an axial CT slice is required: {reason}.')
  pixels, rescale = image.require_pixels(), image.require_rescale()
  words = np.empty((pixels.rows, pixels.columns), np.uint16)
  try:
    hounsfield.convert_to_hu(
      decoding.PixelReader().read_into(image, words), image, words
    )
  except errors.CTReadError as error:
    raise errors.CTReadError(f'{path.name}: {error}') from None
  hu = words.view(np.int16)
  if rescale.unit and (doubt := chest_histogram.judge(hu[np.newaxis])):
    raise errors.CTReadError(
      f"{path.name}: Rescale Type must be HU, found '{rescale.unit}', and {doubt}."
    )
  return hu, float(image.plane.spacing_mm[0])


def _read_nifti(path):
  try:
    image = nibabel.as_closest_canonical(nibabel.load(path))
    values = np.asarray(image.dataobj, np.float64)
    pixel_mm = float(image.header.get_zooms()[0])
  except Exception:  # nibabel raises what it meets in damaged bytes.
    raise errors.CTReadError(f'{path.name}: it is no readable NIfTI file.') from None
  if values.ndim == 3 and values.shape[2] == 1:
    values = values[..., 0]
  # From (right, front) to rows that run to the back and columns that run to the left.
  return _hu(path, values.T[::-1, ::-1]), pixel_mm


def _read_numpy(path):
  try:
    values = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError):
    raise errors.CTReadError(f'{path.name}: it is no readable NumPy array.') from None
  return _hu(path, values)


def _hu(path, values) -> np.ndarray:
  if values.ndim != 2 or min(values.shape) < 2 or values.dtype.kind not in 'iuf':
    raise errors.CTReadError(
      f'{path.name}: numbers by row and column are required, found {values.dtype} '
      f'{values.shape}.'
    )
  if not np.isfinite(values).all():
    raise errors.CTReadError(
      f'{path.name}: finite HU are required, found NaN or infinity.'
    )
  if not values.min() < 0 or values.max() > _MOST_HU:
    raise errors.CTReadError(
      f'{path.name}: HU of a chest are required, found {values.min():g} to '
      f'{values.max():g}.'
    )
  return np.maximum(np.rint(values), volume.AIR_HU).astype(np.int16)
