import shutil

import numpy as np
import pytest
import scored_studies
import synthetic_case

from covid_tf import errors
from covid_tf.cohort.follow_up import course
from covid_tf.cohort.follow_up import ct_files
from covid_tf.readers import nifti
from covid_tf.storage import result_json

_SMALL = (((-85, 45, -70), (20, 18, 26)),)
_NO_UID = {'series_uid': '', 'study_uid': ''}


def _point(folder):
  return course.TimePoint(result_json.read_result(folder), folder, None)


def _dicom(tmp_path, uid='1.2.3.10', **more):
  return scored_studies.write_study(
    tmp_path / 'results' / uid,
    ct=tmp_path / 'ct' / 'deep' / uid,
    series_uid=uid,
    **scored_studies.CT_GRID,
    **more,
  )


def _nifti(tmp_path, name, **more):
  return scored_studies.write_study(
    tmp_path / 'results' / name, ct=tmp_path / 'ct' / f'{name}.nii', **_NO_UID, **more
  )


def test_dicom_is_found_by_its_series_at_any_depth(tmp_path):
  folders = [_dicom(tmp_path, '1.2.3.10'), _dicom(tmp_path, '1.2.3.11', lesions=_SMALL)]
  studies = ct_files.find(tmp_path / 'ct')
  assert set(studies.by_series) == {'1.2.3.10', '1.2.3.11'}
  for folder in folders:
    scored = studies.read(_point(folder))
    assert scored.ct.series_uid == folder.name and not scored.warning
    assert scored.ct.shape == scored.lung_mask.shape == (17, 50, 76)


def test_a_copy_in_a_second_place_is_the_same_study(tmp_path):
  folder = _dicom(tmp_path)
  shutil.copytree(tmp_path / 'ct', tmp_path / 'ct' / 'copy')
  assert ct_files.find(tmp_path / 'ct').read(_point(folder)).ct.series_uid == '1.2.3.10'


def test_a_study_that_is_gone_is_refused_by_the_name_of_its_result(tmp_path):
  _dicom(tmp_path, '1.2.3.11')
  gone = _dicom(tmp_path, '1.2.3.10')
  shutil.rmtree(tmp_path / 'ct' / 'deep' / '1.2.3.10')
  with pytest.raises(errors.UsageError) as raised:
    ct_files.find(tmp_path / 'ct').require(_point(gone))
  text = str(raised.value)
  assert text.startswith(f'{gone}: ') and 'no image of its series 1.2.3.10' in text
  assert 'leave --studies out' in text


def test_other_voxels_of_the_series_are_refused(tmp_path):
  folder = _dicom(tmp_path)
  shutil.rmtree(tmp_path / 'ct')
  _dicom(tmp_path / 'again', lesions=_SMALL)
  with pytest.raises(errors.UsageError, match='other voxels than were scored'):
    ct_files.find(tmp_path / 'again').read(_point(folder))


def test_a_map_of_another_grid_is_refused(tmp_path):
  folder = _dicom(tmp_path)
  other = scored_studies.write_study(tmp_path / 'other', shape=(17, 42, 66))
  for name in ('localization.nii.gz', 'lung_mask.nii.gz'):
    shutil.copy(other / name, folder / name)
  with pytest.raises(errors.UsageError, match='the grid of result.json is required'):
    ct_files.find(tmp_path / 'ct').read(_point(folder))


def test_a_result_without_its_maps_is_refused(tmp_path):
  folder = _dicom(tmp_path, maps=False)
  with pytest.raises(errors.UsageError, match='lung_mask.nii.gz and localization'):
    ct_files.find(tmp_path / 'ct').require(_point(folder))


def test_nifti_is_found_by_the_digest_of_its_voxels(tmp_path):
  folders = [_nifti(tmp_path, 'a'), _nifti(tmp_path, 'b', lesions=_SMALL)]
  # Results may lie under the folder too; their maps are no studies.
  studies = ct_files.find(tmp_path)
  assert {path.name for path in studies.images} == {'a.nii', 'b.nii'}
  for folder in folders:
    scored = studies.read(_point(folder))
    expected = nifti.read(tmp_path / 'ct' / f'{folder.name}.nii')
    np.testing.assert_array_equal(scored.ct.hu, expected.hu)
    assert not scored.warning


def test_metaimage_is_found_too(tmp_path):
  simple_itk = pytest.importorskip('SimpleITK')
  folder = _nifti(tmp_path, 'a')
  path = tmp_path / 'ct' / 'a.nii'
  simple_itk.WriteImage(simple_itk.ReadImage(str(path)), str(tmp_path / 'ct' / 'a.mha'))
  path.unlink()
  scored = ct_files.find(tmp_path / 'ct').read(_point(folder))
  assert scored.ct.shape == scored_studies.SHAPE


def test_without_a_digest_one_nifti_on_the_grid_is_taken_and_told(tmp_path):
  folder = _nifti(tmp_path, 'a', changes={'hu_sha256': None})
  _nifti(tmp_path, 'elsewhere', shift_mm=(0, 0, 50))
  scored = ct_files.find(tmp_path / 'ct').read(_point(folder))
  assert 'found by its grid alone' in scored.warning


def test_without_a_digest_two_niftis_on_the_grid_are_refused(tmp_path):
  folder = _nifti(tmp_path, 'a', changes={'hu_sha256': None})
  _nifti(tmp_path, 'b', lesions=_SMALL)
  with pytest.raises(errors.UsageError, match='several different image files'):
    ct_files.find(tmp_path / 'ct').read(_point(folder))


def test_a_nifti_that_is_gone_is_refused(tmp_path):
  folder = _nifti(tmp_path, 'a')
  _nifti(tmp_path, 'b', lesions=_SMALL)
  (tmp_path / 'ct' / 'a.nii').unlink()
  with pytest.raises(errors.UsageError, match=r'none of 1 image file\(s\)'):
    ct_files.find(tmp_path / 'ct').read(_point(folder))
  (tmp_path / 'ct' / 'b.nii').unlink()
  with pytest.raises(errors.UsageError, match='no image file'):
    ct_files.find(tmp_path / 'ct').read(_point(folder))


def test_a_folder_is_required(tmp_path):
  path = synthetic_case.write_nifti(tmp_path / 'a.nii', synthetic_case.make_volume())
  with pytest.raises(errors.UsageError, match=r'\(--studies\), found a file'):
    ct_files.find(path)
  with pytest.raises(errors.UsageError, match=r'\(--studies\), found nothing'):
    ct_files.find(tmp_path / 'absent')
