"""Pixels: padding, values below air, and truncated compressed streams."""

import struct

import lossless_jpeg_encoder
import numpy as np
import odd_series
import pydicom
from pydicom import encaps
from pydicom import uid
import pytest
import real_ct

from covid_tf import errors
from covid_tf import readers
from covid_tf.readers import lossless_jpeg

_COMPRESSED = (
  uid.RLELossless,
  uid.JPEGLossless,
  uid.JPEGLosslessSV1,
  uid.JPEGLSLossless,
  uid.JPEG2000Lossless,
)


def _padded(signed, bits_stored, value, vr, limit=None, intercept=-1024):
  """A series with a corner of padding, and its HU with air in the corner."""
  hu = odd_series.chest_hu()
  hu[:, 0, 0] = -1024
  slices = odd_series.series(
    hu, signed=signed, bits_stored=bits_stored, intercept=intercept
  )
  for ds in slices:
    words = np.frombuffer(ds.PixelData, '<u2').copy()
    words[0] = value & 0xFFFF
    ds.PixelData = words.tobytes()
    ds.add_new(0x00280120, vr, value)
    if limit is not None:
      ds.add_new(0x00280121, vr, limit)
  return slices, hu


@pytest.mark.parametrize(
  'signed, bits_stored, value, vr',
  (
    (True, 16, -2000, 'SS'),  # GE: -3024 HU outside the circle.
    (False, 16, 63536, 'US'),  # The same bits, unsigned: 62512 HU.
    (True, 16, 63536, 'US'),  # The VR does not fit the representation.
    (False, 12, 4095, 'US'),
    (False, 12, 63536, 'US'),  # More bits than are stored.
    (True, 12, -2000, 'SS'),
  ),
)
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


def _read_with_padding(tmp_path, hu, padding_hu, **options):
  slices = odd_series.series(hu, **options)
  for ds in slices:
    ds.add_new(
      0x00280120,
      'SS' if ds.PixelRepresentation else 'US',
      padding_hu - int(ds.RescaleIntercept),
    )
  return readers.read_ct(odd_series.save(slices, tmp_path))


@pytest.mark.parametrize('value', (-1000, -850, 0, 40, 300, 3071))
@pytest.mark.parametrize(
  'options', ({}, {'signed': True, 'bits_stored': 16, 'intercept': 0}), ids=('12', '16')
)
def test_a_padding_value_that_tissue_has_stays_tissue(tmp_path, value, options):
  hu = odd_series.body_hu()
  volume = _read_with_padding(tmp_path, hu, value, **options)
  np.testing.assert_array_equal(volume.hu, hu)
  kept = np.count_nonzero(hu == value)
  assert volume.warnings == (
    f'{kept} voxels hold the Pixel Padding Value where it may be a measured one; '
    'they keep their HU',
  ) * (bool(kept))


@pytest.mark.parametrize('value', (0, 40, 3071))
def test_padding_that_reaches_in_from_the_corners(tmp_path, value):
  hu = odd_series.body_hu()
  y, x = np.mgrid[-1:1:36j, -1:1:40j]
  outside = y * y + x * x > 1.1
  hu[:, outside] = value
  expected = np.where(outside, -1024, hu)
  kept = np.count_nonzero(expected == value)
  volume = _read_with_padding(
    tmp_path, hu, value, signed=True, bits_stored=16, intercept=0
  )
  np.testing.assert_array_equal(volume.hu, expected)
  assert f'{8 * outside.sum()} padding voxels were set to -1024 HU' in volume.warnings
  assert bool(kept) == any(
    text.startswith(f'{kept} voxels hold the Pixel') for text in volume.warnings
  )


@pytest.mark.parametrize('first, last', ((-1000, 100), (-2000, 100), (0, 60)))
def test_a_range_of_padding_that_tissue_has_stays_tissue(tmp_path, first, last):
  hu = odd_series.body_hu()
  hu[:, 0] = 40
  slices = odd_series.series(hu, signed=True, bits_stored=16, intercept=0)
  for ds in slices:
    ds.add_new(0x00280120, 'SS', first)
    ds.add_new(0x00280121, 'SS', last)
  volume = readers.read_ct(odd_series.save(slices, tmp_path))
  np.testing.assert_array_equal(volume.hu, hu)
  kept = np.count_nonzero((hu >= first) & (hu <= last))
  assert volume.warnings[0].startswith(f'{kept} voxels hold the Pixel Padding Value')


