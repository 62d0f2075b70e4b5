"""Single slices: real DICOM slices, and arrays written for the test."""

import nibabel
import numpy as np
import odd_series
import pytest
import real_ct

from covid_tf import errors
from covid_tf.datasets import single_slices

_COVID = ('covid-19-ny-sbu', 'A002304-19010112-135-axial', '19010112-135.dcm')


def test_a_real_slice_of_a_covid_patient_is_read_in_hu():
  hu, pixel_mm = single_slices.read_slice(real_ct.folder(*_COVID))
  assert hu.shape == (512, 512) and hu.dtype == np.int16
  assert hu.min() == -1024  # Padding outside the circle is -3024 in the file.
  assert -900 < np.median(hu[200:300, 120:180]) < -300 and 0.6 < pixel_mm < 1.0


def test_a_reformat_that_is_not_axial_is_refused():
  (sagittal,) = real_ct.folder('covid-19-ny-sbu').glob('*-sagittal/*.dcm')
  with pytest.raises(errors.CTReadError, match='not axial'):
    single_slices.read_slice(sagittal)


@pytest.mark.parametrize('intercept', (-1024, 0))
def test_units_that_are_not_stated_are_those_of_the_slice(tmp_path, intercept):
  ds = odd_series.series(odd_series.body_hu())[0]
  ds.RescaleType, ds.RescaleIntercept = 'US', intercept
  path = odd_series.save_one(ds, tmp_path / 'a.dcm')
  if intercept:
    hu, _ = single_slices.read_slice(path)
    np.testing.assert_array_equal(hu, odd_series.body_hu()[0])
  else:
    with pytest.raises(errors.CTReadError, match='a.dcm: Rescale Type must be HU'):
      single_slices.read_slice(path)


def test_a_slice_with_32_bits_allocated_is_read(tmp_path):
  ds = odd_series.series(odd_series.body_hu())[0]
  ds.PixelData = np.frombuffer(ds.PixelData, '<u2').astype('<u4').tobytes()
  ds.BitsAllocated = 32
  hu, _ = single_slices.read_slice(odd_series.save_one(ds, tmp_path / 'a.dcm'))
  np.testing.assert_array_equal(hu, odd_series.body_hu()[0])


def _plane():
  hu = np.full((6, 8), -800, np.int16)
  hu[0, 1] = 50
  return hu


def test_arrays_and_nifti_give_the_same_slice(tmp_path):
  np.save(tmp_path / 'a.npy', _plane())
  image = nibabel.Nifti1Image(
    _plane().T[..., np.newaxis], np.diag((-0.8, -0.8, 5.0, 1.0))
  )
  nibabel.save(image, tmp_path / 'b.nii.gz')
  array, unknown = single_slices.read_slice(tmp_path / 'a.npy')
  nifti, pixel_mm = single_slices.read_slice(tmp_path / 'b.nii.gz')
  np.testing.assert_array_equal(array, _plane())
  np.testing.assert_array_equal(nifti, _plane())
  assert unknown == 0.0 and pixel_mm == pytest.approx(0.8)


@pytest.mark.parametrize(
  'values, message',
  [
    (np.full((6, 8), np.nan), 'NaN'),
    (np.zeros((6, 8)), 'HU of a chest'),
    (np.zeros((2, 6, 8)), 'by row and column'),
  ],
)
def test_arrays_that_are_no_slice_are_refused(tmp_path, values, message):
  np.save(tmp_path / 'a.npy', values)
  with pytest.raises(errors.CTReadError, match=message):
    single_slices.read_slice(tmp_path / 'a.npy')


def test_damaged_files_are_refused(tmp_path):
  for name in ('a.npy', 'a.nii.gz', 'a.dcm'):
    (tmp_path / name).write_bytes(b'nothing of the kind')
    with pytest.raises(errors.CTReadError, match=name):
      single_slices.read_slice(tmp_path / name)


def test_the_table_gives_slices_with_labels_and_patients(tmp_path):
  np.save(tmp_path / 'a.npy', _plane())
  np.save(tmp_path / 'b.npy', _plane())
  table = tmp_path / 'slices.csv'
  table.write_text('file,label,patient\na.npy,1,x\nb.npy,0,\n')
  first, second = single_slices.list_slices(table)
  assert (first.label, first.patient, second.label) == (1, 'x', 0)
  assert second.patient != first.patient


@pytest.mark.parametrize(
  'row, message',
  [
    ('a.npy,1,x', 'row 3: it repeats the file'),
    ('c.npy,1,x', 'row 3: file must name'),
    ('a.npy,,x', 'row 3: label must be 0 or 1'),
  ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, row, message):
  np.save(tmp_path / 'a.npy', _plane())
  table = tmp_path / 'slices.csv'
  table.write_text(f'file,label,patient\na.npy,1,x\n{row}\n')
  with pytest.raises(errors.UsageError, match=message):
    single_slices.list_slices(table)


def test_files_of_the_table_may_stand_in_quotes_or_at_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  np.save(tmp_path / 'a.npy', _plane())
  np.save(tmp_path / 'b.npy', _plane())
  table = tmp_path / 'slices.csv'
  table.write_text('File;Label\n"""a.npy""";yes\n~/b.npy;FALSE\n')
  first, second = single_slices.list_slices(table)
  assert (first.path.name, first.label) == ('a.npy', 1)
  assert (second.path.name, second.label) == ('b.npy', 0)
