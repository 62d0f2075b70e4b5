"""The client: both networks behind a TF Serving gRPC port, without TensorFlow."""

from collections.abc import Iterator, Mapping
import contextlib
import math

from google.protobuf import message
import grpc
import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf.predictors import answers
from covid_tf.predictors import interface
from covid_tf.predictors import protocol
from covid_tf.predictors import self_check as self_check_lib
from covid_tf.predictors import tensors
from covid_tf.predictors import transport

# One study on one version of each network, over gRPC.


class PinnedNetworks(interface.Networks):
  """Networks whose every answer comes from the versions named at the start."""

  def __init__(
    self, caller: transport.Caller, identities: tuple[results.ModelIdentity, ...]
  ):
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

    yield from interface.in_order(
      interface.ranges(hu.shape, limits.batch_bytes),
      limits.in_flight,
      start,
      finish,
      lambda future: future.cancel(),
    )

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
      self._caller.get_metadata(request).metadata['signature_def'].value
    )
    if not answers.has_self_check(model, served.signature_def):
      return None
    request = protocol.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = contract.SELF_CHECK
    request.model_spec.version.value = self._versions[model]
    _, outputs = parse_response(
      self._caller.source,
      model,
      contract.SELF_CHECK,
      self._caller.predict(request),
      self._versions[model],
    )
    return answers.check_reference(self._caller.source, model, outputs)

  def _recover(self, model, signature, hu, piece, error):
    """Asks again for a piece that failed, whole or in halves, as long as it helps."""
    patience = transport.Patience(self._caller.limits.patience_s)
    while True:
      verdict = transport.verdict_of(error)
      if verdict is transport.Verdict.GONE:
        raise transport.gone(self._caller.source, error) from error
      if verdict is transport.Verdict.HALVE and len(piece) > 1:
        middle = len(piece) // 2
        halves = [
          self._ask(model, signature, hu, half)
          for half in (piece[:middle], piece[middle:])
        ]
        return {
          name: np.concatenate([half[name] for half in halves]) for name in halves[0]
        }
      if not patience.wait(verdict):
        raise transport.explain(
          self._caller.source,
          f'{model}, signature {signature}, slices {piece.start} to {piece.stop - 1}',
          error,
        ) from error
      try:
        return self._parse(
          model,
          signature,
          hu,
          piece,
          self._caller.start_predict(
            self._request(model, signature, hu, piece)
          ).result(),
        )
      except grpc.RpcError as again:
        error = again

  def _ask(self, model, signature, hu, piece):
    try:
      return self._parse(
        model,
        signature,
        hu,
        piece,
        self._caller.start_predict(self._request(model, signature, hu, piece)).result(),
      )
    except grpc.RpcError as error:
      return self._recover(model, signature, hu, piece, error)

  def _request(self, model, signature, hu, piece):
    request = protocol.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.model_spec.version.value = self._versions[model]
    # Contiguous bytes of these slices only; nothing of the volume is copied twice.
    tensors.fill(request.inputs['hu'], hu[piece.start : piece.stop])
    request.output_filter.extend(
      spec.name for spec in contract.SIGNATURES[model][signature].outputs
    )
    return request

  def _parse(self, model, signature, hu, piece, data):
    outputs = parse_response(
      self._caller.source, model, signature, data, self._versions[model]
    )[1]
    return answers.check_outputs(
      self._caller.source,
      model,
      signature,
      outputs,
      (len(piece), *hu.shape[1:]),
      piece.start,
    )


def parse_response(
  source: str, model: str, signature: str, data: bytes, version: int | None
) -> tuple[int, dict[str, np.ndarray]]:
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
    response = tensors.PredictResponse.FromString(data)
    outputs = {
      name: tensors.read_packed(proto) for name, proto in response.outputs.items()
    }
  except (message.DecodeError, tensors.TensorError) as error:
    raise errors.ModelError(
      f'{where}: required a whole PredictResponse, found {len(data)} bytes that '
      f'cannot be read ({error}); a proxy may truncate messages.'
    ) from error
  spec = response.model_spec
  if (spec.name, spec.signature_name) != (model, signature) or (
    not spec.HasField('version')
  ):
    raise errors.ModelError(
      f'{where}: answered by {spec.name or "a nameless model"!r}, signature '
      f'{spec.signature_name!r}, version '
      f'{spec.version.value if spec.HasField("version") else "not stated"}; check '
      'what listens at this address.'
    )
  if version is not None and spec.version.value != version:
    raise errors.ModelVersionChangedError(
      f'{where}: version {version} was asked, version {spec.version.value} '
      'answered: score the study again.'
    )
  return spec.version.value, outputs


