"""Senders that do not keep to the protocol: an end in time, in words, at no cost."""

import contextlib
import logging
import socket
import struct
import threading
import time
import tracemalloc

import hypothesis
from hypothesis import strategies
import listening
import pytest
import small_instances as instances

from covid_tf.node import pdus

_SOON_S = 0.5


@pytest.fixture(name='node')
def _node(tmp_path, caplog):
  """A patient one: what ends here ends because of what was sent."""
  caplog.set_level(logging.INFO)
  with listening.running(tmp_path, largest_instance_bytes=100_000) as node:
    yield node


@pytest.fixture(name='hasty')
def _hasty(tmp_path, caplog):
  """One that waits for nothing for long, once an association is accepted."""
  caplog.set_level(logging.INFO)
  with listening.running(
    tmp_path, idle_s=_SOON_S, longest_association_s=4 * _SOON_S
  ) as node:
    yield node


@pytest.fixture(name='curt')
def _curt(tmp_path, caplog):
  """One that does not wait for a request for long."""
  caplog.set_level(logging.INFO)
  with listening.running(tmp_path, request_s=_SOON_S) as node:
    yield node


def still_echoes(node) -> bool:
  """Whether it answers, be it that we were too slow for it at first."""
  until = time.monotonic() + 60
  while time.monotonic() < until:
    with contextlib.suppress(AttributeError, RuntimeError):  # Cut in the middle.
      if node.echoes():
        return True
  return False


@pytest.fixture(autouse=True)
def _quiet(capfd):
  """Nothing of it reaches standard error, and no thread stays."""
  before = threading.active_count()
  yield
  until = time.monotonic() + 60
  while threading.active_count() > before and time.monotonic() < until:
    time.sleep(0.01)
  assert threading.active_count() <= before
  assert not capfd.readouterr().err


def answer(connection) -> tuple[int, bytes]:
  """The last PDU before the end of the connection."""
  last = (0, b'')
  connection.settimeout(60)
  while (found := listening.read_pdu(connection))[0]:
    last = found
  return last


def ends(node, *pieces: bytes) -> tuple[int, bytes]:
  """What is answered to bytes on a new connection, which has to end."""
  with node.connect() as connection:
    for piece in pieces:
      connection.sendall(piece)
    found = answer(connection)
  assert still_echoes(node)
  return found


def requested(*items: bytes, **options) -> bytes:
  return listening.pdu(0x01, listening.request_body(*items, **options))


# Before there is an association.


@pytest.mark.parametrize(
  ('items', 'words'),
  (
    ([listening.context_item(2)], 'an even ID'),
    ([listening.context_item(0)], 'an even ID'),
    ([listening.context_item(1), listening.context_item(1)], 'with one ID'),
    (
      [listening.context_item(1 + 2 * (n % 128)) for n in range(200)],
      '200 presentation',
    ),
    ([], 'proposes no presentation context'),
    ([listening.item(0x20, b'')], 'without an ID'),
    ([listening.item(0x20, b'\1\0\0\0')], 'without one abstract syntax'),
    ([listening.item(0x20, b'\1\0\0\0', 60000)], 'is a lie'),
    ([listening.item(0x30, b'', 0)] * 9, 'proposes no presentation context'),
  ),
)
def test_presentation_contexts(node, caplog, items, words):
  assert ends(node, requested(*items))[0] == listening.ABORT
  assert words in caplog.text


