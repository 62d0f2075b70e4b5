"""TensorProto to NumPy and back, by the letter of tensor.proto."""

from collections.abc import Iterable
import math

import numpy as np

from covid_tf.predictors import protocol

# Strings in `tensor_content`: all lengths as varints, then all bytes.
#
# tensor.proto does not say so, TensorFlow's C++ does it
# (`port::EncodeStringList`); a server that is set to answer in `tensor_content`
# sends its strings this way too.

_CONTINUES = 0x80  # Set in every byte of a varint but the last.
_BITS = 7  # Of the number, in each byte.


def pack_strings(strings: Iterable[bytes]) -> bytes:
  """Packs `strings` in their order."""
  strings = list(strings)
  return b''.join([*(_varint(len(string)) for string in strings), *strings])


def unpack_strings(content: bytes, count: int) -> np.ndarray:
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
    strings[index] = content[at : at + length]
    at += length
  return strings


def _varint(number: int) -> bytes:
  groups = []
  while number >= _CONTINUES:
    groups.append(number % _CONTINUES | _CONTINUES)
    number >>= _BITS
  return bytes([*groups, number])


# TensorFlow's DataType numbers (types.proto): NumPy type and the typed field that
# carries it. Types narrower than 32 bits share int_val, as varints.
_TYPES = {
  1: (np.float32, 'float_val'),
  2: (np.float64, 'double_val'),
  3: (np.int32, 'int_val'),
  4: (np.uint8, 'int_val'),
  5: (np.int16, 'int_val'),
  6: (np.int8, 'int_val'),
  7: (np.object_, 'string_val'),
  8: (np.complex64, 'scomplex_val'),
  9: (np.int64, 'int64_val'),
  10: (np.bool_, 'bool_val'),
  17: (np.uint16, 'int_val'),
  18: (np.complex128, 'dcomplex_val'),
  19: (np.float16, 'half_val'),
  22: (np.uint32, 'uint32_val'),
  23: (np.uint64, 'uint64_val'),
}
BFLOAT16 = 14  # No NumPy type; read as float32, which holds it exactly.
STRING = 7
_MOST_AXES = 64  # Of a NumPy array; TensorFlow goes to 254.
_MOST_ELEMENTS = 2**63 - 1  # TensorFlow counts them in an int64.

DTYPE_NUMBERS = {np.dtype(kind): number for number, (kind, _) in _TYPES.items()}


class TensorError(ValueError):
  """A TensorProto that does not hold what its dtype and shape promise."""


def fill(proto, array: np.ndarray):
  """Writes `array` into `proto` as raw bytes (`tensor_content`).

  Strings go to `string_val`, which is how clients send them.

  Args:
    proto: an empty TensorProto.
    array: any array of a type above; object arrays hold bytes.

  Returns:
    `proto`.
  """
  array = np.asarray(array)
  return (fill_typed if array.dtype.hasobject else fill_content)(proto, array)


def fill_content(proto, array: np.ndarray):
  """Writes `array`, strings too, into `tensor_content`; see `fill`."""
  array = np.asarray(array)
  proto.dtype = DTYPE_NUMBERS[array.dtype]
  set_shape(proto, array.shape)
  proto.tensor_content = (
    pack_strings(array.ravel())
    if proto.dtype == STRING
    else array.astype(array.dtype.newbyteorder('<'), copy=False).tobytes()
  )
  return proto


def fill_typed(proto, array: np.ndarray):
  """Writes `array` into the typed field of `proto`; see `fill`."""
  array = np.asarray(array)
  proto.dtype = DTYPE_NUMBERS[array.dtype]
  set_shape(proto, array.shape)
  field = _TYPES[proto.dtype][1]
  flat = array.ravel()
  if field == 'half_val':
    flat = flat.view(np.uint16)
  elif field.endswith('complex_val'):
    flat = flat.view(np.float32 if field[0] == 's' else np.float64)
  getattr(proto, field).extend(flat.tolist())
  return proto


