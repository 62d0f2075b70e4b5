"""Every wait has an end."""

import socket
import threading
import time

import pytest

from covid_tf.node import connection as connection_lib


@pytest.fixture(name='ends')
def _ends():
  ours, theirs = socket.socketpair()
  with theirs:
    theirs.settimeout(60)
    connection = connection_lib.Connection(ours, 0.2)
    yield connection, theirs
    connection.close()


def soon() -> float:
  return time.monotonic() + 0.2


def patient() -> float:
  return time.monotonic() + 60


def test_bytes_in_pieces(ends):
  connection, theirs = ends
  theirs.sendall(b'\1\0\0\0\0\x05hello')
  assert connection.read_header(patient()) == (1, 5)
  assert connection.read(3, patient()) == b'hel'
  assert bytes(connection.read_some(1, patient())) == b'l'
  assert bytes(connection.read_some(100, patient())) == b'o'
  assert connection.read(0, 0) == b''
  connection.send(b'answer')
  assert theirs.recv(10) == b'answer'


@pytest.mark.parametrize('sent', (b'', b'\1\0\0'))
def test_nothing_comes(ends, sent):
  connection, theirs = ends
  theirs.sendall(sent)
  with pytest.raises(connection_lib.LostError, match='came in time'):
    connection.read_header(soon())
  with pytest.raises(connection_lib.LostError, match='came in time'):
    connection.read_some(1, time.monotonic() - 1)


def test_it_is_closed(ends):
  connection, theirs = ends
  theirs.sendall(b'\1')
  theirs.close()
  with pytest.raises(connection_lib.LostError, match='was closed'):
    connection.read(2, patient())
  with pytest.raises(connection_lib.LostError):
    for _ in range(100):
      connection.send(bytes(1 << 16))


def test_the_other_side_does_not_read(ends):
  connection, theirs = ends
  hanging = threading.Timer(60, theirs.close)  # Ends it with other words.
  hanging.start()
  with pytest.raises(connection_lib.LostError, match='timed out|TimeoutError'):
    connection.send(bytes(1 << 24))
  hanging.cancel()


def test_cut_from_another_thread(ends):
  connection, _ = ends
  timer = threading.Timer(0.1, connection.cut, ('the node stops',))
  timer.start()
  with pytest.raises(connection_lib.LostError, match='the node stops'):
    connection.read(1, patient())
  timer.join()
  connection.cut('once is enough')
  with pytest.raises(connection_lib.LostError, match='the node stops'):
    connection.send(b'x')


def test_a_last_word_reaches_who_is_still_sending(ends):
  connection, theirs = ends
  theirs.sendall(bytes(100_000))
  thread = threading.Thread(target=connection.send_last, args=(b'why',))
  thread.start()
  assert theirs.recv(10) == b'why'
  theirs.close()
  thread.join(60)
  assert not thread.is_alive()


def test_a_last_word_is_not_waited_for_long(ends, monkeypatch):
  monkeypatch.setattr(connection_lib, '_LINGER_S', 0.2)
  connection, theirs = ends
  has_hung = threading.Event()
  hanging = threading.Timer(60, lambda: has_hung.set() or theirs.close())
  hanging.start()
  connection.send_last(b'why')
  hanging.cancel()
  assert not has_hung.is_set()
  connection.close()
  connection.close()
  connection.send_last(b'why')
  connection.cut('after its end')


@pytest.mark.skipif(
  not hasattr(socket, 'TCP_QUICKACK'), reason='only Linux acknowledges on demand'
)
def test_the_rest_of_a_pdu_is_not_waited_for():
  def answer(count):  # Head and rest in two writes, as DCMTK does it.
    for _ in range(count):
      theirs.recv(1)
      theirs.sendall(b'\1\0\0\0\0\x64')
      theirs.sendall(b'r' * 100)

  count = 25
  with socket.create_server(('127.0.0.1', 0)) as server:
    connection = connection_lib.Connection(
      socket.create_connection(server.getsockname()), 60.0
    )
    theirs, _ = server.accept()
    thread = threading.Thread(target=answer, args=(count,))
    thread.start()
    rounds_s = []
    for _ in range(count):
      start = time.monotonic()
      connection.send(b'q')
      assert connection.read_header(patient()) == (1, 100)
      assert connection.read(100, patient()) == b'r' * 100
      rounds_s.append(time.monotonic() - start)
    thread.join()
    connection.close()
    theirs.close()
  # On a busy machine some rounds take long; late acknowledgements spoil all but the
  # first.
  assert min(rounds_s[1:]) < 0.02, 'each head was acknowledged 40 ms late'
