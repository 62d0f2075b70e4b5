"""SimpleITK as an independent reader of DICOM series and NIfTI."""

import numpy as np
import SimpleITK as sitk


def read_series(folder) -> tuple[np.ndarray, np.ndarray]:
  """(HU [slice, row, column], affine (slice, row, column, 1) -> LPS mm).

  SimpleITK sorts along row direction x column direction; here slices run to the head.
  """
  reader = sitk.ImageSeriesReader()
  reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
  hu, affine = _array_and_affine(reader.Execute())
  if affine[2, 0] < 0:
    affine[:3, 3] += affine[:3, 0] * (len(hu) - 1)
    affine[:3, 0] *= -1
    hu = hu[::-1]
  return hu, affine


def read_file(path) -> tuple[np.ndarray, np.ndarray]:
  """The same of one NIfTI file."""
  return _array_and_affine(sitk.ReadImage(str(path)))


def _array_and_affine(image):
  affine = np.eye(4)
  steps = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
  affine[:3, :3] = steps[:, ::-1]
  affine[:3, 3] = image.GetOrigin()
  return sitk.GetArrayFromImage(image), affine
