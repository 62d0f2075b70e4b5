"""TensorProto to NumPy and back, by the letter of tensor.proto."""

import math

import numpy as np

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

DTYPE_NUMBERS = {np.dtype(kind): number for number, (kind, _) in _TYPES.items()}


class TensorError(ValueError):
  """A TensorProto that does not hold what its dtype and shape promise."""


def fill(proto, array: np.ndarray):
  """Writes `array` into `proto` as raw bytes (`tensor_content`).

  Strings, which have no such form, go to `string_val`.

  Args:
    proto: an empty TensorProto.
    array: any array of a type above; object arrays hold bytes.

  Returns:
    `proto`.
  """
  array = np.asarray(array)
  proto.dtype = DTYPE_NUMBERS[array.dtype]
  set_shape(proto, array.shape)
  if proto.dtype == STRING:
    proto.string_val.extend(array.ravel().tolist())
  else:
    proto.tensor_content = array.astype(
        array.dtype.newbyteorder('<'), copy=False).tobytes()
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
  dtype = dtype_of(proto)
  if proto.dtype == BFLOAT16:
    halves = _read_elements(proto, np.uint16, 'half_val')
    values = (halves.astype(np.uint32) << 16).view(np.float32)
  else:
    values = _read_elements(proto, dtype, _TYPES[proto.dtype][1])
  if values.size != math.prod(shape):
    raise TensorError(
        f'{values.size} elements for shape {list(shape)}: cut off on its way?')
  return values.reshape(shape)


def read_broadcast(proto) -> np.ndarray:
  """Reads `proto` as TensorFlow reads requests: short lists repeat their last.

  tensor.proto lets a sender state one value for a whole tensor; make_tensor_proto
  does. No value at all stands for zeros.

  Args:
    proto: a TensorProto.

  Returns:
    An array of the stated shape, maybe read-only; bfloat16 becomes float32.

  Raises:
    TensorError: unknown dtype, or more elements than the shape has.
  """
  shape = shape_of(proto)
  count = math.prod(shape)
  field = 'half_val' if proto.dtype == BFLOAT16 else (
      dtype_of(proto) and _TYPES[proto.dtype][1])
  stated = len(getattr(proto, field))
  if field.endswith('complex_val'):
    stated //= 2
  if proto.tensor_content or stated >= count:
    return read(proto)
  if not stated:
    empty = b'' if proto.dtype == STRING else 0
    return np.full(shape, empty, dtype_of(proto))
  some = type(proto)()
  some.CopyFrom(proto)
  some.ClearField('tensor_shape')
  set_shape(some, (stated,))
  values = read(some)
  return np.concatenate(
      (values, np.repeat(values[-1:], count - stated))).reshape(shape)


def dtype_of(proto) -> np.dtype:
  """NumPy's type for the stated dtype; TensorError for one not carried."""
  if proto.dtype == BFLOAT16:
    return np.dtype(np.float32)
  if proto.dtype not in _TYPES:
    raise TensorError(f'dtype {proto.dtype} is not carried')
  return np.dtype(_TYPES[proto.dtype][0])


def _read_elements(proto, dtype, field: str) -> np.ndarray:
  if proto.tensor_content:
    wide = np.dtype(dtype).newbyteorder('<')
    if len(proto.tensor_content) % wide.itemsize:
      raise TensorError('a part of an element: cut off on its way?')
    return np.frombuffer(proto.tensor_content, wide)
  values = getattr(proto, field)
  if field == 'string_val':
    array = np.empty(len(values), np.object_)
    array[:] = list(values)
    return array
  if field == 'half_val':
    return np.asarray(values, np.uint16).view(dtype)
  if field.endswith('complex_val'):
    parts = np.asarray(values, np.float32 if field[0] == 's' else np.float64)
    if parts.size % 2:
      raise TensorError('half a complex number: cut off on its way?')
    return parts.view(dtype)
  # Straight from the repeated field: a hundred times faster than an iteration.
  return np.asarray(values, np.int32).astype(dtype) if (
      field == 'int_val') else np.asarray(values, dtype)
