"""One study on one version of each network, over gRPC."""

from collections.abc import Iterator

from google.protobuf import message
import grpc
import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf.predictors import answers
from covid_tf.predictors import batches
from covid_tf.predictors import calls
from covid_tf.predictors import identity
from covid_tf.predictors import networks
from covid_tf.predictors import protocol
from covid_tf.predictors import refusals
from covid_tf.predictors import tensors
from covid_tf.predictors import wire


class PinnedNetworks(networks.Networks):
  """Networks whose every answer comes from the versions named at the start."""

  def __init__(self, caller: calls.Caller,
               identities: tuple[results.ModelIdentity, ...]):
    """Pins `caller` to the versions of `identities`."""
    self._caller = caller
    self._identities = identities
    self._versions = {known.name: known.version for known in identities}

  def identities(self) -> tuple[results.ModelIdentity, ...]:
    """Who answers, lungs first."""
    return self._identities

  def answers(self, model, signature, hu) -> Iterator:
    """See `networks.Networks.answers`."""
    limits = self._caller.limits

    def start(piece):
      return self._caller.start_predict(self._request(model, signature, hu, piece))

    def finish(piece, future):
      try:
        return self._parse(model, signature, hu, piece, future.result())
      except grpc.RpcError as error:
        return self._recover(model, signature, hu, piece, error)

    yield from batches.in_order(
        batches.ranges(hu.shape, limits.batch_bytes), limits.in_flight,
        start, finish, lambda future: future.cancel())

  def self_check(self, model: str) -> dict[str, np.ndarray] | None:
    """Asks a model for its reference slices and answers.

    Returns:
      The outputs of the signature `self_check`; None of a model without it.

    Raises:
      errors.ModelError: the server failed, or what it gave is damaged.
    """
    request = protocol.GetModelMetadataRequest(metadata_field=['signature_def'])
    request.model_spec.name = model
    request.model_spec.version.value = self._versions[model]
    served = protocol.SignatureDefMap.FromString(
        self._caller.get_metadata(request).metadata['signature_def'].value)
    if not identity.has_self_check(model, served.signature_def):
      return None
    request = protocol.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = contract.SELF_CHECK
    request.model_spec.version.value = self._versions[model]
    _, outputs = parse_response(
        self._caller.source, model, contract.SELF_CHECK,
        self._caller.predict(request), self._versions[model])
    return answers.check_reference(self._caller.source, model, outputs)

  def _recover(self, model, signature, hu, piece, error):
    """Asks again for a piece that failed, whole or in halves, as long as it helps."""
    patience = calls.Patience(self._caller.limits.patience_s)
    while True:
      verdict = refusals.verdict(error)
      if verdict is refusals.Verdict.GONE:
        raise refusals.gone(self._caller.source, error) from error
      if verdict is refusals.Verdict.HALVE and len(piece) > 1:
        middle = len(piece) // 2
        halves = [self._ask(model, signature, hu, half)
                  for half in (piece[:middle], piece[middle:])]
        return {name: np.concatenate([half[name] for half in halves])
                for name in halves[0]}
      if not patience.wait(verdict):
        raise refusals.explain(
            self._caller.source, f'{model}, signature {signature}, slices '
            f'{piece.start} to {piece.stop - 1}', error) from error
      try:
        return self._parse(model, signature, hu, piece, self._caller.start_predict(
            self._request(model, signature, hu, piece)).result())
      except grpc.RpcError as again:
        error = again

  def _ask(self, model, signature, hu, piece):
    try:
      return self._parse(model, signature, hu, piece, self._caller.start_predict(
          self._request(model, signature, hu, piece)).result())
    except grpc.RpcError as error:
      return self._recover(model, signature, hu, piece, error)

  def _request(self, model, signature, hu, piece):
    request = protocol.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.model_spec.version.value = self._versions[model]
    # Contiguous bytes of these slices only; nothing of the volume is copied twice.
    tensors.fill(request.inputs['hu'], hu[piece.start:piece.stop])
    request.output_filter.extend(
        spec.name for spec in contract.SIGNATURES[model][signature].outputs)
    return request

  def _parse(self, model, signature, hu, piece, data):
    outputs = parse_response(
        self._caller.source, model, signature, data, self._versions[model])[1]
    return answers.check(
        self._caller.source, model, signature, outputs,
        (len(piece), *hu.shape[1:]), piece.start)


def parse_response(
    source: str, model: str, signature: str, data: bytes,
    version: int | None) -> tuple[int, dict[str, np.ndarray]]:
  """Reads an answer and makes sure of who gave it.

  Args:
    source: the server's address, for messages.
    model: who was asked.
    signature: what was asked.
    data: the PredictResponse as it came.
    version: who must have answered; None: any version.

  Returns:
    (version that answered, its outputs).

  Raises:
    errors.ModelVersionChangedError: another version answered.
    errors.ModelError: another model answered, or the answer cannot be read.
  """
  where = f'{source}: {model}, signature {signature}'
  try:
    response = wire.PredictResponse.FromString(data)
    outputs = {name: wire.read(proto) for name, proto in response.outputs.items()}
  except (message.DecodeError, tensors.TensorError) as error:
    raise errors.ModelError(
        f'{where}: required a whole PredictResponse, found {len(data)} bytes that '
        f'cannot be read ({error}); look for a proxy that cuts messages.') from error
  spec = response.model_spec
  if (spec.name, spec.signature_name) != (model, signature) or (
      not spec.HasField('version')):
    raise errors.ModelError(
        f'{where}: answered by {spec.name or "a nameless model"!r}, signature '
        f'{spec.signature_name!r}, version '
        f'{spec.version.value if spec.HasField("version") else "not stated"}; check '
        'what listens at this address.')
  if version is not None and spec.version.value != version:
    raise errors.ModelVersionChangedError(
        f'{where}: version {version} was asked, version {spec.version.value} '
        'answered: score the study again.')
  return spec.version.value, outputs
