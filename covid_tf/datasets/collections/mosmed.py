"""MosMedData COVID19_1110: severity classes CT-0 to CT-4, 50 studies with masks.

studies/CT-<class>/study_<number>.nii.gz and masks/study_<number>_mask.nii.gz. Every
tenth slice was kept, and the classes were given before that: a study of class CT-1
may show no lesion in what is left. They are a radiologist's, not PCR's.
"""

import functools
import os
import pathlib

import numpy as np

from covid_tf import errors
from covid_tf import readers
from covid_tf.datasets.collections import mask_files
from covid_tf.datasets.collections import study

NAME = 'mosmed'
_NORMAL = 'CT-0'


def list_studies(folder: str | os.PathLike) -> list[study.StudyEntry]:
  """Lists the studies; a study is a patient here.

  Raises:
    errors.UsageError: no studies, one in two classes, or a mask without its study.
  """
  folder = pathlib.Path(folder)
  paths = sorted(folder.glob('studies/CT-[0-4]/study_*.nii*'))
  if not paths:
    raise errors.UsageError(
      f'{folder}: studies/CT-0 to CT-4 with NIfTI files are required, found none; '
      'give the folder COVID19_1110.'
    )
  names = [_name(path) for path in paths]
  if twice := {name for name in names if names.count(name) > 1}:
    raise errors.UsageError(
      f'{folder}: a study in one class is required, found {min(twice)} in two.'
    )
  masks = {
    _name(path).removesuffix('_mask'): path
    for path in sorted(folder.glob('masks/*.nii*'))
  }
  if stray := sorted(set(masks) - set(names)):
    raise errors.UsageError(
      f'{masks[stray[0]]}: a mask with a study is required, found no study {stray[0]}.'
    )
  return [
    study.StudyEntry(
      NAME,
      f'{NAME}/{name}',
      name,
      path.parent.name,
      functools.partial(_read_study, path, path.parent.name, masks.get(name)),
      int(path.parent.name != _NORMAL),
      path.parent.name,
      'infection mask' if name in masks else 'class of the study',
    )
    for path, name in zip(paths, names)
  ]


def _read_study(path, severity, mask_path) -> study.Study:
  volume = readers.read_ct(path)
  lesion = None
  if mask_path is not None:
    lesion = np.minimum(mask_files.read_on_grid(mask_path, volume), 1)
    labels = study.labels_from_lesions(lesion, volume.spacing_mm[1])
  else:
    label = 0 if severity == _NORMAL else study.UNLABELLED
    labels = np.full(volume.shape[0], label, np.int8)
  return study.of_volume(volume, labels, lesion_mask=lesion)


def _name(path: pathlib.Path) -> str:
  return path.name.split('.')[0]
