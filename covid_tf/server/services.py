"""PredictionService and ModelService as gRPC handlers."""

from collections.abc import Callable, Iterator
import contextlib
import threading

import grpc

from covid_tf.predictors import protocol
from covid_tf.server import loading
from covid_tf.server import predict
from covid_tf.sessions import refusal

# A bounded queue before the models: refuse early rather than swell.


class Admission:
  """Lets `running` requests run and `waiting` more wait; the rest is refused."""

  def __init__(self, running: int, waiting: int):
    """Opens with all places free."""
    self._running = threading.BoundedSemaphore(running)
    self._places = running + waiting
    self._inside = 0
    self._lock = threading.Lock()

  @contextlib.contextmanager
  def admitted(self, context: grpc.ServicerContext) -> Iterator[None]:
    """Waits for a place to run.

    Args:
      context: of the request; one whose client is gone is not run any more.

    Raises:
      refusal.Refusal: the queue is full, or nobody waits for the answer.
    """
    with self._lock:
      if self._inside == self._places:
        raise refusal.Refusal(
          grpc.StatusCode.RESOURCE_EXHAUSTED,
          'The request queue is full, try again later',
        )
      self._inside += 1
    try:
      with self._running:
        if not context.is_active():
          raise refusal.Refusal(
            grpc.StatusCode.CANCELLED, 'The client is gone, or its deadline is over'
          )
        yield
    finally:
      with self._lock:
        self._inside -= 1


_SIGNATURE_DEF = 'signature_def'


class Services:
  """The methods of both services over one manager."""

  def __init__(
    self, manager: loading.ModelManager, admission: Admission, as_content: bool
  ):
    """`as_content`: answer with `tensor_content` instead of the typed fields."""
    self._manager = manager
    self._registry = manager.registry
    self._admission = admission
    self._as_content = as_content
    self._open_calls = 0
    self._lock = threading.Lock()

  def is_idle(self) -> bool:
    """No call is open: each was answered, and its answer sent."""
    with self._lock:
      return not self._open_calls

  def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
    """What a grpc.Server needs to route calls here."""
    prediction = {
      'Predict': self._handler(self.predict, protocol.PredictRequest),
      'GetModelMetadata': self._handler(
        self.get_model_metadata, protocol.GetModelMetadataRequest
      ),
    }
    model = {
      'GetModelStatus': self._handler(
        self.get_model_status, protocol.GetModelStatusRequest
      ),
      'HandleReloadConfigRequest': self._handler(
        self.handle_reload_config, protocol.ReloadConfigRequest
      ),
    }
    return (
      grpc.method_handlers_generic_handler(protocol.PREDICTION_SERVICE, prediction),
      grpc.method_handlers_generic_handler(protocol.MODEL_SERVICE, model),
    )

  def predict(self, request, context):
    """PredictResponse; raises refusal.Refusal."""
    _require_spec(request)
    # The version is held from here on: a request that waits in the queue while a
    # new version comes is answered by the one that it found.
    with self._registry.using(request.model_spec) as (servable, version):
      # Without inputs there is nothing to compute: a card needs no place.
      queue = (
        self._admission.admitted(context)
        if request.inputs
        else contextlib.nullcontext()
      )
      with queue:
        return predict.predict(servable, version, request, as_content=self._as_content)

  def get_model_metadata(self, request, context):
    """GetModelMetadataResponse with the signatures; raises refusal.Refusal."""
    del context
    _require_spec(request)
    if not request.metadata_field:
      raise refusal.invalid_argument(
        'GetModelMetadataRequest must specify at least one metadata_field'
      )
    for field in request.metadata_field:
      if field != _SIGNATURE_DEF:
        raise refusal.invalid_argument(f'Metadata field {field} is not supported')
    response = protocol.GetModelMetadataResponse()
    with self._registry.using(request.model_spec) as (servable, version):
      signatures = protocol.SignatureDefMap()
      for name, signature in servable.signatures.items():
        # TensorFlow's message and ours come from two pools: over the wire.
        signatures.signature_def[name].ParseFromString(signature.SerializeToString())
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = version
    response.metadata[_SIGNATURE_DEF].Pack(signatures)
    return response

  def get_model_status(self, request, context):
    """GetModelStatusResponse, highest version first; raises refusal.Refusal."""
    del context
    _require_spec(request)
    name = request.model_spec.name
    statuses = self._registry.statuses(name)
    if request.model_spec.HasField('version'):
      number = request.model_spec.version.value
      statuses = [status for status in statuses if status.version == number]
      if not statuses:
        raise refusal.not_found(f'Could not find version {number} of model {name}')
    if not statuses:
      raise refusal.not_found(f'Could not find any versions of model {name}')
    return protocol.GetModelStatusResponse(model_version_status=statuses)

  def handle_reload_config(self, request, context):
    """ReloadConfigResponse once the new models serve; raises refusal.Refusal."""
    self._manager.reload(request.config, context.is_active)
    response = protocol.ReloadConfigResponse()
    response.status.SetInParent()
    return response

  def _handler(self, method: Callable, request_type) -> grpc.RpcMethodHandler:
    def answer(request, context):
      self._count(1)
      # Called when the answer is on its way, or cannot be any more.
      if not context.add_callback(lambda: self._count(-1)):
        self._count(-1)
      try:
        return method(request, context)
      except refusal.Refusal as refused:
        context.abort(refused.code, refused.text)

    return grpc.unary_unary_rpc_method_handler(
      answer, request_type.FromString, lambda response: response.SerializeToString()
    )

  def _count(self, change: int) -> None:
    with self._lock:
      self._open_calls += change


def _require_spec(request) -> None:
  if not request.HasField('model_spec'):
    raise refusal.invalid_argument('Missing ModelSpec')
