"""CT instances of a few pixels, as a scanner sends them to a node."""

from collections.abc import Callable
import pathlib
import warnings

import numpy as np
import pydicom
from pydicom import dataset as dataset_lib
from pydicom import filebase
from pydicom import filewriter
from pydicom import uid

STUDY_UID = '1.2.826.0.1.3680043.8.498.26'
SERIES_UID = f'{STUDY_UID}.1'
PATIENT_NAME = 'Doe^Jane'


def instance(
  number: int,
  *,
  study_uid: str = STUDY_UID,
  series_uid: str | None = None,
  syntax: str = uid.ExplicitVRLittleEndian,
  change: Callable[[pydicom.Dataset], None] = lambda dataset: None,
) -> pydicom.Dataset:
  """A slice of 8 x 8 pixels; its UID follows from series and number.

  Args:
    number: of the slice.
    study_uid: Study Instance UID.
    series_uid: Series Instance UID; None for the first of the study.
    syntax: transfer syntax UID, of any that pydicom can encode.
    change: called with the data set before it is encoded.
  """
  series_uid = series_uid or f'{study_uid}.1'
  dataset = dataset_lib.Dataset()
  dataset.file_meta = dataset_lib.FileMetaDataset()
  dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  dataset.SOPClassUID = uid.CTImageStorage
  dataset.SOPInstanceUID = f'{series_uid}.{number}'
  dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, series_uid
  dataset.PatientName, dataset.PatientID = PATIENT_NAME, 'ID-4711'
  dataset.Modality, dataset.InstanceNumber = 'CT', number
  dataset.ImagePositionPatient = [0.0, 0.0, 5.0 * number]
  dataset.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
  dataset.PixelSpacing, dataset.SliceThickness = [0.7, 0.7], 5.0
  dataset.RescaleSlope, dataset.RescaleIntercept = 1.0, -1024.0
  dataset.Rows = dataset.Columns = 8
  dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, 'MONOCHROME2'
  dataset.BitsAllocated = dataset.BitsStored = 16
  dataset.HighBit, dataset.PixelRepresentation = 15, 0
  pixels = np.arange(64, dtype='<u2') + number
  dataset.PixelData = pixels.tobytes()
  dataset['PixelData'].VR = 'OW'
  change(dataset)
  if uid.UID(syntax).is_compressed and syntax != uid.DeflatedExplicitVRLittleEndian:
    dataset.compress(syntax, generate_instance_uid=False)
  if not uid.UID(syntax).is_little_endian:  # pydicom writes pixels as they are.
    dataset.PixelData = np.frombuffer(dataset.PixelData, '<u2').byteswap().tobytes()
  dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
  dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
  dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
  return dataset


def save(dataset: pydicom.Dataset, path: pathlib.Path) -> pathlib.Path:
  """Writes a data set as a DICOM file; returns its path."""
  syntax = dataset.file_meta.TransferSyntaxUID
  with warnings.catch_warnings(action='ignore'):  # Of UIDs that a test spoils.
    pydicom.dcmwrite(
      path,
      dataset,
      enforce_file_format=True,
      implicit_vr=syntax.is_implicit_VR,
      little_endian=syntax.is_little_endian,
    )
  return path


def give(spool, association: str, *numbers: int, **options):
  """Lets a spool take slices of one association; what the last one was to it.

  Args:
    spool: a `covid_tf.node.spool.Spool`.
    association: a name of it.
    *numbers: of the slices.
    **options: of `instance`.
  """
  for number in numbers:
    path = save(instance(number, **options), spool.new_file())
    taken = spool.take(path, association, 'SCANNER')
    assert not path.exists()
  return taken


def encoded(number: int) -> bytes:
  """The data set of a slice, as C-STORE carries it."""
  buffer = filebase.DicomBytesIO()
  buffer.is_little_endian, buffer.is_implicit_VR = True, False
  filewriter.write_dataset(buffer, instance(number))
  return buffer.getvalue()
