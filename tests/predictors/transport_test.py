"""What a failed call means, how long it is repeated, and what the user reads."""

import time

import grpc
import pytest

from covid_tf import errors
from covid_tf.predictors import transport

_Code = grpc.StatusCode
_Verdict = transport.Verdict


class _Failed(grpc.RpcError):
  """A refusal as gRPC raises it."""

  def __init__(self, code, details):
    self._found = code, details

  def code(self):
    return self._found[0]

  def details(self):
    return self._found[1]


class _Channel:
  """Methods that fail so often, then answer with what they were called with."""

  def __init__(self, *failures):
    self.failures = list(failures)
    self.calls = []

  def unary_unary(self, method, *_):
    def call(request, **options):
      self.calls.append((method, request, options))
      if self.failures:
        raise self.failures.pop(0)
      return request

    return call


def _caller(channel, metadata=(), patience_s=30.0):
  limits = transport.Limits(7.0, patience_s, 1 << 20, 2)
  return transport.Caller(channel, 'host:8500', metadata, limits)


@pytest.fixture
def clock(monkeypatch):
  """Time that passes only by sleeping; gives the list of the waits."""
  waits = []
  monkeypatch.setattr(time, 'sleep', waits.append)
  monkeypatch.setattr(time, 'monotonic', lambda: sum(waits))
  return waits


@pytest.mark.parametrize(
  'code, details, verdict',
  (
    (_Code.UNAVAILABLE, 'failed to connect', _Verdict.RETRY),
    (_Code.UNAVAILABLE, 'CERTIFICATE_VERIFY_FAILED', _Verdict.FATAL),
    (_Code.UNAVAILABLE, None, _Verdict.RETRY),
    (_Code.RESOURCE_EXHAUSTED, 'OOM when allocating tensor', _Verdict.HALVE),
    (_Code.RESOURCE_EXHAUSTED, 'The batch queue is full', _Verdict.BUSY),
    (_Code.RESOURCE_EXHAUSTED, 'Too many requests', _Verdict.BUSY),
    (_Code.NOT_FOUND, 'request: Specific(lungs, 3)', _Verdict.GONE),
    (_Code.NOT_FOUND, 'request: Latest(lungs)', _Verdict.FATAL),
    (_Code.CANCELLED, '', _Verdict.RETRY),
    (_Code.INTERNAL, 'Received RST_STREAM with code 2', _Verdict.RETRY),
    (_Code.UNKNOWN, 'Stream removed', _Verdict.RETRY),
    (_Code.INVALID_ARGUMENT, 'socket closed', _Verdict.FATAL),
    (_Code.INTERNAL, 'nan', _Verdict.FATAL),
    (_Code.DEADLINE_EXCEEDED, 'Deadline Exceeded', _Verdict.FATAL),
  ),
)
def test_failures_are_judged_by_code_and_text(code, details, verdict):
  assert transport.verdict_of(_Failed(code, details)) is verdict


@pytest.mark.parametrize('code', list(_Code))
def test_every_code_is_explained_in_one_line(code):
  error = transport.explain('host:8500', 'predict', _Failed(code, 'x\n y ' * 400))
  text = str(error)
  assert isinstance(error, errors.ModelError) and '\n' not in text
  assert text.startswith(f'host:8500: predict: {code.name} (x y x y')
  remedy = text.rpartition('): ')[2]
  assert len(remedy) > 20 and len(text) < 600


def test_servers_that_do_not_trust_each_other_are_not_said_to_be_away():
  failed = _Failed(_Code.UNAVAILABLE, 'Peer name x is not in peer certificate')
  text = str(transport.explain('host:8500', 'status', failed))
  assert 'check the CA' in text and 'required a running model server' not in text


def test_waits_grow_to_a_limit_and_end_with_the_patience(clock):
  patience = transport.Patience(20.0)
  while patience.wait(_Verdict.RETRY):
    pass
  assert 10.0 < sum(clock) <= 20.0
  assert 0.05 <= clock[0] <= 0.1 and max(clock) <= 5.0
  assert all(later > 0.9 * before for before, later in zip(clock[:5], clock[1:5]))


