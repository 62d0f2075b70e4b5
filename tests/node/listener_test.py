"""Who may send what, and what a sender is told."""

import contextlib
import errno
import itertools
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import types

import dimse_faults
import listening
from pydicom import uid
import pynetdicom
import pytest
import small_instances as instances

from covid_tf import errors
from covid_tf.clinic import requesting
from covid_tf.node import listener as listener_lib
from covid_tf.node import spool as spool_lib


@pytest.fixture(name='node')
def _node(tmp_path):
  with listening.running(tmp_path) as node:
    yield node


def wait_until(condition):
  until = time.monotonic() + 60
  while not condition() and time.monotonic() < until:
    time.sleep(0.01)
  assert condition()


def rejection(node, **options):
  with listening.associated(node, **options) as found:
    assert found.is_rejected
    answer = found.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def test_echo_and_store(node):
  assert node.echoes()
  answers = listening.send(node, 1, 2)
  assert [answer.Status for answer in answers] == [0, 0]
  kept = node.spool.study(instances.STUDY_UID)
  assert kept.counts == {instances.SERIES_UID: 2}
  assert kept.open_associations == 0 and not kept.interrupted
  wait_until(lambda: node.metrics.associations['released'] == 2)
  assert node.metrics.associations['accepted'] == 2
  assert node.metrics.instances == {'new': 2}
  wait_until(lambda: not node.listener.open_associations)


@pytest.mark.parametrize(
  'syntax',
  (
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
  ),
)
def test_every_syntax_is_kept_as_it_came(node, syntax):
  assert listening.send(node, 1, syntax=syntax)[0].Status == 0
  assert listening.send(node, 1)[0].Status == 0
  assert node.metrics.instances == {'new': 1, 'again': 1}
  (path,) = node.spool.folder.glob('studies/*/*/*.dcm')
  found = instances.pydicom.dcmread(path)
  assert found.file_meta.TransferSyntaxUID == syntax
  assert found.PixelData is not None and found.PatientID == 'ID-4711'


def test_what_is_accepted_of_what_is_proposed(node):
  proposed = [
    pynetdicom.build_context(
      uid.CTImageStorage, [uid.JPEG2000, uid.ImplicitVRLittleEndian]
    ),
    pynetdicom.build_context(uid.CTImageStorage, uid.JPEG2000Lossless),
    pynetdicom.build_context(uid.CTImageStorage, '1.2.840.113619.5.2'),  # GE's own.
    pynetdicom.build_context(uid.CTImageStorage, '1.2.840.10008.1.2.4.94'),
    pynetdicom.build_context('1.3.12.2.1107.5.9.1'),  # Siemens' own.
    pynetdicom.build_context('1.2.840.10008.5.1.4.1.1.66.4'),
    pynetdicom.build_context('1.2.840.10008.5.1.4.1.1.3'),  # Retired.
    pynetdicom.build_context('1.2.840.10008.5.1.4.1.2.2.1'),  # Find.
  ]
  with listening.associated(node, proposed) as found:
    accepted = {
      context.context_id: context.transfer_syntax[0]
      for context in found.accepted_contexts
    }
    refused = {
      context.context_id: context.result for context in found.rejected_contexts
    }
  assert accepted == {
    1: uid.ImplicitVRLittleEndian,
    3: uid.JPEG2000Lossless,
    11: uid.ExplicitVRLittleEndian,
    13: uid.ExplicitVRLittleEndian,
  }
  assert refused == {5: 4, 7: 4, 9: 3, 15: 3}


def test_other_content_under_the_same_uid(node):
  listening.send(node, 1)
  (answer,) = listening.send(
    node, 1, change=lambda dataset: setattr(dataset, 'PixelData', bytes(128))
  )
  assert answer.Status == 0x0111 and 'the first is kept' in answer.ErrorComment
  assert node.spool.study(instances.STUDY_UID).conflicts == 1


