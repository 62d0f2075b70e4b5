"""Phantoms on disk: DICOM that other readers take, truth that lines up."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from covid_tf import errors
from covid_tf import readers
from covid_tf.datasets import phantom
from covid_tf.datasets.phantom import written

_CASE = phantom.draw_case(
  phantom.TRAINING_SEED_LIMIT + 3, 'diffuse', matrix=96, slice_spacing_mm=20.0
)


@pytest.fixture(scope='module', name='drawn')
def _drawn():
  return phantom.generate(_CASE)


@pytest.fixture(scope='module', name='folders')
def _folders(drawn, tmp_path_factory):
  root = tmp_path_factory.mktemp('phantom')
  written.write_truth(drawn, root / 'truth')
  written.write_study(drawn, root / 'study')
  return root


def test_our_reader_gives_the_volume_back(drawn, folders):
  volume = readers.read_ct(folders / 'study')
  np.testing.assert_array_equal(volume.hu, drawn.volume.hu)
  np.testing.assert_allclose(volume.affine, drawn.volume.affine, atol=1e-4)
  assert volume.series_uid == written.series_uid(_CASE)
  assert not volume.warnings


def test_simpleitk_gives_the_volume_back(drawn, folders):
  reader = sitk.ImageSeriesReader()
  reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folders / 'study')))
  image = reader.Execute()
  np.testing.assert_array_equal(sitk.GetArrayFromImage(image), drawn.volume.hu)
  np.testing.assert_allclose(image.GetSpacing(), drawn.volume.spacing_mm[::-1])
  np.testing.assert_allclose(
    image.GetOrigin(), drawn.volume.index_to_lps_mm((0, 0, 0)), atol=1e-4
  )


def test_headers_are_a_ct_and_say_phantom(folders):
  files = sorted((folders / 'study').iterdir())
  headers = [pydicom.dcmread(path) for path in files]
  assert {h.SOPClassUID.name for h in headers} == {'CT Image Storage'}
  assert len({h.SOPInstanceUID for h in headers}) == len(files)
  assert {h.RescaleType for h in headers} == {'HU'}
  for header in headers:
    assert header.file_meta.TransferSyntaxUID.name == 'Explicit VR Little Endian'
    assert str(header.PatientName) == f'PHANTOM^{_CASE.seed}'
    assert 'PHANTOM' in header.SeriesDescription
    assert header.QualityControlImage == 'YES'
    assert header.SOPInstanceUID.startswith('2.25.')
    assert header.SOPInstanceUID.is_valid


def test_uids_follow_from_the_case():
  again = phantom.draw_case(_CASE.seed, 'diffuse', matrix=96, slice_spacing_mm=20.0)
  other = phantom.draw_case(_CASE.seed, 'diffuse', matrix=96, slice_spacing_mm=10.0)
  assert written.series_uid(again) == written.series_uid(_CASE)
  assert written.series_uid(other) != written.series_uid(_CASE)
  assert written.study_uid(other) == written.study_uid(_CASE)


def test_truth_is_the_masks_in_numbers(drawn, folders):
  truth = written.read_truth(folders / 'truth')
  voxel = np.prod(drawn.volume.spacing_mm) / 1000
  assert truth.lesion_volume_cm3 == pytest.approx(drawn.lesion_mask.sum() * voxel)
  assert truth.lung_volume_cm3 == pytest.approx(drawn.lung_mask.sum() * voxel)
  assert truth.positive_slices == tuple(
    i for i, plane in enumerate(drawn.lesion_mask) if plane.any()
  )
  assert truth.positive and truth.kind == 'diffuse'
  assert truth.study_uid == readers.read_ct(folders / 'study').study_uid


@pytest.mark.parametrize(
  'name, field',
  (('lung_mask.nii.gz', 'lung_mask'), ('lesion_mask.nii.gz', 'lesion_mask')),
)
def test_masks_line_up_with_the_study_elsewhere(drawn, folders, name, field):
  reader = sitk.ImageSeriesReader()
  reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folders / 'study')))
  ct, mask = reader.Execute(), sitk.ReadImage(str(folders / 'truth' / name))
  np.testing.assert_allclose(mask.GetOrigin(), ct.GetOrigin(), atol=1e-3)
  np.testing.assert_allclose(mask.GetDirection(), ct.GetDirection(), atol=1e-6)
  np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), getattr(drawn, field))
  np.testing.assert_array_equal(
    written.read_mask(folders / 'truth' / name), getattr(drawn, field)
  )


@pytest.mark.parametrize('text', ('', '{}', '{"note": "", "positive_slices": 3}'))
def test_a_damaged_truth_is_refused(tmp_path, text):
  (tmp_path / 'truth.json').write_text(text)
  with pytest.raises(errors.UsageError, match='truth.json: the truth of a phantom'):
    written.read_truth(tmp_path)


def test_a_study_is_replaced_whole(drawn, tmp_path):
  (tmp_path / 'study').mkdir()
  (tmp_path / 'study' / '9999.dcm').write_bytes(b'old')
  written.write_study(drawn, tmp_path / 'study')
  assert len(list((tmp_path / 'study').iterdir())) == drawn.volume.shape[0]
  assert [path.name for path in tmp_path.iterdir()] == ['study']
