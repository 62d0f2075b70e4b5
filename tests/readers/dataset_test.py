"""The walk over headers finds what pydicom finds, in pydicom's own odd files."""

import pathlib
import struct

import numpy as np
import odd_series
import pydicom
import pytest

from covid_tf import errors
from covid_tf import readers
from covid_tf.readers import dataset
from covid_tf.readers import header_walk
from covid_tf.readers import sources


def _files():
  folder = pathlib.Path(pydicom.data.get_testdata_file('CT_small.dcm')).parent
  return sorted(path for path in folder.glob('*.dcm'))


def _value(element):
  """Bytes, or for a sequence that pydicom parsed its number of items."""
  if isinstance(element.value, bytes):
    return element.value.rstrip(b'\0 ')
  return element.value and len(element.value)


@pytest.mark.parametrize('path', _files(), ids=lambda path: path.name)
def test_the_walk_agrees_with_pydicom(path, monkeypatch):
  source = sources.FileSource(path)
  walked = _read(source)

  def unusual(*_):
    raise header_walk.UnusualError

  monkeypatch.setattr(header_walk.Walk, 'to_pixels', unusual)
  parsed = _read(source)
  assert type(walked) is type(parsed)
  if not isinstance(walked, dataset.DataSet):
    return
  assert walked.pixel_offset == parsed.pixel_offset
  assert walked.pixel_length == parsed.pixel_length
  for tag in walked.elements.keys() | parsed.elements.keys() - {0x00080005}:
    assert _value(walked.elements[tag]) == (_value(parsed.elements[tag]) or b'')


def _read(source):
  try:
    return dataset.read(source)
  except (dataset.NotDicomError, dataset.IncompleteError) as error:
    return error


@pytest.mark.parametrize(
  'implicit, big_endian', ((True, False), (False, False), (False, True))
)
def test_nested_sequences_are_jumped_over(implicit, big_endian):
  ds = odd_series.series()[0]
  inner = pydicom.Dataset()
  inner.PixelSpacing = [9, 9]
  for depth in range(4):
    outer = pydicom.Dataset()
    outer.ContentSequence = [inner, pydicom.Dataset(), inner]
    outer['ContentSequence'].is_undefined_length = depth % 2 == 0
    outer.is_undefined_length_sequence_item = depth > 1
    inner = outer
  ds.ReferencedStudySequence = [inner]
  ds['ReferencedStudySequence'].is_undefined_length = True
  data = odd_series.bare_bytes(ds, implicit, big_endian)
  walk = header_walk.Walk(data, implicit, not big_endian)
  found, place = walk.to_pixels(0, frozenset((0x00280030, 0x00280010)))
  assert set(found) == {0x00280030, 0x00280010}
  assert found[0x00280030].value.strip() == b'0.75\\0.75'
  assert data[place[1] :] == ds.PixelData


_PRIVATE = 0x00191023
_SPACING, _SLOPE, _INTERCEPT = 0x00280030, 0x00281053, 0x00281052
_ROWS, _PADDING, _PIXELS = 0x00280010, 0x00280120, 0x7FE00010


def _element(tag: int, vr: str, value: bytes, form: str = '') -> bytes:
  """An element in explicit VR little endian, its length as its VR or `form` asks."""
  group, element = tag >> 16, tag & 0xFFFF
  letters = vr.encode('latin-1')
  if form == 'none':
    return struct.pack('<HHL', group, element, len(value)) + value
  if form == 'long' or not form and letters in header_walk._LONG_VRS:
    return struct.pack('<HH2sHL', group, element, letters, 0, len(value)) + value
  return struct.pack('<HH2sH', group, element, letters, len(value)) + value


def _with(ds, tag: int, element: bytes) -> bytes:
  """A file whose data set has these bytes as its element of that tag."""
  before, after = pydicom.Dataset(), pydicom.Dataset()
  for other in ds:
    if other.tag != tag:
      (before if other.tag < tag else after).add(other)
  for part in (before, after):
    part.file_meta = ds.file_meta
  return (
    bytes(128)
    + b'DICM'
    + _element(0x00020010, 'UI', b'1.2.840.10008.1.2.1\0')
    + odd_series.bare_bytes(before, implicit=False)
    + element
    + odd_series.bare_bytes(after, implicit=False)
  )


def _study(folder, tag: int, element) -> pathlib.Path:
  for index, ds in enumerate(odd_series.series()):
    raw = element(ds) if callable(element) else element
    (folder / f'{index}.dcm').write_bytes(_with(ds, tag, raw))
  return folder


