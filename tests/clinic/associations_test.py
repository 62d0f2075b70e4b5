"""Associations that a PACS refuses, does not answer, or wants encrypted."""

import socket
import ssl
import threading
import time
import types

import dimse_faults
import pynetdicom
import pytest
import trustme

from covid_tf import clinic
from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import associations
from covid_tf.clinic import pacs
from covid_tf.clinic import requesting

_LIMITS = pacs.Limits(connect_s=60, answer_s=60, total_s=300, attempts=2)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
  monkeypatch.setattr(pacs, '_FIRST_PAUSE_S', 0.01)


def _archive(fake, **options):
  return clinic.connect(fake.address, **{'limits': _LIMITS, **options})


@pytest.mark.parametrize(
  'options, words',
  [
    ({'require_called_aet': True, 'ae_title': 'OTHER'}, 'another AE title'),
    ({'require_calling_aet': ['FRIEND']}, 'does not know our AE title'),
  ],
)
def test_a_rejection_for_good_is_said_once(options, words):
  fake = dimse_faults.FakePacs()
  with fake.running(**options):
    with pytest.raises(errors.PACSError, match=words) as caught:
      _archive(fake).echo()
  assert 'attempts' not in str(caught.value)


def _until_released(held):
  if held.is_established:
    held.release()
  time.sleep(0.05)  # The other side has to notice.


def test_a_rejection_for_now_is_tried_again(monkeypatch):
  fake = dimse_faults.FakePacs()
  with fake.running(maximum_associations=1):
    other = requesting.AE('OTHER')
    other.add_requested_context(associations.VERIFICATION)
    held = other.associate('127.0.0.1', fake.port)
    with pytest.raises(errors.PACSError, match='too many associations.*2 attempts'):
      _archive(fake).echo()
    # It makes room between two attempts.
    pauses = types.SimpleNamespace(
      monotonic=time.monotonic, sleep=lambda pause_s: _until_released(held)
    )
    monkeypatch.setattr(pacs, 'time', pauses)
    patient = pacs.Limits(connect_s=60, answer_s=60, total_s=300, attempts=99)
    assert _archive(fake, limits=patient).echo() > 0


def test_nobody_there_and_no_answer():
  fake = dimse_faults.FakePacs()
  with pytest.raises(errors.PACSError, match='refused.*2 attempts'):
    _archive(fake).echo()
  with pytest.raises(errors.PACSError, match='cannot be reached'):
    clinic.connect('PACS@name.invalid:104', limits=_LIMITS).echo()


def test_settings_that_do_not_fit(tmp_path):
  token = tmp_path / 'token'
  token.write_text('x')
  token.chmod(0o600)
  for security, words in (
    (addresses.Security(token_file=str(token)), 'belong to a URL'),
    (addresses.Security(ca_file=str(token)), '--tls is required'),
  ):
    with pytest.raises(errors.UsageError, match=words):
      clinic.connect('PACS@host:104', security=security)
  with pytest.raises(errors.UsageError, match='--own-port'):
    clinic.connect('PACS@host:104', use_move=True)
  with pytest.raises(errors.UsageError, match='--tls-certificate: our own'):
    clinic.connect(
      'PACS@host:104',
      own=addresses.OwnNode('ME', 11112),
      security=addresses.Security(tls=True),
    )


def test_encrypted_and_by_whom(tmp_path):
  authority, stranger = trustme.CA(), trustme.CA()
  server, client = authority.issue_cert('localhost'), authority.issue_cert('me')
  context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  server.configure_cert(context)
  authority.configure_trust(context)
  context.verify_mode = ssl.CERT_REQUIRED
  for name, each in (('ca', authority), ('stranger', stranger)):
    each.cert_pem.write_to_path(str(tmp_path / f'{name}.pem'))
  client.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / 'me.pem'))
  entity = pynetdicom.AE('FAKE')
  entity.add_supported_context(associations.VERIFICATION)
  running = entity.start_server(('127.0.0.1', 0), block=False, ssl_context=context)
  address = f'FAKE@localhost:{running.server_address[1]}'
  try:

    def ask(**files):
      security = addresses.Security(
        tls=True, **{name: str(tmp_path / file) for name, file in files.items()}
      )
      return clinic.connect(address, security=security, limits=_LIMITS).echo()

    assert ask(ca_file='ca.pem', certificate_file='me.pem') > 0
    with pytest.raises(errors.PACSError, match='no encrypted connection'):
      ask(ca_file='stranger.pem', certificate_file='me.pem')
    with pytest.raises(errors.PACSError):  # Not in the clear either.
      clinic.connect(address, limits=_LIMITS).echo()
  finally:
    running.shutdown()


def _pdus_in_two_writes(connection, count):
  """Answers every byte with a head of 6 bytes and a rest of 100, as DCMTK does."""
  for _ in range(count):
    connection.recv(1)
    connection.sendall(b'h' * 6)
    connection.sendall(b'r' * 100)


@pytest.mark.skipif(
  not hasattr(socket, 'TCP_QUICKACK'), reason='only Linux acknowledges on demand'
)
def test_the_rest_of_a_pdu_is_not_waited_for():
  count = 25
  with socket.create_server(('127.0.0.1', 0)) as server:
    raw = socket.create_connection(server.getsockname())
    other, _ = server.accept()
    with raw, other:
      connection = types.SimpleNamespace(
        socket=raw, recv=lambda size: raw.recv(size, socket.MSG_WAITALL)
      )
      associations.answer_at_once(
        types.SimpleNamespace(dul=types.SimpleNamespace(socket=connection))
      )
      thread = threading.Thread(target=_pdus_in_two_writes, args=(other, count))
      thread.start()
      rounds_s = []
      for _ in range(count):
        start = time.monotonic()
        raw.sendall(b'q')
        assert connection.recv(6) == b'h' * 6
        assert connection.recv(100) == b'r' * 100
        rounds_s.append(time.monotonic() - start)
      thread.join()
      assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
  # On a busy machine some rounds take long; late acknowledgements spoil all but the
  # first.
  assert min(rounds_s[1:]) < 0.02, 'each head was acknowledged 40 ms late'
