"""The coded image within a compressed stream: found by its structure, or refused.

A decoder that meets the end of a stream too early may return what it has, the
rest filled with grey, without an error; and a stream that says another size than
the header decides how much memory is taken. So the markers are followed from the
first to the end of the image. What follows it is padding of the writer's (one 00
or ff, or more) and is left out, since decoders differ in what they make of it.
"""

from collections.abc import Iterator
import re
import struct

import numpy as np
from pydicom import encaps
from pydicom import uid

from covid_tf import errors
from covid_tf.readers import images as images_lib
from covid_tf.readers import pixels as pixels_lib

# Encapsulated pixel data (PS3.5 A.4): whole, or refused.

_ITEM = 0xE000FFFE  # (fffe,e000), read as one little-endian word.
_SEQUENCE_DELIMITER = 0xE0DDFFFE
# These bytes begin an image of JPEG or JPEG-LS (SOI), of JPEG 2000 (SOC and SIZ), and
# stand nowhere within one.
_STARTS = (b'\xff\xd8\xff', b'\xff\x4f\xff\x51')


def frames_of(
  data: bytes, count: int, frame_table: tuple[bytes, bytes] | None
) -> list[bytes]:
  """The compressed stream of each frame.

  Args:
    data: the value of Pixel Data, and possibly what follows it in the file.
    count: frames to be found.
    frame_table: Extended Offset Table and its lengths, or None.

  Raises:
    CTReadError: an item is truncated or damaged, or frames are missing.
  """
  items, end = _items(data)
  # The first is the Basic Offset Table; some writers end with empty ones.
  fragments = [item for item in items[1:] if item]
  images = _images(fragments)
  if len(images) > count:
    raise errors.CTReadError(
      f'its header says {count} image(s), its compressed pixels hold {len(images)}.'
    )
  if len(images) == count and fragments[0].startswith(_STARTS):
    return images
  if count == 1:
    return [b''.join(fragments)]
  if len(fragments) == count:
    return fragments
  try:
    frames = list(
      encaps.generate_frames(
        data[:end], number_of_frames=count, extended_offsets=frame_table
      )
    )
  except Exception:  # Damaged tables fail anywhere inside pydicom.
    frames = []
  if len(frames) != count:
    raise errors.CTReadError(
      f'compressed pixels of {count} frames are required, found '
      f'{len(fragments)} pieces that cannot be assigned to images.'
    )
  return frames


def _images(fragments: list[bytes]) -> list[bytes]:
  """Fragments joined from one start of an image to the next."""
  pieces: list[list[bytes]] = []
  for fragment in fragments:
    if fragment.startswith(_STARTS):
      pieces.append([])
    if pieces:
      pieces[-1].append(fragment)
  return [b''.join(piece) for piece in pieces]


def _items(data: bytes) -> tuple[list[bytes], int]:
  """All items up to the delimiter, and where that ends."""
  items: list[bytes] = []
  place = 0
  while place + 8 <= len(data):
    tag, length = struct.unpack_from('<LL', data, place)
    place += 8
    if tag == _SEQUENCE_DELIMITER and items:
      return items, place
    if tag != _ITEM:
      raise errors.CTReadError('its compressed pixels are damaged.')
    if place + length > len(data):
      break
    items.append(data[place : place + length])
    place += length
  raise errors.CTReadError(
    'truncated: its compressed pixels are cut off before their end.'
  )


# Whether an RLE image (PS3.5 annex G) holds the bytes of its pixels, no fewer.
#
# Its decoder takes whatever a damaged stream gives: too many bytes are left out in
# silence.

_HEADER_BYTES = 64


def coded_rle_image(stream: bytes, pixels: int, segments: int) -> bytes:
  """The stream up to the last byte that its pixels need.

  Args:
    stream: header and segments, and whatever a writer added.
    pixels: of the image; each segment gives one byte for each.
    segments: bytes of a pixel.

  Raises:
    CTReadError: a segment is missing, or gives fewer or more bytes.
  """
  if len(stream) < _HEADER_BYTES:
    raise errors.CTReadError('truncated: its compressed image has no header.')
  count, *starts = struct.unpack_from(f'<{segments + 1}L', stream)
  ends = [*starts[1:], len(stream)]
  if (
    count != segments
    or starts[0] != _HEADER_BYTES
    or not all(start < end for start, end in zip(starts, ends))
  ):
    raise errors.CTReadError(
      f'its compressed image must have {segments} segments ({8 * segments} bits a '
      'pixel).'
    )
  used = [_used_bytes(stream[start:end], pixels) for start, end in zip(starts, ends)]
  for start, end, length in zip(starts, ends[:-1], used):
    if stream[start + length : end].strip(b'\0'):  # Padding (G.3.1).
      raise _not_whole()
  return stream[: starts[-1] + used[-1]]


