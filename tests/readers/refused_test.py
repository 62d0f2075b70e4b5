"""Series that are refused: what makes them odd, and what the message must name."""

import copy
import re

import numpy as np
import odd_series
from pydicom import uid
import pytest
import real_ct

from covid_tf import readers

_AXIAL_TILTED = (1, 0, 0, 0, 0.966, 0.2588)


def _moved(index, offset, slices=None):
  slices = slices or odd_series.series()
  position = np.add(slices[index].ImagePositionPatient, offset)
  slices[index].ImagePositionPatient = [float(value) for value in position]
  return slices


# Every slice gets the value; None removes the element.
_BAD_VALUES = (
  ('PixelSpacing', None, 'Pixel Spacing .* missing'),
  ('ImagePositionPatient', None, 'Image Position .* missing'),
  ('ImageOrientationPatient', None, 'Image Orientation .* missing'),
  ('RescaleSlope', None, 'Rescale Slope .* missing'),
  ('RescaleIntercept', None, 'Rescale Intercept .* missing'),
  ('RescaleSlope', '0', 'Rescale Slope must be above 0'),
  ('RescaleSlope', '-1', 'Rescale Slope must be above 0'),
  ('RescaleSlope', 'NaN', "found 'NaN'"),
  ('RescaleIntercept', 'inf', "found 'inf'"),
  ('RescaleIntercept', '1e300', 'gives no Hounsfield units'),
  ('RescaleType', 'OD', "Rescale Type must be HU, found 'OD'"),
  ('RescaleType', 'Z_EFF', "Rescale Type must be HU, found 'Z_EFF'"),
  ('RescaleType', 'HU_MOD', "Rescale Type must be HU, found 'HU_MOD'"),
  ('RescaleType', 'MGML', "Rescale Type must be HU, found 'MGML'"),
  ('PixelSpacing', '0\\0', 'between 0.05 and 5 mm'),
  ('PixelSpacing', '-0.7\\0.7', 'between 0.05 and 5 mm'),
  ('PixelSpacing', 'nan\\nan', '2 finite numbers'),
  ('PixelSpacing', '0,7\\0,7', '2 finite numbers'),
  ('PixelSpacing', '0.7', '2 finite numbers'),
  ('PixelSpacing', '70\\70', 'between 0.05 and 5 mm'),
  ('ImageOrientationPatient', '0\\0\\0\\0\\0\\0', 'perpendicular unit vectors'),
  ('ImageOrientationPatient', '1\\0\\0\\1\\0\\0', 'perpendicular unit vectors'),
  ('ImagePositionPatient', '0\\0\\1e30', 'mm away'),
  ('Modality', 'MR', 'Modality CT'),
  ('SOPClassUID', uid.MRImageStorage, 'not CT|SOP class'),
  ('PhotometricInterpretation', 'PALETTE COLOR', 'colour'),
  ('SamplesPerPixel', 3, 'colour'),
  ('BitsAllocated', 8, '16 bits'),
  ('BitsStored', 8, '16 bits'),
  ('HighBit', 15, 'High Bit'),
  ('PixelRepresentation', 2, 'Pixel Representation'),
  ('Rows', 0, 'rows and columns'),
  ('Rows', 65535, 'rows and columns'),
  ('Rows', 37, 'truncated'),
  ('NumberOfFrames', 3, 'Number of Frames'),
  ('ImageType', 'DERIVED\\SECONDARY\\AXIAL\\MIP', 'projection'),
  ('ImageType', 'ORIGINAL\\PRIMARY\\LOCALIZER', 'localizers'),
)


@pytest.mark.parametrize('keyword, value, message', _BAD_VALUES)
def test_a_value_that_cannot_be_right(tmp_path, keyword, value, message):
  slices = odd_series.series()
  path = odd_series.save(slices, tmp_path)
  for file in path.iterdir():
    odd_series.set_raw(file, keyword, value)
  assert re.search(message, odd_series.refusal(tmp_path))


