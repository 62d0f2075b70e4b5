"""Associations that we open: an answer goes to who has asked, and to nobody else.

Imported where it is needed: it needs pynetdicom.
"""

import threading
from typing import Any

import pynetdicom
from pynetdicom import association as association_lib


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
    """As pynetdicom's."""
    association = super().associate(*arguments, **options)
    # The class that pynetdicom makes cannot be chosen. The thread may run already: it
    # passes the old checkpoint, which is open, and stops at the new one.
    association._reactor_checkpoint = Checkpoint()
    association.__class__ = _Association
    return association


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
