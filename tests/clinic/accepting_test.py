"""Associations that are opened to us: encrypted, by whom, and prompt to the end."""

import contextlib
import socket
import ssl
import threading
import time

import dimse_faults
import free_ports
import pynetdicom
from pynetdicom import evt
import pytest

from covid_tf import clinic
from covid_tf import errors
from covid_tf.clinic import accepting
from covid_tf.clinic import addresses
from covid_tf.clinic import associations
from covid_tf.clinic import fetching
from covid_tf.clinic import pacs
from covid_tf.clinic import requesting
from covid_tf.clinic import sending

_LIMITS = pacs.Limits(connect_s=60, answer_s=60, total_s=300, attempts=1)


@pytest.fixture(name='certificates', scope='module')
def _certificates(tmp_path_factory):
  return dimse_faults.certificates(tmp_path_factory.mktemp('certificates'))


@pytest.fixture(name='instances', scope='module')
def _instances(tmp_path_factory):
  return dimse_faults.read_study(tmp_path_factory.mktemp('study'))


@pytest.fixture(name='entity')
def _entity():
  entity = pynetdicom.AE('ME')
  entity.add_supported_context(associations.VERIFICATION)
  return entity


def _echo(port, tls=None):
  """The status of a C-ECHO to us, or None without an association."""
  caller = requesting.AE('PACS')
  caller.acse_timeout = caller.dimse_timeout = 60
  caller.add_requested_context(associations.VERIFICATION)
  association = caller.associate(
    '127.0.0.1', port, tls_args=(tls, 'localhost') if tls else None
  )
  if not association.is_established:
    return None
  status = association.send_c_echo().Status
  association.release()
  return status


def test_instances_and_reports_come_encrypted(instances, certificates, tmp_path):
  fake = dimse_faults.FakePacs()
  fake.services = {'store', 'find', 'move', 'commit'}
  fake.certificates = certificates
  own = addresses.OwnNode('ME', free_ports.free_port())
  fake.destinations = {'ME': own.port}
  with fake.running():
    archive = clinic.connect(
      f'FAKE@localhost:{fake.port}',
      own=own,
      security=certificates.security(),
      limits=_LIMITS,
    )
    assert sending.send(instances, archive).is_complete
    study = fetching.fetch(archive, dimse_faults.STUDY_UID, tmp_path / 'study')
    assert study.instance_count == 8
    kept = archive.commit(instances)
    assert kept.committed == {each.sop_instance_uid for each in instances}
    # In the clear nobody can hand us anything.
    fake.certificates = None
    with pytest.raises(errors.PACSError, match='did not come|C-MOVE failed'):
      fetching.fetch(archive, dimse_faults.STUDY_UID, tmp_path / 'other')
  assert not (tmp_path / 'other').exists()


def test_who_may_call(certificates, entity, capfd):
  context = certificates.security().server_ssl_context()
  with accepting.listening(
    entity, ('127.0.0.1', 0), [], patience_s=60, ssl_context=context
  ) as server:
    port = server.server_address[1]
    assert _echo(port, certificates.caller()) == 0x0000
    assert _echo(port, certificates.caller(certificate='other.pem')) is None
    assert _echo(port, certificates.caller(certificate=None)) is None
    assert _echo(port, certificates.caller(ca='stranger.pem')) is None
    assert _echo(port) is None
    old = certificates.caller()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert _echo(port, old) == 0x0000
  assert capfd.readouterr().err == ''


def test_anonymous_callers_where_that_is_wanted(certificates, entity):
  context = certificates.security().server_ssl_context(callers_anonymous=True)
  with accepting.listening(
    entity, ('127.0.0.1', 0), [], patience_s=60, ssl_context=context
  ) as server:
    port = server.server_address[1]
    assert _echo(port, certificates.caller(certificate=None)) == 0x0000
    assert _echo(port, certificates.caller(certificate='other.pem')) is None


@pytest.mark.parametrize('is_encrypted', [False, True])
def test_a_silent_caller_holds_up_nobody(certificates, entity, is_encrypted):
  context = certificates.security().server_ssl_context() if is_encrypted else None
  with accepting.listening(
    entity, ('127.0.0.1', 0), [], patience_s=600, ssl_context=context
  ) as server:
    address = ('127.0.0.1', server.server_address[1])
    with contextlib.ExitStack() as stack:
      for _ in range(3):
        silent = stack.enter_context(socket.create_connection(address))
      silent.sendall(b'\x01\x00')  # A message that stops in its head.
      # Long before they are left.
      caller = certificates.caller() if is_encrypted else None
      assert _echo(address[1], caller) == 0x0000


@pytest.mark.parametrize('is_encrypted', [False, True])
def test_a_silent_caller_is_left(certificates, entity, is_encrypted):
  context = certificates.security().server_ssl_context() if is_encrypted else None
  with accepting.listening(
    entity, ('127.0.0.1', 0), [], patience_s=1, ssl_context=context
  ) as server:
    address = ('127.0.0.1', server.server_address[1])
    with socket.create_connection(address, 60) as silent:
      silent.sendall(b'\x01\x00')
      assert silent.recv(100) == b''


@pytest.mark.parametrize('is_encrypted', [False, True])
def test_a_silent_caller_does_not_hold_up_our_end(certificates, entity, is_encrypted):
  context = certificates.security().server_ssl_context() if is_encrypted else None
  with contextlib.ExitStack() as stack:
    with accepting.listening(
      entity, ('127.0.0.1', 0), [], patience_s=600, ssl_context=context
    ) as server:
      address = ('127.0.0.1', server.server_address[1])
      silent = stack.enter_context(socket.create_connection(address, 60))
      silent.sendall(b'\x01\x00')
      caller = certificates.caller() if is_encrypted else None
      assert _echo(address[1], caller) == 0x0000


def test_who_does_not_release_does_not_keep_us(entity, monkeypatch):
  monkeypatch.setattr(accepting, '_TO_END_S', 0.3)
  caller = requesting.AE('PACS')
  caller.add_requested_context(associations.VERIFICATION)
  before = set(threading.enumerate())
  with accepting.listening(entity, ('127.0.0.1', 0), [], patience_s=60) as server:
    association = caller.associate('127.0.0.1', server.server_address[1])
    assert association.is_established
  end = time.monotonic() + 60
  while not association.is_aborted and time.monotonic() < end:
    time.sleep(0.01)
  assert association.is_aborted
  left = set(threading.enumerate()) - before
  assert not [each for each in left if not each.daemon], 'they keep the process'


def test_what_we_write_is_not_held_back(entity):
  found = []

  def see(event):
    raw = event.assoc.dul.socket.socket
    found.append(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return 0x0000

  handlers = [(evt.EVT_C_ECHO, see)]
  with accepting.listening(entity, ('127.0.0.1', 0), handlers, patience_s=60) as server:
    assert _echo(server.server_address[1]) == 0x0000
  assert found and all(found)
