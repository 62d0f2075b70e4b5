"""Encapsulated pixel data (PS3.5 A.4): whole, or refused."""

import struct

from pydicom import encaps

from covid_tf import errors

_ITEM = 0xE000FFFE  # (fffe,e000), read as one little-endian word.
_SEQUENCE_DELIMITER = 0xE0DDFFFE
# These bytes begin an image of JPEG or JPEG-LS (SOI), of JPEG 2000 (SOC and SIZ), and
# stand nowhere within one.
_STARTS = (b'\xff\xd8\xff', b'\xff\x4f\xff\x51')


def frames_of(data: bytes, count: int, frame_table) -> list[bytes]:
  """The compressed stream of each frame.

  Args:
    data: the value of Pixel Data, and possibly what follows it in the file.
    count: frames to be found.
    frame_table: Extended Offset Table and its lengths, or None.

  Raises:
    CTReadError: an item is cut off or damaged, or frames are missing.
  """
  items, end = _items(data)
  # The first is the Basic Offset Table; some writers end with empty ones.
  fragments = [item for item in items[1:] if item]
  images = _images(fragments)
  if len(images) > count:
    raise errors.CTReadError(
        f'its header says {count} image(s), its compressed pixels hold '
        f'{len(images)}.')
  if len(images) == count and fragments[0].startswith(_STARTS):
    return images
  if count == 1:
    return [b''.join(fragments)]
  if len(fragments) == count:
    return fragments
  try:
    frames = list(encaps.generate_frames(
        data[:end], number_of_frames=count, extended_offsets=frame_table))
  except Exception:  # Damaged tables fail anywhere inside pydicom.
    frames = []
  if len(frames) != count:
    raise errors.CTReadError(
        f'compressed pixels of {count} frames are required, found '
        f'{len(fragments)} pieces that cannot be told apart.')
  return frames


def _images(fragments: list[bytes]) -> list[bytes]:
  """Fragments joined from one start of an image to the next."""
  pieces = []
  for fragment in fragments:
    if fragment.startswith(_STARTS):
      pieces.append([])
    if pieces:
      pieces[-1].append(fragment)
  return [b''.join(piece) for piece in pieces]


def _items(data: bytes) -> tuple[list[bytes], int]:
  """All items up to the delimiter, and where that ends."""
  items, place = [], 0
  while place + 8 <= len(data):
    tag, length = struct.unpack_from('<LL', data, place)
    place += 8
    if tag == _SEQUENCE_DELIMITER and items:
      return items, place
    if tag != _ITEM:
      raise errors.CTReadError('its compressed pixels are damaged.')
    if place + length > len(data):
      break
    items.append(data[place:place + length])
    place += length
  raise errors.CTReadError(
      'truncated: its compressed pixels are cut off before their end.')
