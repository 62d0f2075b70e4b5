"""The carried descriptors and the tensors, against TensorFlow's own reading."""

import importlib.util
import pathlib

import numpy as np
import pytest

from covid_tf.predictors import protocol
from covid_tf.predictors import tensors

_ARRAYS = [
  np.array([[0.5, -1e30], [np.inf, 3]], np.float32),
  np.array([0.1, -2], np.float64),
  np.array([[0, 1], [1, 1]], np.uint8),
  np.array([0, 127, 128, 255], np.uint8),
  np.array([-1024, 3071], np.int16),
  np.array([-(2**31), 2**31 - 1], np.int32),
  np.array([-5, 2**62], np.int64),
  np.array([2**63 + 1], np.uint64),
  np.array([2**31 + 1], np.uint32),
  np.array([65535], np.uint16),
  np.array([-128], np.int8),
  np.array([True, False]),
  np.array([1.5, -65504], np.float16),
  np.array([1 + 2j, -3j], np.complex64),
  np.array([1 + 2j], np.complex128),
  np.array([b'', b'caf\xc3\xa9\x00'], object),
  np.array(3.5, np.float32),
  np.zeros((0, 28, 28), np.float32),
  np.zeros((2, 0), np.uint8),
]
_IDS = [f'{array.dtype}{list(array.shape)}' for array in _ARRAYS]


def _same(found, array):
  assert found.dtype == array.dtype
  assert found.shape == array.shape
  np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize('array', _ARRAYS, ids=_IDS)
def test_raw_and_typed_tensors_are_read_back(array):
  for fill in (tensors.fill, tensors.fill_content, tensors.fill_typed):
    proto = protocol.TensorProto.FromString(
      fill(protocol.TensorProto(), array).SerializeToString()
    )
    _same(tensors.read(proto), array)
    _same(tensors.read_request(proto), array)


@pytest.mark.parametrize('array', _ARRAYS, ids=_IDS)
def test_packed_answers_are_the_same_bytes_and_values(array):
  packed, ordinary = tensors.PredictResponse(), protocol.PredictResponse()
  tensors.fill_packed(packed.outputs['x'], array)
  tensors.fill_typed(ordinary.outputs['x'], array)
  assert protocol.PredictResponse.FromString(packed.SerializeToString()) == ordinary
  for sent in (packed, ordinary):
    read = tensors.PredictResponse.FromString(sent.SerializeToString())
    _same(tensors.read_packed(read.outputs['x']), array)


def test_lists_in_pieces_and_unpacked_lists_are_read():
  # Both are legal on the wire; protobuf merges what arrives twice.
  first, second = protocol.TensorProto(dtype=1), protocol.TensorProto()
  tensors.set_shape(first, (3,))
  first.float_val.extend([1, 2])
  second.float_val.append(3)
  pieces = first.SerializeToString() + second.SerializeToString()
  unpacked = protocol.TensorProto(dtype=3)
  tensors.set_shape(unpacked, (2,))
  # Field 7 (int_val), wire type 0: one varint an element.
  unpacked_bytes = unpacked.SerializeToString() + b'\x38\x05\x38\x06'
  response = tensors.PredictResponse()
  response.outputs['a'].ParseFromString(pieces)
  response.outputs['b'].ParseFromString(unpacked_bytes)
  read = tensors.PredictResponse.FromString(response.SerializeToString())
  assert tensors.read_packed(read.outputs['a']).tolist() == [1, 2, 3]
  assert tensors.read_packed(read.outputs['b']).tolist() == [5, 6]


def test_bfloat16_is_read_as_float32():
  proto = protocol.TensorProto(dtype=tensors.BFLOAT16)
  tensors.set_shape(proto, (2,))
  proto.half_val.extend([0x3FC0, 0xC000])
  _same(tensors.read(proto), np.array([1.5, -2], np.float32))
  _same(tensors.read_request(proto), np.array([1.5, -2], np.float32))


@pytest.mark.parametrize(
  'dtype, field, stated, whole',
  [
    (1, 'float_val', [2.5], [2.5] * 4),
    (5, 'int_val', [1, -2], [1, -2, -2, -2]),
    (5, 'int_val', [], [0] * 4),
    (7, 'string_val', [b'x'], [b'x'] * 4),
    (7, 'string_val', [], [b''] * 4),
    (8, 'scomplex_val', [1, 2], [1 + 2j] * 4),
  ],
)
def test_short_lists_repeat_their_last_value(dtype, field, stated, whole):
  proto = protocol.TensorProto(dtype=dtype)
  tensors.set_shape(proto, (4,))
  getattr(proto, field).extend(stated)
  assert tensors.read_request(proto).tolist() == whole
  with pytest.raises(tensors.TensorError, match='elements for shape'):
    tensors.read(proto)  # A whole answer never is so short.


