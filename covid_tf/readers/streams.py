"""Checks on a compressed image before a decoder is trusted with it.

A decoder that meets the end of a stream too early may return what it has, the
rest filled with grey, without an error; and a stream that says another size than
the header decides how much memory is taken.
"""

import struct

from pydicom import uid

from covid_tf import errors
from covid_tf.readers import images
from covid_tf.readers import pixel_layout
from covid_tf.readers import rle_stream

_START_OF_IMAGE = b'\xff\xd8'
_END_OF_IMAGE = b'\xff\xd9'  # JPEG and JPEG-LS; the same code ends JPEG 2000.
_START_OF_CODESTREAM = b'\xff\x4f\xff\x51'
# SOF markers: C0-CF without DHT (C4), JPG (C8) and DAC (CC); F7 is JPEG-LS.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


def check(stream: bytes, layout: images.PixelLayout) -> None:
  """Raises CTReadError for a stream that is cut off or contradicts the header."""
  if layout.syntax == uid.RLELossless:
    rle_stream.require_whole(stream, layout.rows * layout.columns)
    return
  if not stream.rstrip(b'\0').endswith(_END_OF_IMAGE):
    raise errors.CTReadError(
        'truncated: its compressed image has no end marker.')
  if layout.syntax in pixel_layout.JPEG_2000:
    found = _jpeg_2000_size(stream)
  else:
    found = _jpeg_size(stream)
  if found != (layout.rows, layout.columns, 1):
    size = 'no size at all' if found is None else '%d x %d of %d values' % found
    raise errors.CTReadError(
        f'its header says {layout.rows} x {layout.columns} grey pixels, its '
        f'compressed image {size}.')


def _jpeg_size(stream: bytes) -> tuple[int, int, int] | None:
  """(rows, columns, components) of a JPEG or JPEG-LS stream."""
  if not stream.startswith(_START_OF_IMAGE):
    return None
  place = 2
  while place + 10 <= len(stream) and stream[place] == 0xFF:
    marker = stream[place + 1]
    if marker == 0xFF:  # Fill byte.
      place += 1
    elif marker in _FRAME_MARKERS:
      return struct.unpack_from('>HHB', stream, place + 5)
    else:
      place += 2 + struct.unpack_from('>H', stream, place + 2)[0]
  return None


def _jpeg_2000_size(stream: bytes) -> tuple[int, int, int] | None:
  """(rows, columns, components) of a JPEG 2000 code stream, boxed or bare."""
  start = stream.find(_START_OF_CODESTREAM, 0, 4096)
  if start < 0 or len(stream) < start + 42:
    return None
  width, height, x, y = struct.unpack_from('>LLLL', stream, start + 8)
  components, = struct.unpack_from('>H', stream, start + 40)
  return height - y, width - x, components