def set_shape(proto, shape: tuple[int, ...]) -> None:
  """Writes the sizes of every axis; no axis at all is a scalar."""
  proto.tensor_shape.SetInParent()
  for size in shape:
    proto.tensor_shape.dim.add(size=size)


def shape_of(proto) -> tuple[int, ...]:
  """The shape that `proto` states; TensorError where it states none."""
  shape = tuple(dim.size for dim in proto.tensor_shape.dim)
  if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
    raise TensorError(f'shape {shape} is not a full one')
  if len(shape) > _MOST_AXES or math.prod(shape) > _MOST_ELEMENTS:
    raise TensorError(
      f'{math.prod(shape)} elements on {len(shape)} axes: more than fits an array'
    )
  return shape


def read(proto) -> np.ndarray:
  """Reads `proto` from raw bytes or from its typed field, whichever it uses.

  Args:
    proto: a TensorProto that states every element.

  Returns:
    An array of the stated shape, maybe read-only; bfloat16 becomes float32.

  Raises:
    TensorError: unknown dtype, or not exactly as many elements as the shape has.
  """
  shape = shape_of(proto)
  values = _elements(proto, math.prod(shape))
  if values.size != math.prod(shape):
    raise TensorError(
      f'{values.size} elements for shape {list(shape)}: truncated on its way?'
    )
  return values.reshape(shape)


def read_request(proto) -> np.ndarray:
  """Reads `proto` as TensorFlow reads requests, which is generous.

  tensor.proto lets a sender state one value for a whole tensor: a short list
  repeats its last value, and no value at all stands for zeros. Of a list that is
  too long the surplus is dropped, and a tensor that states no rank is a scalar.

  Args:
    proto: a TensorProto.

  Returns:
    An array of the stated shape, maybe read-only; bfloat16 becomes float32.

  Raises:
    TensorError: unknown dtype, no full shape, `tensor_content` of another size, or
      more elements than there is memory for.
  """
  no_rank = proto.tensor_shape.unknown_rank and not proto.tensor_shape.dim
  shape = () if no_rank else shape_of(proto)
  count = math.prod(shape)
  dtype = dtype_of(proto)
  if not count:
    return np.empty(shape, dtype)
  values = _elements(proto, count)
  if proto.tensor_content and values.size != count:
    raise TensorError(f'{values.size} elements for shape {list(shape)}')
  if values.size >= count:
    return values[:count].reshape(shape)
  fill_with = values[-1] if values.size else (b'' if proto.dtype == STRING else 0)
  try:
    whole = np.full(count, fill_with, dtype)
  except (MemoryError, ValueError) as error:
    raise TensorError(f'no memory for shape {list(shape)}') from error
  whole[: values.size] = values
  return whole.reshape(shape)


def dtype_of(proto) -> np.dtype:
  """NumPy's type for the stated dtype; TensorError for one not carried."""
  if proto.dtype == BFLOAT16:
    return np.dtype(np.float32)
  if proto.dtype not in _TYPES:
    raise TensorError(f'dtype {proto.dtype} is not carried')
  return np.dtype(_TYPES[proto.dtype][0])


def _elements(proto, count: int) -> np.ndarray:
  """The elements that `proto` states; `count` are expected."""
  if proto.dtype == BFLOAT16:
    halves = _stored(proto, np.dtype(np.uint16), 'half_val', count)
    return (halves.astype(np.uint32) << 16).view(np.float32)
  dtype = dtype_of(proto)
  return _stored(proto, dtype, _TYPES[proto.dtype][1], count)


def _stored(proto, dtype: np.dtype, field: str, count: int) -> np.ndarray:
  if proto.tensor_content:
    return _from_content(proto.tensor_content, dtype, count)
  values = getattr(proto, field)
  if field == 'string_val':
    array = np.empty(len(values), np.object_)
    array[:] = list(values)
    return array
  if field == 'half_val':
    return np.asarray(values, np.int32).astype(np.uint16).view(dtype)
  if field.endswith('complex_val'):
    parts = np.asarray(values, np.float32 if field[0] == 's' else np.float64)
    if parts.size % 2:
      raise TensorError('half a complex number: truncated on its way?')
    return parts.view(dtype)
  # Straight from the repeated field: a hundred times faster than an iteration.
  return (
    np.asarray(values, np.int32).astype(dtype)
    if (field == 'int_val')
    else np.asarray(values, dtype)
  )


