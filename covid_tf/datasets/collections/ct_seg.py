"""COVID-19 CT Lung and Infection Segmentation (Zenodo 3757476): 20 volumes.

Folders as the archive's zips unpack: COVID-19-CT-Seg_20cases, and Lung_Mask and
Infection_Mask, or Lung_and_Infection_Mask alone (left lung, right lung, infection),
with the same file names in each.
"""

import functools
import os
import pathlib
import tempfile
from typing import cast

import nibabel
import numpy as np

from covid_tf import errors
from covid_tf import readers
from covid_tf import volume as volume_lib
from covid_tf.datasets.collections import mask_files
from covid_tf.datasets.collections import study

NAME = 'covid-19-ct-seg'
# Ten of the volumes were published as grey values of this window.
_WINDOW_HU = (-1250.0, 250.0)
_INFECTION = 3
_IMAGES = 'COVID-19-CT-Seg_20cases'
_LUNGS, _LESIONS, _BOTH = 'Lung_Mask', 'Infection_Mask', 'Lung_and_Infection_Mask'


def list_studies(folder: str | os.PathLike) -> list[study.StudyEntry]:
  """Lists the volumes.

  Raises:
    errors.UsageError: a folder or a mask is missing.
  """
  folder = pathlib.Path(folder)
  images = sorted((folder / _IMAGES).glob('*.nii*'))
  if not images:
    raise errors.UsageError(
      f'{folder / _IMAGES}: NIfTI volumes are required, found none; unpack the '
      "archive's zips each into a folder of its name."
    )
  names = (_LUNGS, _LESIONS) if (folder / _LUNGS).is_dir() else (_BOTH,)
  for image in images:
    for name in names:
      if not (folder / name / image.name).is_file():
        raise errors.UsageError(
          f'{folder / name / image.name}: the mask of a volume is required, found no '
          'such file.'
        )
  return [
    study.StudyEntry(
      NAME,
      f'{NAME}/{_patient(image)}',
      image.name.split('.')[0],
      image.name.split('_')[0],  # Two sources that look different.
      functools.partial(_read_study, image, folder, names),
      1,
      labels_by='infection masks',
    )
    for image in images
  ]


def _patient(image: pathlib.Path) -> str:
  """Volumes of one radiopaedia.org case are one patient.

  The first number is the case; two volumes differ in what follows alone. Holding
  too many together never leaks, holding too few does.
  """
  parts = image.name.split('.')[0].split('_')
  return '_'.join(parts[:2])


def _read_study(image, folder, names) -> study.Study:
  volume, window_hu, affine = _read_volume(image)
  masks = [
    mask_files.read_on_grid(folder / name / image.name, volume, affine)
    for name in names
  ]
  if len(masks) == 2:
    lung, lesion = (np.minimum(mask, 1) for mask in masks)
  else:
    lung = np.minimum(masks[0], 1)
    lesion = (masks[0] == _INFECTION).astype(np.uint8)
  lung = mask_files.require_inside(folder / names[-1] / image.name, lesion, lung)
  return study.of_volume(
    volume,
    study.labels_from_lesions(lesion, volume.spacing_mm[1]),
    lung,
    lesion,
    study.DRAWN,
    window_hu,
  )


def _read_volume(path) -> tuple[volume_lib.CTVolume, tuple | None, np.ndarray]:
  """The CT, the window it was published in or None, and the file's own affine."""
  try:
    image = cast(nibabel.Nifti1Image, nibabel.load(path))
    values = np.asanyarray(image.dataobj)
    is_grey = values.min() >= 0 and values.max() <= 255
  except Exception:  # nibabel raises what it meets in damaged bytes.
    raise errors.CTReadError(f'{path}: it is no readable NIfTI file.') from None
  if not is_grey:
    return readers.read_ct(path), None, image.affine
  # The reader refuses grey values, and rightly: it is given HU instead.
  with tempfile.TemporaryDirectory() as temporary:
    restored = nibabel.Nifti1Image(
      mask_files.to_hu(values, _WINDOW_HU), image.affine, image.header, dtype='i2'
    )
    restored.header.set_slope_inter(1, 0)
    restored_path = pathlib.Path(temporary) / f'{path.name.split(".")[0]}.nii'
    nibabel.save(restored, restored_path)
    return readers.read_ct(restored_path), _WINDOW_HU, image.affine
