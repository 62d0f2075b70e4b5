"""Headers of slices in the order of their volume, without a pixel."""

import nibabel
import numpy as np
import odd_series
import pytest

from covid_tf import errors
from covid_tf import readers
from covid_tf.readers import elements
from covid_tf.readers import wanted

_INSTANCE_NUMBER = 0x00200013


def _series(folder):
  """Files in the opposite order of their slices."""
  return odd_series.save(odd_series.series()[::-1], folder)


@pytest.mark.parametrize('by_files', (False, True))
def test_elements_that_are_asked_for_in_order_of_the_slices(tmp_path, by_files):
  folder = _series(tmp_path)
  tags = (_INSTANCE_NUMBER,)
  found = (
    readers.read_headers_of_files(folder.iterdir(), tags, name='study')
    if by_files
    else readers.read_headers(folder, tags)
  )
  assert [elements.text(one, _INSTANCE_NUMBER) for one in found.elements] == [
    str(number) for number in range(1, 9)
  ]
  assert all(set(one) == {_INSTANCE_NUMBER} for one in found.elements)
  np.testing.assert_array_equal(found.grid.affine, readers.read_ct(folder).affine)


def test_no_pixel_is_read_and_a_tilt_is_no_fault(tmp_path):
  slices = odd_series.series()
  for index, ds in enumerate(slices):
    ds.ImagePositionPatient = [-8.5, -7.25 + index, 100 + 2.5 * index]
    ds.FrameOfReferenceUID = f'1.2.{index + 1}'
  found = readers.read_headers(odd_series.save(slices, tmp_path), ())
  assert found.grid.tilt_deg == pytest.approx(np.degrees(np.arctan(1 / 2.5)))


def test_an_image_without_headers_is_refused(tmp_path):
  path = tmp_path / 'ct.nii'
  nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), path)
  with pytest.raises(errors.CTReadError, match='a DICOM series is required'):
    readers.read_headers(path, ())
  with pytest.raises(errors.CTReadError, match='study: no CT images among 0'):
    readers.read_headers_of_files((), (), name='study')


def test_one_way_to_choose_is_enough():
  with pytest.raises(errors.UsageError, match='a series UID and a selection rule'):
    readers.read_headers('study', (), '1.2', select='slices=most')
  with pytest.raises(errors.UsageError, match='phase'):
    wanted.Wanted(phase='0')