def _used_bytes(segment: bytes, pixels: int) -> int:
  """Bytes that give exactly one byte for each pixel."""
  place = decoded = 0
  while decoded < pixels and place < len(segment):
    code = segment[place]
    if code < 128:  # That many plus one bytes as they are.
      decoded += code + 1
      place += code + 2
    elif code > 128:  # One byte repeated.
      decoded += 257 - code
      place += 2
    else:
      place += 1
  if decoded != pixels or place > len(segment):
    raise _not_whole()
  return place


def _not_whole() -> errors.CTReadError:
  return errors.CTReadError(
    'truncated or damaged: its compressed image does not give one byte for each pixel.'
  )


_Size = tuple[int, int, int]  # Rows, columns, components.
_START_OF_IMAGE = b'\xff\xd8'
_START_OF_CODESTREAM = b'\xff\x4f\xff\x51'  # JPEG 2000, SOC and SIZ.
# Zero bytes that writers put before the end marker to make a length even, or a
# multiple of four; they are no part of the entropy-coded data.
MOST_ZERO_BYTES = 3
_END = b'\xff\xd9'  # JPEG, JPEG-LS (EOI) and JPEG 2000 (EOC).
_END_OF_IMAGE = 0xD9
START_OF_SCAN = 0xDA
# SOF markers: C0-CF without DHT (C4), JPG (C8) and DAC (CC); F7 is JPEG-LS.
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_JPEG_LS_FRAME = 0xF7

_TILE_PART, _START_OF_DATA = 0xFF90, 0xFF93
# The number in an SOP segment (T.800 A.8.1) is the one place where the bytes of the
# end marker may stand within packets.
_PACKET_OR_END = re.compile(b'\xff\x91\0\4..|\xff\xd9', re.DOTALL)


def coded_image(stream: bytes, layout: images_lib.PixelLayout) -> bytes:
  """The stream from its first to its last marker, without what follows.

  Args:
    stream: the fragments of one image.
    layout: what the header says of it.

  Raises:
    CTReadError: the stream is truncated, damaged or contradicts the header.
  """
  if layout.syntax == uid.RLELossless:
    return coded_rle_image(
      stream, layout.rows * layout.columns, layout.bits_allocated // 8
    )
  try:
    if layout.syntax in pixels_lib.JPEG_2000:
      image, found = _jpeg_2000(stream)
    else:
      image, found = _jpeg(stream)
  except (struct.error, IndexError):  # Ran over the end of the stream.
    raise errors.CTReadError(
      'truncated: its compressed image has no end marker.'
    ) from None
  if found != (layout.rows, layout.columns, 1):
    size = 'no size at all' if found is None else '%d x %d of %d values' % found
    raise errors.CTReadError(
      f'its header says {layout.rows} x {layout.columns} grey pixels, its '
      f'compressed image {size}.'
    )
  return image


def without_zeros_before_end(stream: bytes) -> Iterator[bytes]:
  """The stream with one, two, three of the zero bytes before its end left out."""
  for zeros in range(1, MOST_ZERO_BYTES + 1):
    if not stream.endswith(bytes(zeros) + _END):
      return
    yield stream[: -zeros - len(_END)] + _END


def _scan_end(stream: bytes, start: int, lowest: int) -> int:
  """Byte of the marker that ends the entropy-coded data of a scan.

  Args:
    stream: of JPEG or JPEG-LS.
    start: first byte of the data.
    lowest: what follows ff in a marker is at least this.

  Raises:
    IndexError: no marker follows.
  """
  data = np.frombuffer(stream, np.uint8)[start:]
  places = np.flatnonzero(data[:-1] == 0xFF)
  after = data[places + 1]
  restart = (after >= 0xD0) & (after <= 0xD7)
  ends = places[(after >= lowest) & (after != 0xFF) & ~restart]  # ff ff: fill bytes.
  return start + int(ends[0])


