"""Arrays and images in memory to a volume and back, and what must be refused."""

import itertools

import hypothesis
from hypothesis import strategies as st
import nibabel
import numpy as np
import odd_series
from PIL import Image
import pydicom
import pytest
import SimpleITK as sitk

import covid_tf
from covid_tf import errors
from covid_tf import readers
from covid_tf.readers import arrays
from covid_tf.storage import maps

_PAIRS = ('LR', 'PA', 'SI')
_LPS = {'L': (1, 0, 0), 'P': (0, 1, 0), 'S': (0, 0, 1)}
_LPS |= {'R': (-1, 0, 0), 'A': (0, -1, 0), 'I': (0, 0, -1)}
_ORIENTATIONS = [
  ''.join(letters)
  for axes in itertools.permutations(_PAIRS)
  for letters in itertools.product(*axes)
]
_SPACING = (2.5, 0.625, 0.75)


def _place(index, spacing_mm, orientation, origin=(0, 0, 0)):
  """LPS millimetres of (slice, row, column), from the words alone."""
  slice_, row, column = (step * mm for step, mm in zip(index, spacing_mm))
  along = [np.multiply(_LPS[letter], 1.0) for letter in orientation]
  return origin + column * along[0] + row * along[1] + slice_ * along[2]


def _array(orientation):
  """A chest whose head end is told by density; sizes 8, 36, 40 along S, P, L."""
  hu = odd_series.chest_hu()
  of_patient = {'S': 0, 'I': 0, 'P': 1, 'A': 1, 'L': 2, 'R': 2}
  column, row, slice_ = (of_patient[letter] for letter in orientation)
  return np.ascontiguousarray(hu.transpose(slice_, row, column))


def _from(hu, **changes):
  arguments = {'spacing_mm': _SPACING, 'orientation': 'LPS'} | changes
  return covid_tf.CTVolume.from_array(hu, **arguments)


def test_there_are_48_orientations():
  assert len(set(_ORIENTATIONS)) == 48


@pytest.mark.parametrize('orientation', _ORIENTATIONS)
def test_every_voxel_keeps_its_place(orientation):
  hu, origin = _array(orientation), (-7.5, 12.25, 300.0)
  volume = _from(hu, orientation=orientation, origin=origin)
  assert volume.shape[0] == 8 and volume.affine[2, 0] > 0
  for index in np.argwhere(hu > -2000)[::1213]:
    place = _place(index, _SPACING, orientation, origin)
    found = volume.lps_mm_to_index(place)
    np.testing.assert_allclose(found, np.rint(found), atol=1e-9)
    assert volume.hu[tuple(np.rint(found).astype(int))] == hu[tuple(index)]


@pytest.mark.parametrize('orientation', _ORIENTATIONS)
def test_maps_lie_on_the_axes_of_the_array(tmp_path, orientation):
  hu = _array(orientation)
  volume = _from(hu, orientation=orientation)
  # As a viewer that loads array and map by index: [i, j, k] is [column, row, slice].
  stored = volume.to_nibabel()
  np.testing.assert_array_equal(np.asarray(stored.dataobj).T, hu)
  assert ''.join(nibabel.aff2axcodes(stored.affine)) == ''.join(orientation)


@pytest.mark.parametrize(
  'orientation', [word for word in _ORIENTATIONS if word[2] in 'SI']
)
def test_axial_arrays_keep_rows_and_columns(orientation):
  hu = _array(orientation)
  volume = _from(hu, orientation=orientation.lower())
  expected = hu if orientation[2] == 'S' else hu[::-1]
  np.testing.assert_array_equal(volume.hu, expected)
  assert volume.spacing_mm == _SPACING


def test_an_array_that_fits_is_shared():
  hu = odd_series.chest_hu()
  assert np.shares_memory(_from(hu).hu, hu)


