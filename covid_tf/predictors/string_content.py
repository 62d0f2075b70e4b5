"""Strings in `tensor_content`: all lengths as varints, then all bytes.

tensor.proto does not say so, TensorFlow's C++ does it
(`port::EncodeStringList`); a server that is told to answer in `tensor_content`
sends its strings this way too.
"""

from collections.abc import Iterable

import numpy as np

_CONTINUES = 0x80  # Set in every byte of a varint but the last.
_BITS = 7  # Of the number, in each byte.


def pack(strings: Iterable[bytes]) -> bytes:
  """Packs `strings` in their order."""
  strings = list(strings)
  return b''.join([*(_varint(len(string)) for string in strings), *strings])


def unpack(content: bytes, count: int) -> np.ndarray:
  """Reads `count` packed strings.

  Args:
    content: what `pack` gives.
    count: how many strings it must hold.

  Returns:
    object [count] of bytes.

  Raises:
    ValueError: it holds more or less than that.
  """
  lengths, at = [], 0
  for _ in range(count):
    length, shift = 0, 0
    while True:
      if at == len(content):
        raise ValueError('the lengths of strings end early')
      byte = content[at]
      at += 1
      length |= (byte & ~_CONTINUES) << shift
      shift += _BITS
      if not byte & _CONTINUES:
        break
    lengths.append(length)
  if len(content) - at != sum(lengths):
    raise ValueError(f'{len(content) - at} bytes for strings of {sum(lengths)}')
  strings = np.empty(count, np.object_)
  for index, length in enumerate(lengths):
    strings[index] = content[at:at + length]
    at += length
  return strings


def _varint(number: int) -> bytes:
  groups = []
  while number >= _CONTINUES:
    groups.append(number % _CONTINUES | _CONTINUES)
    number >>= _BITS
  return bytes([*groups, number])
