"""Calls to one server: its address and TLS, deadlines, retries, what failures mean."""

from collections.abc import Callable, Sequence
import dataclasses
import enum
import os
import pathlib
import random
import re
import time

import grpc

from covid_tf import errors
from covid_tf.predictors import protocol

# The connection to a model server: address, TLS, limits.

_UNLIMITED = -1  # gRPC's word for it; its default is 4 MiB an answer.
_LOOPBACK = ('localhost', '127.', '[::1]', 'unix:', 'ipv4:127.', 'ipv6:[::1]')


@dataclasses.dataclass(frozen=True)
class TLS:
  """How to trust a server, and how it is to trust us.

  Attributes:
    ca_file: PEM file of the authorities that may sign the server's certificate;
      None: those that gRPC ships.
    certificate_file: PEM file of our own certificate, for mutual TLS.
    key_file: PEM file of its private key.
    server_name: the name that the server's certificate must hold, where it
      differs from the address.
  """

  ca_file: str | os.PathLike | None = None
  certificate_file: str | os.PathLike | None = None
  key_file: str | os.PathLike | None = None
  server_name: str | None = None

  def __post_init__(self):
    if (self.certificate_file is None) != (self.key_file is None):
      raise errors.UsageError(
        'TLS: certificate_file and key_file go together, found only '
        f'{"key_file" if self.certificate_file is None else "certificate_file"}.'
      )


def open_channel(address: str, tls: TLS | None) -> grpc.Channel:
  """Opens a channel; nothing is sent before the first call.

  Args:
    address: 'host:port', '[::1]:8500' or 'unix:/path/to.sock'.
    tls: None for plain text.

  Returns:
    A channel that takes messages of any size.

  Raises:
    errors.UsageError: the address is none, or a TLS file cannot be read.
  """
  _check_address(address)
  options: list[tuple[str, int | str]] = [
    ('grpc.max_receive_message_length', _UNLIMITED),
    ('grpc.max_send_message_length', _UNLIMITED),
    # Our own policy decides what is repeated, and when.
    ('grpc.enable_retries', 0),
    # A server that comes back must be found well before the patience ends.
    ('grpc.max_reconnect_backoff_ms', 2000),
    ('grpc.initial_reconnect_backoff_ms', 200),
    ('grpc.min_reconnect_backoff_ms', 200),
    # One connection an object: closing it closes no one else's.
    ('grpc.use_local_subchannel_pool', 1),
  ]
  if address.startswith(_LOOPBACK):
    options.append(('grpc.enable_http_proxy', 0))  # No proxy leads back here.
  if tls is None:
    return grpc.insecure_channel(address, options)
  if tls.server_name:
    options.append(('grpc.ssl_target_name_override', tls.server_name))
  return grpc.secure_channel(address, _credentials(tls), options)


def _check_address(address: str) -> None:
  host, _, port = address.rpartition(':')
  if address.startswith('unix:') and len(address) > len('unix:'):
    return
  if not host or '/' in address or not port.isdigit() or not 0 < int(port) < 65536:
    raise errors.UsageError(
      "server address: required 'host:port' or 'unix:/path', found "
      f'{address!r}; for instance localhost:8500.'
    )


def _credentials(tls: TLS) -> grpc.ChannelCredentials:
  contents: dict[str, bytes] = {}
  for name in ('ca_file', 'key_file', 'certificate_file'):
    path = getattr(tls, name)
    if path is None:
      continue
    try:
      contents[name] = pathlib.Path(path).read_bytes()
    except OSError as error:
      raise errors.UsageError(
        f'TLS {name} {path}: required a readable PEM file, found '
        f'{str(error.strerror).lower()}.'
      ) from error
    if b'-----BEGIN' not in contents[name]:
      raise errors.UsageError(
        f'TLS {name} {path}: required a PEM file, found other content; convert '
        'it with openssl.'
      )
  return grpc.ssl_channel_credentials(
    *map(contents.get, ('ca_file', 'key_file', 'certificate_file'))
  )


# What a failed call means, and whether asking again can help.

_TEXT_LIMIT = 300  # Of a server's own words in our one line.