def test_a_busy_server_is_waited_for_longer_than_an_absent_one(clock):
  patience = transport.Patience(2.0)
  while patience.wait(_Verdict.BUSY):
    pass
  assert 10.0 < sum(clock) <= 20.0


@pytest.mark.parametrize('verdict', (_Verdict.FATAL, _Verdict.GONE))
def test_what_stays_wrong_is_not_repeated(clock, verdict):
  assert not transport.Patience(1e6).wait(verdict)
  assert clock == []


def test_a_call_is_repeated_until_it_succeeds(clock):
  away = _Failed(_Code.UNAVAILABLE, 'away')
  full = _Failed(_Code.RESOURCE_EXHAUSTED, 'OOM')
  channel = _Channel(away, full, away)
  assert _caller(channel).predict('request') == 'request'
  assert len(channel.calls) == 4 and len(clock) == 3
  assert {method for method, _, _ in channel.calls} == {
    '/tensorflow.serving.PredictionService/Predict'
  }


def test_a_call_fails_at_once_or_when_patience_ends(clock):
  wrong = _Failed(_Code.INVALID_ARGUMENT, 'shape')
  channel = _Channel(wrong)
  with pytest.raises(errors.ModelError, match='host:8500: predict: INVALID_ARGUMENT'):
    _caller(channel).predict('request')
  assert len(channel.calls) == 1 and clock == []
  channel = _Channel(*[_Failed(_Code.UNAVAILABLE, 'away')] * 100)
  with pytest.raises(errors.ModelError, match='signatures: UNAVAILABLE'):
    _caller(channel, patience_s=3.0).get_metadata('request')
  assert 1 < len(channel.calls) < 20 and sum(clock) <= 3.0
  channel = _Channel(_Failed(_Code.NOT_FOUND, 'Specific(lungs, 3)'))
  with pytest.raises(errors.ModelVersionChangedError, match='score the study again'):
    _caller(channel).predict('request')


@pytest.mark.parametrize('name', ('get_status', 'check_health'))
def test_questions_about_the_state_are_asked_once(clock, name):
  channel = _Channel(_Failed(_Code.UNAVAILABLE, 'away'))
  caller = _caller(channel)
  with pytest.raises(errors.ModelError, match='UNAVAILABLE'):
    getattr(caller, name)('request')
  assert len(channel.calls) == 1 and clock == []
  assert getattr(caller, name)('request') == 'request'


def test_every_try_has_the_deadline_and_metadata_of_its_own(clock):
  tokens = iter('ab')
  channel = _Channel(_Failed(_Code.UNAVAILABLE, 'away'))
  _caller(channel, metadata=lambda: [('token', next(tokens))]).predict('request')
  assert [options for _, _, options in channel.calls] == [
    {'timeout': 7.0, 'metadata': (('token', token),)} for token in 'ab'
  ]


def test_a_key_that_is_no_pem_file_is_named(tmp_path):
  pem, der = tmp_path / 'pem', tmp_path / 'der'
  pem.write_bytes(b'-----BEGIN CERTIFICATE-----\n')
  der.write_bytes(b'\x30\x82')
  tls = transport.TLS(certificate_file=pem, key_file=der)
  with pytest.raises(errors.UsageError, match=f'key_file {der}: required a PEM'):
    transport.open_channel('localhost:8500', tls)
  with pytest.raises(errors.UsageError, match='found only certificate_file'):
    transport.TLS(certificate_file=pem)


@pytest.mark.parametrize('address', ('localhost:1', '[::1]:65535', 'unix:/tmp/x.sock'))
def test_addresses_of_each_kind_open(address):
  transport.open_channel(address, None).close()


@pytest.mark.parametrize(
  'address',
  ('', 'localhost', ':8500', 'host:0', 'host:65536', 'http://host:1', 'unix:'),
)
def test_other_addresses_are_refused(address):
  with pytest.raises(errors.UsageError, match='server address: required'):
    transport.open_channel(address, None)
