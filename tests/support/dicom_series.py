"""CT series of the made-up patient as DICOM files, with headers that a test changes."""

from collections.abc import Callable
import pathlib
import warnings

import numpy as np
import odd_series
import pydicom
from pydicom import uid

from covid_tf import volume as volume_lib

STUDY_UID = '1.2.826.0.1.3680043.8.498.1'
SERIES_UID = '1.2.826.0.1.3680043.8.498.2'
FRAME_UID = '1.2.826.0.1.3680043.8.498.3'
PATIENT_NAME = 'Doe^Jane'


def strip(_: int, dataset: pydicom.Dataset) -> None:
  """A change of `write`: without what names the patient, the study or its time."""
  for keyword in (
    'PatientName',
    'PatientID',
    'PatientBirthDate',
    'PatientSex',
    'StudyDate',
    'StudyTime',
    'StudyID',
    'AccessionNumber',
    'AcquisitionDate',
    'AcquisitionTime',
    'ReferringPhysicianName',
    'SliceThickness',
  ):
    delattr(dataset, keyword)


def write(
  folder: pathlib.Path,
  volume: volume_lib.CTVolume,
  change: Callable[[int, pydicom.Dataset], None] | None = None,
) -> pathlib.Path:
  """Writes a volume as files of one slice each.

  Args:
    folder: made where it is missing.
    volume: slices in any order and orientation.
    change: called with index and data set of each slice before it is written.

  Returns:
    The folder.
  """
  folder.mkdir(parents=True, exist_ok=True)
  for index in range(volume.shape[0]):
    dataset = _slice(volume, index)
    if change:
      change(index, dataset)
    # Names that sort otherwise than the slices lie.
    name = f'{index * 7919 % 10007:05d}.dcm'
    with warnings.catch_warnings(action='ignore'):  # Of values that a test spoils.
      pydicom.dcmwrite(folder / name, dataset, enforce_file_format=False)
  return folder


def write_enhanced(
  folder: pathlib.Path, volume: volume_lib.CTVolume, file_count: int = 1
) -> pathlib.Path:
  """Writes a volume as enhanced CT: many frames a file, in an order of their own.

  Args:
    folder: made where it is missing.
    volume: as of `write`.
    file_count: files that the slices are dealt to.

  Returns:
    The folder; file n holds slices n, n + file_count, …, backwards.
  """
  folder.mkdir(parents=True, exist_ok=True)
  for number in range(file_count):
    slices = [_slice(volume, at) for at in range(number, volume.shape[0], file_count)]
    dataset = odd_series.enhanced(slices[::-1])
    dataset.SOPInstanceUID = f'{SERIES_UID}.{number + 1}'
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    pydicom.dcmwrite(folder / f'{number}.dcm', dataset, enforce_file_format=True)
  return folder


def _slice(volume: volume_lib.CTVolume, index: int) -> pydicom.Dataset:
  dataset = pydicom.Dataset()
  dataset.file_meta = pydicom.dataset.FileMetaDataset()
  dataset.preamble = bytes(128)
  dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  dataset.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
  dataset.file_meta.MediaStorageSOPInstanceUID = f'{SERIES_UID}.{index + 1}'
  dataset.SpecificCharacterSet = 'ISO_IR 100'
  dataset.SOPClassUID = uid.CTImageStorage
  dataset.SOPInstanceUID = f'{SERIES_UID}.{index + 1}'
  dataset.StudyInstanceUID = STUDY_UID
  dataset.SeriesInstanceUID = SERIES_UID
  dataset.FrameOfReferenceUID = FRAME_UID
  dataset.PatientName, dataset.PatientID = PATIENT_NAME, 'ID-4711'
  dataset.PatientBirthDate, dataset.PatientSex = '19500102', 'F'
  dataset.StudyDate, dataset.StudyTime = '20200314', '101112'
  dataset.AcquisitionDate, dataset.AcquisitionTime = '20200314', '101500.25'
  dataset.StudyID, dataset.AccessionNumber = 'S1', 'A1'
  dataset.ReferringPhysicianName = ''
  dataset.Modality, dataset.Manufacturer = 'CT', 'ACME'
  dataset.ImageType = ['ORIGINAL', 'PRIMARY', 'AXIAL']
  dataset.InstanceNumber = index + 1
  dataset.SeriesNumber = 3
  dataset.SliceThickness = round(volume.spacing_mm[0], 6)
  steps = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
  position = volume.index_to_lps_mm((index, 0, 0))
  dataset.ImagePositionPatient = [round(float(x), 8) for x in position]
  dataset.ImageOrientationPatient = [
    round(float(x), 10) for x in (*steps[:, 2], *steps[:, 1])
  ]
  dataset.PixelSpacing = [round(step, 8) for step in volume.spacing_mm[1:]]
  dataset.Rows, dataset.Columns = volume.shape[1:]
  dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, 'MONOCHROME2'
  dataset.BitsAllocated = dataset.BitsStored = 16
  dataset.HighBit, dataset.PixelRepresentation = 15, 1
  dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
  dataset.PixelData = volume.hu[index].tobytes()
  return dataset