# A queue that is full is not memory that is short: smaller batches would only
# make it fuller.
_BUSY = re.compile(r'queue|concurrent rpc|too many|rate limit', re.IGNORECASE)
_BROKEN_STREAM = re.compile(
  r'RST_STREAM|stream removed|socket closed|connection reset|goaway', re.IGNORECASE
)
_UNTRUSTED = re.compile(
  r'certificate|ssl_error|tsi_protocol_failure|verification|peer name', re.IGNORECASE
)


class Verdict(enum.Enum):
  """What to do about a failed call. Predict changes nothing: repeating is safe."""

  RETRY = 'the server is away or the connection broke: ask again'
  BUSY = 'the server has too much to do: ask again later'
  HALVE = 'the batch is too much for the server: ask for half'
  GONE = 'the version that the study is pinned to is no longer served'
  FATAL = 'asking again gives the same'


def verdict_of(error: grpc.RpcError) -> Verdict:
  """Judges a failed call by its code, and by its text where codes are shared."""
  code, text = error.code(), error.details() or ''
  if code == grpc.StatusCode.UNAVAILABLE:
    return Verdict.FATAL if _UNTRUSTED.search(text) else Verdict.RETRY
  if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
    return Verdict.BUSY if _BUSY.search(text) else Verdict.HALVE
  if code == grpc.StatusCode.NOT_FOUND and 'Specific(' in text:
    return Verdict.GONE
  if code == grpc.StatusCode.CANCELLED:
    return Verdict.RETRY  # Not by us, who still wait: by a server that is stopped.
  if _BROKEN_STREAM.search(text) and code in (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
  ):
    return Verdict.RETRY
  return Verdict.FATAL


_REMEDIES = {
  grpc.StatusCode.UNAVAILABLE: (
    'required a running model server; start one (covid-tf serve), correct the '
    'address, or use TLS if the server does'
  ),
  grpc.StatusCode.DEADLINE_EXCEEDED: (
    'required an answer within the time limit; raise timeout_s, lower batch_bytes or '
    'give the server more processors'
  ),
  grpc.StatusCode.RESOURCE_EXHAUSTED: (
    'the server had no memory or queue for the request for too long; try later or '
    'give it more memory'
  ),
  grpc.StatusCode.NOT_FOUND: (
    'required a server of the models lungs and classifier; check its model names and '
    'versions'
  ),
  grpc.StatusCode.UNIMPLEMENTED: (
    "required TF Serving's gRPC port; 8500 is usual, 8501 is its REST port"
  ),
  grpc.StatusCode.UNAUTHENTICATED: 'the server asks for other credentials',
  grpc.StatusCode.PERMISSION_DENIED: 'the server refuses these credentials',
  grpc.StatusCode.FAILED_PRECONDITION: (
    'required the signatures of the contract; serve models exported by covid-tf'
  ),
  grpc.StatusCode.INVALID_ARGUMENT: (
    'the server refuses the request; serve models exported by covid-tf of this version'
  ),
}


def explain(source: str, what: str, error: grpc.RpcError) -> errors.ModelError:
  """Turns a failed call into the one line that its reader can act upon.

  Args:
    source: the server's address.
    what: what was asked of it.
    error: gRPC's refusal.

  Returns:
    An error with the code, the server's own words (truncated) and a remedy.
  """
  code = error.code()
  text = ' '.join((error.details() or '').split())[:_TEXT_LIMIT]
  remedy = _REMEDIES.get(code, 'look into the log of the server')
  if code == grpc.StatusCode.UNAVAILABLE and _UNTRUSTED.search(text):
    remedy = (
      'the two sides do not trust each other; check the CA, the certificates '
      'and the name that the server answers to'
    )
  return errors.ModelError(f'{source}: {what}: {code.name} ({text}): {remedy}.')


def gone(source: str, error: grpc.RpcError) -> errors.ModelVersionChangedError:
  """The error for a pinned version that is no longer served."""
  text = ' '.join((error.details() or '').split())[:_TEXT_LIMIT]
  return errors.ModelVersionChangedError(
    f'{source}: the model version that began this study is served no longer '
    f'({text}): score the study again.'
  )


# Calls to one server: deadlines, patience, one failed batch halved.

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
# A busy server works, an absent one may never come back: wait longer for it.
_BUSY_PATIENCE = 10

