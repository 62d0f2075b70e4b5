"""Who has asked gets the answer, however slow the threads of an association are."""

import os
import signal
import socket
import threading
import time

import dimse_faults
import pynetdicom
import pytest

from covid_tf.clinic import associations
from covid_tf.clinic import requesting


def test_a_thread_that_is_slow_takes_no_answer(caplog):
  fake = dimse_faults.FakePacs()
  with fake.running():
    entity = requesting.AE('ASKING')
    entity.dimse_timeout = 2
    entity.add_requested_context(associations.VERIFICATION)
    association = entity.associate('127.0.0.1', fake.port)
    pass_checkpoint = association._reactor_checkpoint.wait
    read = association.dimse.get_msg

    lingers = threading.Event()

    def linger(timeout=None):
      """Lets an answer come between the checkpoint and what follows it."""
      passed = pass_checkpoint(timeout)
      lingers.set()
      until = time.monotonic() + 0.4
      while association.dimse.msg_queue.empty() and time.monotonic() < until:
        time.sleep(0.001)
      lingers.clear()
      return passed

    def read_after(block=False):
      while block and lingers.is_set():
        time.sleep(0.001)
      time.sleep(0.05 if block else 0)
      return read(block)

    association._reactor_checkpoint.wait = linger
    association.dimse.get_msg = read_after
    for _ in range(4):
      assert lingers.wait(10)
      assert association.send_c_echo().Status == 0
    association.release()
    assert association.is_released
  assert 'unexpected' not in caplog.text


def test_nothing_holds_who_asks_once_the_thread_has_ended():
  fake = dimse_faults.FakePacs()
  with fake.running():
    entity = requesting.AE('ASKING')
    entity.add_requested_context(associations.VERIFICATION)
    association = entity.associate('127.0.0.1', fake.port)
    association.abort()
    association.join(10)
    association._reactor_checkpoint.clear()
    assert association._is_paused


def test_a_checkpoint_holds_only_who_waits_at_it():
  checkpoint = requesting.Checkpoint()
  assert checkpoint.is_set() and checkpoint.wait()
  checkpoint.clear()
  assert not checkpoint.holds and not checkpoint.wait(0.01)
  passed = threading.Event()
  waiting = threading.Thread(target=lambda: checkpoint.wait() and passed.set())
  waiting.start()
  while not checkpoint.holds:
    time.sleep(0.001)
  assert not passed.is_set()
  checkpoint.set()
  # Let go, though perhaps not awake yet: an event would still count it as waiting.
  assert not checkpoint.holds
  waiting.join(10)
  assert passed.is_set()


def test_an_interrupt_does_not_wait_for_a_silent_peer():
  entity = requesting.AE('ASKING')
  entity.acse_timeout = 30
  entity.add_requested_context(associations.VERIFICATION)
  before = set(threading.enumerate())
  with socket.create_server(('127.0.0.1', 0)) as silent:

    def interrupt():
      connection, _ = silent.accept()
      with connection:
        connection.recv(1)  # The request has come, and nothing is answered.
        os.kill(os.getpid(), signal.SIGINT)
        ended.wait(20)

    ended = threading.Event()
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    try:
      with pytest.raises(KeyboardInterrupt):
        entity.associate('127.0.0.1', silent.getsockname()[1])
      # Python waits for these when the process ends.
      assert not {
        thread for thread in set(threading.enumerate()) - before if not thread.daemon
      } - {interrupting}
    finally:
      ended.set()
      interrupting.join()


def test_a_rejection_is_read_although_its_connection_has_gone(monkeypatch):
  """Who asks looks late whether it is connected: the answer has come by then."""
  begin = pynetdicom.transport.AssociationSocket.__init__

  def begin_late(self, *arguments, **options):
    begin(self, *arguments, **options)
    wait = self._ready.wait

    def late(timeout=None):
      wait(timeout)
      until = time.monotonic() + 60
      while self._is_connected and time.monotonic() < until:
        time.sleep(0.001)

    self._ready.wait = late

  with dimse_faults.FakePacs().running(require_called_aet=True) as fake:
    monkeypatch.setattr(pynetdicom.transport.AssociationSocket, '__init__', begin_late)
    entity = requesting.AE('ASKING')
    entity.add_requested_context(associations.VERIFICATION)
    association = entity.associate('127.0.0.1', fake.port, ae_title='OTHER')
  assert association.is_rejected and not association.is_aborted
  assert association.acceptor.primitive.diagnostic == 7
