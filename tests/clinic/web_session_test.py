"""Requests to a PACS by HTTP: what is repeated, and what is never sent or followed."""

import contextlib
import email.utils
import socket
import threading
import time
import types

import free_ports
import pytest
import web_faults

from covid_tf import clinic
from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import pacs
from covid_tf.clinic import web_session


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


@contextlib.contextmanager
def _answering(answer: bytes, pause_s: float = 0.0):
  """The URL of a server that sends everybody these bytes; with a pause, one by one."""
  ended = threading.Event()

  def answer_all():
    while not ended.is_set():
      with contextlib.suppress(OSError):
        connection, _ = server.accept()
        with connection:
          connection.recv(1 << 16)
          head, separator, body = answer.partition(b'\r\n\r\n')
          connection.sendall(head + separator)
          for start in range(len(body)) if pause_s else ():
            connection.sendall(body[start : start + 1])
            if ended.wait(pause_s):
              return
          if not pause_s:
            connection.sendall(body)

  with socket.create_server(('127.0.0.1', 0)) as server:
    server.settimeout(0.1)
    thread = threading.Thread(target=answer_all, daemon=True)
    thread.start()
    try:
      yield f'http://127.0.0.1:{server.getsockname()[1]}/dw'
    finally:
      ended.set()
      thread.join()


def _answer(body: bytes, *headers: str, length: int | None = None) -> bytes:
  size = f'Content-Length: {len(body) if length is None else length}'
  lines = ('HTTP/1.1 200 OK', 'Connection: close', size, *headers)
  return '\r\n'.join(lines).encode() + b'\r\n\r\n' + body


_JSON = 'Content-Type: application/dicom+json'


def test_an_answer_that_trickles_ends_by_the_limit_of_the_whole(monkeypatch):
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  limits = pacs.Limits(connect_s=3, answer_s=3, total_s=0.5, attempts=1)
  start = time.monotonic()
  with _answering(_answer(b' ' * 100_000, _JSON), pause_s=0.05) as url:
    with pytest.raises(errors.PACSError, match='not done within 0.5 s'):
      clinic.connect(url, limits=limits).echo()
  assert time.monotonic() - start < 10


@pytest.mark.parametrize(
  'answer, words',
  [
    (_answer(b'[{}]', _JSON, length=400), 'lost in the middle'),
    (_answer(b'no gzip', _JSON, 'Content-Encoding: gzip'), 'in the middle'),
    (_answer(b'[' * 200_000, _JSON), 'no DICOM JSON'),
    (_answer(b'<html>Sign in</html>', 'Content-Type: text/html'), 'no DICOM JSON'),
    (b'SSH-2.0-OpenSSH_9.2\r\n\r\n', 'cannot be reached'),
  ],
)
def test_answers_that_cannot_be_used(monkeypatch, answer, words):
  monkeypatch.setattr(pacs, '_FIRST_PAUSE_S', 0.01)
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  with _answering(answer) as url, pytest.raises(errors.PACSError, match=words):
    clinic.connect(url, limits=web_faults.LIMITS).echo()


def test_an_answer_without_end_is_not_kept_in_memory(monkeypatch):
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  monkeypatch.setattr(web_session, '_MOST_ANSWER_BYTES', 1 << 20)
  with _answering(_answer(b' ' * (2 << 20), _JSON)) as url:
    with pytest.raises(errors.PACSError, match='at most 1 MB'):
      clinic.connect(url, limits=web_faults.LIMITS).echo()


def test_nobody_there():
  port = free_ports.free_port()
  with pytest.raises(errors.PACSError, match='[Rr]efused'):
    clinic.connect(f'http://127.0.0.1:{port}/dw', limits=pacs.Limits(attempts=1)).echo()