def test_a_body_that_reaches_the_edge_is_no_padding(tmp_path):
  hu = odd_series.body_hu()
  hu[:, :, 30:] = np.random.default_rng(1).integers(30, 51, (8, 36, 10))
  volume = _read_with_padding(tmp_path, hu, 40)
  np.testing.assert_array_equal(volume.hu, hu)


def test_each_slice_has_its_own_padding_value(tmp_path):
  hu = odd_series.body_hu()
  slices = odd_series.series(hu, signed=True, bits_stored=16, intercept=0)
  for index, ds in enumerate(slices):
    value = (-2000, 40, -3000, 3000)[index % 4]
    words = np.frombuffer(ds.PixelData, '<i2').copy().reshape(hu[0].shape)
    words[:4] = value
    hu[index, :4] = -1024
    ds.PixelData = words.tobytes()
    ds.add_new(0x00280120, 'SS', value)
  np.testing.assert_array_equal(
    readers.read_ct(odd_series.save(slices, tmp_path)).hu, hu
  )


def _in_32_bits(slices, stored=None):
  for ds in slices:
    signed, bits = ds.PixelRepresentation, stored or ds.BitsStored
    words = np.frombuffer(ds.PixelData, '<i2' if signed else '<u2')
    ds.PixelData = words.astype('<i4' if signed else '<u4').tobytes()
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 32, bits, bits - 1
  return slices


@pytest.mark.parametrize(
  'syntax',
  (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
  ),
  ids=lambda syntax: syntax.keyword,
)
@pytest.mark.parametrize(
  'signed, bits, slope, intercept',
  (
    (False, 12, 1, -1024),
    (True, 32, 1, 0),
    (False, 32, 1, -1024),
    (True, 16, 1, -24),
    (False, 32, 0.5, -1024.5),
    (True, 20, 1, 0),
  ),
)
def test_32_bits_allocated(tmp_path, syntax, signed, bits, slope, intercept):
  hu = odd_series.chest_hu()
  slices = _in_32_bits(
    odd_series.series(
      hu, signed=signed, bits_stored=16, slope=slope, intercept=intercept
    ),
    bits,
  )
  if syntax == uid.ExplicitVRBigEndian:
    for ds in slices:
      ds.PixelData = np.frombuffer(ds.PixelData, '<u4').astype('>u4').tobytes()
      ds.PixelData = np.frombuffer(ds.PixelData, '<u2').astype('>u2').tobytes()
  volume = readers.read_ct(odd_series.save(slices, tmp_path, syntax))
  stored = np.rint((hu - float(intercept)) / slope)
  np.testing.assert_array_equal(
    volume.hu, np.maximum(np.rint(stored * slope + intercept), -1024)
  )
  assert volume.warnings == ()


@pytest.mark.parametrize('signed', (False, True))
def test_32_bits_allocated_in_rle(tmp_path, signed):
  slices = _in_32_bits(
    odd_series.series(signed=signed, bits_stored=16, intercept=-1024 * (not signed)), 32
  )
  for ds in slices:
    planes = np.frombuffer(ds.PixelData, np.uint8).reshape(36, 40, 4)
    segments = [
      b''.join(b'\x27' + row.tobytes() for row in planes[..., byte])
      for byte in (3, 2, 1, 0)
    ]  # Each row is one run of 40 bytes.
    starts = [64 + len(segments[0]) * index for index in range(4)]
    ds.PixelData = encaps.encapsulate(
      [struct.pack('<16L', 4, *starts, *(0,) * 11) + b''.join(segments)]
    )
    ds['PixelData'].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = uid.RLELossless
  for index, ds in enumerate(slices):
    ds.save_as(tmp_path / f'{index}.dcm', enforce_file_format=True)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


