"""Compressed streams: what follows the image is ignored, what is missing is found."""

import functools
import pathlib
import struct
import tempfile

import hypothesis
from hypothesis import strategies as st
import lossless_jpeg_encoder
import numpy as np
import odd_series
import pydicom
from pydicom import encaps
from pydicom import uid
import pytest

from covid_tf import errors
from covid_tf import readers
from covid_tf.readers import decoding
from covid_tf.readers import images

_MARKED = (
  uid.JPEGLossless,
  uid.JPEGLosslessSV1,
  uid.JPEGLSLossless,
  uid.JPEG2000Lossless,
)
_COMPRESSED = (*_MARKED, uid.RLELossless)
_SYNTAXES = pytest.mark.parametrize(
  'syntax', _COMPRESSED, ids=lambda syntax: syntax.keyword
)
_HU = odd_series.chest_hu((2, 36, 40))
_EVEN = odd_series.even_hu((2, 36, 40))
_TAILS = (
  b'\0',
  b'\xff',
  b'\xff\xd9',
  b'\xff\xd9\xff',
  b'\0\0\0',
  b'\xff\xff\xff',
  b'\xff\xd9\0\0',
  b'\xd9',
  b'\xff\0',
  b'\xff\xd8\xff',
  b'any bytes \xff\xd9',
)


@functools.cache
def _stream(syntax, even=False) -> bytes:
  """The first slice of `_HU` or `_EVEN`, without padding."""
  with tempfile.TemporaryDirectory() as folder:
    odd_series.save(odd_series.series(_EVEN if even else _HU), folder, syntax)
    ds = pydicom.dcmread(pathlib.Path(folder) / '0000.dcm')
    stream = next(encaps.generate_frames(ds.PixelData, number_of_frames=1))
  return stream.rstrip(b'\0')


def _encapsulated(pieces) -> bytes:
  """Fragments as they are, of odd length or empty, behind an empty offset table."""
  return b''.join(
    b'\xfe\xff\x00\xe0' + struct.pack('<L', len(piece)) + piece
    for piece in (b'', *pieces)
  )


def _words(stream: bytes, syntax, shape=(36, 40)) -> np.ndarray:
  data = _encapsulated([stream]) + b'\xfe\xff\xdd\xe0\0\0\0\0'

  class Source:
    size = len(data)

    def read(self, offset, count):
      return data[offset : offset + count]

  layout = images.PixelLayout(
    source=Source(),
    offset=0,
    length=None,
    syntax=syntax,
    little_endian=True,
    rows=shape[0],
    columns=shape[1],
    frames=1,
    bits_stored=12,
    signed=False,
  )
  image = images.Image(
    name='',
    frame=0,
    study_uid='',
    series_uid='',
    image_uid='',
    frame_of_reference='',
    patient=None,
    sop_class='',
    modality='CT',
    image_type=(),
    kernel='',
    thickness_mm=None,
    acquisition='',
    date=None,
    plane=None,
    rescale=None,
    pixels=layout,
  )
  words = np.empty(shape, np.uint16)
  decoding.PixelReader().read_into(image, words)
  return words


def _refused_or_exact(stream: bytes, syntax) -> bool:
  """Whether it is refused; where it is not, the pixels must be those written."""
  try:
    words = _words(stream, syntax)
  except errors.CTReadError:
    return True
  np.testing.assert_array_equal(words, _HU[0] + 1024)
  return False


@_SYNTAXES
@pytest.mark.parametrize('tail', _TAILS, ids=bytes.hex)
def test_what_follows_the_image_is_ignored(syntax, tail, capfd):
  assert not _refused_or_exact(_stream(syntax) + tail, syntax)
  assert capfd.readouterr().err == ''


