"""The structured report: valid, complete in its evidence, equal to result.json."""

import dataclasses
import io

import dicom_series
import dicom_tools
import pydicom
from pydicom import uid
import pytest
import real_ct
import synthetic_case

from covid_tf import lung_measures
from covid_tf import readers
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.storage.dicom import codes
from covid_tf.storage.dicom import identity
from covid_tf.storage.dicom import measurement_groups
from covid_tf.storage.dicom import segmentation
from covid_tf.storage.dicom import source as source_lib
from covid_tf.storage.dicom import structured_report

_SHAPE, _SPACING_MM = (9, 50, 76), (30.0, 5.0, 5.0)


def _volume(**fields):
  return synthetic_case.make_volume(
    synthetic_case.axial_affine(_SPACING_MM, _SHAPE), _SHAPE, **fields
  )


def _full(result):
  """With all that a result can have besides."""
  return dataclasses.replace(
    result,
    case_detected=True,
    thresholds=dataclasses.replace(result.thresholds, case_corona_score_cm3=10.0),
    edits=results.Edits(excluded_slices=(1,)),
    warnings=('Slices are thick.', 'Größe unbekannt.'),
    demo_models=True,
    acquisition=volume_lib.Acquisition('ACME', kernel='B30f', kvp=120.0),
    repeatability=lung_measures.Repeatability(3.0, 0.1),
  )


def _map(source):
  """What the report needs to know of the parametric map."""
  made = pydicom.Dataset()
  made.SOPClassUID = uid.ParametricMapStorage
  made.SOPInstanceUID, made.SeriesInstanceUID = '2.25.7', '2.25.8'
  made.StudyInstanceUID = source.study_uid
  return made


def _report(folder, result):
  source = source_lib.read_source(folder)
  segments = segmentation.segmentation(source, result)
  made = structured_report.structured_report(source, result, segments, _map(source))
  return source, segments, made


@pytest.fixture(scope='module')
def case(tmp_path_factory):
  volume = _volume()
  folder = dicom_series.write(tmp_path_factory.mktemp('study'), volume)
  result = _full(synthetic_case.measured(volume, synthetic_case.make_result(volume)))
  return result, *_report(folder, result), tmp_path_factory.mktemp('report')


def _written(folder, made):
  path = folder / 'report.dcm'
  pydicom.dcmwrite(path, made, enforce_file_format=True)
  return path


def _items(item):
  for child in item.get('ContentSequence', ()):
    yield child
    yield from _items(child)


def _name(item):
  return item.ConceptNameCodeSequence[0].CodeValue


def test_it_is_an_unverified_measurement_report(case):
  _, source, _, made, _ = case
  assert made.SOPClassUID == uid.EnhancedSRStorage
  assert made.ContentTemplateSequence[0].TemplateIdentifier == '1500'
  assert _name(made) == '126000'
  assert (made.VerificationFlag, made.PreliminaryFlag) == ('UNVERIFIED', 'PRELIMINARY')
  assert made.SpecificCharacterSet == 'ISO_IR 192'
  assert made.StudyInstanceUID == source.study_uid
  assert {_name(item) for item in _items(made)} >= {'121005', '121012', '121058'}
  observer = next(item for item in _items(made) if _name(item) == '121005')
  assert observer.ConceptCodeSequence[0].CodeValue == '121007'  # A device.
  assert not [item for item in _items(made) if item.ValueType == 'PNAME']


def test_the_numbers_are_those_of_the_result(case):
  result, _, _, made, folder = case
  numbers = measurement_groups.read_measurements(_written(folder, made))
  groups = measurement_groups.groups_of(result)
  assert list(numbers) == [f'covid-tf {group.name}' for group in groups]
  for group, found in zip(groups, numbers.values()):
    assert len(found) == len(group.measures)
    assert list(found.values()) == [measure.value for measure in group.measures]
  assert numbers['covid-tf model attention']['CORONA'] == result.corona_score_cm3
  zones = numbers['covid-tf zone score']
  assert (
    zones['ZONE-GRADE, Left middle zone of lung']
    == (result.zone_score.zones['left_middle'])
  )


def test_decimal_strings_are_as_exact_as_they_can_be(case):
  _, _, _, made, _ = case
  numbers = [
    item.MeasuredValueSequence[0] for item in _items(made) if item.ValueType == 'NUM'
  ]
  for number in numbers:
    if 'FloatingPointValue' in number:
      assert float(number.NumericValue) == pytest.approx(
        number.FloatingPointValue, rel=1e-9, abs=1e-9
      )


def test_every_instance_that_was_used_is_in_the_evidence(case):
  _, source, segments, made, _ = case
  (study,) = made.CurrentRequestedProcedureEvidenceSequence
  evidence = {
    item.ReferencedSOPInstanceUID
    for series in study.ReferencedSeriesSequence
    for item in series.ReferencedSOPSequence
  }
  assert study.StudyInstanceUID == source.study_uid
  assert evidence == {
    *(header.SOPInstanceUID for header in source.headers),
    segments.SOPInstanceUID,
    '2.25.7',
  }
  referenced = {
    reference.ReferencedSOPInstanceUID
    for item in _items(made)
    for reference in item.get('ReferencedSOPSequence', ())
  }
  assert referenced == evidence


