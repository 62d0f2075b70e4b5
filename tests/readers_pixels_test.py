"""Pixels: padding, values below air, and compressed streams that are cut."""

import pathlib

import lossless_jpeg_encoder
import numpy as np
import odd_series
import pydicom
from pydicom import encaps
from pydicom import uid
import pytest

from covid_tf import errors
from covid_tf import readers
from covid_tf.readers import lossless_jpeg

_COMPRESSED = (uid.RLELossless, uid.JPEGLossless, uid.JPEGLosslessSV1,
               uid.JPEGLSLossless, uid.JPEG2000Lossless)


def _padded(signed, bits_stored, value, vr, limit=None, intercept=-1024):
  """A series with a corner of padding, and its HU with air in the corner."""
  hu = odd_series.chest_hu()
  hu[:, 0, 0] = -1024
  slices = odd_series.series(
      hu, signed=signed, bits_stored=bits_stored, intercept=intercept)
  for ds in slices:
    words = np.frombuffer(ds.PixelData, '<u2').copy()
    words[0] = value & 0xFFFF
    ds.PixelData = words.tobytes()
    ds.add_new(0x00280120, vr, value)
    if limit is not None:
      ds.add_new(0x00280121, vr, limit)
  return slices, hu


@pytest.mark.parametrize('signed, bits_stored, value, vr', (
    (True, 16, -2000, 'SS'),  # GE: -3024 HU outside the circle.
    (False, 16, 63536, 'US'),  # The same bits, unsigned: 62512 HU.
    (True, 16, 63536, 'US'),  # The VR does not fit the representation.
    (False, 12, 4095, 'US'),
    (False, 12, 63536, 'US'),  # More bits than are stored.
    (True, 12, -2000, 'SS')))
def test_padding_becomes_air_and_is_counted(tmp_path, signed, bits_stored, value, vr):
  intercept = 0 if signed and bits_stored == 12 else -1024  # 1500 HU must fit.
  slices, hu = _padded(signed, bits_stored, value, vr, intercept=intercept)
  odd_series.save(slices, tmp_path)
  volume = readers.read_ct(tmp_path)
  np.testing.assert_array_equal(volume.hu, hu)
  assert volume.warnings == ('8 padding voxels were set to -1024 HU',)


def test_a_range_of_padding_values(tmp_path):
  slices, hu = _padded(True, 16, -2000, 'SS', limit=-1900)
  words = np.frombuffer(slices[2].PixelData, '<i2').copy()
  words[1:3] = (-1900, -1950)
  slices[2].PixelData = words.tobytes()
  hu[2, 0, 1:3] = -1024
  odd_series.save(slices, tmp_path)
  volume = readers.read_ct(tmp_path)
  np.testing.assert_array_equal(volume.hu, hu)
  assert volume.warnings == ('10 padding voxels were set to -1024 HU',)


def test_padding_that_is_air_already_needs_no_warning(tmp_path):
  slices, hu = _padded(False, 12, 0, 'US')
  odd_series.save(slices, tmp_path)
  volume = readers.read_ct(tmp_path)
  np.testing.assert_array_equal(volume.hu, hu)
  assert volume.warnings == ()


def test_values_below_air_are_raised_and_counted(tmp_path):
  slices = odd_series.series(signed=True, bits_stored=16, intercept=0)
  words = np.frombuffer(slices[1].PixelData, '<i2').copy()
  words[:3] = (-1025, -3024, -32768)
  slices[1].PixelData = words.tobytes()
  odd_series.save(slices, tmp_path)
  volume = readers.read_ct(tmp_path)
  assert volume.hu[1, 0, :3].tolist() == [-1024] * 3
  assert volume.warnings == ('3 voxels below -1024 HU were set to -1024 HU',)


def test_the_real_padding_of_a_ge_scanner(tmp_path):
  source = (pathlib.Path(__file__).resolve().parent / 'data' / 'covid-19-ny-sbu'
            / 'A002304-19010112-135-axial' / '19010112-135.dcm')
  first, second = pydicom.dcmread(source), pydicom.dcmread(source)
  second.ImagePositionPatient[2] += 1.25
  second.SOPInstanceUID += '.1'
  odd_series.save([first, second], tmp_path)
  volume = readers.read_ct(tmp_path)
  padding = first.pixel_array == -2000
  assert padding.any()
  assert (volume.hu[0][padding] == -1024).all()
  np.testing.assert_array_equal(
      volume.hu[0][~padding], np.maximum(first.pixel_array[~padding] - 1024, -1024))