@hypothesis.given(
  st.sampled_from(_ORIENTATIONS),
  st.tuples(*[st.floats(0.3, 10.0)] * 3),
  st.tuples(*[st.floats(-1000, 1000)] * 3),
)
@hypothesis.settings(max_examples=60)
def test_round_trips_are_exact(orientation, spacing_mm, origin):
  volume = covid_tf.CTVolume.from_array(
    _array(orientation), spacing_mm=spacing_mm, orientation=orientation, origin=origin
  )
  for back in (
    covid_tf.CTVolume.from_sitk(volume.to_sitk()),
    covid_tf.CTVolume.from_nibabel(volume.to_nibabel()),
  ):
    np.testing.assert_array_equal(back.hu, volume.hu)
    np.testing.assert_allclose(back.affine, volume.affine, rtol=0, atol=1e-9)
    assert back.stored_grid.shape == volume.stored_grid.shape
    assert back.warnings == volume.warnings
  image = volume.to_sitk()
  np.testing.assert_array_equal(sitk.GetArrayFromImage(image), _array(orientation))
  # 1e-12: a slice axis that was turned adds its length and takes it away again.
  np.testing.assert_allclose(image.GetSpacing(), spacing_mm[::-1], rtol=1e-12)
  np.testing.assert_allclose(image.GetOrigin(), origin, rtol=0, atol=1e-9)


@hypothesis.given(
  st.tuples(*[st.floats(-13, 13)] * 3), st.tuples(*[st.sampled_from((1, -1))] * 3)
)
@hypothesis.settings(max_examples=30)
def test_oblique_images_and_both_hands(degrees, signs):
  direction = _rotation(degrees) @ np.diag(signs)
  image = sitk.GetImageFromArray(odd_series.chest_hu())
  image.SetSpacing((0.75, 0.625, 2.5))
  image.SetDirection(direction.ravel().tolist())
  image.SetOrigin((1.5, -2.5, 3.5))
  volume = covid_tf.CTVolume.from_sitk(image)
  for index in ((0, 0, 0), (39, 35, 7), (3, 30, 2)):
    place = image.TransformIndexToPhysicalPoint(index)
    found = np.rint(volume.lps_mm_to_index(place)).astype(int)
    assert volume.hu[tuple(found)] == image[index]
  again = volume.to_sitk()
  np.testing.assert_allclose(again.GetDirection(), image.GetDirection(), atol=1e-12)
  np.testing.assert_array_equal(
    sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(image)
  )
  by_hand = _from(odd_series.chest_hu(), orientation=None, direction=direction)
  np.testing.assert_allclose(by_hand.affine[:3, :3], volume.affine[:3, :3], atol=1e-12)


def _rotation(degrees):
  turned = np.eye(3)
  for axis, angle in enumerate(np.radians(degrees)):
    one, other = (number for number in range(3) if number != axis)
    turn = np.eye(3)
    turn[one, one] = turn[other, other] = np.cos(angle)
    turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
    turned = turned @ turn
  return turned


@pytest.mark.parametrize('orientation', ('PLS', 'ARI', 'SLP', 'LPS'))
def test_rows_and_columns_stay_through_files(tmp_path, orientation):
  volume = _from(_array(orientation), orientation=orientation)
  nibabel.save(volume.to_nibabel(), tmp_path / 'ct.nii.gz')
  sitk.WriteImage(volume.to_sitk(), tmp_path / 'ct.nrrd')
  for name in ('ct.nii.gz', 'ct.nrrd'):
    back = readers.read_ct(tmp_path / name)
    np.testing.assert_array_equal(back.hu, volume.hu)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
  from_nifti = readers.read_ct(tmp_path / 'ct.nii.gz')
  again = covid_tf.CTVolume.from_sitk(from_nifti.to_sitk())
  np.testing.assert_array_equal(again.hu, volume.hu)


def test_a_volume_of_dicom_has_columns_rows_and_slices(tmp_path):
  volume = readers.read_ct(odd_series.save(odd_series.series(), tmp_path))
  image = volume.to_sitk()
  np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.hu)
  assert image.GetSpacing() == pytest.approx(volume.spacing_mm[::-1])
  np.testing.assert_allclose(
    volume.to_nibabel().affine, maps.ras_affine(volume.affine), atol=1e-12
  )


def test_voxels_that_were_cut_off_since_leave_the_grid():
  volume = _from(odd_series.chest_hu())
  cut = covid_tf.CTVolume(volume.hu[:6], volume.affine, stored_grid=volume.stored_grid)
  assert cut.to_sitk().GetSize() == (40, 36, 6)


