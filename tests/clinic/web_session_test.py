"""Requests to a PACS by HTTP: what is repeated, and what is never sent or followed."""

import email.utils
import time
import types

import free_ports
import pytest
import web_faults

from covid_tf import clinic
from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import pacs


@pytest.fixture(name='fake')
def _fake():
  with web_faults.FakeWeb().running() as fake:
    yield fake


def _secret(path, text):
  path.write_text(text)
  path.chmod(0o600)
  return str(path)


@pytest.mark.parametrize(
  'status, words',
  [
    (400, 'does not understand'),
    (401, '--token-file'),
    (403, 'may not'),
    (404, 'path of the URL'),
    (415, 'does not take DICOM'),
    (501, '501'),
    (507, 'no space'),
  ],
)
def test_what_is_for_good_is_said_once(fake, status, words):
  fake.answers = [status] * 3
  with pytest.raises(errors.PACSError, match=words):
    fake.archive().echo()
  assert len(fake.requests) == 1


@pytest.fixture(name='pauses')
def _pauses(monkeypatch):
  """Seconds that were to be waited for, and were not."""
  pauses = []
  clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append)
  monkeypatch.setattr(pacs, 'time', clock)
  return pauses


def test_retry_after_is_waited_for(fake, pauses):
  fake.answers = [(503, {'Retry-After': '7'})]
  assert fake.archive().echo() > 0
  assert pauses == [7.0]


@pytest.mark.parametrize('zone', ['GMT', '-0000'])
def test_retry_after_may_be_a_date(fake, pauses, zone, monkeypatch):
  monkeypatch.setenv('TZ', 'Pacific/Auckland')
  time.tzset()
  try:
    moment = email.utils.formatdate(time.time() + 200, usegmt=True)
    fake.answers = [(503, {'Retry-After': moment.replace('GMT', zone)})]
    assert fake.archive().echo() > 0
  finally:
    monkeypatch.undo()
    time.tzset()
  (pause_s,) = pauses
  assert 100 < pause_s <= 200


def test_a_wait_longer_than_the_limit_ends_at_once(fake, pauses):
  fake.answers = [(503, {'Retry-After': '3600'})]
  with pytest.raises(errors.PACSError, match='3600 s'):
    fake.archive().echo()
  assert not pauses


def test_a_redirection_is_not_followed(fake):
  fake.answers = [(307, {'Location': 'http://127.0.0.1:1/elsewhere'})]
  with pytest.raises(errors.PACSError, match='redirects'):
    fake.archive().echo()
  assert len(fake.requests) == 1


def test_tokens_and_passwords_go_in_a_header_alone(fake, tmp_path):
  for name, text, header in (
    ('token_file', 'tok-4711', 'Bearer tok-4711'),
    ('password_file', 'me:4711', 'Basic bWU6NDcxMQ=='),
  ):
    security = addresses.Security(**{name: _secret(tmp_path / name, text)})
    fake.archive(security=security).echo()
    _, path, headers = fake.requests[-1]
    assert headers['Authorization'] == header and '4711' not in path
    fake.answers = [403]
    with pytest.raises(errors.PACSError) as caught:
      fake.archive(security=security).echo()
    assert '4711' not in str(caught.value)
    with pytest.raises(errors.UsageError, match='https:// is required'):
      clinic.connect('http://pacs.example/dw', security=security)


def test_a_netrc_of_the_user_is_not_asked(fake, tmp_path, monkeypatch):
  netrc = _secret(tmp_path / 'netrc', 'default login me password 4711')
  monkeypatch.setenv('NETRC', netrc)
  fake.archive().echo()
  assert 'Authorization' not in fake.requests[-1][2]


def test_silence_ends_by_the_limit(fake):
  fake.delay_s = 60.0
  limits = pacs.Limits(connect_s=60, answer_s=0.3, total_s=300, attempts=1)
  with pytest.raises(errors.PACSError, match='no answer within 0.3 s'):
    fake.archive(limits=limits).echo()


def test_nobody_there():
  port = free_ports.free_port()
  with pytest.raises(errors.PACSError, match='[Rr]efused'):
    clinic.connect(f'http://127.0.0.1:{port}/dw', limits=pacs.Limits(attempts=1)).echo()