@pytest.mark.parametrize(
  ('change', 'status', 'words'),
  (
    (lambda dataset: delattr(dataset, 'StudyInstanceUID'), 0xC000, 'no Study Instance'),
    (lambda dataset: delattr(dataset, 'PixelData'), 0xC000, 'before its pixels'),
  ),
)
def test_what_is_wrong_with_one_instance_is_said_of_it(node, change, status, words):
  (answer,) = listening.send(node, 1, change=change)
  assert answer.Status == status and words in answer.ErrorComment
  assert listening.send(node, 2)[0].Status == 0
  assert node.metrics.instances == {'refused': 1, 'new': 1}


def test_two_studies_in_one_association(node):
  with listening.associated(node) as found:
    for number in range(4):
      study_uid = f'{instances.STUDY_UID}.{number % 2}'
      found.send_c_store(instances.instance(number, study_uid=study_uid))
    kept = node.spool.studies()
    assert [each.open_associations for each in kept] == [1, 1]
    found.abort()
  wait_until(lambda: all(each.interrupted for each in node.spool.studies()))
  assert all(
    'SCANNER aborted' in str(each.interrupted) for each in node.spool.studies()
  )
  wait_until(lambda: node.metrics.associations['aborted'] == 1)


def test_a_connection_that_goes_away(node):
  with listening.established(node) as connection:
    connection.sendall(listening.values(1, 3, listening.store_command()))
    connection.sendall(listening.values(1, 0, b'\x08\0\x05\0CS\x02\0AB'))
  wait_until(lambda: node.metrics.associations['lost'] == 1)
  assert not listening.arriving(node.spool)
  assert node.echoes()


def test_called_and_calling_titles(tmp_path):
  with listening.running(tmp_path, callers=frozenset(('SCANNER', 'OTHER'))) as node:
    assert rejection(node, calling='STRANGER') == (1, 1, 3)
    assert rejection(node, called='SOMEBODY') == (1, 1, 7)
    assert node.echoes()
    with listening.associated(node, calling='OTHER') as found:
      assert found.is_established
    wait_until(lambda: node.metrics.associations['refused'] == 2)


def test_congestion_refuses_new_associations_for_now(node, caplog):
  with listening.associated(node) as found:
    node.congested = 'the disk is nearly full'
    assert rejection(node) == (2, 3, 1)
    assert found.send_c_store(instances.instance(1)).Status == 0
  node.congested = None
  assert node.echoes()
  assert 'refused: the disk is nearly full' in caplog.text


def test_a_limit_of_associations(tmp_path):
  with listening.running(tmp_path, most_associations=2) as node:
    with listening.associated(node), listening.associated(node):
      assert rejection(node) == (2, 3, 2)
    wait_until(lambda: not node.listener.open_associations)
    assert node.echoes()


def test_a_full_disk_aborts_and_blames_no_instance(node, monkeypatch, caplog):
  with listening.associated(node) as found:
    assert found.send_c_store(instances.instance(1)).Status == 0

    def full(path):
      raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(spool_lib.files, 'force_to_disk', full)
    assert 'Status' not in found.send_c_store(instances.instance(2))
    wait_until(lambda: found.is_aborted)
  monkeypatch.undo()
  assert 'cannot be kept: No space left on device' in caplog.text
  wait_until(lambda: node.spool.study(instances.STUDY_UID).interrupted)
  assert node.metrics.instances == {'new': 1}
  assert listening.send(node, 2)[0].Status == 0


def test_draining(node):
  with listening.associated(node) as found:
    assert not node.listener.drain(0.1)
    assert rejection(node) == (2, 3, 1)
    assert found.send_c_store(instances.instance(1)).Status == 0
  assert node.listener.drain(60)


def test_leaving_ends_what_runs(tmp_path, monkeypatch):
  monkeypatch.setattr(listener_lib, '_JOIN_S', 60.0)
  before = set(threading.enumerate())
  with listening.running(tmp_path) as node:
    with listening.established(node) as connection:
      assert node.listener.is_alive
      node.listener.__exit__(None, None, None)
      assert not node.listener.is_alive
      assert not set(threading.enumerate()) - before  # Long before it was idle.
      assert connection.recv(1) == b''
    node.listener.__enter__()
  assert not [each for each in threading.enumerate() if each.name == 'listener']