def test_nibabel_images_as_their_files_are_read(tmp_path):
  stored = odd_series.chest_hu().T // 2
  affine = np.diag((-0.7, -0.7, 2.5, 1.0))
  image = nibabel.Nifti1Image(stored.astype(np.int16), affine)
  image.header.set_slope_inter(2, 0)
  image.header.set_xyzt_units('mm')
  nibabel.save(image, tmp_path / 'ct.nii.gz')
  loaded = nibabel.load(tmp_path / 'ct.nii.gz')
  volume = covid_tf.CTVolume.from_nibabel(loaded)
  from_file = readers.read_ct(tmp_path / 'ct.nii.gz')
  np.testing.assert_array_equal(volume.hu, from_file.hu)
  np.testing.assert_array_equal(volume.affine, from_file.affine)


def _nibabel(data=None, affine=None):
  data = odd_series.chest_hu().T if data is None else data
  return nibabel.Nifti1Image(data, np.diag((-0.7, -0.7, 2.5, 1.0)), dtype=data.dtype)


def _moved():
  image = _nibabel()
  image.affine[0, 3] += 7  # In place: nibabel does not see it before it saves.
  return image


@pytest.mark.parametrize(
  'image, words',
  (
    (_moved(), ('differ by 7.0 mm', 'set_sform')),
    (
      nibabel.Nifti1Image(odd_series.chest_hu().T, None),
      ('neither sform nor qform', 'from_array'),
    ),
    (
      _nibabel(np.zeros((20, 20, 8, 3), np.int16)),
      ('image: three axes', '(20, 20, 8, 3) (a time axis', 'give one volume'),
    ),
    (_nibabel(np.zeros((20, 20, 8), np.complex64)), ('one number a voxel',)),
    (_nibabel(np.full((20, 20, 8), np.nan)), ('NaN or infinity',)),
    (_nibabel(np.ones((20, 20, 8), np.uint8)), ('no voxel is air',)),
  ),
)
def test_nibabel_images_that_are_refused(image, words):
  with pytest.raises(errors.CTReadError) as caught:
    covid_tf.CTVolume.from_nibabel(image)
  assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize('kind', ('int32', 'int64', 'uint16', 'float32', 'f8', '>i2'))
def test_other_numbers_are_converted_where_exact(kind):
  hu = np.maximum(odd_series.chest_hu(), 0 if kind == 'uint16' else -1024)
  if kind == 'uint16':  # Without a sign there is no air.
    with pytest.raises(errors.CTReadError, match='no voxel is air'):
      _from(hu.astype(kind))
    return
  volume = _from(hu.astype(kind))
  np.testing.assert_array_equal(volume.hu, hu)
  assert volume.hu.dtype == np.int16 and volume.warnings == ()


def test_padding_below_air_becomes_air_with_a_warning():
  hu = odd_series.chest_hu().astype(np.int32)
  hu[:, :2] = -3024
  volume = _from(hu)
  assert volume.hu.min() == -1024
  assert volume.warnings == ('640 voxels below -1024 HU were set to -1024 HU',)


