import dataclasses

import nibabel as nib
import numpy as np
import pytest
import real_ct
import SimpleITK as sitk
import synthetic_case

from covid_tf import errors
from covid_tf import readers
from covid_tf import results
from covid_tf.storage import maps
from covid_tf.storage import result_json


def _oblique():
  affine = synthetic_case.axial_affine()
  angle = np.deg2rad(12)
  tilt = np.eye(4)
  tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
  return tilt @ affine


_AFFINES = {
  'axial': synthetic_case.axial_affine(),
  'rows and columns reversed': synthetic_case.axial_affine(reverse=(1, 2)),
  'oblique': _oblique(),
}


@pytest.fixture(params=_AFFINES.values(), ids=_AFFINES.keys())
def case(request):
  volume = synthetic_case.make_volume(request.param)
  return volume, synthetic_case.make_result(volume)


def test_each_voxel_lies_where_it_does_in_the_ct(case, tmp_path):
  volume, result = case
  path = tmp_path / 'localization.nii.gz'
  maps.write_localization(path, result)
  image = nib.load(path)
  data = np.asarray(image.dataobj)
  assert data.dtype == np.float32 and data.max() > 0.6
  np.testing.assert_array_equal(data.T, result.localization.to_volume())
  for index in ((0, 0, 0), (20, 30, 50), (33, 83, 127)):
    x, y, z = volume.index_to_lps_mm(index)
    np.testing.assert_allclose(
      image.affine @ (*index[::-1], 1), (-x, -y, z, 1), atol=1e-3
    )


def test_both_transforms_are_set_and_agree(case, tmp_path):
  volume, result = case
  path = tmp_path / 'lung_mask.nii.gz'
  maps.write_lung_mask(path, result, note='demo models')
  image = nib.load(path)
  sform, sform_code = image.get_sform(coded=True)
  qform, qform_code = image.get_qform(coded=True)
  assert sform_code == qform_code == 1
  np.testing.assert_allclose(sform, qform, atol=1e-3)
  assert image.header['descrip'].item() == b'demo models'
  assert image.header.get_zooms() == pytest.approx(volume.spacing_mm[::-1])
  assert image.header.get_xyzt_units()[0] == 'mm'
  np.testing.assert_array_equal(np.asarray(image.dataobj).T, result.lung_mask)
  assert image.get_data_dtype() == np.uint8


def test_another_library_finds_the_same_place(case, tmp_path):
  volume, result = case
  maps.write_lung_mask(tmp_path / 'lung_mask.nii.gz', result)
  image = sitk.ReadImage(str(tmp_path / 'lung_mask.nii.gz'))
  np.testing.assert_array_equal(sitk.GetArrayFromImage(image), result.lung_mask)
  np.testing.assert_allclose(
    image.TransformIndexToPhysicalPoint((100, 40, 20)),
    volume.index_to_lps_mm((20, 40, 100)),
    atol=1e-3,
  )


def test_a_mask_lies_on_the_series_that_it_was_made_of(tmp_path):
  """Another library reads the DICOM files and the NIfTI: one grid, one picture."""
  folder = real_ct.folder('lung-pet-ct-dx-a0002-b40f', 'series')
  names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
  series = sitk.ReadImage(names)
  volume = readers.read_ct(folder)
  soft = (volume.hu > -200).astype(np.uint8)
  result = dataclasses.replace(
    synthetic_case.make_result(synthetic_case.make_volume()),
    lung_mask=soft,
    shape=volume.shape,
    affine=volume.affine,
    spacing_mm=volume.spacing_mm,
  )
  maps.write_lung_mask(tmp_path / 'mask.nii.gz', result)
  image = sitk.ReadImage(str(tmp_path / 'mask.nii.gz'))
  assert image.GetSize() == series.GetSize()
  np.testing.assert_allclose(image.GetOrigin(), series.GetOrigin(), atol=1e-3)
  np.testing.assert_allclose(image.GetSpacing(), series.GetSpacing(), rtol=1e-5)
  np.testing.assert_allclose(image.GetDirection(), series.GetDirection(), atol=1e-5)
  tissue = sitk.GetArrayFromImage(series) > -200
  assert 0.05 < tissue.mean() < 0.95
  np.testing.assert_array_equal(sitk.GetArrayFromImage(image), tissue)


