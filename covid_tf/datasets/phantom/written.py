"""A phantom on disk: a DICOM series, and beside it what is true of it."""

import dataclasses
import json
import os
import pathlib
import uuid

import nibabel as nib
import numpy as np
import pydicom
from pydicom import dataset as pydicom_dataset
from pydicom import uid as pydicom_uid

from covid_tf import errors
from covid_tf import version
from covid_tf import volume as volume_lib
from covid_tf.datasets import phantom
from covid_tf.storage import files
from covid_tf.storage import maps

# A phantom as a DICOM CT series: phantoms for software, not patients.

_INTERCEPT = -1024  # Stored 0 is the lowest HU of a 12-bit CT.
_NAMESPACE = uuid.UUID('6b7f3b3e-7f2f-4b0c-9d55-3f6a0c1d2e47')  # Of this package.
_DATE = '20200301'  # Phantoms have no date; readers expect one.


def write_study(drawn: phantom.Phantom, folder: str | os.PathLike) -> pathlib.Path:
  """Writes one file a slice: CT Image Storage, explicit VR little endian.

  Args:
    drawn: the phantom.
    folder: becomes the study, whole or not at all; an earlier one is replaced.

  Returns:
    The folder.

  Raises:
    errors.OutputError: it cannot be written.
  """
  folder = pathlib.Path(folder)
  shared = _shared_header(drawn)
  with files.replacing_directory(folder) as temporary:
    for index in range(drawn.volume.shape[0]):
      header = _slice_header(shared, drawn, index)
      header.save_as(temporary / f'{index + 1:04d}.dcm', enforce_file_format=True)
  return folder


def make_uid(*parts) -> str:
  """A UID that follows from its parts, under 2.25, the root for UUIDs."""
  name = '/'.join(str(part) for part in parts)
  return f'2.25.{uuid.uuid5(_NAMESPACE, name).int}'


def study_uid(case: phantom.PhantomCase) -> str:
  """One study a seed and kind; other grids and doses are other series of it."""
  return make_uid('study', case.seed, case.kind)


def series_uid(case: phantom.PhantomCase) -> str:
  """One series a case, whatever field differs."""
  return make_uid('series', *dataclasses.astuple(case))


def _shared_header(drawn):
  """What all slices of the series say alike."""
  case = drawn.case
  header = pydicom_dataset.Dataset()
  header.SOPClassUID = pydicom_uid.CTImageStorage
  header.ImageType = ['ORIGINAL', 'PRIMARY', 'AXIAL']
  header.StudyDate = header.SeriesDate = header.AcquisitionDate = _DATE
  header.ContentDate = _DATE
  header.StudyTime = header.SeriesTime = header.ContentTime = '120000'
  header.AccessionNumber = header.ReferringPhysicianName = ''
  header.Modality = 'CT'
  header.Manufacturer = 'covid-tf phantom'
  header.SoftwareVersions = version.__version__
  header.StudyDescription = 'PHANTOM, NOT A PATIENT'
  header.SeriesDescription = f'PHANTOM {case.kind} seed {case.seed}'
  header.PatientName = case.name
  header.PatientID = f'PHANTOM-{case.seed}'
  header.PatientBirthDate = header.PatientSex = ''
  header.BodyPartExamined = 'CHEST'
  header.KVP = '120'
  header.SliceThickness = _decimal(case.slice_thickness_mm)
  header.SpacingBetweenSlices = _decimal(case.slice_spacing_mm)
  header.ConvolutionKernel = f'K{round(20 + 50 * case.kernel_sharpness)}'
  header.PatientPosition = 'HFS'
  header.StudyInstanceUID = study_uid(case)
  header.SeriesInstanceUID = series_uid(case)
  header.StudyID, header.SeriesNumber, header.AcquisitionNumber = '1', 1, 1
  header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
  header.FrameOfReferenceUID = make_uid('frame', case.seed)
  header.PositionReferenceIndicator = ''
  _add_pixel_description(header, drawn.volume)
  return header


