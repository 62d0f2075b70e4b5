"""UIDs by content: equal content has one identity, other content another."""

import dataclasses
import io

import dicom_series
import pytest
import synthetic_case

from covid_tf.storage.dicom import identity
from covid_tf.storage.dicom import segmentation
from covid_tf.storage.dicom import source as source_lib

_SHAPE, _SPACING_MM = (9, 50, 76), (30.0, 5.0, 5.0)


@pytest.fixture(scope='module')
def case(tmp_path_factory):
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine(_SPACING_MM, _SHAPE), _SHAPE
  )
  folder = dicom_series.write(tmp_path_factory.mktemp('study'), volume)
  return source_lib.read_source(folder), synthetic_case.make_result(volume)


def _bytes(dataset):
  buffer = io.BytesIO()
  dataset.save_as(buffer, enforce_file_format=True)
  return buffer.getvalue()


def _uids(made):
  organization = made.DimensionOrganizationSequence[0].DimensionOrganizationUID
  return {made.SOPInstanceUID, made.SeriesInstanceUID, organization}


def test_equal_content_gives_identical_bytes(case):
  first, second = (segmentation.segmentation(*case) for _ in range(2))
  assert _bytes(first) == _bytes(second)
  assert len(_uids(first)) == 3
  assert all(str(uid).startswith('2.25.') and len(uid) <= 64 for uid in _uids(first))
  assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID


@pytest.mark.parametrize('what', ['one voxel', 'patient', 'model', 'demo'])
def test_other_content_gives_other_uids(case, what):
  source, result = case
  before = segmentation.segmentation(source, result)
  if what == 'one voxel':
    mask = result.lung_mask.copy()
    mask[4, 25, 20] ^= 1
    result = dataclasses.replace(result, lung_mask=mask)
  elif what == 'model':
    model = dataclasses.replace(result.models[0], card_sha256='0' * 64)
    result = dataclasses.replace(result, models=(model, *result.models[1:]))
  elif what == 'demo':
    result = dataclasses.replace(result, demo_models=True)
  else:
    headers = tuple(map(type(source.headers[0]), source.headers))
    for header in headers:
      header.PatientName = 'Doe^Joan'
    source = dataclasses.replace(source, headers=headers)
  after = segmentation.segmentation(source, result)
  assert not _uids(before) & _uids(after)


def test_study_and_patient_are_those_of_the_source(case):
  source, result = case
  made = segmentation.segmentation(source, result)
  for keyword in (
    'StudyInstanceUID PatientName PatientID PatientBirthDate PatientSex StudyDate '
    'StudyTime StudyID AccessionNumber FrameOfReferenceUID'
  ).split():
    assert made[keyword].value == source.headers[0][keyword].value
  assert made.SeriesInstanceUID != source.series_uid
  assert (str(made.ContentDate), str(made.ContentTime)) == ('20200314', '101500.25')
  assert made.ContentQualification == 'RESEARCH'


def test_software_and_models_are_named(case):
  _, result = case
  made = segmentation.segmentation(*case)
  assert made.SoftwareVersions.startswith('covid-tf')
  described = [
    item.get('ContributionDescription', '')
    for item in made.ContributingEquipmentSequence
  ]
  for model in result.models:
    assert any(model.card_sha256 in text for text in described)
  assert not any(
    'ContributionDateTime' in item for item in made.ContributingEquipmentSequence
  )
  assert not any(element.tag.is_private for element in made.iterall())


def test_a_source_without_any_date_gets_none_of_a_ct(case):
  source, result = case
  headers = []
  for header in source.headers:
    stripped = type(header)()
    stripped.update(header)
    for of_what in ('Acquisition', 'Content', 'Series'):
      stripped.pop(f'{of_what}Date', None)
    stripped.StudyDate = ''
    headers.append(stripped)
  stripped = dataclasses.replace(source, headers=tuple(headers))
  assert identity.content_moment(stripped) == (identity.NO_DATE, identity.NO_TIME)