_RESTARTS = 3  # Of one call during which the server changes versions.


def connect(
  address: str,
  *,
  tls: transport.TLS | None = None,
  metadata: transport.Metadata = (),
  versions: Mapping[str, int | str] | None = None,
  timeout_s: float = 120.0,
  patience_s: float = 60.0,
  connect_patience_s: float = 10.0,
  batch_bytes: int = interface.BATCH_BYTES,
  in_flight: int = 2,
  self_check: bool = True,
) -> 'ServedModels':
  """Connects to a model server and makes sure that it serves our models.

    with covid_tf.connect('localhost:8500') as models:
      result = covid_tf.analyze(volume, models)

  Args:
    address: 'host:port', '[::1]:8500' or 'unix:/path/to.sock'.
    tls: how to trust the server and be trusted; None: plain text.
    metadata: (key, value) pairs sent with every call, for instance a token; or a
      function that gives them, for tokens that expire.
    versions: 'lungs' and 'classifier' to a version number or to a version label;
      a model that is not named answers with its newest version.
    timeout_s: deadline of every call, in seconds.
    patience_s: how long a server that went away is waited for, in seconds; one
      that is busy, ten times as long.
    connect_patience_s: the same for the very first call.
    batch_bytes: image bytes of one request.
    in_flight: requests on their way at once.
    self_check: make sure that the models compute right: their reference answers and
      a few batches, some seconds, once a process and model version.

  Returns:
    The models; a context manager that closes the connection.

  Raises:
    errors.UsageError: an argument is wrong.
    errors.ModelError: no server, or not one of our models, or one that computes
      wrong.
  """
  if not isinstance(address, str):
    raise errors.UsageError(
      "address: text such as 'localhost:8500' is required, found "
      f'{type(address).__name__}; models of a folder: '
      'covid_tf.load_models(folder).'
    )
  unknown = sorted(set(versions or ()) - set(contract.SIGNATURES))
  if unknown:
    raise errors.UsageError(
      f'versions: required {sorted(contract.SIGNATURES)}, found {unknown}.'
    )
  for name, value in (
    ('timeout_s', timeout_s),
    ('batch_bytes', batch_bytes),
    ('in_flight', in_flight),
  ):
    if not (isinstance(value, int | float) and 0 < value < math.inf):
      raise errors.UsageError(
        f'{name}: required more than 0, and finite, found {value!r}.'
      )
  channel = transport.open_channel(address, tls)
  limits = transport.Limits(timeout_s, patience_s, batch_bytes, in_flight)
  try:
    return ServedModels(
      channel,
      transport.Caller(channel, address, metadata, limits),
      dict(versions or {}),
      connect_patience_s,
      self_check,
    )
  except BaseException:
    channel.close()
    raise