@pytest.mark.parametrize('syntax', _MARKED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(
  'padding', (b'\0', b'\0\0', b'\0\0\0', b'\xff', b'\xff\xff'), ids=bytes.hex
)
def test_padding_before_the_end_marker_is_ignored(syntax, padding, capfd):
  stream = _stream(syntax)
  assert not _refused_or_exact(stream[:-2] + padding + stream[-2:] + b'\0', syntax)
  assert capfd.readouterr().err == ''


@_SYNTAXES
@pytest.mark.parametrize('padding', (b'', b'\0'), ids=('bare', 'padded'))
def test_every_cut_is_refused(syntax, padding, capfd):
  stream = _stream(syntax)
  # A zero in place of the last byte of an RLE image is a value like any other.
  last = len(stream) - (syntax == uid.RLELossless and padding != b'')
  for length in range(last):
    assert _refused_or_exact(stream[:length] + padding, syntax), length
  assert capfd.readouterr().err == ''


@_SYNTAXES
def test_a_cut_anywhere_is_refused_whatever_follows(syntax):
  stream = _stream(syntax)
  for length in range(0, len(stream) - 20, 7):
    for tail in (b'\xff\xd9', bytes(40), b'\0\xff\xd9'):
      # Zeros are bytes of an RLE image like others: those lost must be more.
      if syntax == uid.RLELossless and length > len(stream) - 100:
        continue
      assert _refused_or_exact(stream[:length] + tail, syntax), (length, tail)


@pytest.mark.parametrize('syntax', _COMPRESSED, ids=lambda syntax: syntax.keyword)
def test_a_series_with_tails_and_empty_fragments(tmp_path, syntax):
  odd_series.save(odd_series.series(_HU), tmp_path, syntax)
  for path in tmp_path.iterdir():
    ds = pydicom.dcmread(path)
    stream = next(encaps.generate_frames(ds.PixelData, number_of_frames=1))
    half = len(stream) // 4 * 2
    ds.PixelData = _encapsulated((stream[:half], stream[half:] + b'\0\xff', b'', b''))
    ds.save_as(path)
  volume = readers.read_ct(tmp_path)
  np.testing.assert_array_equal(volume.hu, _HU)
  assert volume.warnings == ()


@pytest.mark.parametrize('syntax', _COMPRESSED[2:], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize('pieces', (1, 3))
def test_frames_with_tails_and_empty_fragments(tmp_path, syntax, pieces):
  ds = odd_series.enhanced(odd_series.series())
  ds.compress(syntax, generate_instance_uid=False)
  streams = list(encaps.generate_frames(ds.PixelData, number_of_frames=8))
  if syntax == uid.RLELossless:
    pieces = 1  # One fragment a frame (PS3.5 annex G).
  fragments = []
  for stream in streams:
    step = len(stream) // pieces // 2 * 2
    cuts = [step * piece for piece in range(pieces)] + [len(stream)]
    fragments.extend(stream[start:end] for start, end in zip(cuts, cuts[1:]))
    fragments[-1] += b'\xff\xd9\xff\0'
  ds.PixelData = _encapsulated((*fragments, b'', b''))
  ds.save_as(tmp_path / 'frames.dcm', enforce_file_format=True)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


def test_two_images_where_the_header_says_one(tmp_path):
  odd_series.save(odd_series.series(_HU), tmp_path, uid.JPEGLSLossless)
  for path in tmp_path.iterdir():
    ds = pydicom.dcmread(path)
    stream = next(encaps.generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encaps.encapsulate([stream, stream])
    ds.save_as(path)
  with pytest.raises(errors.CTReadError, match=r'1 image\(s\), .* hold 2'):
    readers.read_ct(tmp_path)


def _with_tile_length(length: int) -> bytes:
  """The JPEG 2000 stream with another Psot (T.800 A.4.2)."""
  stream = _stream(uid.JPEG2000Lossless)
  place = stream.index(b'\xff\x90') + 6
  return stream[:place] + struct.pack('>L', length) + stream[place + 4 :]


def test_a_tile_that_does_not_say_its_length():
  stream = _with_tile_length(0)
  for tail in (b'', *_TAILS):
    assert not _refused_or_exact(stream + tail, uid.JPEG2000Lossless)
  for length in range(len(stream)):
    assert _refused_or_exact(stream[:length], uid.JPEG2000Lossless)


@pytest.mark.parametrize('length', (5, 14, 900, 5000, 0xFFFFFFFF))
def test_a_tile_that_says_another_length(length):
  assert _refused_or_exact(_with_tile_length(length), uid.JPEG2000Lossless)


def test_a_tile_that_is_missing():
  stream = _stream(uid.JPEG2000Lossless)
  width = stream.index(b'\xff\x51') + 22  # XTsiz: two tiles of 20 columns.
  assert struct.unpack_from('>L', stream, width) == (40,)
  stream = stream[:width] + struct.pack('>L', 20) + stream[width + 4 :]
  with pytest.raises(errors.CTReadError, match=r'has 2 tile\(s\), 1 of them'):
    _words(stream, uid.JPEG2000Lossless)


def test_another_process_than_lossless_jpeg_never_reaches_its_decoder():
  """libjpeg ends the process where the precision is 80 bits."""
  stream = _stream(uid.JPEGLosslessSV1)
  frame = stream.index(b'\xff\xc3')
  for place, value in (
    (frame + 1, 0xC0),
    (frame + 1, 0xC9),
    (frame + 1, 0xCB),
    (frame + 4, 80),
    (frame + 4, 0),
    (frame + 4, 1),
  ):
    changed = stream[:place] + bytes((value,)) + stream[place + 1 :]
    with pytest.raises(errors.CTReadError):
      _words(changed, uid.JPEGLosslessSV1)


_IMAGE = np.random.default_rng(3).normal(1000, 40, (12, 16)).astype(np.uint16)


@hypothesis.given(
  st.sampled_from(('lost', 'changed', 'added', 'tail')),
  st.floats(0, 1),
  st.integers(1, 255),
  st.integers(1, 7),
)
@hypothesis.settings(max_examples=400)
def test_a_damaged_lossless_jpeg_is_refused_or_is_whole(how, share, value, predictor):
  """What is accepted is, byte by byte, how its own pixels are written.

  A changed byte can make the stream of another image; no check can find it.
  """
  stream = lossless_jpeg_encoder.encode(_IMAGE, predictor)
  start = stream.index(b'\xff\xda') + 10
  place = start + int(share * (len(stream) - 3 - start))
  changed = (
    stream[:place]
    + {
      'lost': stream[place + 1 :],
      'changed': bytes((stream[place] ^ value,)) + stream[place + 1 :],
      'added': bytes((value,)) + stream[place:],
      'tail': bytes(value % 4) + stream[-2:],
    }[how]
  )
  try:
    words = _words(changed, uid.JPEGLossless, _IMAGE.shape)
  except errors.CTReadError:
    return
  written = lossless_jpeg_encoder.encode(words, predictor)
  zeros = 0
  while changed != written[:-2] + bytes(zeros) + written[-2:]:
    zeros += 1
    assert zeros < 4


def test_a_byte_lost_near_the_end_is_found():
  """Of 140 lost bytes 25 were accepted with wrong pixels, with 23 + 7 bits of slack.

  The others make the stream of another image, most often in a part of one row.
  """
  stream, accepted = _stream(uid.JPEGLosslessSV1, even=True), 0
  for place in range(len(stream) - 142, len(stream) - 2):
    try:
      words = _words(stream[:place] + stream[place + 1 :], uid.JPEGLosslessSV1)
      accepted += not np.array_equal(words, _EVEN[0] + 1024)
    except errors.CTReadError:
      pass
  assert accepted <= 18, accepted