def test_groups_name_their_segment_and_have_uids_of_their_own(case):
  result, _, segments, made, _ = case
  groups = [item for item in _items(made) if _name(item) == '125007']
  tracking = [
    child.UID
    for group in groups
    for child in group.ContentSequence
    if _name(child) == '112040'
  ]
  assert len(set(tracking)) == len(groups) == len(measurement_groups.groups_of(result))
  # Those of lungs and attention are the segments' own.
  assert (segmentation.LUNGS, segmentation.ATTENTION) == (
    measurement_groups.LUNGS,
    measurement_groups.ATTENTION,
  )
  assert tracking[:2] == [segment.TrackingUID for segment in segments.SegmentSequence]
  for group in groups:
    (reference,) = [
      child.ReferencedSOPSequence[0]
      for child in group.ContentSequence
      if _name(child) == '121191'
    ]
    assert reference.ReferencedSOPInstanceUID == segments.SOPInstanceUID
    assert reference.ReferencedSegmentNumber in (1, 2)


def test_every_number_has_children_that_say_what_answered(case):
  # OHIF's reader fails on numbers without children, and without an image library.
  result, _, _, made, _ = case
  groups = [item for item in _items(made) if _name(item) == '125007']
  for group in groups:
    for number in group.ContentSequence:
      if number.ValueType == 'NUM':
        texts = [str(child.get('TextValue')) for child in number.ContentSequence]
        assert identity.MODEL_NAME in texts and result.software in texts
        for model in result.models:
          assert any(model.card_sha256 in text for text in texts)
  assert '111028' in {_name(item) for item in made.ContentSequence}


def test_scores_refer_to_the_map_and_sites_have_sides(case):
  _, _, _, made, _ = case
  numbers = [item for item in _items(made) if item.ValueType == 'NUM']
  for number in numbers:
    if _name(number) in ('CORONA', 'CORONA-LUNG'):
      (image,) = [i for i in number.ContentSequence if i.ValueType == 'IMAGE']
      assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == '2.25.7'
  sides = {
    side.ConceptCodeSequence[0].CodeValue
    for item in _items(made)
    if _name(item) == '363698007'
    for side in item.get('ContentSequence', ())
  }
  assert sides == {'24028007', '7771000'}


def test_words_say_what_is_meant_and_what_was_changed(case):
  result, _, _, made, _ = case
  texts = [item.TextValue for item in made.ContentSequence if 'TextValue' in item]
  summary = next(text for text in texts if 'Corona score' in text)
  assert summary.startswith('DEMO MODELS')
  assert 'no drawn outline' in summary and 'Research use only' in summary
  assert f'Edited by a person: {result.edits.in_words()[0]}' in texts
  assert 'Warning: Größe unbekannt.' in texts
  assert 'Acquisition: ACME, kernel B30f, 120 kV' in texts
  answers = {
    item.ConceptCodeSequence[0].CodeValue
    for item in _items(made)
    if _name(item) == 'CASE-DETECTED'
  }
  assert answers == {codes.DETECTED.value}


def test_private_codes_are_declared_and_short(case):
  _, _, _, made, _ = case
  schemes = {i.CodingSchemeDesignator for i in made.CodingSchemeIdentificationSequence}
  assert codes.SCHEME in schemes
  assert 'LongCodeValue' not in str(made)


def test_nothing_names_the_patient_beyond_the_patient_module(case):
  _, _, _, made, _ = case
  content = '\n'.join(str(item) for item in made.ContentSequence)
  for text in ('Doe', 'Jane', '4711', '19500102', '1950-01-02'):
    assert text not in content
  assert made.PatientName == dicom_series.PATIENT_NAME


def test_equal_content_gives_identical_bytes_and_other_content_other_uids(case):
  result, source, segments, made, _ = case

  def again(result):
    return structured_report.structured_report(source, result, segments, _map(source))

  def bytes_of(dataset):
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()

  assert bytes_of(again(result)) == bytes_of(made)
  changed = again(dataclasses.replace(result, lung_volume_cm3=4000.0))
  assert changed.SOPInstanceUID != made.SOPInstanceUID
  assert changed.SeriesInstanceUID != made.SeriesInstanceUID


# Validators that are not ours.


def _require_valid(path):
  assert dicom_tools.errors_of(path) == []
  found = dicom_tools.findings_in_report(path)
  assert [line for line in found if 'Error' in line or 'Exception' in line] == []
  assert 'Found Root Template TID_1500 (MeasurementReport)' in found
  assert 'Root Template Validation Complete' in found


def test_validators_find_no_error(case, tmp_path):
  # One group of each kind: PixelMed's rules take time that grows with their square.
  result, source, segments, _, _ = case
  regions = result.densities.regions
  few = {'right_basal': regions['right_basal']}
  densities = dataclasses.replace(result.densities, regions=few)
  smaller = dataclasses.replace(result, densities=densities, zone_score_by_density=None)
  made = structured_report.structured_report(source, smaller, segments, _map(source))
  _require_valid(_written(tmp_path, made))


def test_dciodvfy_finds_no_error_in_a_whole_report(case):
  _, _, _, made, folder = case
  assert dicom_tools.errors_of(_written(folder, made)) == []


def test_a_score_of_0_of_a_stripped_header_is_valid(tmp_path):
  volume = _volume(lesions=())
  folder = dicom_series.write(tmp_path / 'study', volume, dicom_series.strip)
  result = synthetic_case.make_result(volume, lesions=())
  assert result.corona_score_cm3 == 0
  _, _, made = _report(folder, result)
  path = _written(tmp_path, made)
  numbers = measurement_groups.read_measurements(path)
  assert numbers['covid-tf model attention']['CORONA'] == 0
  _require_valid(path)


def test_reports_of_a_real_series_are_valid(tmp_path):
  folder = real_ct.folder('lung-pet-ct-dx-a0002-b40f')
  volume = readers.read_ct(folder)
  result = synthetic_case.make_result(volume)
  _, _, made = _report(folder, result)
  path = _written(tmp_path, made)
  assert len(measurement_groups.read_measurements(path)) == 7
  assert dicom_tools.errors_of(path) == []