class ServedModels(interface.Networks):
  """Both networks of one server; made by `connect`.

  Safe to share between threads. A study that needs both networks on one version
  each runs inside `study()`; a single call here is such a study by itself.
  """

  def __init__(
    self,
    channel,
    caller: transport.Caller,
    versions: dict[str, int | str],
    connect_patience_s: float,
    self_check: bool = True,
  ):
    """Asks both models who they are, whether they keep the contract and are right."""
    self._channel = channel
    self._caller = caller
    self._versions = versions
    self._self_check = self_check
    self._checked: set[tuple[str, int, str]] = set()  # Who keeps the contract.
    self._latest = self._pin(connect_patience_s)

  def __enter__(self) -> 'ServedModels':
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def close(self) -> None:
    """Closes the connection; calls on their way are cancelled."""
    self._channel.close()

  def identities(self) -> tuple[results.ModelIdentity, ...]:
    """Who answered last, lungs first."""
    return self._latest

  @contextlib.contextmanager
  def study(self) -> Iterator[PinnedNetworks]:
    """Pins one version of each network for everything that a study asks.

    Yields:
      Networks with `identities()`, which answer by these versions or not at all.

    Raises:
      errors.ModelVersionChangedError: a version went away in the middle, or
        another model answers to it now; start the study again.
    """
    identities = self._pin()
    yield PinnedNetworks(self._caller, identities)
    # A server may come back with other files under the same number.
    for known in identities:
      self._confirm(known)

  def is_healthy(self, service: str = '') -> bool:
    """Asks gRPC's health service; '' stands for the whole server.

    Raises:
      errors.ModelError: no server, or one without the health service.
    """
    response = self._caller.check_health(protocol.HealthCheckRequest(service=service))
    return response.status == protocol.HealthCheckResponse.SERVING

  def statuses(self, model: str) -> list[tuple[int, str, str]]:
    """Asks for the versions of `model`: (version, state, error or '')."""
    request = protocol.GetModelStatusRequest()
    request.model_spec.name = model
    return [
      (
        status.version,
        protocol.ModelVersionStatus.State.Name(status.state),
        status.status.error_message,
      )
      for status in self._caller.get_status(request).model_version_status
    ]

  def answers(self, model, signature, hu) -> Iterator:
    """See `networks.Networks.answers`."""
    for attempt in range(_RESTARTS + 1):
      try:
        with self.study() as study:
          # Held back until the version is confirmed: half of an answer that
          # starts again must not have been seen.
          whole = list(study.answers(model, signature, hu))
      except errors.ModelVersionChangedError:
        if attempt == _RESTARTS:
          raise
      else:
        yield from whole
        return

  def _pin(self, patience_s: float | None = None):
    identities = []
    for model in contract.SIGNATURES:
      for attempt in range(_RESTARTS + 1):
        known = self._selected_card(model, patience_s)
        try:
          self._check_signatures(known)
          break
        except errors.ModelVersionChangedError:  # Between these two calls.
          if attempt == _RESTARTS:
            raise
      identities.append(known)
    self._latest = tuple(identities)
    return self._latest

  def _selected_card(self, model, patience_s) -> results.ModelIdentity:
    selected = self._versions.get(model)
    try:
      return self._card(model, selected, patience_s)
    except errors.ModelVersionChangedError as error:
      raise errors.ModelError(
        f'{self._caller.source}: {model}: required version {selected}, found that '
        f'it is not served ({error}); choose one that is.'
      ) from error

  def _card(self, model, selected, patience_s=None) -> results.ModelIdentity:
    request = protocol.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = contract.CARD
    if isinstance(selected, str):
      request.model_spec.version_label = selected
    elif selected is not None:
      request.model_spec.version.value = selected
    version, outputs = parse_response(
      self._caller.source,
      model,
      contract.CARD,
      self._caller.predict(request, patience_s),
      selected if isinstance(selected, int) else None,
    )
    if 'card' not in outputs:
      raise errors.ModelError(
        f'{self._caller.source}: {model}: required the output card, found '
        f'{sorted(outputs)}; serve a model exported by covid-tf.'
      )
    return answers.read_card(self._caller.source, model, version, outputs['card'])

  def _check_signatures(self, known: results.ModelIdentity) -> None:
    key = known.name, known.version, known.card_sha256
    if key in self._checked:
      return
    request = protocol.GetModelMetadataRequest(metadata_field=['signature_def'])
    request.model_spec.name = known.name
    request.model_spec.version.value = known.version
    response = self._caller.get_metadata(request)
    served = protocol.SignatureDefMap.FromString(
      response.metadata['signature_def'].value
    )
    answers.check_signatures(self._caller.source, known.name, served.signature_def)
    if not answers.has_self_check(known.name, served.signature_def):
      self_check_lib.note_unchecked(self._caller.source, known)
    elif self._self_check:
      self_check_lib.check_short(
        self._caller.source,
        PinnedNetworks(self._caller, (known,)),
        known,
        key=(self._caller.source,),
        may_be_narrower=True,
      )
    self._checked.add(key)

  def _confirm(self, known: results.ModelIdentity) -> None:
    try:
      found = self._card(known.name, known.version)
    except errors.ModelVersionChangedError:
      return  # Unloaded after its last answer; every answer stated its version.
    if found.card_sha256 != known.card_sha256:
      raise errors.ModelVersionChangedError(
        f'{self._caller.source}: {known.name} version {known.version} was replaced '
        'by another model of the same number: score the study again.'
      )
