"""Predict: TF Serving's checks in TF Serving's order, then the graph."""

from collections.abc import Iterable, Iterator, Mapping
import itertools
import logging

from google.protobuf import message
import grpc
import numpy as np
import tensorflow as tf

from covid_tf import contract
from covid_tf import errors
from covid_tf.predictors import answers
from covid_tf.predictors import protocol
from covid_tf.predictors import self_check
from covid_tf.predictors import tensors
from covid_tf.sessions import refusal
from covid_tf.sessions import servable as servable_lib


def predict(
  servable: servable_lib.Servable, version: int, request, *, as_content: bool = False
):
  """Answers one PredictRequest.

  Args:
    servable: the model.
    version: its number, echoed in the answer.
    request: a PredictRequest.
    as_content: answer with `tensor_content` instead of the typed fields.

  Returns:
    A PredictResponse (of `covid_tf.predictors.tensors`).

  Raises:
    refusal.Refusal: the request is wrong, or an op of the graph refused.
  """
  name = request.model_spec.signature_name or contract.SERVING_DEFAULT
  if name not in servable.signatures:
    raise refusal.failed_precondition(f'Serving signature key "{name}" not found.')
  signature = servable.signatures[name]
  values = _input_values(signature, request)
  aliases = _output_aliases(signature, request.output_filter)
  _check_dtypes(signature, values)
  arrays = servable.run(
    {signature.inputs[alias].name: value for alias, value in values.items()},
    [signature.outputs[alias].name for alias in aliases],
  )
  response = tensors.PredictResponse()
  response.model_spec.name = request.model_spec.name
  response.model_spec.version.value = version
  response.model_spec.signature_name = name
  for alias, array in zip(aliases, arrays, strict=True):
    _fill(response.outputs[alias], np.asarray(array), as_content)
  return response


def _input_values(signature, request) -> dict[str, np.ndarray]:
  """Reads the inputs, in the order of their aliases; defaults fill the gaps."""
  _check_input_count(signature, request)
  values = {}
  for alias in sorted(signature.inputs):
    if alias in request.inputs:
      proto = request.inputs[alias]
    elif alias in signature.defaults:
      proto = signature.defaults[alias]
    else:
      raise refusal.invalid_argument(
        f'Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) '
        'not found in request and no default value provided. Inputs expected to be '
        f'in the request {_braces(request.inputs)}, or default input alias set: '
        f'{",".join(sorted(signature.defaults))}'
      )
    try:
      values[alias] = _read(proto)
    except tensors.TensorError as error:
      raise refusal.invalid_argument(f'tensor parsing error: {alias}') from error
  used = set(values) & set(request.inputs)
  if used != set(request.inputs):
    raise refusal.invalid_argument(
      f'Inputs contains invalid name. Used request inputs: {",".join(sorted(used))}, '
      f'request input: {",".join(sorted(request.inputs))}'
    )
  return values


def _check_input_count(signature, request) -> None:
  sent, wanted = set(request.inputs), set(signature.inputs)
  if len(sent) == len(wanted) or (len(sent) < len(wanted) and signature.defaults):
    return
  raise refusal.invalid_argument(
    f'input size does not match signature: {len(sent)}!={len(wanted)} '
    f'len({_braces(sent)}) != len({_braces(wanted)}). '
    f'Sent extra: {_braces(sent - wanted)}. '
    f'Missing but required: {_braces(wanted - sent)}.'
  )


def _output_aliases(signature, output_filter) -> list[str]:
  for index, alias in enumerate(output_filter):
    if alias not in signature.outputs:
      raise refusal.invalid_argument(
        f'output tensor alias not found in signature: {alias} Outputs expected to '
        f'be in the set {_braces(signature.outputs)}.'
      )
    if alias in itertools.islice(output_filter, index):
      raise refusal.invalid_argument(f'duplicate output tensor alias: {alias}')
  return list(output_filter) or sorted(signature.outputs)


def _check_dtypes(signature, values: dict[str, np.ndarray]) -> None:
  """Refuses another dtype; TF Serving's executor does, the Python session casts."""
  for index, (alias, value) in enumerate(values.items()):
    expected = signature.inputs[alias].dtype
    found = tf.as_dtype(value.dtype).as_datatype_enum
    if found != expected:
      raise refusal.invalid_argument(
        f'Expects arg[{index}] to be {_dtype_name(expected)} but '
        f'{_dtype_name(found)} is provided'
      )


def _read(proto) -> np.ndarray:
  value = tensors.read_request(proto)
  if proto.dtype == tensors.BFLOAT16:
    return value.astype(tf.bfloat16.as_numpy_dtype)
  return value