Metadata = Sequence[tuple[str, str]] | Callable[[], Sequence[tuple[str, str]]]


@dataclasses.dataclass(frozen=True)
class Limits:
  """How long, how much and how often.

  Attributes:
    timeout_s: deadline of every single call, in seconds.
    patience_s: how long a server that went away is waited for, in seconds.
    batch_bytes: image bytes of one request.
    in_flight: requests on their way at once.
  """

  timeout_s: float
  patience_s: float
  batch_bytes: int
  in_flight: int


class Caller:
  """The server's methods, with metadata and deadline on each call."""

  def __init__(
    self, channel: grpc.Channel, source: str, metadata: Metadata, limits: Limits
  ):
    """Prepares the methods; `source` is the address, for messages."""
    self.source = source
    self.limits = limits
    self._metadata = metadata
    prediction, model = protocol.PREDICTION_SERVICE, protocol.MODEL_SERVICE
    # Answers stay bytes: what they hold is checked where it can be named.
    self._predict = channel.unary_unary(
      f'/{prediction}/Predict', protocol.PredictRequest.SerializeToString
    )
    self._get_metadata = channel.unary_unary(
      f'/{prediction}/GetModelMetadata',
      protocol.GetModelMetadataRequest.SerializeToString,
      protocol.GetModelMetadataResponse.FromString,
    )
    self._get_status = channel.unary_unary(
      f'/{model}/GetModelStatus',
      protocol.GetModelStatusRequest.SerializeToString,
      protocol.GetModelStatusResponse.FromString,
    )
    self._check_health = channel.unary_unary(
      f'/{protocol.HEALTH_SERVICE}/Check',
      protocol.HealthCheckRequest.SerializeToString,
      protocol.HealthCheckResponse.FromString,
    )

  def start_predict(self, request) -> grpc.Future:
    """Sends a PredictRequest; the future gives the answer's bytes."""
    return self._predict.future(request, **self._extras())

  def predict(self, request, patience_s: float | None = None) -> bytes:
    """Sends a PredictRequest and waits, however often it takes."""
    return self._patiently(
      'predict', lambda: self._predict(request, **self._extras()), patience_s
    )

  def get_metadata(self, request):
    """GetModelMetadata, patiently."""
    return self._patiently(
      'signatures', lambda: self._get_metadata(request, **self._extras())
    )

  def get_status(self, request):
    """GetModelStatus, once."""
    return self._once('status', lambda: self._get_status(request, **self._extras()))

  def check_health(self, request):
    """The health service's Check, once."""
    return self._once('health', lambda: self._check_health(request, **self._extras()))

  def _extras(self):
    metadata = self._metadata() if callable(self._metadata) else self._metadata
    return {'timeout': self.limits.timeout_s, 'metadata': tuple(metadata)}

  def _once(self, what, call):
    try:
      return call()
    except grpc.RpcError as error:
      raise explain(self.source, what, error) from error

  def _patiently(self, what, call, patience_s=None):
    patience = Patience(self.limits.patience_s if patience_s is None else patience_s)
    while True:
      try:
        return call()
      except grpc.RpcError as error:
        verdict = verdict_of(error)
        if verdict is Verdict.HALVE:  # Nothing to halve in a small call.
          verdict = Verdict.BUSY
        if not patience.wait(verdict):
          if verdict is Verdict.GONE:
            raise gone(self.source, error) from error
          raise explain(self.source, what, error) from error


class Patience:
  """How often and how long one call is repeated: ever longer waits, with jitter."""

  def __init__(self, patience_s: float):
    """Starts the clock."""
    self._patience_s = patience_s
    self._start = time.monotonic()
    self._wait_s = _FIRST_WAIT_S

  def wait(self, verdict: Verdict) -> bool:
    """Sleeps before another try, or says False: enough, or of no use."""
    if verdict is Verdict.RETRY:
      limit = self._patience_s
    elif verdict in (Verdict.BUSY, Verdict.HALVE):
      limit = self._patience_s * _BUSY_PATIENCE
    else:
      return False
    # Jitter, so that many clients of one server do not come back all at once.
    wait_s = self._wait_s * random.uniform(0.5, 1.0)
    if time.monotonic() + wait_s - self._start > limit:
      return False
    time.sleep(wait_s)
    self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
    return True