@pytest.mark.parametrize(
  'tag, vr, value, form',
  (
    (_PRIVATE, 'UN', b'abcd', ''),
    (_PRIVATE, '??', b'abcd', 'short'),
    (_PRIVATE, '??', b'abcd', 'long'),
    (_PRIVATE, 'ZZ', b'abcd', 'short'),
    (_PRIVATE, 'ZZ', b'abcd' * 30, 'long'),
    (_PRIVATE, 'us', b'ab', 'short'),
    (_PRIVATE, 'ox', b'abcd', 'short'),
    (_PRIVATE, '', b'abcd' * 5, 'none'),
    (_PRIVATE, '\0\0', b'abcd', 'short'),
    (_PRIVATE, '\xc3(', b'abcd', 'short'),
    (_PRIVATE, 'UN', b'abcd', 'short'),
    (_PRIVATE, 'OB', b'abcd', 'short'),
    (_PRIVATE, 'OV', bytes(8), ''),
    (_PRIVATE, 'SV', bytes(8), ''),
    (_PRIVATE, 'UV', bytes(8), ''),
    (_PRIVATE, 'UC', b'abcd', ''),
    (_PRIVATE, 'UR', b'abcd', ''),
    (_PRIVATE, '??', b'', 'short'),
    (_PRIVATE, '??', bytes(70000), 'long'),
    (_SPACING, 'UN', b'0.75\\0.75 ', ''),
    (_SPACING, 'ZZ', b'0.75\\0.75 ', 'short'),
    (_SPACING, '\xff\xfe', b'0.75\\0.75 ', 'short'),
    (_SPACING, 'FD', struct.pack('<2d', 0.75, 0.75), ''),
    (_SPACING, 'FL', struct.pack('<2f', 0.75, 0.75), ''),
    (_SLOPE, 'FL', struct.pack('<f', 1), ''),
    (_SLOPE, 'LO', b'1 ', ''),
    (_SLOPE, 'US', struct.pack('<H', 1), ''),
    (_INTERCEPT, 'SS', struct.pack('<h', -1024), ''),
    (_INTERCEPT, 'SL', struct.pack('<l', -1024), ''),
    (_INTERCEPT, 'SV', struct.pack('<q', -1024), ''),
    (_ROWS, 'SS', struct.pack('<h', 36), ''),
    (_ROWS, 'UL', struct.pack('<L', 36), ''),
    (_ROWS, 'UN', struct.pack('<H', 36), ''),
    (_ROWS, 'IS', b'36', ''),
    (_ROWS, 'DS', b'36.0', ''),
    (_PADDING, 'SL', struct.pack('<l', -2000), ''),
    (_PADDING, 'IS', b'-2000 ', ''),
  ),
)
def test_unusual_value_representations_are_read(tmp_path, tag, vr, value, form):
  volume = readers.read_ct(_study(tmp_path, tag, _element(tag, vr, value, form)))
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())
  np.testing.assert_allclose(volume.spacing_mm, odd_series.SPACING_MM)


@pytest.mark.parametrize(
  'vr, form', (('OB', ''), ('UN', ''), ('OV', ''), ('??', 'long'), ('ZZ', 'long'))
)
def test_pixels_with_another_value_representation(tmp_path, vr, form):
  volume = readers.read_ct(
    _study(tmp_path, _PIXELS, lambda ds: _element(_PIXELS, vr, ds.PixelData, form))
  )
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())


def test_an_unknown_representation_inside_a_sequence(tmp_path):
  inner = _element(_PRIVATE, '??', b'abcdef', 'short')
  item = (
    struct.pack('<HHL', 0xFFFE, 0xE000, 0xFFFFFFFF)
    + inner
    + struct.pack('<HHL', 0xFFFE, 0xE00D, 0)
  )
  end = struct.pack('<HHL', 0xFFFE, 0xE0DD, 0)
  sequence = struct.pack('<HH2sHL', 0x0008, 0x1140, b'SQ', 0, 0xFFFFFFFF) + item + end
  volume = readers.read_ct(_study(tmp_path, 0x00081140, sequence))
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())


@pytest.mark.parametrize(
  'element',
  (
    struct.pack('<HH2sH', 0x0019, 0x1023, b'??', 4711) + bytes(40),
    struct.pack('<HH2sHL', 0x0019, 0x1023, b'ZZ', 0, 4711) + bytes(40),
  ),
)
def test_an_element_of_unknown_length_is_named(tmp_path, element):
  with pytest.raises(errors.CTReadError) as caught:
    readers.read_ct(_study(tmp_path, _PRIVATE, element))
  text = str(caught.value)
  assert '(0019,1023) has the value representation' in text
  assert 'Explicit VR Little Endian' in text and 'copy the study' not in text


@pytest.mark.parametrize(
  'tag, vr, value',
  (
    (_ROWS, 'SS', struct.pack('<h', -36)),
    (_ROWS, 'FL', struct.pack('<f', 36.5)),
    (_ROWS, 'UL', struct.pack('<L', 70000)),
    (_ROWS, 'IS', b'3 6 '),
    (_SLOPE, 'FD', struct.pack('<d', float('nan'))),
    (_SLOPE, 'FL', struct.pack('<2f', 1, 1)),
    (_SPACING, 'FD', bytes(16)),
    (_PADDING, 'FL', struct.pack('<f', 0.5)),
    (_PADDING, 'FD', struct.pack('<d', float('nan'))),
  ),
)
def test_binary_values_that_cannot_be_right(tmp_path, tag, vr, value):
  with pytest.raises(
    errors.CTReadError, match=f'{tag >> 16:04x},{tag & 0xFFFF:04x}|Pixel Spacing'
  ):
    readers.read_ct(_study(tmp_path, tag, _element(tag, vr, value)))


def _read_all(folder):
  np.testing.assert_array_equal(readers.read_ct(folder).hu, odd_series.chest_hu())


def test_a_preamble_that_was_cut_off(tmp_path):
  for path in odd_series.save(odd_series.series(), tmp_path).iterdir():
    path.write_bytes(path.read_bytes()[128:])  # 'DICM' comes first.
  _read_all(tmp_path)


@pytest.mark.parametrize(
  'written, said',
  (
    ('1.2.840.10008.1.2.2', '1.2.840.10008.1.2.1'),
    ('1.2.840.10008.1.2.1', '1.2.840.10008.1.2.2'),
  ),
  ids=('big, says little', 'little, says big'),
)
def test_an_order_of_bytes_that_contradicts_the_transfer_syntax(
  tmp_path, written, said
):
  for path in odd_series.save(odd_series.series(), tmp_path, written).iterdir():
    data = path.read_bytes()
    assert data.count(written.encode()) == 1
    path.write_bytes(data.replace(written.encode(), said.encode()))
  _read_all(tmp_path)
