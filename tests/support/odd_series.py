"""Small CT series as archives hold them, and every way in which they are odd.

A series is a list of pydicom data sets, so a test changes what it is about and
saves the rest as it is. Pixels are random tissue: two slices never look alike.
"""

import copy
import pathlib

import gdcm
import numpy as np
import pydicom
from pydicom import dataset
from pydicom import sequence
from pydicom import uid
import pytest

from covid_tf import errors
from covid_tf import readers

SHAPE = (8, 36, 40)  # JPEG 2000 needs 32 pixels for its levels.
SPACING_MM = (2.5, 0.75, 0.75)
SERIES_UID = '1.2.826.0.1.3680043.10.511.3.1'
STUDY_UID = '1.2.826.0.1.3680043.10.511.2.1'
FRAME_UID = '1.2.826.0.1.3680043.10.511.4.1'
PATIENT = ('Secret^Person', 'ID-4711', '19330102', 'ACC-0815')
AXIAL = (1, 0, 0, 0, 1, 0)


def refusal(path) -> str:
  """Why the reader refuses a place, in words that name no patient."""
  with pytest.raises(errors.CTReadError) as caught:
    readers.read_ct(path)
  text = str(caught.value)
  for secret in PATIENT:
    assert secret.lower() not in text.lower()
  return text


def chest_hu(shape=SHAPE, seed: int = 0) -> np.ndarray:
  """Smooth random tissue from -1000 to 1500 HU, int16 [slice, row, column].

  Most of what is denser than lung is fat and muscle, as in any patient.
  """
  coarse, fine = _random_values(shape, seed)
  coarse = np.where((coarse > 200) & (coarse < 1400), coarse % 240 - 130, coarse)
  return np.maximum(coarse + fine, -1024).astype(np.int16)


def even_hu(shape=SHAPE, seed: int = 0) -> np.ndarray:
  """Smooth random values, evenly from -1000 to 1500 HU; int16, as above."""
  return np.maximum(sum(_random_values(shape, seed)), -1024).astype(np.int16)


def _random_values(shape, seed):
  rng = np.random.default_rng(seed)
  coarse = rng.integers(-1000, 1500, (shape[0], 5, 6))
  rows = np.linspace(0, 4.99, shape[1]).astype(int)
  columns = np.linspace(0, 5.99, shape[2]).astype(int)
  return coarse[:, rows][:, :, columns], rng.integers(-20, 21, shape)


def body_hu(seed: int = 0) -> np.ndarray:
  """Air around a body with a lung and some metal, int16 [slice, row, column]."""
  rng = np.random.default_rng(seed)
  hu = rng.integers(-1020, -980, SHAPE)
  hu[:, 8:28, 5:36] = rng.integers(30, 51, (8, 20, 31))
  hu[:, 12:24, 10:20] = rng.integers(-1010, -700, (8, 12, 10))
  hu[:, 20:22, 25:27] = 3071
  return hu.astype(np.int16)


def series(
  hu=None,
  spacing_mm=SPACING_MM,
  orientation=AXIAL,
  origin=(-8.5, -7.25, 100.0),
  signed=False,
  bits_stored=12,
  slope=1,
  intercept=-1024,
  series_uid=SERIES_UID,
  study_uid=STUDY_UID,
) -> list[pydicom.Dataset]:
  """A good series, from the lowest slice along the normal upwards."""
  hu = chest_hu() if hu is None else hu
  normal = np.cross(orientation[:3], orientation[3:])
  slices = []
  for index, plane in enumerate(hu):
    stored = np.rint((plane.astype(np.float64) - intercept) / slope).astype(np.int32)
    ds = _header(series_uid, study_uid, index)
    ds.Rows, ds.Columns = plane.shape
    ds.PixelSpacing = [float(step) for step in spacing_mm[1:]]
    ds.ImageOrientationPatient = [float(value) for value in orientation]
    position = np.add(origin, normal * spacing_mm[0] * index)
    ds.ImagePositionPatient = [round(float(value), 6) for value in position]
    ds.SliceThickness = float(spacing_mm[0])
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, bits_stored, bits_stored - 1
    ds.PixelRepresentation = int(signed)
    mask = (1 << bits_stored) - 1
    ds.PixelData = (
      (stored & mask if not signed else stored)
      .astype('<i2' if signed else '<u2')
      .tobytes()
    )
    ds['PixelData'].VR = 'OW'
    slices.append(ds)
  return slices


def _header(series_uid, study_uid, index) -> pydicom.Dataset:
  ds = dataset.Dataset()
  ds.file_meta = dataset.FileMetaDataset()
  ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  ds.SOPClassUID = uid.CTImageStorage
  ds.SOPInstanceUID = f'{series_uid}.{index + 1}'
  ds.ImageType = ['ORIGINAL', 'PRIMARY', 'AXIAL']
  ds.Modality = 'CT'
  ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, series_uid
  ds.FrameOfReferenceUID = FRAME_UID
  name, patient_id, birth_date, accession = PATIENT
  ds.PatientName, ds.PatientID = name, patient_id
  ds.PatientBirthDate, ds.AccessionNumber = birth_date, accession
  ds.AcquisitionDate = '20200315'
  ds.AcquisitionNumber = 1
  ds.InstanceNumber = index + 1
  ds.ConvolutionKernel = 'B40f'
  ds.SamplesPerPixel = 1
  ds.PhotometricInterpretation = 'MONOCHROME2'
  return ds


