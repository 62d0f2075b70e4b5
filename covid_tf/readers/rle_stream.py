"""Whether an RLE image (PS3.5 annex G) holds the bytes of its pixels, no more or less.

Its decoder takes whatever a damaged stream gives: too many bytes are cut away in
silence.
"""

import struct

from covid_tf import errors

_HEADER_BYTES = 64


def require_whole(stream: bytes, pixels: int) -> None:
  """Raises CTReadError unless two segments give one byte each for every pixel."""
  if len(stream) < _HEADER_BYTES:
    raise errors.CTReadError('truncated: its compressed image has no header.')
  count, *starts = struct.unpack_from('<3L', stream)
  ends = [starts[1], len(stream)]
  if count != 2 or starts[0] != _HEADER_BYTES or not (
      starts[0] < starts[1] < len(stream)):
    raise errors.CTReadError(
        'its compressed image must have 2 segments (16 bits a pixel).')
  for start, end in zip(starts, ends):
    _require_segment(stream[start:end], pixels)


def _require_segment(segment: bytes, pixels: int):
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
  if decoded != pixels or place > len(segment) or segment[place:].strip(b'\0'):
    raise errors.CTReadError(
        'truncated or damaged: its compressed image does not give one byte for '
        'each pixel.')
