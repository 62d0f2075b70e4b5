"""Objects of whole studies: valid, on the CT's own voxels, with the score of it.

That they lie where the CT does is read by dcmqi, that they are valid by dciodvfy.
"""

import dataclasses

import dicom_series
import dicom_tools
from highdicom.pm import sop
import numpy as np
import pydicom
from pydicom import uid
import pytest
import real_ct
import synthetic_case

from covid_tf import errors
from covid_tf import readers
from covid_tf import volume as volume_lib
from covid_tf.storage.dicom import objects
from covid_tf.storage.dicom import source as source_lib

_SHAPE, _SPACING_MM = (11, 50, 80), (25.0, 4.8, 4.4)
# Beyond that, a voxel would be drawn beside its place.
_SAME_MM = 0.05
_PICTURE = objects.KeyPicture(
  np.zeros((8, 8, 3), np.uint8), 'slices', 'Two slices.', slices=(2, 5)
)


def _affine(reverse=(), prone=False, oblique_deg=0.0):
  affine = synthetic_case.axial_affine(_SPACING_MM, _SHAPE, reverse)
  if prone:  # Rows to the front and columns to the right, as scanners write it.
    affine = np.diag((-1.0, -1.0, 1.0, 1.0)) @ affine
  if oblique_deg:
    angle = np.radians(oblique_deg)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ affine
  return affine


_PLACES = {
  'head first': _affine(),
  'feet first': _affine(reverse=(0, 2)),
  'prone': _affine(prone=True),
  'mirrored columns': _affine(reverse=(2,)),
  'mirrored rows': _affine(reverse=(1,)),
  'oblique': _affine(oblique_deg=11.0),
  'oblique, mirrored': _affine(reverse=(1, 2), oblique_deg=-7.0),
}


def _written(folder, affine, change=None, lesions=synthetic_case.LESIONS, **options):
  """(volume, result, folder of the objects) of a phantom written as DICOM."""
  made = synthetic_case.make_volume(affine, _SHAPE, lesions)
  study = dicom_series.write(folder / 'study', made, change)
  return _of_study(folder, study, lesions, **options)


def _of_study(folder, study, lesions=synthetic_case.LESIONS, **options):
  volume = readers.read_ct(study)
  result = synthetic_case.make_result(volume, lesions)
  source = objects.read_source_of(study, volume)
  objects.write_objects(folder, result, source, **options)
  return volume, result, folder / objects.FOLDER


def _points_mm(volume, every=1):
  index = np.stack(np.indices(volume.shape), axis=-1)[:, ::every, ::every]
  return volume.index_to_lps_mm(index)


def _require_same_voxels(volume, result, written, folder, every=1):
  """By dcmqi and highdicom: values and places of both objects are the result's."""
  points = _points_mm(volume, every)
  (lungs, affine), (attention, other) = dicom_tools.segments(
    written / 'segmentation.dcm', folder / 'segments'
  )
  lungs = _values(lungs, affine, points)
  expected = result.lung_mask[:, ::every, ::every]
  np.testing.assert_array_equal(lungs > 0, expected > 0)
  attention = _values(attention, other, points)
  expected = result.localization.to_volume()[:, ::every, ::every]
  np.testing.assert_array_equal(attention > 0, expected > result.thresholds.map)
  map_ = _values(*_read_map(written / 'parametric_map.dcm'), points)
  np.testing.assert_allclose(map_, expected, atol=1e-5)
  return lungs > 0, attention > 0, map_


def _values(stored, affine, points):
  values, off_mm = dicom_tools.values_at(stored, affine, points)
  assert off_mm < _SAME_MM
  return values


def _read_map(path):
  """The map as highdicom places it: dcmqi reads no integers of a parametric map."""
  found = sop.pmread(path).get_volume(apply_real_world_transform=True)
  return found.array, found.affine


@pytest.mark.parametrize('place', _PLACES)
def test_voxels_lie_where_those_of_the_ct_do(tmp_path, place):
  volume, result, written = _written(tmp_path, _PLACES[place])
  lungs, counted, map_ = _require_same_voxels(volume, result, written, tmp_path)
  # And the score is that of the result, from the objects alone.
  cm3 = volume.voxel_volume_mm3 / 1000
  assert map_[counted].sum() * cm3 == pytest.approx(result.corona_score_cm3, rel=1e-3)
  assert map_[counted & lungs].sum() * cm3 == pytest.approx(
    result.corona_score_in_lung_cm3, rel=1e-3
  )
  assert lungs.sum() * cm3 == pytest.approx(result.lung_volume_cm3, rel=1e-3)


@pytest.mark.parametrize('place', _PLACES)
def test_exact_maps_lie_there_too(tmp_path, place):
  volume, result, written = _written(tmp_path, _PLACES[place], map_form='float32')
  stored, affine = dicom_tools.parametric_map(
    written / 'parametric_map.dcm', tmp_path / 'map'
  )
  np.testing.assert_array_equal(
    _values(stored, affine, _points_mm(volume)), result.localization.to_volume()
  )