_HU = odd_series.chest_hu()
_GREY = (np.clip(_HU + 1000, 0, 1500) // 6).astype(np.uint8)  # 0 to 250.


@pytest.mark.parametrize(
  'hu, words',
  (
    (_GREY, ('no Hounsfield units', 'no voxel is air')),
    (_GREY.astype(np.float32), ('no Hounsfield units',)),
    (_HU / 1000, ('whole Hounsfield units', 'np.rint(hu)')),
    (_HU + 0.5, ('whole Hounsfield units', 'slice 0')),
    (_HU.astype(np.int32) + 1024, ('no Hounsfield units',)),
    (_HU.astype(np.int32) + 40000, ('up to 32767',)),
    (np.where(_HU > 0, np.nan, _HU), ('NaN or infinity',)),
    (np.where(_HU > 0, np.inf, _HU), ('NaN or infinity',)),
  ),
)
def test_numbers_that_are_refused(hu, words):
  with pytest.raises(errors.CTReadError) as caught:
    _from(hu)
  assert all(word in str(caught.value) for word in ('hu: ', *words))


class _Tensor:
  """As one of torch on a GPU, or with a gradient."""

  def __array__(self, dtype=None, copy=None):
    raise RuntimeError('its words are its own')


@pytest.mark.parametrize(
  'hu, words',
  (
    (_HU[0], ('hu', 'three axes [slice, row, column]', '2 of sizes (36, 40)')),
    (_HU[np.newaxis], ('three axes', '4 of sizes', 'time axis')),
    (_HU[:0], ('2 slices', '(0, 36, 40)')),
    (_HU[:1], ('2 slices', '(1, 36, 40)')),
    (_HU > 0, ('integers or floating-point', 'bool')),
    (_HU.astype(np.complex64), ('complex64',)),
    (_HU.astype(object), ('object',)),
    (_HU.tolist(), ('an array [slice, row, column]', 'list', 'np.stack(slices)')),
    (Image.fromarray(_HU[0]), ('Image', 'pictures hold no Hounsfield units')),
    (_Tensor(), ('_Tensor', 'RuntimeError', 'hu.detach().cpu().numpy()')),
    (None, ('NoneType',)),
    ('ct.nii.gz', ('str', 'covid_tf.read_ct')),
    (sitk.GetImageFromArray(_HU), ('Image', 'CTVolume.from_sitk')),
    (_nibabel(), ('Nifti1Image', 'CTVolume.from_nibabel')),
    (pydicom.Dataset(), ('Dataset', 'covid_tf.read_ct(folder)')),
    (np.ma.masked_greater(_HU, 0), ('mask', 'filled(-1024)')),
  ),
)
def test_what_is_no_array_of_a_volume(hu, words):
  with pytest.raises(errors.UsageError) as caught:
    _from(hu)
  assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
  'changes, words',
  (
    ({'spacing_mm': (2.5, -0.7, 0.7)}, ('spacing_mm', 'above 0', '-0.7')),
    ({'spacing_mm': (0, 0.7, 0.7)}, ('spacing_mm', 'above 0')),
    ({'spacing_mm': (np.nan, 0.7, 0.7)}, ('spacing_mm', '3 finite numbers')),
    ({'spacing_mm': (0.7, 0.7)}, ('spacing_mm', '(slice, row, column)')),
    ({'spacing_mm': 0.7}, ('spacing_mm', '3 finite numbers', '0.7')),
    ({'spacing_mm': 'fine'}, ('spacing_mm', "'fine'")),
    ({'spacing_mm': None}, ('spacing_mm', 'None')),
    ({'orientation': None}, ('orientation', "'LPS'", 'found neither')),
    ({'orientation': 'LRS'}, ('orientation', 'one of L and R', "'LRS'")),
    ({'orientation': 'LP'}, ('orientation', "'LP'")),
    ({'orientation': 'LPSS'}, ('orientation',)),
    ({'orientation': 'xyz'}, ('orientation', "'xyz'")),
    ({'orientation': ('L', 'P', 'S')}, ('orientation', 'three letters')),
    ({'origin': (1, 2)}, ('origin', '(x, y, z)')),
    ({'origin': (1, 2, np.inf)}, ('origin', 'finite')),
    ({'direction': np.eye(4)}, ('direction', '3 x 3', 'an array of (4, 4).')),
    ({'direction': np.eye(3) * 0.7}, ('direction', 'length 1', 'spacing_mm')),
    ({'direction': np.diag((-1, 1, 1))}, ('contradict', "'LPS'")),
    ({'direction': np.eye(3)[[1, 0, 2]]}, ('contradict', 'one of the two')),
  ),
)
def test_arguments_that_are_refused(changes, words):
  with pytest.raises(errors.UsageError) as caught:
    _from(_HU, **changes)
  assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
  'changes, words',
  (
    ({'spacing_mm': (100, 0.7, 0.7)}, 'spacings between 0.05 and 50 mm'),
    ({'direction': _rotation((40, 0, 0)), 'orientation': None}, 'oblique'),
    (
      {'direction': np.array([(1, 0.1, 0), (0, 0.995, 0), (0, 0, 1)])}
      | {'orientation': None},
      'perpendicular',
    ),
  ),
)
def test_places_that_no_ct_has(changes, words):
  with pytest.raises(errors.CTReadError, match=words):
    _from(_HU, **changes)