@pytest.mark.parametrize(
  'lost, message',
  (
    (
      (3,),
      r'1 slice\(s\) missing in 1 gap\(s\).*2\.50 mm apart, but 5\.00 mm '
      r'between z = 105\.00 mm and z = 110\.00 mm',
    ),
    ((2, 3), r'2 slice\(s\) missing in 1 gap\(s\).*7\.50 mm'),
    ((2, 5), r'2 slice\(s\) missing in 2 gap\(s\)'),
  ),
)
def test_missing_slices_are_named_with_place_and_count(tmp_path, lost, message):
  slices = [ds for index, ds in enumerate(odd_series.series()) if index not in lost]
  odd_series.save(slices, tmp_path)
  assert re.search(message, odd_series.refusal(tmp_path))


def test_thick_slices_among_thin_ones(tmp_path):
  slices = odd_series.series()
  for index, ds in enumerate(slices):
    ds.ImagePositionPatient[2] = 2.5 * index + 1.2 * max(0, index - 3)
  odd_series.save(slices, tmp_path)
  assert 'varying slice spacing' in odd_series.refusal(tmp_path)


@pytest.mark.parametrize(
  'share_of_step, expected',
  ((0.009, 'accepted'), (0.0199, 'warned'), (0.03, 'refused')),
)
@pytest.mark.parametrize('index', (3, 7))
def test_rounding_of_positions(tmp_path, share_of_step, expected, index):
  slices = odd_series.series(spacing_mm=(5.0, 0.75, 0.75))
  odd_series.save(_moved(index, (0, 0, 5.0 * share_of_step), slices), tmp_path)
  if expected == 'refused':
    assert f'{5.0 * share_of_step:.3f} mm off' in odd_series.refusal(tmp_path)
  else:
    warnings = readers.read_ct(tmp_path).warnings
    assert bool(warnings) == (expected == 'warned')


def test_rounding_has_a_floor_for_thin_slices(tmp_path):
  slices = odd_series.series(spacing_mm=(0.6, 0.75, 0.75))
  odd_series.save(_moved(3, (0, 0, 0.0095), slices), tmp_path / 'near')
  assert readers.read_ct(tmp_path / 'near').warnings == ()
  slices = odd_series.series(spacing_mm=(0.6, 0.75, 0.75))
  odd_series.save(_moved(3, (0, 0, 0.065), slices), tmp_path / 'far')
  assert 'varying slice spacing' in odd_series.refusal(tmp_path / 'far')


@pytest.mark.parametrize('step', (0.7, 1.25, 2.5, 3.75))
def test_rounded_positions_are_named_as_the_cause(tmp_path, step):
  hu = odd_series.chest_hu((24, 36, 40))
  slices = odd_series.series(hu, spacing_mm=(step, 0.75, 0.75))
  for ds in slices:
    ds.ImagePositionPatient[2] = round(float(ds.ImagePositionPatient[2]))
  odd_series.save(slices, tmp_path)
  text = odd_series.refusal(tmp_path)
  assert 'rounded to 1 mm' in text
  assert 'export the series again with all decimals' in text


def test_two_regions_in_one_series(tmp_path):
  slices = odd_series.series(odd_series.chest_hu((30, 36, 40)))
  odd_series.save(slices[:10] + slices[20:], tmp_path)
  assert 'if two regions were scanned' in odd_series.refusal(tmp_path)


def test_a_slice_shifted_sideways(tmp_path):
  odd_series.save(_moved(4, (3.0, 0, 0)), tmp_path)
  assert 'varying slice spacing' in odd_series.refusal(tmp_path)


def _sheared():
  slices = odd_series.series(orientation=_AXIAL_TILTED)
  for index, ds in enumerate(slices):
    ds.ImagePositionPatient = [-8.5, -7.25, 100 + 2.5 * index]
  return slices


def test_gantry_tilt_is_refused_by_geometry(tmp_path):
  odd_series.save(_sheared(), tmp_path)
  text = odd_series.refusal(tmp_path)
  assert 'gantry tilt' in text and '15.0 degrees' in text