def _from_content(content: bytes, dtype: np.dtype, count: int) -> np.ndarray:
  if dtype.hasobject:
    try:
      return unpack_strings(content, count)
    except ValueError as error:
      raise TensorError(f'{error}: truncated on its way?') from error
  wide = dtype.newbyteorder('<')
  if len(content) % wide.itemsize:
    raise TensorError('a part of an element: truncated on its way?')
  return np.frombuffer(content, wide)


# Predict answers with numbers as packed bytes: no parse and no copy an element.
#
# On the wire a packed list of numbers and a bytes field look the same. So a second
# reading of the same protocol, in which TensorProto's number lists are declared as
# bytes, hands a whole list to NumPy at once, and writes one as fast. A million
# varints cost 25 ms in a protobuf parser and nothing here.

# DataType -> (field, NumPy type of one packed element). A varint below 128 is one
# byte, which holds for masks; other integers take the ordinary way.
_PACKED: dict[int, tuple[str, np.dtype]] = {
  1: ('float_val', np.dtype('<f4')),
  2: ('double_val', np.dtype('<f8')),
  3: ('int_val', np.dtype('u1')),
  4: ('int_val', np.dtype('u1')),
  5: ('int_val', np.dtype('u1')),
  6: ('int_val', np.dtype('u1')),
  9: ('int64_val', np.dtype('u1')),
  10: ('bool_val', np.dtype('u1')),
}
_ONE_BYTE = 128  # The first value whose varint takes two bytes.


def _packed_descriptors():
  files = protocol.descriptors()
  tensor = next(
    file for file in files.file if file.name.endswith('framework/tensor.proto')
  ).message_type[0]
  fields = {field for field, _ in _PACKED.values()}
  for field in tensor.field:
    if field.name in fields:
      field.type = field.TYPE_BYTES  # Still repeated: a list may come in pieces.
      field.ClearField('options')
  return files


PredictResponse = protocol.message_class(
  protocol.pool_of(_packed_descriptors()), 'tensorflow.serving.PredictResponse'
)


def read_packed(proto) -> np.ndarray:
  """Reads one output of a PredictResponse of this module.

  Args:
    proto: its TensorProto.

  Returns:
    An array of the stated dtype and shape, maybe read-only.

  Raises:
    tensors.TensorError: as `tensors.read`.
  """
  shape = shape_of(proto)
  if not proto.tensor_content and proto.dtype in _PACKED:
    field, kind = _PACKED[proto.dtype]
    data = b''.join(getattr(proto, field))
    if len(data) == math.prod(shape) * kind.itemsize:
      return (
        np.frombuffer(data, kind).astype(dtype_of(proto), copy=False).reshape(shape)
      )
  # Varints of several bytes, unpacked lists, other types: the ordinary parser.
  return read(protocol.TensorProto.FromString(proto.SerializeToString()))


def fill_packed(proto, array: np.ndarray):
  """Writes `array` into the typed field of `proto`, as TF Serving answers.

  Args:
    proto: an empty TensorProto of this module's PredictResponse.
    array: what a session gave; object arrays hold bytes.

  Returns:
    `proto`.
  """
  number = DTYPE_NUMBERS[array.dtype]
  field, kind = _PACKED.get(number, ('', np.dtype('u1')))
  if not field or (
    kind.itemsize == 1
    and array.size
    and not (array.min() >= 0 and array.max() < _ONE_BYTE)
  ):
    ordinary = fill_typed(protocol.TensorProto(), array)
    proto.MergeFromString(ordinary.SerializeToString())
    return proto
  proto.dtype = number
  set_shape(proto, array.shape)
  if array.size:
    getattr(proto, field).append(array.astype(kind, copy=False).tobytes())
  return proto