def test_logs_say_who_and_what_but_no_patient(node, caplog):
  with caplog.at_level(logging.INFO):
    listening.send(node, 1, 2)
    listening.send(node, 1, calling='OTHER', change=_illegal)
    wait_until(lambda: node.metrics.associations['released'] == 2)
  assert 'SCANNER: released (2 new)' in caplog.text
  assert 'its Study Instance UID is illegal' in caplog.text
  assert 'Doe' not in caplog.text and '4711' not in caplog.text


def _illegal(dataset):
  dataset['StudyInstanceUID'] = instances.pydicom.DataElement(
    'StudyInstanceUID', 'UI', '../../Doe', validation_mode=0
  )


def test_one_instance_from_two_senders_at_once(node):
  answers = []

  def give(name):
    answers.extend(listening.send(node, *range(10), calling=name))

  threads = [threading.Thread(target=give, args=(name,)) for name in ('A', 'B', 'C')]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert {answer.Status for answer in answers} == {0}
  assert node.metrics.instances == {'new': 10, 'again': 20}
  assert node.spool.study(instances.STUDY_UID).counts == {instances.SERIES_UID: 10}


@pytest.mark.parametrize(
  ('settings', 'words'),
  (
    ({'ae_title': 'A\\B'}, 'an AE title of 1 to 16'),
    ({'callers': frozenset(('x' * 17,))}, '--callers: an AE title'),
    ({'port': 70000}, 'a number from 0'),
    ({'idle_s': 0}, '--idle-timeout: a number above 0'),
    ({'most_associations': 0}, '--most-associations'),
    ({'idle_s': float('nan')}, '--idle-timeout: a number above 0'),
    ({'host': '0.0.0.0'}, 'the AE titles that may send are required'),
    ({'host': ''}, 'the AE titles that may send are required'),
    ({'host': '::'}, 'the AE titles that may send are required'),
  ),
)
def test_settings_that_make_no_sense(settings, words):
  with pytest.raises(errors.UsageError, match=words):
    listener_lib.Settings(**settings)


@pytest.mark.parametrize(
  'settings',
  (
    {'host': 'localhost'},
    {'host': '::1'},
    {'host': '0.0.0.0', 'any_caller': True},
    {'host': '0.0.0.0', 'callers': frozenset(('SCANNER',))},
  ),
)
def test_who_may_reach_us(settings):
  listener_lib.Settings(**settings)


def test_a_port_that_is_taken(node, tmp_path):
  with pytest.raises(errors.UsageError, match='a free port of this machine'):
    with listening.running(tmp_path / 'other', port=node.port):
      pass


_SERVE = """
import sys, time
sys.path[:0] = sys.argv[2:]
import listening, pathlib
node = listening.Node(pathlib.Path(sys.argv[1]))
with node.spool, node.listener:
  print(node.port, flush=True)
  time.sleep(600)
"""


def test_killed_at_any_moment_it_keeps_what_it_acknowledged(tmp_path):
  moments = random.Random(26)
  acknowledged = set()
  numbers = itertools.count(100)
  for _ in range(3):
    with subprocess.Popen(
      [sys.executable, '-c', _SERVE, tmp_path, *sys.path], stdout=subprocess.PIPE
    ) as process:
      port = int(process.stdout.readline())
      killing = threading.Timer(moments.uniform(0, 0.1), process.kill)
      try:
        acknowledged |= _send_until_killed(port, numbers, killing)
      finally:
        process.kill()
      killing.join()
    with spool_lib.Spool(tmp_path / 'spool') as spool:
      kept = spool.study(instances.STUDY_UID)
      found = spool.has_instances(instances.STUDY_UID)[instances.SERIES_UID]
      assert acknowledged <= found
      assert not listening.arriving(spool)
      assert kept.interrupted
  assert len(acknowledged) >= 3 * 3