def test_gantry_tilt_is_straightened_when_asked(tmp_path):
  ramp = np.empty(odd_series.SHAPE, np.int16)
  slices = _sheared()
  # HU grow evenly along the patient's y, so the truth is known between voxels.
  for index, ds in enumerate(slices):
    rows = np.arange(odd_series.SHAPE[1])[:, np.newaxis]
    y = ds.ImagePositionPatient[1] + rows * 0.75 * 0.966
    ramp[index] = np.rint(20 * y)
    ds.PixelData = (ramp[index] + 1024).astype('<u2').tobytes()
  odd_series.save(slices, tmp_path)
  volume = readers.read_ct(tmp_path, resample_tilt=True)
  steps = volume.affine[:3, :3]
  assert abs(steps[:, 0] @ steps[:, 1]) < 1e-6
  assert volume.spacing_mm[0] == pytest.approx(2.5 * 0.966, abs=1e-3)
  assert any('straightened' in text for text in volume.warnings)
  inside = np.argwhere(volume.hu > -1000)
  inside = inside[
    (volume.hu[tuple((inside - [0, 1, 0]).T)] > -1000)
    & (inside[:, 1] > 0)
    & (inside[:, 1] < volume.shape[1] - 2)
  ]
  y = volume.index_to_lps_mm(inside)[:, 1]
  error = volume.hu[tuple(inside.T)] - 20 * y
  assert np.median(np.abs(error)) < 1
  assert (np.abs(error) < 2).mean() > 0.9  # The rest are edges against air.


def test_one_slice_and_no_way_to_measure_its_spacing(tmp_path):
  odd_series.save(odd_series.series()[:1], tmp_path)
  assert 'spacing cannot be measured' in odd_series.refusal(tmp_path)


def test_all_slices_at_one_position(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    ds.ImagePositionPatient = [0, 0, 0]
  odd_series.save(slices, tmp_path)
  assert 'one position' in odd_series.refusal(tmp_path)


def test_copies_are_dropped_with_a_warning(tmp_path):
  slices = odd_series.series()
  twins = [copy.deepcopy(ds) for ds in slices[2:4]]
  twins[1].SOPInstanceUID += '.9'
  odd_series.save(slices + twins, tmp_path)
  volume = readers.read_ct(tmp_path)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())
  assert volume.warnings == ('2 identical copies of slices were dropped',)


def test_a_copy_in_another_transfer_syntax_is_a_copy(tmp_path):
  slices = odd_series.series()
  odd_series.save(slices, tmp_path)
  odd_series.save_one(slices[1], tmp_path / 'again', uid.RLELossless)
  assert readers.read_ct(tmp_path).shape == odd_series.SHAPE


def test_phases_in_one_series_are_listed(tmp_path):
  phases = []
  for number in (1, 2):
    for ds in odd_series.series(odd_series.chest_hu(seed=number)):
      ds.AcquisitionNumber = number
      ds.SOPInstanceUID += f'.{number}'
      phases.append(ds)
  odd_series.save(phases, tmp_path)
  assert re.search(
    r'8 of 8 slice positions hold different images.*acquisitions '
    r'1 \(8 slices\), 2 \(8 slices\)',
    odd_series.refusal(tmp_path),
  )


def test_one_image_uid_for_different_images(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    ds.SOPInstanceUID = '1.2.3'
  odd_series.save(slices, tmp_path)
  assert 'SOP Instance UID' in odd_series.refusal(tmp_path)


@pytest.mark.parametrize(
  'orientation, angle',
  (
    ((1, 0, 0, 0, 0, -1), '90'),
    ((0, 1, 0, 0, 0, -1), '90'),
    ((1, 0, 0, 0, 0.8, 0.6), '37'),
  ),
)
def test_series_that_are_not_axial(tmp_path, orientation, angle):
  odd_series.save(odd_series.series(orientation=orientation), tmp_path)
  assert f'not axial: {angle} degrees' in odd_series.refusal(tmp_path)


def test_real_sagittal_and_single_axial_slices():
  data = real_ct.folder('covid-19-ny-sbu')
  assert 'not axial' in odd_series.refusal(data / 'A002304-19010112-134-sagittal')
  assert 'spacing cannot be measured' in odd_series.refusal(
    data / 'A002304-19010112-135-axial'
  )


def test_hounsfield_units_that_16_bits_cannot_hold(tmp_path):
  slices = odd_series.series(bits_stored=16)
  words = np.frombuffer(slices[2].PixelData, '<u2').copy()
  words[7] = 63536  # -2000 in a series that says unsigned and names no padding.
  slices[2].PixelData = words.tobytes()
  odd_series.save(slices, tmp_path)
  assert 'found 62512' in odd_series.refusal(tmp_path)
