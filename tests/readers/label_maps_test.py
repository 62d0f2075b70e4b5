import gzip

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import nibabel as nib
import numpy as np
import pytest
import synthetic_case

from covid_tf import errors
from covid_tf import volume as volume_lib
from covid_tf.readers import label_maps
from covid_tf.storage import maps

_SHAPE = (5, 7, 9)


def _ct(shift_mm=0.0, reverse=()):
  affine = synthetic_case.axial_affine((4.0, 1.5, 1.25), _SHAPE, reverse)
  affine[:3, 3] += shift_mm
  return volume_lib.CTVolume(np.zeros(_SHAPE, np.int16), affine)


def _labels():
  return np.random.default_rng(3).integers(0, 4, _SHAPE).astype(np.uint8)


def _write(path, labels, ct, order=(2, 1, 0), flips=(), unit='mm', **header):
  """Stores labels [slice, row, column] along other axes of a file."""
  affine = maps.ras_affine(ct.affine)[:, [2, 1, 0, 3]]  # (slice, row, column) to RAS.
  stored, turned = labels.transpose(order), affine[:, [*order, 3]]
  for axis in flips:
    turned[:3, 3] += turned[:3, axis] * (stored.shape[axis] - 1)
    turned[:3, axis] *= -1
  image = nib.Nifti1Image(np.flip(stored, flips), turned, dtype=stored.dtype)
  image.header.set_xyzt_units(unit)
  nib.save(image, path)
  return path


@settings(max_examples=40, deadline=None)
@given(
  order=st.permutations(range(3)),
  flips=st.sets(st.integers(0, 2)),
  reverse=st.sets(st.integers(1, 2)),
  packed=st.booleans(),
  shift_mm=st.floats(-900, 900),
)
def test_the_order_of_a_files_axes_does_not_matter(
  tmp_path_factory, order, flips, reverse, packed, shift_mm
):
  path = tmp_path_factory.mktemp('labels') / ('mask.nii' + '.gz' * packed)
  ct, labels = _ct(shift_mm, tuple(reverse)), _labels()
  _write(path, labels, ct, tuple(order), tuple(flips))
  found = label_maps.read_label_map(path, ct)
  assert found.dtype == np.uint16 and found.flags.c_contiguous
  np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.int16, np.uint16])
def test_editors_store_labels_as_other_numbers(tmp_path, dtype):
  path = _write(tmp_path / 'mask.nii.gz', _labels().astype(dtype), _ct())
  np.testing.assert_array_equal(label_maps.read_label_map(path, _ct()), _labels())


def test_our_own_mask_is_read_back(tmp_path):
  volume = synthetic_case.make_volume()
  result = synthetic_case.make_result(volume)
  maps.write_lung_mask(tmp_path / 'lung_mask.nii.gz', result)
  found = label_maps.read_label_map(tmp_path / 'lung_mask.nii.gz', volume)
  np.testing.assert_array_equal(found, result.lung_mask)


@pytest.mark.parametrize(
  'shift_mm, fits', [(0.0005, True), (0.01, False), (4.0, False), (0.4, False)]
)
def test_a_mask_of_another_place_is_refused(tmp_path, shift_mm, fits):
  path = _write(tmp_path / 'mask.nii.gz', _labels(), _ct(shift_mm))
  if fits:
    label_maps.read_label_map(path, _ct())
    return
  with pytest.raises(errors.UsageError, match='mask.nii.gz: .*mm away'):
    label_maps.read_label_map(path, _ct())


def test_another_spacing_or_shape_is_refused(tmp_path):
  ct = _ct()
  wider = ct.affine.copy()
  wider[:3, 2] *= 1.001
  path = _write(tmp_path / 'mask.nii', _labels(), volume_lib.CTVolume(ct.hu, wider))
  with pytest.raises(errors.UsageError, match='mm away'):
    label_maps.read_label_map(path, ct)
  path = _write(tmp_path / 'mask.nii', _labels()[:4], ct)
  with pytest.raises(errors.UsageError, match='5 slices of 7 x 9.*found 9 x 7 x 4'):
    label_maps.read_label_map(path, ct)


@pytest.mark.parametrize(
  'values, words',
  [
    (_labels() * np.float32(0.3), 'from 0 to 0.9 with fractions'),
    (_labels() - np.float32(1), 'numbers from -1 to 2;'),
    (_labels() + np.float32(70000), 'numbers from 70000 to 70003;'),
    (np.full(_SHAPE, np.nan, np.float32), 'NaN'),
    (np.full(_SHAPE, 1j, np.complex64), 'one number a voxel'),
  ],
)
def test_other_numbers_are_refused(tmp_path, values, words):
  path = _write(tmp_path / 'mask.nii', values, _ct())
  with pytest.raises(errors.UsageError, match=words):
    label_maps.read_label_map(path, _ct())


def test_files_that_cannot_be_read_are_refused_in_words(tmp_path):
  path = tmp_path / 'mask.nii.gz'
  with pytest.raises(errors.UsageError, match='mask.nii.gz: .*No such file'):
    label_maps.read_label_map(path, _ct())
  with pytest.raises(errors.UsageError, match='directory'):
    label_maps.read_label_map(tmp_path, _ct())
  path.write_bytes(b'no image at all')
  with pytest.raises(errors.UsageError, match='no readable NIfTI'):
    label_maps.read_label_map(path, _ct())
  _write(path, _labels(), _ct())
  whole = path.read_bytes()
  path.write_bytes(whole[:-12])
  with pytest.raises(errors.UsageError, match='mask.nii.gz: '):
    label_maps.read_label_map(path, _ct())
  changed = bytearray(gzip.decompress(whole))
  path.write_bytes(gzip.compress(bytes(changed))[:-8] + whole[-8:-4] + b'\0' * 4)
  with pytest.raises(errors.UsageError, match='checksum|damaged'):
    label_maps.read_label_map(path, _ct())


def test_labels_in_words():
  assert label_maps.in_words(np.array([0, 1, 1])) == '0, 1'
  assert label_maps.in_words(np.arange(9)) == '0, 1, 2, 3, 4, 5 and 3 more'