def _add_pixel_description(header, volume):
  _, row_mm, column_mm = volume.spacing_mm
  header.SamplesPerPixel = 1
  header.PhotometricInterpretation = 'MONOCHROME2'
  header.Rows, header.Columns = volume.shape[1:]
  header.PixelSpacing = [_decimal(row_mm), _decimal(column_mm)]
  header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
  header.PixelRepresentation = 1
  header.QualityControlImage = 'YES'  # The attribute that marks phantom images.
  header.BurnedInAnnotation = 'NO'
  header.WindowCenter, header.WindowWidth = -600, 1500
  header.RescaleIntercept, header.RescaleSlope = _INTERCEPT, 1
  header.RescaleType = 'HU'


def _slice_header(shared, drawn: phantom.Phantom, index: int):
  volume: volume_lib.CTVolume = drawn.volume
  header = pydicom_dataset.Dataset(shared)
  position = volume.index_to_lps_mm((index, 0, 0))
  header.SOPInstanceUID = make_uid('slice', *dataclasses.astuple(drawn.case), index)
  header.InstanceNumber = volume.shape[0] - index  # Scanners count from the head.
  header.ImagePositionPatient = [_decimal(value) for value in position]
  header.SliceLocation = _decimal(position[2])
  stored = volume.hu[index].astype(np.int32) - _INTERCEPT
  header.PixelData = stored.astype('<i2').tobytes()
  header['PixelData'].VR = 'OW'
  header.file_meta = pydicom_dataset.FileMetaDataset()
  header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
  header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
  header.file_meta.TransferSyntaxUID = pydicom_uid.ExplicitVRLittleEndian
  header.file_meta.ImplementationClassUID = pydicom_uid.UID(make_uid('implementation'))
  return header


def _decimal(value: float) -> pydicom.valuerep.DSfloat:
  """A decimal string of at most 16 characters."""
  return pydicom.valuerep.DSfloat(round(float(value), 4), auto_format=True)


# What is true of a phantom, on disk beside its study: numbers and both masks.

TRUTH_FILE_NAME = 'truth.json'
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
    seed=drawn.case.seed,
    kind=drawn.kind,
    severe=drawn.case.severe,
    study_uid=study_uid(drawn.case),
    series_uid=series_uid(drawn.case),
    lesion_volume_cm3=float(np.count_nonzero(drawn.lesion_mask) * voxel_cm3),
    lung_volume_cm3=float(np.count_nonzero(drawn.lung_mask) * voxel_cm3),
    positive_slices=tuple(slices.tolist()),
    slice_count=drawn.volume.shape[0],
  )


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
    for name, mask in (
      (LUNG_MASK_NAME, drawn.lung_mask),
      (LESION_MASK_NAME, drawn.lesion_mask),
    ):
      _write_mask(temporary / name, mask, drawn.volume)
    (temporary / TRUTH_FILE_NAME).write_text(
      json.dumps(content, indent=2) + '\n', 'utf-8'
    )
  return truth


def read_truth(folder: str | os.PathLike) -> Truth:
  """Reads the numbers back.

  Raises:
    errors.UsageError: there is no truth.json of ours in the folder.
  """
  path = pathlib.Path(folder) / TRUTH_FILE_NAME
  try:
    content = json.loads(path.read_text('utf-8'))
    content.pop('note')
    content['positive_slices'] = tuple(content['positive_slices'])
    return Truth(**content)
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise errors.UsageError(
      f'{path}: the truth of a phantom is required, found none that can be read '
      f'({type(error).__name__}); write the phantom again.'
    ) from error


def read_mask(path: str | os.PathLike) -> np.ndarray:
  """Reads a mask of a phantom's truth, as [slice, row, column]."""
  return maps.read(path)[0]


def _write_mask(path, mask: np.ndarray, volume: volume_lib.CTVolume):
  image = nib.Nifti1Image(mask.transpose(2, 1, 0), maps.ras_affine(volume.affine))
  image.header.set_xyzt_units('mm')
  image.header['descrip'] = 'phantom, not a patient'
  nib.save(image, path)
