"""What is true of a phantom, on disk beside its study: numbers and both masks."""

import dataclasses
import json
import os
import pathlib

import nibabel as nib
import numpy as np

from covid_tf import errors
from covid_tf import files
from covid_tf import volume as volume_lib
from covid_tf.datasets import phantom
from covid_tf.datasets import phantom_dicom
from covid_tf.reports import nifti

FILE_NAME = 'truth.json'
LUNG_MASK_NAME = 'lung_mask.nii.gz'
LESION_MASK_NAME = 'lesion_mask.nii.gz'


@dataclasses.dataclass(frozen=True)
class Truth:
  """The numbers of a phantom's truth, as truth.json holds them.

  Attributes:
    seed: of the phantom.
    kind: 'none', 'focal' or 'diffuse'.
    severe: whether the made-up patient counts as severe.
    study_uid, series_uid: of the study written beside.
    lesion_volume_cm3: volume of the lesion mask.
    lung_volume_cm3: volume of the lung mask, lesions included.
    positive_slices: indices of the slices with lesion voxels, 0 the lowest.
    slice_count: slices of the CT.
  """

  seed: int
  kind: str
  severe: bool
  study_uid: str
  series_uid: str
  lesion_volume_cm3: float
  lung_volume_cm3: float
  positive_slices: tuple[int, ...]
  slice_count: int

  @property
  def positive(self) -> bool:
    """Whether the phantom has lesions."""
    return self.kind != 'none'


def truth_of(drawn: phantom.Phantom) -> Truth:
  """The numbers of a phantom's truth."""
  voxel_cm3 = drawn.volume.voxel_volume_mm3 / 1000
  slices = np.flatnonzero(drawn.lesion_mask.any((1, 2)))
  return Truth(
      seed=drawn.case.seed, kind=drawn.kind, severe=drawn.case.severe,
      study_uid=phantom_dicom.study_uid(drawn.case),
      series_uid=phantom_dicom.series_uid(drawn.case),
      lesion_volume_cm3=float(np.count_nonzero(drawn.lesion_mask) * voxel_cm3),
      lung_volume_cm3=float(np.count_nonzero(drawn.lung_mask) * voxel_cm3),
      positive_slices=tuple(slices.tolist()), slice_count=drawn.volume.shape[0])


def write_truth(drawn: phantom.Phantom, folder: str | os.PathLike) -> Truth:
  """Writes truth.json, lesion_mask.nii.gz and lung_mask.nii.gz.

  Args:
    drawn: the phantom.
    folder: gets the three files, all or none; an earlier folder is replaced.

  Returns:
    The numbers written.

  Raises:
    errors.OutputError: it cannot be written.
  """
  truth = truth_of(drawn)
  content = {'note': 'phantom, not a patient', **dataclasses.asdict(truth)}
  with files.replacing_directory(folder) as temporary:
    for name, mask in ((LUNG_MASK_NAME, drawn.lung_mask),
                       (LESION_MASK_NAME, drawn.lesion_mask)):
      _write_mask(temporary / name, mask, drawn.volume)
    (temporary / FILE_NAME).write_text(json.dumps(content, indent=2) + '\n', 'utf-8')
  return truth


def read_truth(folder: str | os.PathLike) -> Truth:
  """Reads the numbers back.

  Raises:
    errors.UsageError: there is no truth.json of ours in the folder.
  """
  path = pathlib.Path(folder) / FILE_NAME
  try:
    content = json.loads(path.read_text('utf-8'))
    content.pop('note')
    content['positive_slices'] = tuple(content['positive_slices'])
    return Truth(**content)
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise errors.UsageError(
        f'{path}: the truth of a phantom is required, found none that can be read '
        f'({type(error).__name__}); write the phantom again.') from error


def read_mask(path: str | os.PathLike) -> np.ndarray:
  """Reads a NIfTI mask or map written by this package, as [slice, row, column]."""
  return np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)


def _write_mask(path, mask: np.ndarray, volume: volume_lib.CTVolume):
  image = nib.Nifti1Image(
      mask.transpose(2, 1, 0), nifti.ras_affine(volume.affine))
  image.header.set_xyzt_units('mm')
  image.header['descrip'] = 'phantom, not a patient'
  nib.save(image, path)
