"""What slices must share before they are one volume."""

import re

import numpy as np
import odd_series
import pytest

from covid_tf import errors
from covid_tf import readers


@pytest.mark.parametrize(
  'keyword, values, message',
  (
    ('ConvolutionKernel', ('B30f', 'B70f'), r'B30f \(4 slices\), B70f \(4 slices\)'),
    ('SliceThickness', (1.0, 5.0), r'1\.0 \(4 slices\), 5\.0 \(4 slices\)'),
  ),
)
def test_reconstructions_between_each_other(tmp_path, keyword, values, message):
  slices = odd_series.series()
  for index, ds in enumerate(slices):
    setattr(ds, keyword, values[index % 2])
  odd_series.save(slices, tmp_path)
  assert re.search(message, odd_series.refusal(tmp_path))


@pytest.mark.parametrize(
  'keyword, value, message',
  (
    (
      'ImageOrientationPatient',
      [0.995, 0.0998, 0, -0.0998, 0.995, 0],
      'one orientation',
    ),
    ('FrameOfReferenceUID', '1.2.3', 'one frame of reference'),
    ('StudyInstanceUID', '1.2.3', '2 studies'),
    ('PatientID', 'OTHER', 'more than one patient'),
    ('PatientName', 'Other^Person', 'more than one patient'),
    ('PixelSpacing', [0.76, 0.76], 'one pixel spacing'),
    ('Modality', 'PT', 'Modality'),
    ('RescaleSlope', 'x', 'Rescale Slope'),
  ),
)
def test_one_slice_that_differs(tmp_path, keyword, value, message):
  slices = odd_series.series()
  odd_series.save(slices, tmp_path)
  if isinstance(value, str):
    odd_series.set_raw(tmp_path / '0003.dcm', keyword, value)
  else:
    setattr(slices[3], keyword, value)
    odd_series.save_one(slices[3], tmp_path / '0003.dcm')
  assert message in odd_series.refusal(tmp_path)


@pytest.mark.parametrize('keyword', ('PatientID', 'StudyInstanceUID'))
def test_mixed_patients_in_a_chosen_series(tmp_path, keyword):
  slices = odd_series.series()
  setattr(slices[3], keyword, '1.9')
  odd_series.save(slices, tmp_path)
  with pytest.raises(errors.CTReadError, match='is required, the slices'):
    readers.read_ct(tmp_path, odd_series.SERIES_UID)


def test_one_slice_of_another_size(tmp_path):
  slices = odd_series.series()
  small = odd_series.series(odd_series.chest_hu((8, 32, 32)))
  odd_series.save(slices[:3] + small[3:4] + slices[4:], tmp_path)
  assert '36 x 40 (7 slices), 32 x 32 (1 slices)' in odd_series.refusal(tmp_path)


def _concatenated(folder, total):
  """A multi-frame image of eight frames in two files of five and three."""
  slices = odd_series.series()
  for number, frames in ((1, slices[:5]), (2, slices[5:])):
    ds = odd_series.enhanced(frames)
    ds.SOPInstanceUID = f'1.2.9.{number}'
    ds.ConcatenationUID, ds.InConcatenationNumber = '1.2.10', number
    if total:
      ds.InConcatenationTotalNumber = total
    odd_series.save_one(ds, folder / f'{number}.dcm')
  return folder


@pytest.mark.parametrize('total', (2, None))
def test_an_image_in_several_files_is_one(tmp_path, total):
  volume = readers.read_ct(_concatenated(tmp_path, total))
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())


@pytest.mark.parametrize(
  'total, lost, words',
  (
    (2, 2, '1 of 2 files .* missing, the first one number 2'),
    (2, 1, '1 of 2 files .* missing, the first one number 1'),
    (None, 1, '1 of 2 files .* missing, the first one number 1'),
    (3, 1, '2 of 3 files .* missing, the first one number 1'),
  ),
)
def test_files_of_an_image_that_are_missing(tmp_path, total, lost, words):
  (_concatenated(tmp_path, total) / f'{lost}.dcm').unlink()
  with pytest.raises(errors.CTReadError, match=words):
    readers.read_ct(tmp_path)
