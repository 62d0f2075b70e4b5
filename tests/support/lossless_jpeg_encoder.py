"""A lossless JPEG encoder for tests, written from ITU-T T.81.

Every category of difference has a code of five bits, so no table has to be fitted.
"""

import struct

import numpy as np


def encode(image: np.ndarray, predictor: int) -> bytes:
  """A stream of 12 bits with the predictor 1 to 7; image is uint16 [row, column]."""
  bits, rows, columns = '', *image.shape
  x = image.astype(int)
  for row in range(rows):
    for column in range(columns):
      a, b = x[row, column - 1], x[row - 1, column]
      c = x[row - 1, column - 1]
      if row == 0 and column == 0:
        prediction = 2048
      elif row == 0:
        prediction = a
      elif column == 0:
        prediction = b
      else:
        prediction = [
          a,
          b,
          c,
          a + b - c,
          a + ((b - c) >> 1),
          b + ((a - c) >> 1),
          (a + b) >> 1,
        ][predictor - 1]
      difference = x[row, column] - prediction
      size = int(abs(difference)).bit_length()
      value = difference if difference > 0 else difference + (1 << size) - 1
      bits += f'{size:05b}' + (f'{value:0{size}b}' if size else '')
  packed = bits + '1' * (-len(bits) % 8)
  data = int(packed, 2).to_bytes(len(packed) // 8, 'big').replace(b'\xff', b'\xff\0')
  table = bytes([0] + [0] * 4 + [17] + [0] * 11) + bytes(range(17))
  return (
    b'\xff\xd8'
    + b'\xff\xc3'
    + struct.pack('>HBHHB', 11, 12, rows, columns, 1)
    + b'\1\x11\0'
    + b'\xff\xc4'
    + struct.pack('>H', 2 + len(table))
    + table
    + b'\xff\xda'
    + struct.pack('>HB', 8, 1)
    + bytes((1, 0, predictor, 0, 0))
    + data
    + b'\xff\xd9'
  )
