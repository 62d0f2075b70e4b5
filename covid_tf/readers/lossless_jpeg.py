"""Whether a lossless JPEG really held all the pixels that its decoder gave.

libjpeg fills what a truncated or damaged stream lacks, reports it only on the terminal,
and a marker at the end proves nothing. But the pixels determine how many bits they
take: each difference to its prediction has one Huffman code (ITU-T T.81, annex H).
Where the stream has fewer bits, the rest was invented; where it has more, pixels were
skipped. Bits beyond the last code only fill its byte, with ones (T.81 F.1.2.3).
"""

from collections.abc import Callable, Iterator
import dataclasses
import re
import struct

import numpy as np

from covid_tf import errors
from covid_tf.readers import compressed

_START_OF_FRAME = 0xC3  # Lossless, sequential, Huffman.
_HUFFMAN_TABLES = 0xC4
_RESTART_INTERVAL = 0xDD
_CATEGORIES = 17  # Bits of a difference: 0 to 16.
_NO_CODE = 1 << 20  # Bits of a difference that the table cannot express.
_FEWEST_BITS = 2  # T.81 table B.2.
_RESTART = re.compile(b'\xff+[\xd0-\xd7]')


@dataclasses.dataclass(frozen=True)
class Scan:
  """The parameters of the one scan of a grey image.

  Attributes:
    precision: bits of a sample.
    predictor: 1 to 7 (T.81 table H.1).
    shift: point transform, low bits left out.
    code_bits: length of the Huffman code of each category of difference.
    restart_rows: rows between restarts, 0 without.
    start: first byte of the entropy-coded data.
  """

  precision: int
  predictor: int
  shift: int
  code_bits: tuple[int, ...]
  restart_rows: int
  start: int


def require_lossless(stream: bytes, columns: int) -> None:
  """Looks at the header of a stream before a decoder does.

  libjpeg ends the process where a damaged header names another process or
  precision, so what it is not made for never reaches it.

  Args:
    stream: SOI to EOI.
    columns: of the image.

  Raises:
    CTReadError: not one Huffman-coded lossless scan of one component.
  """
  _scan(stream, columns)


def require_whole(stream: bytes, words: np.ndarray) -> None:
  """Compares the decoded pixels of a stream with its length.

  Args:
    stream: SOI to EOI.
    words: uint16 [row, column], what a decoder made of it.

  Raises:
    CTReadError: the stream cannot have held these pixels.
  """
  scan = _scan(stream, words.shape[1])
  needed, intervals = _needed_bits(words, scan), _intervals(stream, scan)
  if len(needed) != len(intervals) or not all(map(_holds, intervals, needed)):
    held = sum(map(_payload_bytes, intervals))
    raise errors.CTReadError(
      f'truncated or damaged: its compressed image holds {held} bytes, its pixels '
      f'need {sum(-(-bits // 8) for bits in needed)}, or its last bits are no '
      'padding.'
    )