def _fill(proto, array: np.ndarray, as_content: bool) -> None:
  if array.dtype.kind in 'SU':  # A scalar string comes as bytes.
    array = array.astype(object)
  if array.dtype == tf.bfloat16.as_numpy_dtype:
    proto.dtype = tensors.BFLOAT16
    tensors.set_shape(proto, array.shape)
    if as_content:
      proto.tensor_content = array.tobytes()
    else:
      proto.half_val.extend(array.view(np.uint16).ravel().tolist())
  elif array.dtype not in tensors.DTYPE_NUMBERS:
    raise refusal.Refusal(
      refusal.UNIMPLEMENTED, f'outputs of type {array.dtype} are not carried'
    )
  elif as_content:
    tensors.fill_content(proto, array)
  else:
    tensors.fill_packed(proto, array)


def _dtype_name(number: int) -> str:
  """C++'s name of a DataType: float32 is 'float' there."""
  name = tf.as_dtype(number).name
  return {'float32': 'float', 'float64': 'double', 'float16': 'half'}.get(name, name)


def _braces(names: Iterable[str]) -> str:
  return '{' + ','.join(sorted(names)) + '}'


# What a version goes through before it is said to be available.
#
# The warm-up requests that it carries are replayed, and a version that carries
# reference answers must give them.

_log = logging.getLogger(__name__)

_MOST_RECORDS = 1000  # TF Serving's limit.


def replay_warm_up(servable: servable_lib.Servable, version: int) -> int:
  """Runs every Predict request of the model's warm-up file.

  Args:
    servable: the loaded model.
    version: its number.

  Returns:
    How many records were read; 0 without a file.

  Raises:
    refusal.Refusal: a record cannot be read or its request is refused, or there
      are too many: such a version does not become available.
  """
  path = servable.path / contract.EXTRA_FOLDER / contract.WARM_UP_FILE
  if not path.exists():
    return 0
  count = 0
  try:
    # tf.data's reader would add the names of its own ops to what is wrong.
    with servable_lib.without_advice():
      records = tf.compat.v1.io.tf_record_iterator(str(path))
    for record in records:
      count += 1
      if count > _MOST_RECORDS:
        raise refusal.invalid_argument(
          f'Number of warmup records exceeds the maximum ({_MOST_RECORDS}) at {path}'
        )
      _replay_one(servable, version, record, path)
  except tf.errors.OpError as error:
    raise refusal.Refusal(
      error.error_code,
      f'{error.message}. Please verify your warmup data is in TFRecord format.',
    ) from error
  return count


class ComputesWrongError(refusal.Refusal):
  """A version does not give its own reference answers: another try is no remedy."""


def check(servable: servable_lib.Servable, version: int = 1) -> None:
  """Asks a version whether it computes right; one without references is let through.

  Args:
    servable: the loaded model.
    version: its number.

  Raises:
    ComputesWrongError: it does not, on this machine, in this process.
    refusal.Refusal: its signatures cannot be run.
  """
  kind = next(
    (
      name
      for name in contract.SIGNATURES
      if answers.has_self_check(name, servable.signatures)
      and set(contract.SIGNATURES[name]) <= set(servable.signatures)
    ),
    None,
  )
  if kind is None:
    if contract.CARD in servable.signatures:  # Of ours, but older.
      _log.warning(
        '%s: has no self_check, as exports of today have: served without '
        'asking whether it computes right.',
        servable.path,
      )
    return
  asked = _Asked(servable)
  try:
    known = answers.read_card(
      str(servable.path), kind, version, asked.run(contract.CARD, {})['card']
    )
    self_check.check_short(
      str(servable.path), asked, known, may_be_narrower=servable_lib.computes_on_gpu()
    )
  except errors.ModelError as error:
    raise ComputesWrongError(grpc.StatusCode.DATA_LOSS, str(error)) from error


class _Asked:
  """A servable as `self_check` asks it."""

  def __init__(self, servable: servable_lib.Servable):
    self._servable = servable

  def run(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of one signature, by name."""
    signature = self._servable.signatures[name]
    arrays = self._servable.run(
      {signature.inputs[key].name: value for key, value in inputs.items()},
      [info.name for info in signature.outputs.values()],
    )
    return dict(zip(signature.outputs, arrays, strict=True))

  def answers(self, model, signature, hu) -> Iterator:
    outputs = self.run(signature, {'hu': hu})
    yield (
      range(len(hu)),
      answers.check_outputs(
        str(self._servable.path), model, signature, outputs, hu.shape, 0
      ),
    )

  def self_check(self, model) -> dict[str, np.ndarray]:
    return answers.check_reference(
      str(self._servable.path), model, self.run(contract.SELF_CHECK, {})
    )


def _replay_one(servable, version, record, path) -> None:
  try:
    log = protocol.PredictionLog.FromString(record)
  except message.DecodeError as error:
    raise refusal.invalid_argument(
      f'Failed to parse warmup record from {path}'
    ) from error
  kind = log.WhichOneof('log_type')
  if kind != 'predict_log':
    raise refusal.invalid_argument(
      f'Unsupported log_type for warmup: {kind}; this server replays Predict only'
    )
  predict(servable, version, log.predict_log.request)