def _jpeg(stream: bytes) -> tuple[bytes, _Size | None]:
  """A JPEG or JPEG-LS image and its (rows, columns, components), or None.

  In the data of a scan ff is followed by 00 in JPEG (T.81 B.1.1.5), by a byte below
  80 in JPEG-LS (T.87 C.2.1), or it begins a restart marker or the end.
  """
  if not stream.startswith(_START_OF_IMAGE):
    return stream, None
  size: _Size | None = None
  frame, scans, place = 0, 0, 2
  while True:
    if stream[place] != 0xFF:
      raise _damaged(place)
    marker = stream[place + 1]
    if marker == 0xFF:  # Fill byte.
      place += 1
      continue
    if marker == _END_OF_IMAGE:
      if size and not scans:
        raise errors.CTReadError('truncated: its compressed image has no pixels.')
      return stream[: place + 2], size
    start = place + 2
    place = start + _segment_bytes(stream, start)
    if marker in FRAME_MARKERS:
      size = struct.unpack_from('>HHB', stream, start + 3)
      frame = marker
    elif marker == START_OF_SCAN:
      scans += 1
      place = _scan_end(stream, place, 0x80 if frame == _JPEG_LS_FRAME else 0x01)


def _segment_bytes(stream: bytes, start: int) -> int:
  (length,) = struct.unpack_from('>H', stream, start)
  if length < 2:
    raise _damaged(start)
  return length


def _damaged(place: int) -> errors.CTReadError:
  return errors.CTReadError(
    f'truncated or damaged: its compressed image has no marker at byte {place}, '
    'where one must be.'
  )


def _jpeg_2000(stream: bytes) -> tuple[bytes, _Size | None]:
  """A bare JPEG 2000 code stream and its (rows, columns, components), or None.

  Whatever boxes of a file format stand around it are left out.
  """
  start = stream.find(_START_OF_CODESTREAM, 0, 4096)
  if start < 0:
    return stream, None
  _, width, height, x, y, tile_width, tile_height, tile_x, tile_y, components = (
    struct.unpack_from('>H8LH', stream, start + 6)
  )
  if not (tile_width and tile_height and x < width and y < height):
    raise _damaged(start + 2)
  tiles = -(-(width - tile_x) // tile_width) * -(-(height - tile_y) // tile_height)
  end = _tile_parts_end(stream, _main_header_end(stream, start + 2), tiles)
  # Psot has said that all tiles are whole: padding before the marker is left out.
  rest = stream[end:].lstrip(b'\0')
  padded = rest.lstrip(b'\xff')
  if not (rest.startswith(b'\xff') and padded.startswith(_END[1:])):
    raise IndexError
  return stream[start:end] + _END, (height - y, width - x, components)


def _main_header_end(stream: bytes, place: int) -> int:
  """Byte of the first tile-part."""
  while (marker := _word(stream, place)) != _TILE_PART:
    if marker < 0xFF40:
      raise _damaged(place)
    place += 2 + _segment_bytes(stream, place + 2)
  return place


def _tile_parts_end(stream: bytes, place: int, tiles: int) -> int:
  """The byte after the last tile-part (T.800 A.4.2); each tile must be whole."""
  parts: dict[int, int] = {}
  promised: dict[int, int] = {}
  while _word(stream, place) == _TILE_PART:
    tile, length, _, count = struct.unpack_from('>HLBB', stream, place + 4)
    parts[tile] = parts.get(tile, 0) + 1
    if count:
      promised[tile] = count
    if length == 0:  # To the end of the image; only in the last tile-part.
      place = _packets_end(stream, place)
      break
    if length < 14 or place + length > len(stream):
      raise IndexError
    place += length
  if len(parts) != tiles or any(parts[tile] != promised[tile] for tile in promised):
    raise errors.CTReadError(
      f'truncated or damaged: its compressed image has {tiles} tile(s), '
      f'{len(parts)} of them were found, or not all of their parts.'
    )
  return place


def _packets_end(stream: bytes, place: int) -> int:
  """Byte of the end marker after a tile-part that does not say its length."""
  place += 12
  while (marker := _word(stream, place)) != _START_OF_DATA:
    if marker < 0xFF40:
      raise _damaged(place)
    place += 2 + _segment_bytes(stream, place + 2)
  place += 2
  for found in _PACKET_OR_END.finditer(stream, place):
    if found.group() == _END:
      return found.start()
  raise IndexError


def _word(stream: bytes, place: int) -> int:
  return struct.unpack_from('>H', stream, place)[0]