def test_directions_that_agree_with_the_letters():
  one = _from(_HU, direction=_rotation((5, -4, 9)))
  other = _from(_HU, direction=_rotation((5, -4, 9)).ravel().tolist(), orientation=None)
  np.testing.assert_array_equal(one.affine, other.affine)
  same = _from(_HU, direction=np.eye(3))
  np.testing.assert_array_equal(same.affine, _from(_HU).affine)


@pytest.mark.parametrize(
  'shape, spacing_mm, words',
  (
    ((512, 512, 60), (5.0, 0.7, 0.7), 'np.moveaxis'),  # Of one order, and the other.
    ((512, 512, 60), (0.7, 0.7, 5.0), 'as many and as far apart'),
    ((512, 60, 512), (0.7, 5.0, 0.7), 'as many and as far apart'),
    ((60, 512, 512), (0.7, 0.7, 5.0), 'longer than any CT'),
  ),
)
def test_axes_in_another_order_than_stated(shape, spacing_mm, words):
  hu = np.broadcast_to(np.int16(-1000), shape)
  with pytest.raises(errors.CTReadError, match=words) as caught:
    _from(hu, spacing_mm=spacing_mm)
  assert '[slice, row, column]' in str(caught.value)


@pytest.mark.parametrize(
  'image, words',
  (
    (_HU, ('ndarray', 'from_array')),
    ('ct.nrrd', ('str', 'read_ct')),
    (_nibabel(), ('from_nibabel',)),
  ),
)
def test_what_is_no_image_of_simpleitk(image, words):
  with pytest.raises(errors.UsageError) as caught:
    covid_tf.CTVolume.from_sitk(image)
  assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
  'image, words',
  (
    (_HU, ('ndarray', 'from_array')),
    (sitk.GetImageFromArray(_HU), ('from_sitk',)),
    (nibabel.MGHImage(_HU.T, np.eye(4)), ('MGHImage', 'from_image')),
    (
      nibabel.AnalyzeImage(_HU.T, np.eye(4)),
      ('does not state the sides', 'from_array'),
    ),
    (nibabel.Spm99AnalyzeImage(_HU.T, np.eye(4)), ('Spm99', 'from_array')),
  ),
)
def test_what_is_no_nifti_image_of_nibabel(image, words):
  with pytest.raises(errors.UsageError) as caught:
    covid_tf.CTVolume.from_nibabel(image)
  assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize('kind', (sitk.sitkLabelUInt8, sitk.sitkComplexFloat32))
def test_images_of_simpleitk_without_one_number_a_voxel(kind):
  pixels = sitk.sitkUInt8 if kind == sitk.sitkLabelUInt8 else sitk.sitkFloat32
  image = sitk.Cast(sitk.Cast(sitk.GetImageFromArray(_HU), pixels), kind)
  with pytest.raises(errors.CTReadError, match='one number a voxel is required'):
    covid_tf.CTVolume.from_sitk(image)  # An array of labels would end the process.


def test_sheared_axes_have_no_image_of_simpleitk():
  affine = np.array([(0, 0, 0.7, 0), (0.3, 0.7, 0, 0), (2.5, 0, 0, 0), (0, 0, 0, 1.0)])
  volume = covid_tf.CTVolume(_HU, affine)
  with pytest.raises(errors.UsageError, match='perpendicular'):
    volume.to_sitk()
  np.testing.assert_allclose(
    volume.to_nibabel().affine, maps.ras_affine(affine), atol=1e-12
  )


def test_what_analyze_takes(tmp_path):
  volume = _from(_HU)
  nibabel.save(volume.to_nibabel(), tmp_path / 'ct.nii')
  for given in (
    volume,
    tmp_path / 'ct.nii',
    str(tmp_path / 'ct.nii'),
    volume.to_sitk(),
    volume.to_nibabel(),
  ):
    np.testing.assert_array_equal(arrays.as_volume(given).hu, _HU)


def test_a_volume_says_in_a_line_what_it_is():
  text = repr(_from(_HU))
  assert '8 slices of 36 x 40' in text and '2.5 x 0.625 x 0.75 mm' in text
  assert len(text) < 150