def _proto(dtype, shape, content=b'', **fields):
  proto = protocol.TensorProto(dtype=dtype, tensor_content=content, **fields)
  tensors.set_shape(proto, shape)
  return proto


@pytest.mark.parametrize(
  'proto',
  [
    _proto(1, (2,), b'\0' * 7),
    _proto(1, (2,), b'\0' * 4),
    _proto(1, (1,), b'\0' * 8),
    _proto(0, (1,)),
    _proto(20, (1,)),
    _proto(1, (-1,)),
    _proto(8, (1,), scomplex_val=[1, 2, 3]),
    _proto(1, (1,) * 65, float_val=[1]),
    _proto(1, (2**40, 2**40), float_val=[1]),
    _proto(1, (2**45,), float_val=[1]),
    _proto(7, (2,), b'\1\1a'),
    _proto(7, (2,), b'\1\1abc'),
    _proto(7, (2,), b'\1\x81'),
  ],
)
def test_tensors_that_do_not_hold_what_they_promise(proto):
  for read in (tensors.read, tensors.read_request):
    with pytest.raises(tensors.TensorError):
      read(proto)


@pytest.mark.parametrize(
  'proto, found',
  [
    (_proto(3, (1,), int_val=[1, 2]), [1]),
    (_proto(1, (0,), b'\0' * 4), []),
    (
      protocol.TensorProto(dtype=1, float_val=[2], tensor_shape={'unknown_rank': True}),
      2,
    ),
  ],
)
def test_requests_are_read_more_generously_than_answers(proto, found):
  assert tensors.read_request(proto).tolist() == found
  with pytest.raises(tensors.TensorError):
    tensors.read(proto)


def test_strings_of_any_length_are_packed():
  strings = np.array([b'', b'a' * 127, b'b' * 128, b'c' * 20_000], object)
  proto = tensors.fill_content(protocol.TensorProto(), strings)
  assert not proto.string_val
  _same(tensors.read(proto), strings)


# Against TensorFlow and the package that the descriptors come from.


@pytest.mark.parametrize('array', _ARRAYS, ids=_IDS)
def test_tensorflow_reads_and_writes_the_same(array):
  tf = pytest.importorskip('tensorflow')
  for fill in (tensors.fill, tensors.fill_typed):
    theirs = tf.make_ndarray(
      type(tf.make_tensor_proto(0)).FromString(
        fill(protocol.TensorProto(), array).SerializeToString()
      )
    )
    _same(theirs.astype(array.dtype), array)
  proto = tf.make_tensor_proto(array).SerializeToString()
  _same(tensors.read_request(protocol.TensorProto.FromString(proto)), array)


@pytest.mark.parametrize(
  'proto',
  [
    _proto(1, (2, 2), float_val=[1, 2, 3, 4, 5]),
    _proto(5, (3,), int_val=[70_000, -1]),
    _proto(4, (1,), int_val=[-1]),
    _proto(19, (1,), half_val=[70_000]),
    _proto(8, (3,), scomplex_val=[1, 2]),
    _proto(1, (0, 3), b'abcd'),
    _proto(3, (2,), float_val=[1]),
    _proto(7, (3,), b'\x02\x00\x81\x01' + b'x' * 131),
    _proto(7, (2,), string_val=[b'a', b'b', b'c']),
    _proto(10, (2,), bool_val=[True]),
  ],
)
def test_tensorflow_reads_odd_requests_the_same(proto):
  tf = pytest.importorskip('tensorflow')
  theirs = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype))
  _same(tensors.read_request(proto), theirs.numpy())


def test_descriptors_are_what_the_generator_makes():
  pytest.importorskip('tensorflow_serving')
  path = pathlib.Path(__file__).parents[2] / 'tools' / 'generate_protocol.py'
  spec = importlib.util.spec_from_file_location('generate_protocol', path)
  generator = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(generator)
  carried = protocol.descriptors()
  made = generator.file_descriptor_set()
  assert [file.name for file in made.file] == [file.name for file in carried.file]
  for ours, theirs in zip(carried.file, made.file, strict=True):
    assert ours == theirs, ours.name
  assert len(carried.SerializeToString()) < 60_000


def test_two_pools_in_one_process():
  theirs = pytest.importorskip('tensorflow_serving.apis.predict_pb2')
  request = theirs.PredictRequest()
  request.model_spec.name = 'm'
  ours = protocol.PredictRequest.FromString(request.SerializeToString())
  assert ours.model_spec.name == 'm'
  assert not isinstance(ours, theirs.PredictRequest)
