"""TF Serving's methods, bare: no retries, no checks, refusals as (code, text)."""

import contextlib
import time

import grpc
import numpy as np

from covid_tf.predictors import protocol
from covid_tf.predictors import tensors


class Stub:
  """Calls to one server with the least between the test and the wire."""

  def __init__(self, channel: grpc.Channel):
    prediction, model = protocol.PREDICTION_SERVICE, protocol.MODEL_SERVICE

    def method(service, name, request, response):
      return channel.unary_unary(
        f'/{service}/{name}', request.SerializeToString, response.FromString
      )

    self.predict_raw = method(
      prediction, 'Predict', protocol.PredictRequest, protocol.PredictResponse
    )
    self.metadata = method(
      prediction,
      'GetModelMetadata',
      protocol.GetModelMetadataRequest,
      protocol.GetModelMetadataResponse,
    )
    self.status = method(
      model,
      'GetModelStatus',
      protocol.GetModelStatusRequest,
      protocol.GetModelStatusResponse,
    )
    self.reload = method(
      model,
      'HandleReloadConfigRequest',
      protocol.ReloadConfigRequest,
      protocol.ReloadConfigResponse,
    )
    self.health = method(
      protocol.HEALTH_SERVICE,
      'Check',
      protocol.HealthCheckRequest,
      protocol.HealthCheckResponse,
    )
    self.health_watch = channel.unary_stream(
      f'/{protocol.HEALTH_SERVICE}/Watch',
      protocol.HealthCheckRequest.SerializeToString,
      protocol.HealthCheckResponse.FromString,
    )

  def predict(self, request, timeout_s: float = 60.0):
    """PredictResponse of `request`."""
    return self.predict_raw(request, timeout=timeout_s)

  def outputs(self, *args, **kwargs) -> dict[str, np.ndarray]:
    """Arrays of the answer to `predict_request(*args, **kwargs)`."""
    response = self.predict(predict_request(*args, **kwargs))
    return {name: tensors.read(proto) for name, proto in response.outputs.items()}

  def versions(self, model: str) -> list[tuple[int, str]]:
    """(version, state) as GetModelStatus lists them."""
    request = protocol.GetModelStatusRequest()
    request.model_spec.name = model
    return [
      (status.version, protocol.ModelVersionStatus.State.Name(status.state))
      for status in self.status(request, timeout=60).model_version_status
    ]


def predict_request(
  model: str,
  signature: str = '',
  version: int | None = None,
  label: str | None = None,
  outputs=(),
  **inputs,
):
  """A PredictRequest; inputs are arrays, sent as tensor_content."""
  request = protocol.PredictRequest()
  request.model_spec.name = model
  request.model_spec.signature_name = signature
  if version is not None:
    request.model_spec.version.value = version
  if label is not None:
    request.model_spec.version_label = label
  request.output_filter.extend(outputs)
  for name, array in inputs.items():
    tensors.fill(request.inputs[name], np.asarray(array))
  return request


@contextlib.contextmanager
def connected(address: str, credentials=None):
  """A Stub on a channel of its own, without a limit on messages."""
  options = [
    ('grpc.max_receive_message_length', -1),
    ('grpc.max_send_message_length', -1),
    ('grpc.use_local_subchannel_pool', 1),
  ]
  channel = (
    grpc.insecure_channel(address, options)
    if credentials is None
    else grpc.secure_channel(address, credentials, options)
  )
  with channel:
    yield Stub(channel)


def refusal(call, *args, **kwargs) -> tuple[str, str]:
  """(code, text) of a call that must be refused."""
  try:
    call(*args, **kwargs)
  except grpc.RpcError as error:
    return error.code().name, error.details()
  raise AssertionError('the call was answered')


def wait_until(condition, timeout_s: float = 60.0):
  """Waits for `condition()`; gives its value."""
  end = time.monotonic() + timeout_s
  while time.monotonic() < end:
    value = condition()
    if value:
      return value
    time.sleep(0.05)
  raise AssertionError('waited in vain')
