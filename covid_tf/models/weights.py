"""Weights in about a fifth of their size: quantized by channel, then entropy coded.

A file is eight magic bytes, the length of a JSON index (uint32, little endian),
the index, and one zlib stream for all tensors in the index's order. A tensor of
one axis is float32. One of more axes is int8 levels, each times the step of its
last axis's channel; the steps (float32) come before the levels. A step is a fixed
share of the channel's standard deviation, so each channel gets the same relative
noise and about the same bits a weight. Levels have no repeats to find: zlib is
told to use Huffman codes alone, which is fast and comes near their entropy.
"""

import hashlib
import json
import pathlib
import struct
import zlib

import numpy as np

from covid_tf import errors
from covid_tf import files

_MAGIC = b'CTFWGT01'
# Ours: noise of 0.04 / sqrt(12) = 1.2 % of a weight's deviation, 6.9 bits a
# weight. tools/encode_weights.py prints what it does to the networks' answers.
STEP_PER_DEVIATION = 0.04
_MAX_LEVEL = 127


def save(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> str:
  """Writes float tensors by name; returns the file's SHA-256 (hex)."""
  index = [{'name': name, 'shape': tensor.shape} for name, tensor in tensors.items()]
  header = json.dumps(index, separators=(',', ':')).encode()
  coder = zlib.compressobj(level=9, strategy=zlib.Z_HUFFMAN_ONLY)
  body = [coder.compress(_encode(tensor)) for tensor in tensors.values()]
  data = b''.join(
      [_MAGIC, struct.pack('<I', len(header)), header, *body, coder.flush()])
  files.write_atomically(path, data)
  return hashlib.sha256(data).hexdigest()


def load(path: pathlib.Path, sha256: str) -> dict[str, np.ndarray]:
  """Reads float32 tensors by name.

  Args:
    path: a file that `save` wrote.
    sha256: the hex digest it must have.

  Raises:
    errors.ModelError: the file is absent, or is not the one the digest names.
  """
  try:
    data = path.read_bytes()
  except OSError as error:
    raise errors.ModelError(
        f'{path.name}: the weights that come with the package are required, found '
        f'none ({error.strerror}); install the package again.') from error
  found = hashlib.sha256(data).hexdigest()
  if found != sha256:
    raise errors.ModelError(
        f'{path.name}: SHA-256 {sha256} is required, found {found}; the file is '
        'damaged: install the package again.')
  start = len(_MAGIC) + 4
  (length,) = struct.unpack('<I', data[len(_MAGIC):start])
  index = json.loads(data[start:start + length])
  return _decode_all(index, zlib.decompress(data[start + length:]))


def _encode(tensor: np.ndarray) -> bytes:
  tensor = np.asarray(tensor, np.float32)
  if tensor.ndim < 2:
    return tensor.astype('<f4').tobytes()
  channels = tensor.reshape(-1, tensor.shape[-1])
  # The largest weight must fit the levels, whatever the deviation says.
  steps = np.maximum(STEP_PER_DEVIATION * channels.std(axis=0),
                     np.abs(channels).max(axis=0) / _MAX_LEVEL)
  steps = np.where(steps > 0, steps, 1).astype('<f4')
  levels = np.rint(channels / steps).astype(np.int8)
  return steps.tobytes() + levels.tobytes()


def _decode_all(index: list[dict], body: bytes) -> dict[str, np.ndarray]:
  tensors, offset = {}, 0
  for entry in index:
    shape = tuple(entry['shape'])
    count = int(np.prod(shape))
    if len(shape) < 2:
      tensor = np.frombuffer(body, '<f4', count, offset)
      offset += tensor.nbytes
    else:
      steps = np.frombuffer(body, '<f4', shape[-1], offset)
      offset += steps.nbytes
      levels = np.frombuffer(body, np.int8, count, offset)
      offset += levels.nbytes
      tensor = levels.reshape(-1, shape[-1]) * steps
    tensors[entry['name']] = tensor.reshape(shape).astype(np.float32)
  return tensors
