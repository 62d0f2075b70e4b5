"""Series that are read exactly, compared with what was written and SimpleITK."""

import numpy as np
import odd_series
import pydicom
from pydicom import uid
import pytest
import real_ct
import reference_reader

from covid_tf import readers

SYNTAXES = (
  uid.ImplicitVRLittleEndian,
  uid.ExplicitVRLittleEndian,
  uid.ExplicitVRBigEndian,
  uid.DeflatedExplicitVRLittleEndian,
  uid.RLELossless,
  uid.JPEGLossless,
  uid.JPEGLosslessSV1,
  uid.JPEGLSLossless,
  uid.JPEG2000Lossless,
)


@pytest.mark.parametrize(
  'folder',
  ('lung-pet-ct-dx-a0002-b40f/series', 'cip-ct64/series', 'lungmask-2slices/series'),
)
def test_real_series_equal_simpleitk(folder):
  volume = readers.read_ct(real_ct.folder(folder))
  hu, affine = reference_reader.read_series(real_ct.folder(folder))
  np.testing.assert_array_equal(volume.hu, np.maximum(hu, -1024))
  np.testing.assert_allclose(volume.affine, affine, atol=1e-9)


@pytest.mark.parametrize('syntax', SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(
  'signed, bits_stored, intercept',
  (
    (False, 12, -1024),
    (False, 16, -1024),
    (True, 12, 0),
    (True, 13, -1024),
    (True, 16, 0),
  ),
)
def test_every_transfer_syntax_is_exact(
  tmp_path, syntax, signed, bits_stored, intercept
):
  hu = odd_series.chest_hu()
  odd_series.save(
    odd_series.series(hu, signed=signed, bits_stored=bits_stored, intercept=intercept),
    tmp_path,
    syntax,
  )
  volume = readers.read_ct(tmp_path)
  np.testing.assert_array_equal(volume.hu, hu)
  assert volume.warnings == ()


@pytest.mark.parametrize(
  'orientation',
  (
    (1, 0, 0, 0, 1, 0),  # Head first, supine.
    (-1, 0, 0, 0, -1, 0),  # Prone.
    (-1, 0, 0, 0, 1, 0),  # Feet first: the normal points to the feet.
    (1, 0, 0, 0, -1, 0),
    (0, 1, 0, -1, 0, 0),  # On the side.
    (0.96, 0.28, 0, -0.28, 0.96, 0),  # Oblique in the plane.
    (1, 0, 0, 0, 0.96, 0.28),  # Tilted as a whole, 16 degrees; no shear.
  ),
  ids=str,
)
def test_orientations_equal_simpleitk(tmp_path, orientation):
  slices = odd_series.series(orientation=orientation)
  odd_series.save(slices[3:] + slices[:3], tmp_path)
  volume = readers.read_ct(tmp_path)
  hu, affine = reference_reader.read_series(tmp_path)
  np.testing.assert_array_equal(volume.hu, hu)
  np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
  np.testing.assert_allclose(volume.spacing_mm, odd_series.SPACING_MM, atol=1e-5)


def test_left_and_right_are_kept(tmp_path):
  hu = np.full(odd_series.SHAPE, -800, np.int16)
  hu[:, :, :5] = 1000  # A bone at low column index.
  odd_series.save(odd_series.series(hu, orientation=(-1, 0, 0, 0, -1, 0)), tmp_path)
  volume = readers.read_ct(tmp_path)
  bone = volume.index_to_lps_mm(np.argwhere(volume.hu > 500)).mean(axis=0)
  other = volume.index_to_lps_mm(np.argwhere(volume.hu < 500)).mean(axis=0)
  assert bone[0] > other[0]  # LPS: larger x is the patient's left.


@pytest.mark.parametrize('order', ('reversed', 'shuffled'))
def test_order_of_files_and_instance_numbers_do_not_count(tmp_path, order):
  slices = odd_series.series()
  mixed = slices[::-1] if order == 'reversed' else slices[1::2] + slices[::2]
  for number, ds in enumerate(mixed):
    ds.InstanceNumber = number + 7
  odd_series.save(mixed, tmp_path)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


@pytest.mark.parametrize(
  'keyword',
  (
    'InstanceNumber',
    'SliceThickness',
    'FrameOfReferenceUID',
    'PatientID',
    'PatientName',
    'StudyInstanceUID',
    'SeriesInstanceUID',
    'SOPInstanceUID',
    'AcquisitionNumber',
    'AcquisitionDate',
    'ConvolutionKernel',
    'ImageType',
    'HighBit',
    'SamplesPerPixel',
    'PhotometricInterpretation',
    'PatientBirthDate',
  ),
)
def test_what_is_not_needed_may_be_missing(tmp_path, keyword):
  slices = odd_series.series()
  for ds in slices:
    del ds[keyword]
  odd_series.save(slices, tmp_path)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


def test_each_slice_has_its_own_rescale(tmp_path):
  hu = odd_series.chest_hu()
  slices = []
  for index in range(len(hu)):
    slices.append(
      odd_series.series(
        hu, bits_stored=16, slope=1 + index % 3, intercept=-1024 - 10 * index
      )[index]
    )
  odd_series.save(slices, tmp_path)
  hu_read, expected = (
    readers.read_ct(tmp_path).hu,
    reference_reader.read_series(tmp_path)[0],
  )
  np.testing.assert_array_equal(hu_read, np.maximum(expected, -1024))
  assert np.abs(hu_read - np.maximum(hu, -1024)).max() <= 1.5  # Slope 3 rounds.


def test_fractional_slope_rounds_to_the_nearest_hu(tmp_path):
  slices = odd_series.series(slope=0.7, intercept=-1100.4, bits_stored=16)
  odd_series.save(slices, tmp_path)
  stored = np.stack([ds.pixel_array for ds in slices]).astype(np.float64)
  np.testing.assert_array_equal(
    readers.read_ct(tmp_path).hu, np.maximum(np.rint(stored * 0.7 - 1100.4), -1024)
  )


def test_non_square_pixels(tmp_path):
  odd_series.save(odd_series.series(spacing_mm=(1.5, 0.5, 0.8)), tmp_path)
  volume = readers.read_ct(tmp_path)
  np.testing.assert_allclose(volume.spacing_mm, (1.5, 0.5, 0.8))
  assert volume.voxel_volume_mm3 == pytest.approx(0.6)
  np.testing.assert_allclose(
    volume.affine, reference_reader.read_series(tmp_path)[1], atol=1e-6
  )


def test_two_slices_are_enough(tmp_path):
  odd_series.save(odd_series.series()[:2], tmp_path)
  volume = readers.read_ct(tmp_path)
  assert volume.shape[0] == 2
  assert volume.spacing_mm[0] == pytest.approx(2.5)


@pytest.mark.parametrize(
  'implicit, big_endian', ((True, False), (False, False), (False, True))
)
def test_bare_data_sets_are_read(tmp_path, implicit, big_endian):
  slices = odd_series.series()
  for index, ds in enumerate(slices):
    if big_endian:
      ds.PixelData = np.frombuffer(ds.PixelData, '<u2').astype('>u2').tobytes()
    (tmp_path / str(index)).write_bytes(odd_series.bare_bytes(ds, implicit, big_endian))
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


def test_meta_information_without_preamble_is_read(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  for path in tmp_path.iterdir():
    path.write_bytes(path.read_bytes()[132:])
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


def test_excess_pixel_bytes_are_ignored(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    ds.PixelData += bytes(100)
  odd_series.save(slices, tmp_path)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


def test_bits_above_bits_stored_are_no_part_of_the_value(tmp_path):
  slices = odd_series.series()
  for ds in slices:  # An overlay in the high bits, as old writers had it.
    words = np.frombuffer(ds.PixelData, '<u2') | 0x8000
    ds.PixelData = words.astype('<u2').tobytes()
  odd_series.save(slices, tmp_path)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


def test_monochrome1_keeps_its_hu_with_a_warning(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    ds.PhotometricInterpretation = 'MONOCHROME1'
  odd_series.save(slices, tmp_path)
  volume = readers.read_ct(tmp_path)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())
  assert any('MONOCHROME1' in text for text in volume.warnings)


def test_lossy_compression_is_a_warning(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    ds.LossyImageCompression = '01'
  odd_series.save(slices, tmp_path)
  assert any('with loss' in text for text in readers.read_ct(tmp_path).warnings)


def test_an_empty_number_of_frames_is_none(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    ds.NumberOfFrames = None
  odd_series.save(slices, tmp_path)
  assert readers.read_ct(tmp_path).shape == odd_series.SHAPE


def test_missing_modality_of_a_ct_is_a_warning(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    del ds.Modality
  odd_series.save(slices, tmp_path)
  assert any('Modality' in text for text in readers.read_ct(tmp_path).warnings)


def test_the_tag_of_a_gantry_tilt_alone_does_not_refuse(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    ds.GantryDetectorTilt = 18.5
  odd_series.save(slices, tmp_path)
  assert readers.read_ct(tmp_path).warnings == ()


@pytest.mark.parametrize(
  'text',
  (
    'HU',
    'Houndsfield Unit',
    'Hounsfield units',
    '',
    'Hounsfield',
    'HOUNSFIELD UNITS',
    'hounsfield',
    ' HU',
    'hu',
    'H.U.',
    'Hounsfield Units (HU)',
    '[HU]',
    'HU ',
    'Hounsfield_Unit',
  ),
)
def test_spellings_of_hounsfield_units(tmp_path, text):
  slices = odd_series.series()
  for ds in slices:
    ds.RescaleType = text
  odd_series.save(slices, tmp_path)
  assert readers.read_ct(tmp_path).warnings == ()


def test_split_acquisitions_and_exposures_are_one_volume(tmp_path):
  slices = odd_series.series()
  for index, ds in enumerate(slices):
    ds.AcquisitionNumber = index // 3
    ds.XRayTubeCurrent = 100 + 20 * index
  odd_series.save(slices, tmp_path)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


def test_uids_and_date_are_those_of_the_headers(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  volume = readers.read_ct(tmp_path)
  assert volume.series_uid == odd_series.SERIES_UID
  assert volume.study_uid == odd_series.STUDY_UID
  assert volume.acquisition_date == '2020-03-15'


def test_pydicoms_own_ct_files(tmp_path):
  """One real slice in several encodings; two of it make a volume."""
  source = pydicom.data.get_testdata_file('CT_small.dcm')
  first = pydicom.dcmread(source)
  second = pydicom.dcmread(source)
  second.ImagePositionPatient[2] += 5
  second.SOPInstanceUID += '.1'
  odd_series.save([first, second], tmp_path)
  volume = readers.read_ct(tmp_path)
  hu, affine = reference_reader.read_series(tmp_path)
  np.testing.assert_array_equal(volume.hu, np.maximum(hu, -1024))
  np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
