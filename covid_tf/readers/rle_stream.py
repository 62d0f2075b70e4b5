"""Whether an RLE image (PS3.5 annex G) holds the bytes of its pixels, no fewer.

Its decoder takes whatever a damaged stream gives: too many bytes are left out in
silence.
"""

import struct

from covid_tf import errors

_HEADER_BYTES = 64


def coded_image(stream: bytes, pixels: int, segments: int) -> bytes:
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
  if count != segments or starts[0] != _HEADER_BYTES or not all(
      start < end for start, end in zip(starts, ends)):
    raise errors.CTReadError(
        f'its compressed image must have {segments} segments ({8 * segments} bits a '
        'pixel).')
  used = [_used_bytes(stream[start:end], pixels)
          for start, end in zip(starts, ends)]
  for start, end, length in zip(starts, ends[:-1], used):
    if stream[start + length:end].strip(b'\0'):  # Padding (G.3.1).
      raise _not_whole()
  return stream[:starts[-1] + used[-1]]


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
      'truncated or damaged: its compressed image does not give one byte for '
      'each pixel.')
