"""The client: both networks behind a TF Serving gRPC port, without TensorFlow."""

from collections.abc import Iterator, Mapping
import contextlib

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf.predictors import batches
from covid_tf.predictors import calls
from covid_tf.predictors import channels
from covid_tf.predictors import identity
from covid_tf.predictors import networks
from covid_tf.predictors import pinned
from covid_tf.predictors import protocol
from covid_tf.predictors import self_check as self_check_lib

_RESTARTS = 3  # Of one call during which the server changes versions.


def connect(
    address: str, *, tls: channels.TLS | None = None, metadata: calls.Metadata = (),
    versions: Mapping[str, int | str] | None = None, timeout_s: float = 120.0,
    patience_s: float = 60.0, connect_patience_s: float = 10.0,
    batch_bytes: int = batches.BATCH_BYTES, in_flight: int = 2,
    self_check: bool = True) -> 'ServedModels':
  """Connects to a model server and makes sure that it serves our models.

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
      a few batches, a second or two, once a process and model version.

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
        'covid_tf.load_models(folder).')
  unknown = sorted(set(versions or ()) - set(contract.SIGNATURES))
  if unknown:
    raise errors.UsageError(
        f'versions: required {sorted(contract.SIGNATURES)}, found {unknown}.')
  for name, value in (('timeout_s', timeout_s), ('batch_bytes', batch_bytes),
                      ('in_flight', in_flight)):
    if value <= 0:
      raise errors.UsageError(f'{name}: required more than 0, found {value}.')
  channel = channels.open_channel(address, tls)
  limits = calls.Limits(timeout_s, patience_s, batch_bytes, in_flight)
  try:
    return ServedModels(
        channel, calls.Caller(channel, address, metadata, limits),
        dict(versions or {}), connect_patience_s, self_check)
  except BaseException:
    channel.close()
    raise


class ServedModels(networks.Networks):
  """Both networks of one server; made by `connect`.

  Safe to share between threads. A study that needs both networks on one version
  each runs inside `study()`; a single call here is such a study by itself.
  """

  def __init__(self, channel, caller: calls.Caller,
               versions: dict[str, int | str], connect_patience_s: float,
               self_check: bool = True):
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
  def study(self) -> Iterator[pinned.PinnedNetworks]:
    """Pins one version of each network for everything that a study asks.

    Yields:
      Networks with `identities()`, which answer by these versions or not at all.

    Raises:
      errors.ModelVersionChangedError: a version went away in the middle, or
        another model answers to it now; start the study again.
    """
    identities = self._pin()
    yield pinned.PinnedNetworks(self._caller, identities)
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
        (status.version, protocol.ModelVersionStatus.State.Name(status.state),
         status.status.error_message)
        for status in self._caller.get_status(request).model_version_status]

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
          f'it is not served ({error}); choose one that is.') from error

  def _card(self, model, selected, patience_s=None) -> results.ModelIdentity:
    request = protocol.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = contract.CARD
    if isinstance(selected, str):
      request.model_spec.version_label = selected
    elif selected is not None:
      request.model_spec.version.value = selected
    version, outputs = pinned.parse_response(
        self._caller.source, model, contract.CARD,
        self._caller.predict(request, patience_s),
        selected if isinstance(selected, int) else None)
    if 'card' not in outputs:
      raise errors.ModelError(
          f'{self._caller.source}: {model}: required the output card, found '
          f'{sorted(outputs)}; serve a model exported by covid-tf.')
    return identity.read_card(self._caller.source, model, version, outputs['card'])

  def _check_signatures(self, known: results.ModelIdentity) -> None:
    key = known.name, known.version, known.card_sha256
    if key in self._checked:
      return
    request = protocol.GetModelMetadataRequest(metadata_field=['signature_def'])
    request.model_spec.name = known.name
    request.model_spec.version.value = known.version
    response = self._caller.get_metadata(request)
    served = protocol.SignatureDefMap.FromString(
        response.metadata['signature_def'].value)
    identity.check_signatures(
        self._caller.source, known.name, served.signature_def)
    if not identity.has_self_check(known.name, served.signature_def):
      self_check_lib.note_unchecked(self._caller.source, known)
    elif self._self_check:
      self_check_lib.check_short(
          self._caller.source, pinned.PinnedNetworks(self._caller, (known,)), known,
          key=(self._caller.source,), may_be_narrower=True)
    self._checked.add(key)

  def _confirm(self, known: results.ModelIdentity) -> None:
    try:
      found = self._card(known.name, known.version)
    except errors.ModelVersionChangedError:
      return  # Unloaded after its last answer; every answer stated its version.
    if found.card_sha256 != known.card_sha256:
      raise errors.ModelVersionChangedError(
          f'{self._caller.source}: {known.name} version {known.version} was replaced '
          'by another model of the same number: score the study again.')