def _broken(stream: bytes, how: str) -> bytes:
  half = len(stream) // 4 * 2
  return {
      'a third': stream[:len(stream) // 6 * 2],
      'a third, end marker': stream[:len(stream) // 6 * 2] + b'\xff\xd9',
      'the last row': stream[:-8] + b'\xff\xd9',
      'a hole': stream[:half] + stream[half + 40:],
      'nothing': b'\0\0',
      'a start': stream[:30],
  }[how]


@pytest.mark.parametrize('syntax', _COMPRESSED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize('how', (
    'a third', 'a third, end marker', 'the last row', 'a hole', 'nothing', 'a start'))
def test_a_compressed_stream_that_is_not_whole(tmp_path, syntax, how):
  odd_series.save(odd_series.series(), tmp_path, syntax)
  path = tmp_path / '0005.dcm'
  ds = pydicom.dcmread(path)
  stream = next(encaps.generate_frames(ds.PixelData, number_of_frames=1))
  ds.PixelData = encaps.encapsulate([_broken(stream, how)])
  ds.save_as(path)
  with pytest.raises(errors.CTReadError, match='0005.dcm .*z = 112.50 mm'):
    readers.read_ct(tmp_path)


@pytest.mark.parametrize('syntax', _COMPRESSED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize('lost', (6, 20, 200))
def test_a_compressed_file_that_is_cut(tmp_path, syntax, lost):
  odd_series.save(odd_series.series(), tmp_path, syntax)
  path = tmp_path / '0007.dcm'
  path.write_bytes(path.read_bytes()[:-lost])
  with pytest.raises(errors.CTReadError, match='0007.dcm'):
    readers.read_ct(tmp_path)


@pytest.mark.parametrize('syntax', _COMPRESSED[1:], ids=lambda syntax: syntax.keyword)
def test_a_stream_of_another_size_than_the_header(tmp_path, syntax):
  slices = odd_series.series()
  odd_series.save(slices, tmp_path, syntax)
  for path in tmp_path.iterdir():
    ds = pydicom.dcmread(path)
    ds.Rows = 4000
    ds.save_as(path)
  with pytest.raises(errors.CTReadError, match='4000 x 40'):
    readers.read_ct(tmp_path)


@pytest.mark.parametrize('syntax', _COMPRESSED[1:], ids=lambda syntax: syntax.keyword)
def test_a_stream_with_more_bits_than_the_header(tmp_path, syntax):
  odd_series.save(odd_series.series(bits_stored=16), tmp_path, syntax)
  for path in tmp_path.iterdir():
    ds = pydicom.dcmread(path)
    ds.BitsStored, ds.HighBit = 10, 9
    ds.save_as(path)
  with pytest.raises(errors.CTReadError, match='10 bits stored'):
    readers.read_ct(tmp_path)


@pytest.mark.parametrize('pieces', (2, 5))
def test_a_frame_in_several_fragments(tmp_path, pieces):
  odd_series.save(odd_series.series(), tmp_path, uid.JPEGLSLossless)
  for path in tmp_path.iterdir():
    ds = pydicom.dcmread(path)
    stream = next(encaps.generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encaps.encapsulate([stream], fragments_per_frame=pieces)
    ds.save_as(path)
  np.testing.assert_array_equal(
      readers.read_ct(tmp_path).hu, odd_series.chest_hu())


@pytest.mark.parametrize('syntax, name', (
    (uid.MPEG2MPML, 'MPEG2'), (uid.JPEGExtended12Bit, 'JPEG Extended'),
    ('1.2.3.4', '1.2.3.4')))
def test_a_transfer_syntax_that_is_not_read_is_named(tmp_path, syntax, name):
  odd_series.save(odd_series.series(), tmp_path)
  for path in tmp_path.iterdir():
    ds = pydicom.dcmread(path)
    data = ds.PixelData
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    ds.PixelData = encaps.encapsulate([data])
    ds['PixelData'].is_undefined_length = True
    pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=True)
  with pytest.raises(errors.CTReadError, match=name):
    readers.read_ct(tmp_path)


@pytest.mark.parametrize('predictor', range(1, 8))
def test_the_bits_of_a_lossless_jpeg_for_every_predictor(predictor):
  """An encoder written from T.81 and the bits that are counted agree."""
  rng = np.random.default_rng(predictor)
  image = rng.integers(0, 4096, (9, 11)).astype(np.uint16)
  stream = lossless_jpeg_encoder.encode(image, predictor)
  lossless_jpeg.require_whole(stream, image)
  with pytest.raises(errors.CTReadError, match='its pixels need'):
    lossless_jpeg.require_whole(stream[:-12] + stream[-2:], image)
