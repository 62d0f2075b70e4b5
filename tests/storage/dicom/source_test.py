"""Headers of a series as objects need them: checked, cleaned, in the volume's order."""

import shutil

import dicom_series
import numpy as np
import pydicom
from pydicom import uid
import pytest
import synthetic_case

from covid_tf import errors
from covid_tf import readers
from covid_tf.storage.dicom import source as source_lib

_SHAPE, _SPACING_MM = (9, 50, 76), (30.0, 5.0, 5.0)


def _volume(reverse=()):
  affine = synthetic_case.axial_affine(_SPACING_MM, _SHAPE, reverse)
  return synthetic_case.make_volume(affine, _SHAPE)


def _read(folder, change=None, reverse=()):
  return source_lib.read_source(
    dicom_series.write(folder / 'study', _volume(reverse), change)
  )


@pytest.mark.parametrize('reverse', [(), (0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_headers_lie_as_the_volume_that_the_reader_makes(tmp_path, reverse):
  source = _read(tmp_path, reverse=reverse)
  ct = readers.read_ct(tmp_path / 'study')
  np.testing.assert_array_equal(source.affine, ct.affine)
  assert source.shape == ct.shape
  for index, header in enumerate(source.headers):
    np.testing.assert_allclose(
      header.ImagePositionPatient, ct.index_to_lps_mm((index, 0, 0)), atol=1e-6
    )
    steps = np.reshape(header.ImageOrientationPatient, (2, 3))
    rows_mm, columns_mm = map(float, header.PixelSpacing)
    np.testing.assert_allclose(steps[0] * columns_mm, ct.affine[:3, 2], atol=1e-9)
    np.testing.assert_allclose(steps[1] * rows_mm, ct.affine[:3, 1], atol=1e-9)
  # Each header is that of the file with these voxels.
  lowest = 0 if 0 not in reverse else _SHAPE[0] - 1
  uids = [header.SOPInstanceUID for header in source.headers]
  expected = [f'{dicom_series.SERIES_UID}.{n + 1}' for n in range(_SHAPE[0])]
  assert uids == (expected if lowest == 0 else expected[::-1])


def test_missing_attributes_of_type_2_are_empty(tmp_path):
  missing = (
    'PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID '
    'AccessionNumber ReferringPhysicianName InstanceNumber SeriesNumber Modality'
  ).split()

  def strip(_, dataset):
    for keyword in missing:
      delattr(dataset, keyword)

  source = _read(tmp_path, strip)
  for keyword in missing[:9]:
    assert not source.headers[3][keyword].value
  assert source.notes == ()


def test_names_of_any_character_set_are_decoded_and_kept_as_utf_8(tmp_path):
  name = 'Yamada^Tarou=山田^太郎=やまだ^たろう'

  def japanese(_, dataset):
    dataset.SpecificCharacterSet = ['', 'ISO 2022 IR 87']
    dataset.PatientName = name

  header = _read(tmp_path, japanese).headers[0]
  assert header.SpecificCharacterSet == 'ISO_IR 192'
  assert header.PatientName == name


def _refusal(tmp_path, change):
  with pytest.raises(errors.CTReadError) as caught:
    _read(tmp_path, change)
  text = str(caught.value)
  assert dicom_series.PATIENT_NAME.split('^')[0] not in text
  return text


def test_series_without_what_identifies_it_are_refused(tmp_path):
  def without(keyword):
    return lambda _, dataset: delattr(dataset, keyword)

  for keyword, name in (
    ('FrameOfReferenceUID', 'Frame of Reference UID'),
    ('StudyInstanceUID', 'Study Instance UID'),
    ('SOPInstanceUID', 'SOP Instance UID'),
  ):
    text = _refusal(tmp_path / keyword, without(keyword))
    assert name in text and 'required' in text


def test_several_frames_of_reference_are_refused(tmp_path):
  def spread(index, dataset):
    dataset.FrameOfReferenceUID = f'1.2.3.{index % 2}'

  assert 'one Frame of Reference UID' in _refusal(tmp_path, spread)


def test_two_patients_and_mixed_spacing_are_refused(tmp_path):
  def two(index, dataset):
    dataset.PatientID = f'P{index % 2}'

  def mixed(index, dataset):
    if index == 4:
      dataset.PixelSpacing = [4.9, 4.9]

  assert 'patient' in _refusal(tmp_path / 'two', two)
  assert 'pixel spacing' in _refusal(tmp_path / 'mixed', mixed)


def test_a_tilted_gantry_is_refused(tmp_path):
  def tilt(index, dataset):
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y + 5 * index, z]

  assert 'gantry tilt' in _refusal(tmp_path, tilt)


@pytest.mark.parametrize(
  'syntax',
  [
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.JPEG2000Lossless,
    uid.RLELossless,
  ],
)
def test_headers_are_read_however_they_are_encoded(tmp_path, syntax):
  expected = _read(tmp_path / 'plain')
  folder = tmp_path / 'encoded'
  folder.mkdir()
  for path in (tmp_path / 'plain' / 'study').iterdir():
    dataset = pydicom.dcmread(path)
    if syntax.is_compressed and syntax.is_encapsulated:
      dataset.compress(syntax, generate_instance_uid=False)
    else:
      # A new one: it is not bound to the encoding that it was read in.
      meta, dataset = dataset.file_meta, pydicom.Dataset(dataset)
      dataset.file_meta = meta
      dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(folder / path.name, enforce_file_format=True)
  found = source_lib.read_source(folder)
  assert [one.to_json() for one in found.headers] == [
    one.to_json() for one in expected.headers
  ]


def test_headers_are_those_of_the_phase_that_is_read(tmp_path):
  for phase in (1, 2):

    def timed(index, dataset, phase=phase):
      dataset.TriggerTime = 100 * phase
      dataset.SOPInstanceUID = f'{dicom_series.SERIES_UID}.{phase}.{index}'

    dicom_series.write(tmp_path / 'study' / str(phase), _volume(), timed)
  found = source_lib.read_source(tmp_path / 'study', phase='TriggerTime=200')
  assert [one.SOPInstanceUID for one in found.headers] == [
    f'{dicom_series.SERIES_UID}.2.{index}' for index in range(_SHAPE[0])
  ]


def test_a_zip_is_read_as_its_folder(tmp_path):
  expected = _read(tmp_path)
  archive = shutil.make_archive(tmp_path / 'zipped', 'zip', tmp_path / 'study')
  found = source_lib.read_source(archive)
  assert [one.to_json() for one in found.headers] == [
    one.to_json() for one in expected.headers
  ]


def test_nifti_has_no_headers(tmp_path):
  path = synthetic_case.write_nifti(tmp_path / 'ct.nii.gz', _volume())
  with pytest.raises(errors.CTReadError, match='DICOM series is required'):
    source_lib.read_source(path)


def test_an_sop_class_that_is_missing_is_that_of_ct(tmp_path):
  def strip(_, dataset):
    del dataset.SOPClassUID

  assert _read(tmp_path, strip).headers[0].SOPClassUID == uid.CTImageStorage