@pytest.mark.parametrize('place', _PLACES)
def test_objects_are_valid_wherever_the_slices_lie(tmp_path, place):
  _, _, written = _written(tmp_path, _PLACES[place])
  for path in written.iterdir():
    assert dicom_tools.errors_of(path) == []


def _strip(_, dataset):
  for keyword in (
    'StudyID AccessionNumber PatientBirthDate PatientSex StudyDate StudyTime PatientID '
    'PatientName ReferringPhysicianName InstanceNumber Manufacturer AcquisitionDate '
    'AcquisitionTime SeriesNumber'
  ).split():
    delattr(dataset, keyword)


def _spoil(_, dataset):
  dataset.SpecificCharacterSet = ['', 'ISO 2022 IR 87']
  dataset.PatientName = 'Yamada^Tarou=山田^太郎=やまだ^たろう'
  for keyword, vr, value in (
    ('StudyDate', 'DA', '2020.13.45'),
    ('StudyTime', 'TM', 'noon'),
    ('AccessionNumber', 'SH', 'A' * 40),
    ('PatientID', 'LO', 'P' * 90),
    ('PatientSex', 'CS', 'female'),
    ('Manufacturer', 'LO', 'M' * 90),
  ):
    tag = pydicom.datadict.tag_for_keyword(keyword)
    mode = pydicom.config.IGNORE
    dataset[tag] = pydicom.DataElement(tag, vr, value, validation_mode=mode)


@pytest.mark.parametrize('change', [_strip, _spoil])
@pytest.mark.parametrize('map_form', objects.MAP_FORMS)
def test_objects_of_poor_headers_are_valid(tmp_path, change, map_form):
  _, _, written = _written(tmp_path, _affine(), change, map_form=map_form)
  for path in written.iterdir():
    assert dicom_tools.errors_of(path) == []


def test_a_study_with_nothing_counted_has_both_segments_and_all_frames(tmp_path):
  volume, result, written = _written(tmp_path, _affine(), lesions=())
  assert result.corona_score_cm3 == 0
  made = pydicom.dcmread(written / 'segmentation.dcm')
  assert len(made.SegmentSequence) == 2 and made.NumberOfFrames == 2 * _SHAPE[0]
  assert not made.pixel_array[_SHAPE[0] :].any()
  for path in written.iterdir():
    assert dicom_tools.errors_of(path) == []


@pytest.mark.parametrize(
  'series', ['cip-ct64/series', 'lung-pet-ct-dx-a0002-b40f/series']
)
def test_objects_of_real_ct_are_valid_and_in_place(tmp_path, series):
  volume, result, written = _of_study(tmp_path, real_ct.folder(series))
  for path in written.iterdir():
    assert dicom_tools.errors_of(path) == []
  every = 1 + volume.shape[1] // 128
  _require_same_voxels(volume, result, written, tmp_path, every)


def test_exporting_twice_gives_identical_bytes(tmp_path):
  _, _, first = _written(tmp_path / 'a', _affine())
  _, _, second = _written(tmp_path / 'b', _affine())
  names = sorted(path.name for path in first.iterdir())
  assert names == sorted(path.name for path in second.iterdir())
  for name in names:
    assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_every_object_is_a_series_of_its_own_in_the_study_of_the_source(tmp_path):
  _, _, written = _written(tmp_path, _affine())
  made = [
    pydicom.dcmread(path, stop_before_pixels=True)
    for path in written.iterdir()
    if not path.name.startswith('picture')
  ]
  assert {one.StudyInstanceUID for one in made} == {dicom_series.STUDY_UID}
  for keyword in ('SeriesInstanceUID', 'SOPInstanceUID', 'SeriesNumber'):
    assert len({one[keyword].value for one in made}) == len(made)
  for one in made:
    assert str(one.PatientName) == dicom_series.PATIENT_NAME
    assert not any(element.tag.is_private for element in one.iterall())
    text = str(one)
    assert str(tmp_path) not in text


def test_a_result_of_another_series_is_refused(tmp_path):
  volume, result, _ = _written(tmp_path, _affine())
  source = source_lib.read_source(tmp_path / 'study')
  other = dataclasses.replace(result, series_uid='1.2.3')
  with pytest.raises(errors.UsageError, match='series of the result is required'):
    objects.write_objects(tmp_path, other, source)
  moved = volume.affine.copy()
  moved[0, 3] += 0.01
  other = dataclasses.replace(result, affine=moved)
  with pytest.raises(errors.UsageError, match='grid of the result is required'):
    objects.write_objects(tmp_path, other, source)


@pytest.mark.parametrize('place', ['head first', 'feet first', 'oblique, mirrored'])
@pytest.mark.parametrize('file_count', [1, 3])
def test_objects_of_enhanced_ct_are_valid_and_in_place(tmp_path, place, file_count):
  made = synthetic_case.make_volume(_PLACES[place], _SHAPE, synthetic_case.LESIONS)
  study = dicom_series.write_enhanced(tmp_path / 'study', made, file_count)
  volume, result, written = _of_study(tmp_path, study, pictures=[_PICTURE])
  for path in written.iterdir():
    assert dicom_tools.errors_of(path) == []
  _require_same_voxels(volume, result, written, tmp_path)