def test_the_same_result_gives_the_same_bytes(tmp_path):
  result = synthetic_case.make_result(synthetic_case.make_volume())
  maps.write_localization(tmp_path / 'a.nii.gz', result)
  maps.write_localization(tmp_path / 'b.nii.gz', result)
  assert (tmp_path / 'a.nii.gz').read_bytes() == (tmp_path / 'b.nii.gz').read_bytes()


def test_a_case_without_a_positive_slice_is_a_map_of_zeros(tmp_path):
  result = synthetic_case.make_result(synthetic_case.make_volume(), lesions=())
  assert result.localization == results.LocalizationMap(
    result.shape, result.lung_box, (), result.localization.maps
  )
  maps.write_localization(tmp_path / 'a.nii.gz', result)
  assert not np.asarray(nib.load(tmp_path / 'a.nii.gz').dataobj).any()


def _nifti_case(folder, affine=None, shape=(34, 84, 128), moved_mm=0.0):
  """A scored study of NIfTI: no UID says which one it is."""
  volume = synthetic_case.make_volume(affine, shape, study_uid='', series_uid='')
  result = synthetic_case.make_result(volume)
  place = volume.affine + np.outer((1, 1, 1, 0), (0, 0, 0, moved_mm))
  volume = dataclasses.replace(volume, affine=place)
  result = dataclasses.replace(result, affine=place)
  maps.write_localization(folder / maps.MAP_NAME, result)
  maps.write_lung_mask(folder / maps.MASK_NAME, result)
  result_json.write_result(folder / result_json.FILE_NAME, result)
  return volume, result_json.read_result(folder)


@pytest.mark.parametrize('affine', _AFFINES.values(), ids=_AFFINES.keys())
def test_maps_are_read_on_the_ct_that_they_were_made_of(affine, tmp_path):
  volume, stored = _nifti_case(tmp_path, affine)
  mask, map_, found = maps.read_maps(tmp_path, stored, volume)
  np.testing.assert_allclose(found, volume.affine, atol=1e-4)
  assert mask.dtype == np.uint8 and map_.slices == stored.positive_slices


@pytest.mark.parametrize(
  'moved',
  [
    np.diag((1.0, 1.0, 1.0, 1.0)) + np.outer((1, 0, 0, 0), (0, 0, 0, 0.01)),
    np.diag((1.0001, 1.0, 1.0, 1.0)),
  ],
  ids=['10 micrometres aside', 'wider'],
)
def test_a_ct_of_nifti_is_known_by_its_place(moved, tmp_path):
  volume, stored = _nifti_case(tmp_path)
  other = dataclasses.replace(volume, affine=moved @ volume.affine)
  with pytest.raises(errors.UsageError, match='in the place .*score the study again'):
    maps.read_maps(tmp_path, stored, other)


def test_all_corners_are_compared(tmp_path):
  """Rows and columns change places: the first voxel and the last one stay."""
  shape = (10, 40, 40)
  affine = synthetic_case.axial_affine((8, 3, 3), shape)
  volume, stored = _nifti_case(tmp_path, affine, shape)
  other = dataclasses.replace(volume, affine=affine[:, [0, 2, 1, 3]])
  with pytest.raises(errors.UsageError, match='in the place'):
    maps.read_maps(tmp_path, stored, other)


def test_far_from_the_origin_float32_may_round(tmp_path):
  volume, stored = _nifti_case(tmp_path, moved_mm=60_000.003)
  maps.read_maps(tmp_path, stored, volume)


def test_a_result_of_another_series_is_refused(tmp_path):
  volume, stored = _nifti_case(tmp_path)
  other = dataclasses.replace(volume, series_uid='1.2.3')
  with pytest.raises(errors.UsageError, match='another series .*without UID'):
    maps.read_maps(tmp_path, stored, other)


def test_a_map_that_is_not_finite_is_refused(tmp_path):
  volume, stored = _nifti_case(tmp_path)
  image = nib.load(tmp_path / maps.MAP_NAME)
  values = np.asarray(image.dataobj).copy()
  values[0, 0, 0] = np.nan
  damaged = nib.Nifti1Image(values, image.affine, image.header)
  nib.save(damaged, tmp_path / maps.MAP_NAME)
  with pytest.raises(errors.UsageError, match='finite values'):
    maps.read_maps(tmp_path, stored, volume)
