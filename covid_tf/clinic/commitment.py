"""Storage commitment (PS3.4 annex J): a PACS says that it keeps what it was sent.

The report comes on the association that asked, or on one that the PACS opens to us.
"""

from collections.abc import Sequence
import contextlib
import threading
from typing import Any

from pydicom import dataset as dataset_lib
from pydicom import uid

from covid_tf.clinic import associations
from covid_tf.clinic import pacs

_INSTANCE = '1.2.840.10008.1.20.1.1'  # Well-known (PS3.4 J.3.5).
_PUSH_MODEL = associations.STORAGE_COMMITMENT
_REPORT_HERE_S = 10.0  # For a report on the association that asked.


def ask(
  peer: associations.Peer, instances: Sequence[pacs.Instance]
) -> pacs.Commitment | None:
  """What a PACS commits itself to; None where that is not offered or not answered.

  Raises:
    errors.PACSError: it cannot be reached, or answers what it must not.
    errors.UsageError: our port is not free.
  """

  def once(deadline: pacs.Deadline) -> pacs.Commitment | None:
    transaction = uid.generate_uid(prefix=None)
    report = _Report(transaction)
    handlers = [
      (peer.net.evt.EVT_N_EVENT_REPORT, report.take),
      (peer.net.evt.EVT_PDU_SENT, report.answered),
    ]
    contexts = [peer.context(_PUSH_MODEL)]
    with contextlib.ExitStack() as stack:
      if peer.own.port is not None:
        stack.enter_context(peer.listening(contexts, handlers))
      association = stack.enter_context(
        peer.association(contexts, deadline, handlers=handlers)
      )
      if not associations.accepts(association, _PUSH_MODEL):
        return None
      status, _ = association.send_n_action(
        _request(transaction, instances), 1, _PUSH_MODEL, _INSTANCE
      )
      if peer.status(status, 'N-ACTION') != associations.SUCCESS:
        return None
      patience_s = peer.limits.answer_s
      if peer.own.port is None:
        patience_s = min(_REPORT_HERE_S, patience_s)
      return report.within(min(patience_s, deadline.left_s()))

  try:
    return pacs.repeated(once, peer.name, peer.limits)
  except associations.NotOfferedError:
    return None


class _Report:
  """The N-EVENT-REPORT of one transaction, which comes on any association.

  pynetdicom answers it in a thread of its own: who releases the association before the
  answer has gone ends the connection, and the PACS waits in vain.
  """

  def __init__(self, transaction: str):
    self._transaction = transaction
    self._come = threading.Event()
    self._association: Any = None
    self._commitment: pacs.Commitment | None = None

  def take(self, event: Any) -> tuple[int, None]:
    """Handler of EVT_N_EVENT_REPORT."""
    try:
      found = event.event_information
      if found.get('TransactionUID') != self._transaction:
        return 0x0110, None
      self._commitment = pacs.Commitment(
        frozenset(
          str(item.ReferencedSOPInstanceUID)
          for item in found.get('ReferencedSOPSequence') or ()
        ),
        {
          str(item.ReferencedSOPInstanceUID): associations.words(
            int(item.get('FailureReason', 0))
          )
          for item in found.get('FailedSOPSequence') or ()
        },
      )
    except (AttributeError, TypeError, ValueError):
      return 0x0110, None
    self._association = event.assoc
    return associations.SUCCESS, None

  def answered(self, event: Any) -> None:
    """Handler of EVT_PDU_SENT: the first data after the report are its answer."""
    is_data = type(event.pdu).__name__ == 'P_DATA_TF'
    if is_data and event.assoc is self._association:
      self._come.set()

  def within(self, seconds: float) -> pacs.Commitment | None:
    """The answer, or None where none came."""
    self._come.wait(seconds)
    return self._commitment


def _request(
  transaction: str, instances: Sequence[pacs.Instance]
) -> dataset_lib.Dataset:
  """The information of an N-ACTION: transaction and instances."""
  request = dataset_lib.Dataset()
  request.TransactionUID = transaction
  request.ReferencedSOPSequence = []
  for instance in instances:
    item = dataset_lib.Dataset()
    item.ReferencedSOPClassUID = instance.sop_class_uid
    item.ReferencedSOPInstanceUID = instance.sop_instance_uid
    request.ReferencedSOPSequence.append(item)
  return request
