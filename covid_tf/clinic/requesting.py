"""Associations that we open: an answer goes to who has asked, and to nobody else.

Imported where it is needed: it needs pynetdicom.
"""

import threading
from typing import Any

import pynetdicom
from pynetdicom import association as association_lib
from pynetdicom import evt
from pynetdicom import pdu_primitives

_END_S = 2.0  # For a thread of pynetdicom's, which looks every few milliseconds.


class AE(pynetdicom.AE):
  """pynetdicom's application entity, whose own threads take no answer of ours.

  An association of pynetdicom's has a thread that reads what comes, unless it is
  paused; who asks pauses it, and then reads the answer. But a thread that was let go a
  moment ago still counts as paused there. Now and then it takes the answer to the next
  question ("Received unexpected C-STORE service message"), and who has asked waits for
  it in vain. It also counts as going on for ever where a report of storage commitment
  comes in that moment.
  """

  def associate(self, *arguments: Any, **options: Any) -> association_lib.Association:
    """As pynetdicom's; whoever interrupts it does not wait for the other side."""
    opening = _Opening()
    options['evt_handlers'] = [*(options.get('evt_handlers') or ()), opening.handler]
    try:
      association = super().associate(*arguments, **options)
    except BaseException:
      opening.end()
      raise
    # The class that pynetdicom makes cannot be chosen. The thread may run already: it
    # passes the old checkpoint, which is open, and stops at the new one.
    association._reactor_checkpoint = Checkpoint()
    association.__class__ = _Association
    _note_rejection(association)
    return association


def _note_rejection(association: association_lib.Association) -> None:
  """Reads a rejection that pynetdicom took for a failure to connect.

  Its other thread closes the connection of a rejected association: who asked and looks
  only then whether there is a connection aborts, and does not read why there is none.
  """
  if association.is_established or association.is_rejected:
    return
  answer = association.dul.receive_pdu(wait=False)
  if isinstance(answer, pdu_primitives.A_ASSOCIATE) and answer.result in (1, 2):
    association.acceptor.primitive = answer
    association.is_rejected, association.is_aborted = True, False


class _Opening:
  """A connection on which no association is established yet.

  pynetdicom reads it in a thread that Python waits for when the process ends, and gives
  the association to the caller only when the other side has answered: after Ctrl-C the
  process would stay for as long as that may take.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._associations: list[association_lib.Association] = []
    self._is_ended = False

  @property
  def handler(self) -> tuple[Any, Any]:
    """What is to be bound, for this to know its connection."""
    return evt.EVT_CONN_OPEN, self._note

  def _note(self, event: Any) -> None:
    with self._lock:
      self._associations.append(event.assoc)
      if self._is_ended:  # It was interrupted while it connected.
        event.assoc.dul.kill_dul()

  def end(self) -> None:
    """Ends its thread and closes it."""
    with self._lock:
      self._is_ended = True
      found = list(self._associations)
    for association in found:
      association.dul.kill_dul()
      association.dul.join(_END_S)
      if association.dul.socket:
        association.dul.socket.close()


class Checkpoint(threading.Event):
  """Where the thread of an association waits while it must not read."""

  def __init__(self) -> None:
    super().__init__()
    self._changed = threading.Condition()
    self._is_open = True
    self._is_waiting = False

  @property
  def holds(self) -> bool:
    """Whether the thread waits here, and will until `set`."""
    with self._changed:
      return self._is_waiting and not self._is_open

  def is_set(self) -> bool:
    """Whether the thread may pass."""
    return self._is_open

  def set(self) -> None:
    """Lets the thread pass."""
    with self._changed:
      self._is_open = True
      self._changed.notify_all()

  def clear(self) -> None:
    """Holds the thread when it comes here next."""
    with self._changed:
      self._is_open = False

  def wait(self, timeout: float | None = None) -> bool:
    """For that thread only: waits until it may pass."""
    with self._changed:
      self._is_waiting = True
      is_open = self._changed.wait_for(lambda: self._is_open, timeout)
      self._is_waiting = False
      return is_open


class _Association(association_lib.Association):
  """An association that says of its thread what is so.

  Attributes:
    _is_paused: whether the thread does not read; what pynetdicom sets is not asked.
  """

  _reactor_checkpoint: Checkpoint

  @property
  def _is_paused(self) -> bool:
    is_its_own = threading.current_thread() is self
    return is_its_own or self._reactor_checkpoint.holds or not self.is_alive()

  @_is_paused.setter
  def _is_paused(self, value: bool) -> None:
    del value