def test_32_bits_with_padding_and_values_that_are_no_hounsfield_units(tmp_path):
  hu = odd_series.chest_hu()
  slices = _in_32_bits(
    odd_series.series(hu, signed=True, bits_stored=16, intercept=0), 32
  )
  words = np.frombuffer(slices[2].PixelData, '<i4').copy()
  words[:3], hu[2, 0, :3] = (-2000, -2000, -(2**31)), -1024
  slices[2].PixelData = words.tobytes()
  slices[2].add_new(0x00280120, 'SS', -2000)
  volume = readers.read_ct(odd_series.save(slices, tmp_path))
  np.testing.assert_array_equal(volume.hu, hu)
  assert volume.warnings == (
    '2 padding voxels were set to -1024 HU',
    '1 voxels below -1024 HU were set to -1024 HU',
  )
  words[5] = 40000
  slices[2].PixelData = words.tobytes()
  odd_series.save(slices, tmp_path)
  with pytest.raises(errors.CTReadError, match='found 40000'):
    readers.read_ct(tmp_path)


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
  source = real_ct.folder(
    'covid-19-ny-sbu', 'A002304-19010112-135-axial', '19010112-135.dcm'
  )
  first, second = pydicom.dcmread(source), pydicom.dcmread(source)
  second.ImagePositionPatient[2] += 1.25
  second.SOPInstanceUID += '.1'
  odd_series.save([first, second], tmp_path)
  volume = readers.read_ct(tmp_path)
  padding = first.pixel_array == -2000
  assert padding.any()
  assert (volume.hu[0][padding] == -1024).all()
  np.testing.assert_array_equal(
    volume.hu[0][~padding], np.maximum(first.pixel_array[~padding] - 1024, -1024)
  )


def _broken(stream: bytes, how: str) -> bytes:
  half = len(stream) // 4 * 2
  return {
    'a third': stream[: len(stream) // 6 * 2],
    'a third, end marker': stream[: len(stream) // 6 * 2] + b'\xff\xd9',
    'the last row': stream[:-8] + b'\xff\xd9',
    'a hole': stream[:half] + stream[half + 40 :],
    'nothing': b'\0\0',
    'a start': stream[:30],
  }[how]


@pytest.mark.parametrize('syntax', _COMPRESSED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(
  'how',
  ('a third', 'a third, end marker', 'the last row', 'a hole', 'nothing', 'a start'),
)
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
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


@pytest.mark.parametrize(
  'syntax, name',
  (
    (uid.MPEG2MPML, 'MPEG2'),
    (uid.JPEGExtended12Bit, 'JPEG Extended'),
    ('1.2.3.4', '1.2.3.4'),
  ),
)
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


def _metal(signed, bits_stored, value):
  """A series with metal of `value` HU, whose header says fewer bits than it needs."""
  hu = odd_series.chest_hu()
  hu[:, 5, 5:8] = value
  slices = odd_series.series(
    hu, signed=signed, bits_stored=16, intercept=0 if signed else -1024
  )
  for ds in slices:
    ds.BitsStored, ds.HighBit = bits_stored, bits_stored - 1
  return slices, hu


@pytest.mark.parametrize(
  'signed, bits_stored, value', ((True, 12, 2100), (True, 12, 3071), (False, 12, 4000))
)
def test_values_that_need_more_bits_than_are_stored(
  tmp_path, signed, bits_stored, value
):
  slices, _ = _metal(signed, bits_stored, value)
  odd_series.save(slices, tmp_path)
  with pytest.raises(
    errors.CTReadError, match='3 voxels have bits set above the 12 of'
  ):
    readers.read_ct(tmp_path)


@pytest.mark.parametrize(
  'signed, above',
  ((True, 'sign'), (True, 'zeros'), (True, 'ones'), (False, 'zeros'), (False, 'ones')),
)
def test_bits_above_that_say_nothing(tmp_path, signed, above):
  slices, hu = _metal(signed, 13, 3071)
  for ds in slices:
    words = np.frombuffer(ds.PixelData, '<u2')
    if above != 'sign':
      words = words & 0x1FFF | (0xE000 if above == 'ones' else 0)
    ds.PixelData = words.astype('<u2').tobytes()
  odd_series.save(slices, tmp_path)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, hu)


def test_an_overlay_in_the_bits_above_is_no_part_of_the_value(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    words = np.frombuffer(ds.PixelData, '<u2').copy()
    words[100:200] |= 1 << 13
    ds.PixelData = words.tobytes()
    ds.add_new(0x60020100, 'US', 16)
    ds.add_new(0x60020102, 'US', 13)
  odd_series.save(slices, tmp_path)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())
