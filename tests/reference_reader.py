"""SimpleITK as an independent reader of DICOM series and NIfTI."""

import numpy as np
import SimpleITK as sitk


def read_series(folder) -> tuple[np.ndarray, np.ndarray]:
  """(HU [slice, row, column], affine (slice, row, column, 1) -> LPS mm)."""
  reader = sitk.ImageSeriesReader()
  reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
  return _array_and_affine(reader.Execute())


def read_file(path) -> tuple[np.ndarray, np.ndarray]:
  """The same of one NIfTI file."""
  return _array_and_affine(sitk.ReadImage(str(path)))


def _array_and_affine(image):
  affine = np.eye(4)
  steps = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
  affine[:3, :3] = steps[:, ::-1]
  affine[:3, 3] = image.GetOrigin()
  return sitk.GetArrayFromImage(image), affine