def save(slices, folder, syntax=None, prefix='') -> pathlib.Path:
  """Writes each data set to a file of the folder; returns the folder."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for index, ds in enumerate(slices):
    save_one(ds, folder / f'{prefix}{index:04d}.dcm', syntax)
  return folder


def save_one(ds, path, syntax=None) -> pathlib.Path:
  """Writes one data set, in another transfer syntax if one is given."""
  ds = copy.deepcopy(ds)
  syntax = uid.UID(syntax or ds.file_meta.TransferSyntaxUID)
  if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
    return _save_jpeg_lossless(ds, path, syntax)
  if syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless):
    ds.compress(syntax, generate_instance_uid=False)
  elif syntax == uid.ExplicitVRBigEndian:
    ds.PixelData = np.frombuffer(ds.PixelData, '<u2').astype('>u2').tobytes()
  ds.file_meta.TransferSyntaxUID = syntax
  if 'SOPInstanceUID' not in ds:
    ds.file_meta.MediaStorageSOPInstanceUID = '1.2.3'
  if 'SOPClassUID' not in ds:
    ds.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
  ds.save_as(path, enforce_file_format=True)
  return path


def _save_jpeg_lossless(ds, path, syntax):
  """GDCM is the one encoder for it; it takes and gives files."""
  plain = path.with_suffix('.plain')
  ds.save_as(plain, enforce_file_format=True)
  reader = gdcm.ImageReader()
  reader.SetFileName(str(plain))
  assert reader.Read()
  change = gdcm.ImageChangeTransferSyntax()
  change.SetTransferSyntax(
    gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax)))
  )
  change.SetInput(reader.GetImage())
  assert change.Change()
  writer = gdcm.ImageWriter()
  writer.SetFile(reader.GetFile())
  writer.SetImage(change.GetOutput())
  writer.SetFileName(str(path))
  assert writer.Write()
  plain.unlink()
  return path


def set_raw(file, keyword, value) -> None:
  """Sets a value that pydicom would refuse to write; None removes the element."""
  ds = pydicom.dcmread(file)
  if value is None:
    del ds[keyword]
  elif isinstance(value, str):  # With the VR of a free text anything goes.
    ds.add_new(pydicom.datadict.tag_for_keyword(keyword), 'LO', value.split('\\'))
  else:
    setattr(ds, keyword, value)
  ds.save_as(file, enforce_file_format=True)


def bare_bytes(ds, implicit: bool = True, big_endian: bool = False) -> bytes:
  """The data set alone: no preamble, no prefix, no file meta information."""
  buffer = pydicom.filebase.DicomBytesIO()
  buffer.is_implicit_VR, buffer.is_little_endian = implicit, not big_endian
  ds = copy.deepcopy(ds)
  del ds.file_meta
  pydicom.filewriter.write_dataset(buffer, ds)
  return buffer.getvalue()


def enhanced(slices, rescale_in_frames: bool = True) -> pydicom.Dataset:
  """One enhanced multi-frame file of the same slices, in the order given."""
  first = slices[0]
  ds = copy.deepcopy(first)
  ds.SOPClassUID = uid.EnhancedCTImageStorage
  for keyword in (
    'ImagePositionPatient',
    'ImageOrientationPatient',
    'PixelSpacing',
    'RescaleSlope',
    'RescaleIntercept',
    'SliceThickness',
  ):
    delattr(ds, keyword)
  ds.NumberOfFrames = len(slices)
  ds.PixelData = b''.join(piece.PixelData for piece in slices)
  ds['PixelData'].VR = 'OW'
  shared = dataset.Dataset()
  shared.PixelMeasuresSequence = _item(first, 'PixelSpacing', 'SliceThickness')
  shared.PlaneOrientationSequence = _item(first, 'ImageOrientationPatient')
  ds.SharedFunctionalGroupsSequence = sequence.Sequence([shared])
  frames = []
  for piece in slices:
    frame = dataset.Dataset()
    frame.PlanePositionSequence = _item(piece, 'ImagePositionPatient')
    transformation = _item(piece, 'RescaleSlope', 'RescaleIntercept')
    transformation[0].RescaleType = 'HU'
    holder = frame if rescale_in_frames else shared
    holder.PixelValueTransformationSequence = transformation
    frames.append(frame)
  ds.PerFrameFunctionalGroupsSequence = sequence.Sequence(frames)
  return ds


def _item(source, *keywords) -> sequence.Sequence:
  item = dataset.Dataset()
  for keyword in keywords:
    setattr(item, keyword, getattr(source, keyword))
  return sequence.Sequence([item])
