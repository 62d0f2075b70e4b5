"""Calls to one server: deadlines, patience, one failed batch halved."""

from collections.abc import Callable, Sequence
import dataclasses
import random
import time

import grpc

from covid_tf.predictors import protocol
from covid_tf.predictors import refusals

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

  def __init__(self, channel: grpc.Channel, source: str, metadata: Metadata,
               limits: Limits):
    """Prepares the methods; `source` is the address, for messages."""
    self.source = source
    self.limits = limits
    self._metadata = metadata
    prediction, model = protocol.PREDICTION_SERVICE, protocol.MODEL_SERVICE
    # Answers stay bytes: what they are made of is checked where it can be told.
    self._predict = channel.unary_unary(
        f'/{prediction}/Predict', protocol.PredictRequest.SerializeToString)
    self._get_metadata = channel.unary_unary(
        f'/{prediction}/GetModelMetadata',
        protocol.GetModelMetadataRequest.SerializeToString,
        protocol.GetModelMetadataResponse.FromString)
    self._get_status = channel.unary_unary(
        f'/{model}/GetModelStatus',
        protocol.GetModelStatusRequest.SerializeToString,
        protocol.GetModelStatusResponse.FromString)
    self._check_health = channel.unary_unary(
        f'/{protocol.HEALTH_SERVICE}/Check',
        protocol.HealthCheckRequest.SerializeToString,
        protocol.HealthCheckResponse.FromString)

  def start_predict(self, request) -> grpc.Future:
    """Sends a PredictRequest; the future gives the answer's bytes."""
    return self._predict.future(request, **self._extras())

  def predict(self, request, patience_s: float | None = None) -> bytes:
    """Sends a PredictRequest and waits, however often it takes."""
    return self._patiently(
        'predict', lambda: self._predict(request, **self._extras()), patience_s)

  def get_metadata(self, request):
    """GetModelMetadata, patiently."""
    return self._patiently(
        'signatures', lambda: self._get_metadata(request, **self._extras()))

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
      raise refusals.explain(self.source, what, error) from error

  def _patiently(self, what, call, patience_s=None):
    patience = Patience(
        self.limits.patience_s if patience_s is None else patience_s)
    while True:
      try:
        return call()
      except grpc.RpcError as error:
        verdict = refusals.verdict(error)
        if verdict is refusals.Verdict.HALVE:  # Nothing to halve in a small call.
          verdict = refusals.Verdict.BUSY
        if not patience.wait(verdict):
          if verdict is refusals.Verdict.GONE:
            raise refusals.gone(self.source, error) from error
          raise refusals.explain(self.source, what, error) from error


class Patience:
  """How often and how long one call is repeated: ever longer waits, with jitter."""

  def __init__(self, patience_s: float):
    """Starts the clock."""
    self._patience_s = patience_s
    self._start = time.monotonic()
    self._wait_s = _FIRST_WAIT_S

  def wait(self, verdict: refusals.Verdict) -> bool:
    """Sleeps before another try, or says False: enough, or of no use."""
    if verdict is refusals.Verdict.RETRY:
      limit = self._patience_s
    elif verdict in (refusals.Verdict.BUSY, refusals.Verdict.HALVE):
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
