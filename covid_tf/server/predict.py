"""Predict: TF Serving's checks in TF Serving's order, then the graph."""

from collections.abc import Iterable
import itertools

import numpy as np
import tensorflow as tf

from covid_tf import contract
from covid_tf.predictors import tensors
from covid_tf.predictors import wire
from covid_tf.server import refusal
from covid_tf.server import servable as servable_lib


def predict(servable: servable_lib.Servable, version: int, request, *,
            as_content: bool = False):
  """Answers one PredictRequest.

  Args:
    servable: the model.
    version: its number, echoed in the answer.
    request: a PredictRequest.
    as_content: answer with `tensor_content` instead of the typed fields.

  Returns:
    A PredictResponse (of `covid_tf.predictors.wire`).

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
      [signature.outputs[alias].name for alias in aliases])
  response = wire.PredictResponse()
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
          f'{",".join(sorted(signature.defaults))}')
    try:
      values[alias] = _read(proto)
    except tensors.TensorError as error:
      raise refusal.invalid_argument(f'tensor parsing error: {alias}') from error
  used = set(values) & set(request.inputs)
  if used != set(request.inputs):
    raise refusal.invalid_argument(
        f'Inputs contains invalid name. Used request inputs: {",".join(sorted(used))}, '
        f'request input: {",".join(sorted(request.inputs))}')
  return values


def _check_input_count(signature, request) -> None:
  sent, wanted = set(request.inputs), set(signature.inputs)
  if len(sent) == len(wanted) or (len(sent) < len(wanted) and signature.defaults):
    return
  raise refusal.invalid_argument(
      f'input size does not match signature: {len(sent)}!={len(wanted)} '
      f'len({_braces(sent)}) != len({_braces(wanted)}). '
      f'Sent extra: {_braces(sent - wanted)}. '
      f'Missing but required: {_braces(wanted - sent)}.')


def _output_aliases(signature, output_filter) -> list[str]:
  for index, alias in enumerate(output_filter):
    if alias not in signature.outputs:
      raise refusal.invalid_argument(
          f'output tensor alias not found in signature: {alias} Outputs expected to '
          f'be in the set {_braces(signature.outputs)}.')
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
          f'{_dtype_name(found)} is provided')


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
        refusal.UNIMPLEMENTED, f'outputs of type {array.dtype} are not carried')
  elif as_content:
    tensors.fill_content(proto, array)
  else:
    wire.fill_typed(proto, array)


def _dtype_name(number: int) -> str:
  """C++'s name of a DataType: float32 is 'float' there."""
  name = tf.as_dtype(number).name
  return {'float32': 'float', 'float64': 'double', 'float16': 'half'}.get(name, name)


def _braces(names: Iterable[str]) -> str:
  return '{' + ','.join(sorted(names)) + '}'