def _send_until_killed(port, numbers, killing):
  """What was acknowledged; a few are before the kill begins, whatever the speed."""
  acknowledged = set()
  success = listening.struct.pack('<HHLH', 0, 0x0900, 2, 0)
  place = types.SimpleNamespace(
    connect=lambda: socket.create_connection(('127.0.0.1', port), 60)
  )
  with listening.established(place) as connection, contextlib.suppress(ConnectionError):
    for number in numbers:
      instance_uid = f'{instances.SERIES_UID}.{number}'
      command = listening.store_command(instance_uid)
      connection.sendall(listening.values(1, 3, command))
      connection.sendall(listening.values(1, 2, instances.encoded(number)))
      kind, answer = listening.read_pdu(connection)
      if not kind:
        break
      assert success in answer
      acknowledged.add(instance_uid)
      if len(acknowledged) == 3:
        killing.start()
  return acknowledged


def test_encrypted_connections_only_and_of_whom_we_know(tmp_path):
  certificates = dimse_faults.certificates(tmp_path)

  def echoes(tls):
    entity = requesting.AE('SCANNER')
    entity.acse_timeout = entity.dimse_timeout = 60
    entity.add_requested_context('1.2.840.10008.1.1')
    found = entity.associate(
      '127.0.0.1',
      node.port,
      ae_title=listening.AE_TITLE,
      tls_args=(tls, 'localhost') if tls else None,
    )
    if not found.is_established:
      return False
    status = found.send_c_echo().Status
    found.release()
    return status == 0

  with listening.running(tmp_path, tls=certificates.security()) as node:
    assert echoes(certificates.caller())
    assert not echoes(certificates.caller(certificate=None))
    assert not echoes(certificates.caller(certificate='other.pem'))
    assert not echoes(None)
    assert echoes(certificates.caller())


def test_instances_come_encrypted(tmp_path):
  certificates = dimse_faults.certificates(tmp_path)
  with listening.running(tmp_path, tls=certificates.security()) as node:
    entity = requesting.AE('SCANNER')
    tls_args = (certificates.caller(), 'localhost')
    for end in ('release', 'abort'):
      found = entity.associate(
        '127.0.0.1',
        node.port,
        contexts=listening.contexts(),
        ae_title=listening.AE_TITLE,
        tls_args=tls_args,
      )
      for number in range(5):
        assert found.send_c_store(instances.instance(number)).Status == 0
      getattr(found, end)()
    wait_until(lambda: node.metrics.associations['aborted'] == 1)
    assert node.metrics.instances == {'new': 5, 'again': 5}
    assert node.spool.study(instances.STUDY_UID).interrupted


def test_who_does_not_shake_hands_holds_up_nobody(tmp_path, caplog, capfd):
  certificates = dimse_faults.certificates(tmp_path)
  security = certificates.security()
  hello = b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'
  with listening.running(tmp_path, tls=security, request_s=0.5) as node:
    silent, half, trickling = (node.connect() for _ in range(3))
    half.sendall(hello)
    until = time.monotonic() + 60
    with pytest.raises(ConnectionError):
      while time.monotonic() < until:
        trickling.sendall(b'\x16')
        with node.connect() as plain, contextlib.suppress(ConnectionError):
          # In the clear, where nothing is taken so.
          plain.sendall(listening.pdu(0x01, listening.request_body()))
        time.sleep(0.1)
    for connection in (silent, half, trickling):
      connection.settimeout(60)
      with contextlib.suppress(ConnectionResetError):
        while connection.recv(100):  # An alert of TLS, perhaps.
          pass
      connection.close()
  assert 'no encrypted connection' in caplog.text
  assert not capfd.readouterr().err


@pytest.mark.skipif(not shutil.which('dcmsend'), reason='dcmtk is not installed')
@pytest.mark.parametrize('options', ((), ('--multi-associations',)))
def test_dcmtk_sends(node, tmp_path, options):
  folder = tmp_path / 'study'
  folder.mkdir()
  for number, syntax in enumerate((uid.ExplicitVRLittleEndian, uid.RLELossless)):
    instances.save(instances.instance(number, syntax=syntax), folder / f'{number}.dcm')
  done = subprocess.run(
    ['/usr/bin/dcmsend', '-aec', 'NODE', *options, '127.0.0.1', str(node.port)]
    + sorted(map(str, folder.iterdir())),
    capture_output=True,
    text=True,
    env={**os.environ, 'TCP_NODELAY': '1'},
  )
  assert done.returncode == 0, done.stderr
  assert node.metrics.instances == {'new': 2}