@pytest.mark.parametrize(
  ('data', 'words'),
  (
    (b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', 'found a PDU of type 0x47'),
    (b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'found a PDU of type 0x16'),
    (bytes(64), 'found a PDU of type 0x00'),
    (b'\xff' * 64, 'found a PDU of type 0xFF'),
    (listening.pdu(0x04, b'', 0), 'found a PDU of type 0x04'),
    (listening.pdu(0x05, bytes(4)), 'found a PDU of type 0x05'),
    (listening.pdu(0x01, b'', 0), 'has 0 bytes'),
    (listening.pdu(0x01, bytes(67)), 'has 67 bytes'),
    (listening.pdu(0x01, b'x', 0xFFFFFFFF), 'claims 4294967295 bytes'),
  ),
)
def test_first_bytes(node, caplog, data, words):
  assert ends(node, data)[0] == listening.ABORT
  assert words in caplog.text
  assert node.metrics.associations['refused'] == 1


def test_a_request_of_the_largest_size(node, caplog):
  items = [listening.item(0x30, b'')] * (pdus.MOST_REQUEST_BYTES // 4 - 100)
  assert ends(node, requested(*items))[0] == listening.ABORT
  assert 'proposes no presentation context' in caplog.text


@pytest.mark.parametrize(
  'title', (b'\xe4\n\x1b[31mroot', b'', b'A\\B', b'Doe\r\nINFO x')
)
def test_titles_are_fit_for_a_log(tmp_path, caplog, title):
  with listening.running(tmp_path, callers=frozenset(('SCANNER',))) as node:
    kind, body = ends(node, requested(listening.context_item(1), calling=title))
  assert (kind, body) == (listening.REJECTED, bytes((0, 1, 1, 3)))
  (message,) = (each for each in caplog.messages if 'not among those allowed' in each)
  assert message.isprintable()


def test_another_protocol(node):
  body = bytearray(listening.request_body(listening.context_item(1)))
  body[0:2] = struct.pack('>H', 2)
  found = ends(node, listening.pdu(0x01, bytes(body)))
  assert found == (listening.REJECTED, bytes((0, 1, 2, 2)))
  other = bytes(body).replace(b'\0\2', b'\0\1', 1).replace(b'8.3.1.1.1', b'8.3.1.1.9')
  found = ends(node, listening.pdu(0x01, other))
  assert found == (listening.REJECTED, bytes((0, 1, 1, 2)))


@pytest.mark.parametrize(
  'part', (b'', b'\1', requested(listening.context_item(1))[:-1])
)
def test_who_does_not_say_what_it_wants(curt, caplog, part):
  ends(curt, part)
  assert 'lost' in caplog.text


def test_who_looks_whether_the_port_is_open_is_no_news(node, caplog):
  for _ in range(5):
    node.connect().close()
  assert node.echoes()
  until = time.monotonic() + 60
  while caplog.text.count('was closed') < 5 and time.monotonic() < until:
    time.sleep(0.01)
  assert caplog.text.count('was closed') == 5
  assert not [each for each in caplog.records if each.levelno > logging.INFO]
  assert not node.metrics.associations['refused']


def trickled(connection, data: bytes) -> None:
  """Sends a byte each tenth of the limit, until the other side has enough."""
  connection.settimeout(_SOON_S / 10)
  for byte in data:
    try:
      connection.sendall(bytes((byte,)))
      if not connection.recv(1):
        return
    except TimeoutError:
      continue
    except OSError:
      return
  raise AssertionError('it never had enough')


def test_a_request_that_trickles(curt):
  with curt.connect() as connection:
    trickled(connection, requested(listening.context_item(1)) + bytes(1000))
  assert still_echoes(curt)


def test_a_thousand_connections(tmp_path, caplog):
  # Long enough for a slow machine to open more connections than may wait.
  with listening.running(tmp_path, request_s=1.0) as node:
    _with_a_thousand_connections(node)
  assert 0 < caplog.text.count('too many wait') < 10


def _with_a_thousand_connections(node):
  connections = []
  try:
    for _ in range(1000):
      connections.append(node.connect())
    assert threading.active_count() < 100
    assert still_echoes(node)
  finally:
    for connection in connections:
      connection.close()


# Within an association.


def cut(node, *pieces: bytes) -> bytes:
  """What an A-ABORT says to pieces that are sent in an association."""
  with listening.established(node) as connection:
    for piece in pieces:
      connection.sendall(piece)
    kind, body = answer(connection)
  assert kind == listening.ABORT
  assert not listening.arriving(node.spool)
  assert still_echoes(node)
  return body


COMMAND = listening.values(1, 3, listening.store_command())


@pytest.mark.parametrize(
  ('pieces', 'words'),
  (
    ([listening.pdu(0x04, b'', 0xFFFFFFFF)], 'found 4294967295'),
    ([listening.pdu(0x04, b'x', pdus.MOST_REQUEST_BYTES)], 'at most was agreed'),
    ([listening.pdu(0x04, b'\0\0\0')], 'breaks off'),
    ([listening.pdu(0x04, struct.pack('>LBB', 0, 1, 0))], 'is a lie'),
    ([listening.pdu(0x04, struct.pack('>LBB', 1, 1, 0))], 'is a lie'),
    ([listening.pdu(0x04, struct.pack('>LBB', 0xFFFFFFFF, 1, 0))], 'is a lie'),
    ([listening.values(3, 3, b'')], 'presentation context 3, which was not accepted'),
    ([listening.values(1, 2, b'data')], 'without its command'),
    ([COMMAND, COMMAND], 'a command comes within a data set'),
    ([COMMAND, listening.pdu(0x05, bytes(4))], 'releases within a message'),
    ([listening.values(1, 3, b'x')], 'command breaks off'),
    ([listening.values(1, 3, b'')], 'its command has no (0000,0100)'),
    (
      [listening.values(1, 3, struct.pack('<HHL', 0, 2, 0xFFFFFFFF))],
      'an element of its command is a lie',
    ),
    ([listening.values(1, 1, bytes(8000))] * 9, 'command is too long'),
    (
      [listening.values(1, 3, listening.store_command(field=0x20))],
      'found operation 0x0020',
    ),
    (
      [listening.values(1, 3, listening.store_command(field=0x30))],
      'found operation 0x0030',
    ),
    (
      [listening.values(1, 3, listening.store_command(data=0x101))],
      'without a data set',
    ),
    ([listening.pdu(0x05, b'', 0xFFFFFFFF)], 'found a PDU of type 0x05'),
    ([listening.pdu(0x02, bytes(4))], 'found a PDU of type 0x02'),
    ([listening.pdu(0x47, b'ET /')], 'found a PDU of type 0x47'),
    ([requested(listening.context_item(1))], 'found a PDU of type 0x01'),
  ),
)
def test_messages(node, caplog, pieces, words):
  cut(node, *pieces)
  assert words in caplog.text
  assert node.metrics.associations['lost'] == 1


@pytest.mark.parametrize(
  'pieces', ([b''], [COMMAND, listening.values(1, 0, b'abc')], [b'\4'])
)
def test_messages_that_do_not_end(hasty, caplog, pieces):
  cut(hasty, *pieces)
  assert 'came in time' in caplog.text
  assert hasty.metrics.associations['lost'] >= 1


def test_the_longest_instance(node, caplog):
  """A C-STORE of 4 GB ends where the limit is, and leaves nothing."""
  with listening.established(node) as connection:
    connection.sendall(COMMAND)
    sent = 0
    try:
      while sent < 4 << 30:
        connection.sendall(listening.values(1, 0, bytes(16000)))
        sent += 16000
    except OSError:
      pass
    assert sent < 10 << 20
  assert 'of 100000 bytes at most is taken' in caplog.text
  assert not listening.arriving(node.spool)
  assert node.echoes()


def test_a_message_that_trickles(hasty):
  with listening.established(hasty) as connection:
    trickled(connection, listening.values(1, 3, listening.store_command()))
  assert still_echoes(hasty)


def test_an_association_that_never_ends(tmp_path, caplog):
  """Whole PDUs in time, for ever: its time is over all the same."""
  with listening.running(tmp_path, longest_association_s=_SOON_S) as node:
    with listening.established(node) as connection:
      connection.settimeout(60)
      with pytest.raises(ConnectionError):
        connection.sendall(COMMAND)
        until = time.monotonic() + 60
        while time.monotonic() < until:
          connection.sendall(listening.values(1, 0, b''))
          time.sleep(0.02)
    assert still_echoes(node)
  assert 'its time is over' in caplog.text or 'came in time' in caplog.text


def test_a_sender_that_does_not_read(hasty):
  echo = listening.store_command(field=0x30, data=0x101)
  body = listening.request_body(listening.context_item(1, '1.2.840.10008.1.1'))
  with hasty.connect() as connection:
    connection.sendall(listening.pdu(0x01, body))
    connection.settimeout(60)
    with pytest.raises(ConnectionError):
      for _ in range(10**6):
        connection.sendall(listening.values(1, 3, echo))
  assert still_echoes(hasty)


def test_memory_does_not_follow_what_is_claimed(node):
  node.echoes()
  tracemalloc.start()
  try:
    with listening.established(node) as connection:
      connection.sendall(COMMAND)
      connection.sendall(listening.pdu(0x04, b'x' * 100, 0xFFFFFFF0))
      answer(connection)
    for _ in range(20):
      with node.connect() as connection:
        connection.sendall(listening.pdu(0x01, b'x', 0xFFFFFFF0))
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize(
  ('said', 'words'),
  (
    ('1.2.3', 'is not that of the command'),
    ('../../../etc/passwd', 'UID in the command is illegal'),
    ('1.' + '2' * 64, 'UID in the command is illegal'),
    ('', 'UID in the command is illegal'),
  ),
)
def test_uids_of_commands(node, caplog, said, words):
  with listening.established(node) as connection:
    connection.sendall(listening.values(1, 3, listening.store_command(said)))
    connection.sendall(listening.values(1, 2, instances.encoded(1)))
    kind, body = listening.read_pdu(connection)
    assert kind == 0x04 and words.encode() in body
    assert struct.pack('<HHLH', 0, 0x0900, 2, 0xA900) in body
    # What is wrong with an instance ends no association.
    instance_uid = f'{instances.SERIES_UID}.2'
    connection.sendall(listening.values(1, 3, listening.store_command(instance_uid)))
    connection.sendall(listening.values(1, 2, instances.encoded(2)))
    kind, body = listening.read_pdu(connection)
    assert struct.pack('<HHLH', 0, 0x0900, 2, 0) in body
    connection.sendall(listening.pdu(0x05, bytes(4)))
    assert listening.read_pdu(connection)[0] == 0x06
  assert words in caplog.text
  assert not listening.arriving(node.spool)
  if 'illegal' in words:
    assert node.spool.study(instances.STUDY_UID).interrupted


def test_fragments_of_every_size(node):
  """One byte a PDU, several values in one PDU, an empty last fragment."""
  instance_uid = f'{instances.SERIES_UID}.1'
  command, data = listening.store_command(instance_uid), instances.encoded(1)
  with listening.established(node) as connection:
    for place in range(len(command)):
      connection.sendall(listening.values(1, 1, command[place : place + 1]))
    connection.sendall(listening.values(1, 3, b''))
    two = listening.values(1, 0, data[:5])[6:] + listening.values(1, 0, data[5:])[6:]
    connection.sendall(listening.pdu(0x04, two))
    connection.sendall(listening.values(1, 2, b''))
    _, body = listening.read_pdu(connection)
    assert struct.pack('<HHLH', 0, 0x0900, 2, 0) in body
    connection.sendall(listening.pdu(0x05, bytes(4)))
    assert listening.read_pdu(connection)[0] == 0x06
  assert node.spool.study(instances.STUDY_UID).counts == {instances.SERIES_UID: 1}


def test_whatever_bytes_come_it_goes_on(tmp_path):
  whole = COMMAND + listening.values(1, 2, instances.encoded(1))
  with listening.running(tmp_path) as node:

    @hypothesis.given(
      places=strategies.lists(strategies.integers(0, len(whole) - 1), max_size=5),
      byte=strategies.integers(0, 255),
      end=strategies.integers(1, len(whole)),
    )
    @hypothesis.settings(max_examples=60, deadline=None)
    def check(places, byte, end):
      data = bytearray(whole)
      for place in places:
        data[place] = byte
      with listening.established(node) as connection:
        connection.sendall(data[:end])
        connection.shutdown(socket.SHUT_WR)
        answer(connection)

    check()
    assert node.echoes()
    assert not listening.arriving(node.spool)
