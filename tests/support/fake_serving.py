"""A server of both models without TensorFlow, which fails on request."""

from collections.abc import Callable
from concurrent import futures
import dataclasses
import json
import threading

import free_ports
import grpc
import numpy as np
import tiny_answers

from covid_tf import contract
from covid_tf import predictors
from covid_tf.predictors import protocol
from covid_tf.predictors import tensors

# A study of 21 slices, and what makes it take six requests.
HU = np.random.default_rng(0).integers(-1000, 300, (21, 40, 30)).astype(np.int16)
BATCH_BYTES = 4 * HU[0].nbytes


def connect(address: str, **kwargs):
  """Models of a server that is there; four slices a request."""
  options = {'connect_patience_s': 0.3, 'patience_s': 200, 'batch_bytes': BATCH_BYTES}
  return predictors.connect(address, **(options | kwargs))


@dataclasses.dataclass
class FakeModel:
  """What answers to a name.

  Attributes:
    version: its number.
    bias: see `tiny_answers`.
    card: its card.
    signatures: its SignatureDefMap; by default the contract's.
    self_check: what it answers to `self_check`; None: it has no such signature.
  """

  name: str
  version: int = 1
  bias: float = 0.0
  card: object = None
  signatures: object = None
  self_check: dict | None = None

  def __post_init__(self):
    if self.card is None:
      self.card = {'name': self.name, 'bias': self.bias}
    if self.signatures is None:
      self.signatures = contract_signatures(self.name, self.self_check is not None)


class FakeServing:
  """Both models; `before` and `after` stand in for whatever goes wrong.

  Attributes:
    models: name to FakeModel; replace one, and the server was reloaded.
    before: called with (request, context) of every image request; may abort.
    after: called with (request, response); what it returns is sent, bytes as are.
    predicted: image requests so far, as (model, signature, slices).
    metadata: of the last call.
  """

  def __init__(self, port: int = 0, credentials=None, host: str = '127.0.0.1'):
    self.models = {name: FakeModel(name) for name in contract.SIGNATURES}
    self.before: Callable = lambda request, context: None
    self.after: Callable = lambda request, response: response
    self.predicted: list[tuple[str, str, int]] = []
    self.metadata = ()
    self._lock = threading.Lock()
    self._credentials = credentials
    self._host = host
    # One that nobody else gets while it is away.
    self.port = self._start(port or free_ports.free_port())

  @property
  def address(self) -> str:
    return f'{self._host}:{self.port}'

  def stop(self) -> None:
    """Ends at once, as a killed process does."""
    self._server.stop(0).wait()

  def restart(self) -> None:
    """Comes back on its port, with the models of now."""
    self.stop()
    self._start(self.port)

  def _start(self, port: int) -> int:
    self._server = grpc.server(
      futures.ThreadPoolExecutor(16),
      options=[
        ('grpc.max_receive_message_length', -1),
        ('grpc.max_send_message_length', -1),
        ('grpc.so_reuseport', 0),
      ],
    )
    prediction = {
      'Predict': _handler(self._predict, protocol.PredictRequest),
      'GetModelMetadata': _handler(self._metadata, protocol.GetModelMetadataRequest),
    }
    self._server.add_generic_rpc_handlers(
      (grpc.method_handlers_generic_handler(protocol.PREDICTION_SERVICE, prediction),)
    )
    address = f'{self._host}:{port}'
    port = (
      self._server.add_insecure_port(address)
      if self._credentials is None
      else self._server.add_secure_port(address, self._credentials)
    )
    self._server.start()
    return port

  def _find(self, request, context) -> FakeModel:
    self.metadata = context.invocation_metadata()
    spec = request.model_spec
    model = self.models.get(spec.name)
    if model and spec.WhichOneof('version_choice') in (None, 'version_label'):
      return model
    if model and spec.version.value == model.version:
      return model
    wanted = (
      f'Specific({spec.name}, {spec.version.value})'
      if model
      else (f'Latest({spec.name})')
    )
    context.abort(
      grpc.StatusCode.NOT_FOUND, f'Servable not found for request: {wanted}'
    )

  def _metadata(self, request, context):
    model = self._find(request, context)
    response = protocol.GetModelMetadataResponse()
    response.metadata['signature_def'].Pack(model.signatures)
    return response

  def _predict(self, request, context):
    model = self._find(request, context)
    name = request.model_spec.signature_name
    response = protocol.PredictResponse()
    response.model_spec.name = model.name
    response.model_spec.version.value = model.version
    response.model_spec.signature_name = name
    if name == contract.CARD:
      text = (
        model.card
        if isinstance(model.card, bytes)
        else (json.dumps(model.card).encode())
      )
      tensors.fill(response.outputs['card'], np.array([text], object))
      return response
    if name == contract.SELF_CHECK:
      for key, array in model.self_check.items():
        tensors.fill_typed(response.outputs[key], array)
      return response
    hu = tensors.read(request.inputs['hu'])
    with self._lock:
      self.predicted.append((model.name, name, len(hu)))
    self.before(request, context)
    for key, array in tiny_answers.answer(model.name, name, hu, model.bias).items():
      tensors.fill_typed(response.outputs[key], array)
    return self.after(request, response)


def contract_signatures(name: str, self_check: bool = False):
  """The SignatureDefMap of a model that keeps the contract."""
  signatures = protocol.SignatureDefMap()
  named = dict(contract.SIGNATURES[name])
  if self_check:
    named[contract.SELF_CHECK] = contract.SELF_CHECKS[name]
  for key, signature in named.items():
    for specs, infos in (
      (signature.inputs, signatures.signature_def[key].inputs),
      (signature.outputs, signatures.signature_def[key].outputs),
    ):
      for spec in specs:
        infos[spec.name].dtype = tensors.DTYPE_NUMBERS[np.dtype(spec.dtype)]
        for size in spec.shape:
          infos[spec.name].tensor_shape.dim.add(size=-1 if size is None else size)
  return signatures


def _handler(method, request_type):
  return grpc.unary_unary_rpc_method_handler(
    method,
    request_type.FromString,
    lambda response: (
      response if isinstance(response, bytes) else (response.SerializeToString())
    ),
  )
