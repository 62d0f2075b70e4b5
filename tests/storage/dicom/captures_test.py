"""Secondary captures: the pixels that were given, tied to images, each a series."""

import dataclasses
import io

import dicom_series
import dicom_tools
import numpy as np
import pydicom
from pydicom import uid
import pytest
import real_ct
import synthetic_case

from covid_tf import readers
from covid_tf.storage.dicom import captures
from covid_tf.storage.dicom import objects
from covid_tf.storage.dicom import source as source_lib

_SHAPE, _SPACING_MM = (9, 50, 76), (30.0, 5.0, 5.0)


def _picture(seed=0, **changes):
  pixels = np.random.default_rng(seed).integers(0, 256, (31, 43, 3), np.uint8)
  return objects.KeyPicture(pixels, f'number {seed}', 'What it shows.', **changes)


_PICTURES = (_picture(1), _picture(2, slices=(4, 3), orientation=('L', 'P')))


@pytest.fixture(scope='module')
def case(tmp_path_factory):
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine(_SPACING_MM, _SHAPE), _SHAPE
  )
  folder = dicom_series.write(tmp_path_factory.mktemp('study'), volume)
  return source_lib.read_source(folder), synthetic_case.make_result(volume)


def _made(case, pictures=_PICTURES):
  return dict(captures.secondary_captures(*case, pictures))


def test_pixels_are_those_that_were_given(case):
  for picture, made in zip(_PICTURES, _made(case).values()):
    assert made.SOPClassUID == uid.SecondaryCaptureImageStorage
    assert made.PhotometricInterpretation == 'RGB'
    assert not made.file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(made.pixel_array, picture.pixels)


def test_each_is_a_series_with_a_name_and_a_number_of_its_own(case):
  made = _made(case)
  names = [kind.file_name for kind in made]
  assert names == ['picture_01.dcm', 'picture_02.dcm']
  for keyword in ('SeriesInstanceUID', 'SOPInstanceUID', 'SeriesNumber'):
    assert len({one.get(keyword) for one in made.values()}) == 2
  descriptions = [one.SeriesDescription for one in made.values()]
  assert descriptions == ['covid-tf picture: number 1', 'covid-tf picture: number 2']
  source, _ = case
  for one in made.values():
    assert one.StudyInstanceUID == source.study_uid
    assert one.PatientName == dicom_series.PATIENT_NAME


def test_they_say_what_they_are_made_of_and_that_nobody_is_named(case):
  source, _ = case
  every, few = _made(case).values()
  referenced = [
    [item.ReferencedSOPInstanceUID for item in one.SourceImageSequence]
    for one in (every, few)
  ]
  uids = [header.SOPInstanceUID for header in source.headers]
  assert referenced == [uids, [uids[4], uids[3]]]
  assert list(few.PatientOrientation) == ['L', 'P'] and not every.PatientOrientation
  for one in (every, few):
    assert (one.BurnedInAnnotation, one.BodyPartExamined) == ('NO', 'CHEST')
    assert one.DerivationDescription == 'What it shows.'
    assert one.ImageComments.startswith('Research use only')


def test_demo_models_are_named(case):
  source, result = case
  demo = source, dataclasses.replace(result, demo_models=True)
  for one in _made(demo).values():
    assert one.ImageComments.startswith('DEMO MODELS')
    assert one.SeriesDescription.endswith('(DEMO MODELS)')


def test_equal_pictures_are_one_object_and_others_are_others(case):
  def bytes_of(made):
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()

  first, again = ([*_made(case).values()] for _ in range(2))
  assert [*map(bytes_of, first)] == [*map(bytes_of, again)]
  pixels = _PICTURES[0].pixels.copy()
  pixels[0, 0] ^= 1
  changed = dataclasses.replace(_PICTURES[0], pixels=pixels)
  (other,) = _made(case, [changed]).values()
  assert other.SOPInstanceUID != first[0].SOPInstanceUID
  assert other.SeriesInstanceUID != first[0].SeriesInstanceUID


def _require_valid(folder, made):
  for kind, one in made.items():
    path = folder / kind.file_name
    pydicom.dcmwrite(path, one, enforce_file_format=True)
    assert dicom_tools.errors_of(path) == []


def test_dciodvfy_finds_no_error(case, tmp_path):
  _require_valid(tmp_path, _made(case))


def test_dciodvfy_finds_no_error_in_those_of_a_stripped_header(case, tmp_path):
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine(_SPACING_MM, _SHAPE), _SHAPE
  )
  folder = dicom_series.write(tmp_path / 'study', volume, dicom_series.strip)
  _require_valid(tmp_path, _made((source_lib.read_source(folder), case[1])))


def test_dciodvfy_finds_no_error_in_those_of_a_real_series(tmp_path):
  folder = real_ct.folder('lung-pet-ct-dx-a0002-b40f')
  result = synthetic_case.make_result(readers.read_ct(folder))
  _require_valid(tmp_path, _made((source_lib.read_source(folder), result)))