def _holds(data: bytes, needed: int) -> bool:
  """Whether an interval ends with the byte that its last pixel ends in."""
  excess = _payload_bytes(data) - -(-needed // 8)
  if excess:
    if not 0 < excess <= compressed.MOST_ZERO_BYTES or data[-excess:].strip(b'\0'):
      return False
    return _holds(data[:-excess], needed)
  padding = (1 << (-needed % 8)) - 1
  last = 0xFF if data.endswith(b'\xff\0') else data[-1]
  return last & padding == padding  # Zeros could be the code of a lost pixel.


def _payload_bytes(data: bytes) -> int:
  """Bytes without the zero that stands after each ff."""
  values = np.frombuffer(data, np.uint8)
  return len(data) - int(np.count_nonzero((values[:-1] == 0xFF) & (values[1:] == 0)))


def _scan(stream: bytes, columns: int) -> Scan:
  try:
    return _parse(stream, columns)
  except (struct.error, IndexError, ValueError):
    raise errors.CTReadError(
      'its compressed image is damaged, or is no lossless JPEG of grey pixels.'
    ) from None


def _parse(stream: bytes, columns: int) -> Scan:
  tables: dict[int, tuple[int, ...]] = {}
  precision, restart_rows = 0, 0
  place = 2
  while True:
    marker = stream[place + 1]
    if marker == 0xFF:
      place += 1
      continue
    (length,) = struct.unpack_from('>H', stream, place + 2)
    body = stream[place + 4 : place + 2 + length]
    place += 2 + length
    if marker in compressed.FRAME_MARKERS:
      precision = body[0]
      if marker != _START_OF_FRAME or not _FEWEST_BITS <= precision <= 16:
        raise ValueError('another process')
    elif marker == _HUFFMAN_TABLES:
      tables.update(_tables(body))
    elif marker == _RESTART_INTERVAL:
      restart_rows, rest = divmod(struct.unpack('>H', body)[0], columns)
      if rest:
        raise ValueError('restarts within a row')
    elif marker == compressed.START_OF_SCAN:
      code_bits = tables.get(body[2] >> 4)
      shift = body[5] & 0xF
      if (
        body[0] != 1
        or code_bits is None
        or not 1 <= body[3] <= 7
        or (shift >= precision)
      ):
        raise ValueError('not one scan of one component')
      return Scan(precision, body[3], shift, code_bits, restart_rows, place)


def _intervals(stream: bytes, scan: Scan) -> list[bytes]:
  """The entropy-coded data of each restart interval, with stuffing."""
  data = stream[scan.start : -2].rstrip(b'\xff')  # Fill bytes.
  return _RESTART.split(data) if scan.restart_rows else [data]


def _tables(body: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
  """(number, code length of each category) of the tables in a DHT segment."""
  while body:
    counts = body[1:17]
    symbols = body[17 : 17 + sum(counts)]
    bits = [_NO_CODE] * _CATEGORIES
    lengths = [length for length, count in enumerate(counts, 1) for _ in range(count)]
    for symbol, length in zip(symbols, lengths, strict=True):
      bits[symbol] = length
    yield body[0] & 0xF, tuple(bits)
    body = body[17 + len(symbols) :]


def _needed_bits(words: np.ndarray, scan: Scan) -> list[int]:
  """Bits of the codes of each restart interval."""
  samples = words
  if scan.precision < 16:
    samples = samples & np.uint16((1 << scan.precision) - 1)
  if scan.shift:
    samples = samples >> np.uint16(scan.shift)
  differences = _differences(samples, scan).view(np.int16)
  # -32768 has no int16 opposite: its magnitude comes out as 32768, category 16.
  magnitudes = np.abs(differences, out=differences).view(np.uint16)
  rows = scan.restart_rows or len(words)
  return [
    _code_bits(magnitudes[start : start + rows], scan.code_bits)
    for start in range(0, len(words), rows)
  ]


def _code_bits(magnitudes: np.ndarray, code_bits: tuple[int, ...]) -> int:
  at_least = [magnitudes.size]  # Differences of at least this many bits.
  for bits in range(1, _CATEGORIES):
    at_least.append(
      at_least[-1] and int(np.count_nonzero(magnitudes >= np.uint16(1 << (bits - 1))))
    )
  counts = -np.diff([*at_least, 0])
  # Category 16 is -32768 alone, so no bits follow its code.
  return sum(
    int(count) * (code + category % 16)
    for category, (count, code) in enumerate(zip(counts, code_bits))
  )


def _differences(samples: np.ndarray, scan: Scan) -> np.ndarray:
  """Sample minus prediction modulo 2**16, uint16 [row, column]."""
  left, above = samples[1:, :-1], samples[:-1, 1:]
  differences = np.empty_like(samples)
  differences[1:, 1:] = samples[1:, 1:] - _predicted(
    left, above, samples[:-1, :-1], scan.predictor
  )
  differences[1:, 0] = samples[1:, 0] - samples[:-1, 0]
  first_rows = slice(0, None, scan.restart_rows or len(samples))
  differences[first_rows, 1:] = samples[first_rows, 1:] - samples[first_rows, :-1]
  middle = np.uint16(1 << (scan.precision - scan.shift - 1))
  differences[first_rows, 0] = samples[first_rows, 0] - middle
  return differences


def _predicted(
  left: np.ndarray, above: np.ndarray, corner: np.ndarray, predictor: int
) -> np.ndarray:
  """T.81 table H.1; uint16 arithmetic wraps as the standard asks."""
  if predictor <= 3:
    return (left, above, corner)[predictor - 1]
  a, b, c = (values.astype(np.int32) for values in (left, above, corner))
  ways: dict[int, Callable[[], np.ndarray]] = {
    4: lambda: a + b - c,
    5: lambda: a + ((b - c) >> 1),
    6: lambda: b + ((a - c) >> 1),
    7: lambda: (a + b) >> 1,
  }
  return ways[predictor]().astype(np.uint16)
