"""A group's own studies and labels: masks, patients, rows, and what is refused."""

import fake_collections as fakes
import numpy as np
import pytest
import SimpleITK as sitk

import covid_tf
from covid_tf import errors
from covid_tf.datasets.collections import own_layout


def _by_series(entries):
  return {entry.series: entry for entry in entries}


def test_own_layout_gives_labels_masks_and_patients(tmp_path):
  entries = _by_series(own_layout.list_studies(fakes.own(tmp_path)))
  assert entries['s0'].patient == entries['s1'].patient == 'own/p1'
  negative, positive = entries['s2'].read(), entries['s3'].read()
  assert negative.labels.tolist() == [0] * 8
  assert positive.labels.tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
  np.testing.assert_array_equal(positive.lung_mask, fakes.lungs())
  np.testing.assert_array_equal(positive.lesion_mask, fakes.lesion())
  np.testing.assert_array_equal(positive.hu, fakes.chest(3))
  assert positive.lung_mask_kind == 'drawn'


def test_a_mask_stored_along_other_axes_is_turned_to_its_ct(tmp_path):
  fakes.own(tmp_path)
  flipped = np.ascontiguousarray(fakes.lesion((1, 2))[::-1, :, ::-1])
  affine = fakes.AFFINE @ np.array(
    [[-1, 0, 0, 39], [0, 1, 0, 0], [0, 0, -1, 7], [0, 0, 0, 1.0]]
  )
  fakes.save(tmp_path / 'lesion_masks' / 's3.nii.gz', flipped, affine)
  read = _by_series(own_layout.list_studies(tmp_path))['s3'].read()
  np.testing.assert_array_equal(read.lesion_mask, fakes.lesion((1, 2)))


@pytest.mark.parametrize('suffix', ['.mha', '.mhd', '.nrrd'])
def test_studies_may_be_metaimage_or_nrrd(tmp_path, suffix):
  fakes.own(tmp_path)
  path = tmp_path / 'studies' / 's3.nii.gz'
  image = covid_tf.read_ct(path).to_sitk()
  path.unlink()
  sitk.WriteImage(image, str(path.parent / f's3{suffix}'))
  read = _by_series(own_layout.list_studies(tmp_path))['s3'].read()
  np.testing.assert_array_equal(read.hu, fakes.chest(3))
  np.testing.assert_array_equal(read.lesion_mask, fakes.lesion())


def test_two_files_of_one_study_are_refused(tmp_path):
  fakes.own(tmp_path)
  (tmp_path / 'studies' / 's0.mha').write_bytes(b'')
  with pytest.raises(errors.UsageError, match='one file or folder of this name'):
    own_layout.list_studies(tmp_path)


def test_rows_of_slices_label_them_and_leave_the_others_open(tmp_path):
  fakes.own(tmp_path, 1)
  (tmp_path / 'labels.csv').write_text(
    'study,patient,slice,label\ns0,p1,2,1\ns0,p1,5,0\n'
  )
  (entry,) = own_layout.list_studies(tmp_path)
  assert entry.read().labels.tolist() == [-1, -1, 1, -1, -1, 0, -1, -1]
  assert entry.case_label == 1


def test_labels_may_come_from_any_spreadsheet(tmp_path):
  fakes.own(tmp_path, 1)
  (tmp_path / 'labels.csv').write_bytes(
    'Study\tPatient\tSlice\tLabel\r\ns0\tp1\t2\tTRUE\r\ns0\tp1\t5\t0.0\r\n'.encode(
      'utf-16'
    )
  )
  (entry,) = own_layout.list_studies(tmp_path)
  assert entry.read().labels.tolist() == [-1, -1, 1, -1, -1, 0, -1, -1]


@pytest.mark.parametrize(
  'row, message',
  [
    ('s9,p9,,1', 'row 8: it names a study that is not in studies'),
    ('s1,p1,,1', 'row 8: it repeats the row of the whole study'),
    ('s1,p1,3,2', "row 8: label must be 0, 1 or blank, found '2'"),
    ('s1,p7,3,1', 'row 8: it gives another patient'),
    ('s1,p1,-3,1', 'row 8: slice must be a whole number'),
    ('s1,,3,1', 'row 8: study and patient must not be blank'),
    ('1.2E+55,p9,,1', 'row 8: study is required as text, found 1.2E.55: a spreadsheet'),
    ('s1,2.5E+12,,1', 'row 8: patient is required as text'),
  ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, row, message):
  table = fakes.own(tmp_path) / 'labels.csv'
  table.write_text(table.read_text() + row + '\n')
  with pytest.raises(errors.UsageError, match=message) as refused:
    own_layout.list_studies(tmp_path)
  assert 'p7' not in str(refused.value) and 'p9' not in str(refused.value)


def test_a_missing_mask_is_refused_before_anything_is_read(tmp_path):
  (fakes.own(tmp_path) / 'lung_masks' / 's2.nii.gz').unlink()
  with pytest.raises(errors.UsageError, match='missing for 1 .first: s2.nii.gz'):
    own_layout.list_studies(tmp_path)


def test_a_study_without_a_row_is_refused(tmp_path):
  fakes.save(fakes.own(tmp_path) / 'studies' / 's9.nii.gz', fakes.chest())
  with pytest.raises(errors.UsageError, match='found none for 1 .*s9.nii.gz'):
    own_layout.list_studies(tmp_path)


@pytest.mark.parametrize(
  'spoil, message',
  [
    (lambda mask: mask[:, :-1], 'shape of its CT'),
    (lambda mask: np.where(mask > 0, np.nan, 0).astype(np.float32), 'found NaN'),
    (lambda mask: mask * 0.5, 'whole numbers'),
  ],
)
def test_masks_that_cannot_be_are_refused(tmp_path, spoil, message):
  path = fakes.own(tmp_path) / 'lesion_masks' / 's3.nii.gz'
  fakes.save(path, spoil(fakes.lesion()))
  with pytest.raises(errors.UsageError, match=message) as refused:
    _by_series(own_layout.list_studies(tmp_path))['s3'].read()
  assert str(path) in str(refused.value)


def test_a_mask_elsewhere_in_the_body_is_refused(tmp_path):
  affine = fakes.AFFINE.copy()
  affine[0, 3] = 60.0
  fakes.save(fakes.own(tmp_path) / 'lesion_masks' / 's3.nii.gz', fakes.lesion(), affine)
  with pytest.raises(errors.UsageError, match='10.0 voxels away'):
    _by_series(own_layout.list_studies(tmp_path))['s3'].read()


def test_lesions_outside_all_lungs_are_refused(tmp_path):
  mask = np.zeros(fakes.SHAPE, np.uint8)
  mask[3, :4, :4] = 1
  fakes.save(fakes.own(tmp_path) / 'lesion_masks' / 's3.nii.gz', mask)
  with pytest.raises(errors.UsageError, match='masks of one study'):
    _by_series(own_layout.list_studies(tmp_path))['s3'].read()


def test_a_label_and_a_lesion_that_disagree_are_refused(tmp_path):
  table = fakes.own(tmp_path) / 'labels.csv'
  table.write_text(table.read_text() + 's3,p3,4,0\n')
  with pytest.raises(errors.UsageError, match='slice 4 of s3.nii.gz has label 0'):
    _by_series(own_layout.list_studies(tmp_path))['s3'].read()