def _places_of_references(made, files):
  """Image Position of each frame of an object, and of the frame it refers to."""
  for groups in made.PerFrameFunctionalGroupsSequence:
    (item,) = groups.DerivationImageSequence[0].SourceImageSequence
    file = files[item.ReferencedSOPInstanceUID]
    assert item.ReferencedSOPClassUID == file.SOPClassUID
    (own,) = groups.PlanePositionSequence
    number = item.ReferencedFrameNumber - 1
    (source,) = file.PerFrameFunctionalGroupsSequence[number].PlanePositionSequence
    yield own.ImagePositionPatient, source.ImagePositionPatient


@pytest.mark.parametrize('file_count', [1, 3])
def test_objects_refer_to_the_frames_that_they_show(tmp_path, file_count):
  made = synthetic_case.make_volume(_affine(), _SHAPE, synthetic_case.LESIONS)
  study = dicom_series.write_enhanced(tmp_path / 'study', made, file_count)
  files = [pydicom.dcmread(path) for path in study.iterdir()]
  files = {file.SOPInstanceUID: file for file in files}
  _, _, written = _of_study(tmp_path, study, pictures=[_PICTURE])
  for name in ('segmentation', 'parametric_map'):
    found = pydicom.dcmread(written / f'{name}.dcm')
    for own, source in _places_of_references(found, files):
      np.testing.assert_allclose(own, source, atol=1e-4)
    (series,) = found.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == dicom_series.SERIES_UID
    for items in (series.ReferencedInstanceSequence, found.SourceImageSequence):
      assert {item.ReferencedSOPInstanceUID for item in items} == set(files)
      assert len(items) == file_count
      assert not any('ReferencedFrameNumber' in item for item in items)
  report = pydicom.dcmread(written / 'report.dcm')
  (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
  listed = {
    item.ReferencedSOPInstanceUID
    for series in evidence.ReferencedSeriesSequence
    for item in series.ReferencedSOPSequence
  }
  assert set(files) < listed and len(listed) == file_count + 2
  picture = pydicom.dcmread(written / 'picture_01.dcm')
  shown = [
    files[item.ReferencedSOPInstanceUID].PerFrameFunctionalGroupsSequence[number - 1]
    for item in picture.SourceImageSequence
    for number in np.atleast_1d(item.ReferencedFrameNumber)
  ]
  expected = {tuple(made.index_to_lps_mm((at, 0, 0)).round(3)) for at in (2, 5)}
  assert expected == {
    tuple(np.round(groups.PlanePositionSequence[0].ImagePositionPatient, 3))
    for groups in shown
  }


def test_frames_of_a_part_of_a_file_are_named(tmp_path):
  made = synthetic_case.make_volume(_affine(), _SHAPE, synthetic_case.LESIONS)
  study = dicom_series.write_enhanced(tmp_path / 'study', made)
  source = source_lib.read_source(study)
  (whole,) = source.references()
  assert 'ReferencedFrameNumber' not in whole
  (part,) = source.references([0, 3])  # Frames run backwards.
  assert list(part.ReferencedFrameNumber) == [_SHAPE[0] - 3, _SHAPE[0]]
  assert part.ReferencedSOPClassUID == uid.EnhancedCTImageStorage


def test_a_missing_extra_is_named(monkeypatch):
  monkeypatch.setattr(objects.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.UsageError, match=r"extra 'clinic' is required"):
    objects.require_extra()


@pytest.mark.parametrize('transposed', [False, True])
@pytest.mark.parametrize('flipped', [(False, False), (True, False), (False, True)])
def test_planes_of_nifti_are_turned_onto_the_series(tmp_path, transposed, flipped):
  volume, result, _ = _written(tmp_path, _affine())
  source = source_lib.read_source(tmp_path / 'study')
  turn = objects.Turn(transposed, flipped)
  affine = volume.affine.copy()
  for axis, is_so in zip((1, 2), flipped):
    if is_so:
      affine[:3, 3] += affine[:3, axis] * (volume.shape[axis] - 1)
      affine[:3, axis] *= -1
  if transposed:
    affine = affine[:, [0, 2, 1, 3]]
  hu = np.ascontiguousarray(turn.to_result(volume.hu))
  as_nifti = volume_lib.CTVolume(hu, affine)
  assert objects.turn_onto(affine, hu.shape, source) == turn
  found = objects.turned(synthetic_case.make_result(as_nifti), turn, source)
  np.testing.assert_array_equal(found.lung_mask, result.lung_mask)
  np.testing.assert_allclose(
    found.localization.to_volume(), result.localization.to_volume(), atol=1e-6
  )
  assert found.lung_box == result.lung_box
  affine[0, 3] += 0.1
  assert objects.turn_onto(affine, hu.shape, source) is None
