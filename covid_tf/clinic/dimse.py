"""A PACS that speaks DIMSE: C-ECHO, C-STORE, C-FIND, C-GET, C-MOVE, storage commitment.

Statuses are those of PS3.4 (B.2.3, C.4, J.3) and PS3.7 annex C. An association that was
refused for now, was aborted or lost is opened again, and what has no answer yet is sent
again: a PACS stores an instance once. A refusal that is for good is not repeated.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import socket
import ssl
import threading
import time
from typing import Any

import pydicom
from pydicom import dataset as dataset_lib
from pydicom import uid

from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import pacs
from covid_tf.readers import elements

VERIFICATION = '1.2.840.10008.1.1'
STUDY_ROOT_FIND = '1.2.840.10008.5.1.4.1.2.2.1'
STUDY_ROOT_MOVE = '1.2.840.10008.5.1.4.1.2.2.2'
STUDY_ROOT_GET = '1.2.840.10008.5.1.4.1.2.2.3'
STORAGE_COMMITMENT = '1.2.840.10008.1.20.1'
_COMMITMENT_INSTANCE = '1.2.840.10008.1.20.1.1'  # Well-known (PS3.4 J.3.5).

UNCOMPRESSED = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
# What a fetched CT may be stored as. Each is proposed by itself, so that a PACS need
# not convert what it has.
COMPRESSED = (
  uid.DeflatedExplicitVRLittleEndian,
  uid.RLELossless,
  uid.JPEGLosslessSV1,
  uid.JPEGLossless,
  uid.JPEGLSLossless,
  uid.JPEGLSNearLossless,
  uid.JPEG2000Lossless,
  uid.JPEG2000,
  uid.JPEGBaseline8Bit,
  uid.JPEGExtended12Bit,
)
# May be sent decompressed where a PACS does not take them: nothing is lost.
LOSSLESS = frozenset(
  (
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
  )
)
# Asked for where a PACS does not say what it has.
USUAL_CLASSES = (
  '1.2.840.10008.5.1.4.1.1.2',  # CT
  '1.2.840.10008.5.1.4.1.1.2.1',  # Enhanced CT
  '1.2.840.10008.5.1.4.1.1.2.2',  # Legacy converted enhanced CT
  '1.2.840.10008.5.1.4.1.1.7',  # Secondary capture
  '1.2.840.10008.5.1.4.1.1.30',  # Parametric map
  '1.2.840.10008.5.1.4.1.1.66.4',  # Segmentation
  '1.2.840.10008.5.1.4.1.1.88.22',  # Enhanced SR
  '1.2.840.10008.5.1.4.1.1.88.33',  # Comprehensive SR
)
_MOST_CONTEXTS = 128  # PS3.8 section 9.3.2.2: odd numbers from 1 to 255.
_SLOWEST_BYTES_PER_S = 1_000_000  # Ours: added to the time that an answer may take.
_LATE_S = 5.0  # Instances of a C-MOVE may overtake its last answer.
_REPORT_HERE_S = 10.0  # For a report of commitment on the association that asked.

_SUCCESS, _CANCEL, _PENDING = 0x0000, 0xFE00, (0xFF00, 0xFF01)
DUPLICATE = 0x0111  # Also a failure reason of STOW-RS.
_STATUSES = {
  0x0107: 'it knows not all attributes',
  0x0110: 'it failed while processing',
  DUPLICATE: 'it says it has this SOP Instance UID already and keeps what it had',
  0x0112: 'it knows no such instance',
  0x0116: 'a value is out of its range',
  0x0119: 'class and instance do not fit together',
  0x0122: 'it does not take this SOP class',
  0x0124: 'we are not authorized',
  0x0131: 'the transaction UID was used before',
  0x0210: 'the message ID was used before',
  0x0211: 'it does not know this operation',
  0x0213: 'its resources are limited',
  0xA700: 'it is out of resources (disk full?)',
  0xA701: 'it is out of resources: it cannot count the matches',
  0xA702: 'it is out of resources: it cannot perform the sub-operations',
  0xA801: 'it does not know our AE title as a destination',
  0xA900: 'the data set does not fit its SOP class',
  0xB000: 'it changed attributes',
  0xB006: 'it discarded attributes',
  0xB007: 'the data set does not fit its SOP class',
  _CANCEL: 'it was cancelled',
}
_REFUSED_FOR = {  # (source, diagnostic) of A-ASSOCIATE-RJ, PS3.8 table 9-21.
  (1, 2): 'it does not know our application context',
  (1, 3): 'it does not know our AE title: have it added there, or give another, --aet',
  (1, 7): 'it has another AE title than the one in the address',
  (2, 2): 'it speaks another version of the protocol',
  (3, 1): 'it is busy (congestion)',
  (3, 2): 'it has too many associations',
}


def words(status: int) -> str:
  """A status in words."""
  if status in _STATUSES:
    return _STATUSES[status]
  if 0xA700 <= status <= 0xA7FF:
    return 'it is out of resources'
  if 0xA900 <= status <= 0xA9FF:
    return 'the data set does not fit its SOP class'
  if 0xC000 <= status <= 0xCFFF:
    return 'it cannot understand or process it'
  return 'a status that DICOM does not define'


class DimseArchive:
  """A PACS reached as an application entity."""

  def __init__(
    self,
    address: addresses.DimseAddress,
    *,
    own: addresses.OwnNode | None = None,
    security: addresses.Security | None = None,
    limits: pacs.Limits | None = None,
    use_move: bool = False,
  ):
    """Connects nothing yet.

    Args:
      address: the PACS.
      own: our AE title and, for C-MOVE and storage commitment, our port.
      security: TLS; None for a connection in the clear.
      limits: how long it may take.
      use_move: retrieve by C-MOVE without trying C-GET first.

    Raises:
      errors.UsageError: the extra `clinic` is not installed, or flags do not fit.
    """
    self._net = pacs.need('pynetdicom')
    self._address = address
    self._own = own or addresses.OwnNode()
    self._limits = limits or pacs.Limits()
    self._use_move = use_move
    security = security or addresses.Security()
    if security.has_secret:
      raise errors.UsageError(
        '--token-file and --password-file belong to a URL; DIMSE knows us by our AE '
        'title and by a certificate, --tls-certificate.'
      )
    if security.names_files and not security.tls:
      raise errors.UsageError(
        '--tls-ca, --tls-certificate: --tls is required too, found an address without '
        'encryption.'
      )
    self._ssl = security.ssl_context() if security.tls else None
    if use_move:
      self._require_port('C-MOVE')

  @property
  def name(self) -> str:
    """Its address, as messages show it."""
    return str(self._address)

  def echo(self) -> float:
    """Seconds of association and C-ECHO."""

    def ask(deadline: pacs.Deadline) -> float:
      start = time.monotonic()
      context = self._net.build_context(VERIFICATION, list(UNCOMPRESSED))
      with self._association([context], deadline) as association:
        self._require_context(association, VERIFICATION)
        status = self._status(association.send_c_echo(), 'C-ECHO')
        if status != _SUCCESS:
          raise self._failed('C-ECHO', status)
      return time.monotonic() - start

    return pacs.repeated(ask, self.name, self._limits)

  def store(
    self,
    instances: Sequence[pacs.Instance],
    on_answer: Callable[[pacs.StoreAnswer], None] = lambda answer: None,
  ) -> tuple[pacs.StoreAnswer, ...]:
    """Sends instances by C-STORE; see `pacs.Archive`."""
    answers: dict[str, pacs.StoreAnswer] = {}

    def note(answer: pacs.StoreAnswer) -> None:
      answers[answer.instance.sop_instance_uid] = answer
      on_answer(answer)

    def send(deadline: pacs.Deadline) -> None:
      left = [each for each in instances if each.sop_instance_uid not in answers]
      for group in _in_associations(left):
        try:
          with self._association(
            self._storage_contexts(group), deadline
          ) as association:
            for instance in group:
              note(self._store_one(association, instance, deadline))
        except _NotOfferedError:
          for instance in group:
            note(_not_stored(instance, 'it does not take this SOP class'))

    pacs.repeated(send, self.name, self._limits)
    return tuple(answers[each.sop_instance_uid] for each in instances)

  def _storage_contexts(self, group: Sequence[pacs.Instance]) -> list[Any]:
    """A context for each kind of file, and one for what it may be converted to."""
    kinds = {(each.sop_class_uid, each.transfer_syntax_uid) for each in group}
    plain = {kind for kind, syntax in kinds if _convertible(syntax)}
    contexts = [
      self._net.build_context(kind, syntax)
      for kind, syntax in sorted(kinds)
      if syntax not in UNCOMPRESSED
    ]
    return contexts + [
      self._net.build_context(kind, syntax)
      for kind in sorted(plain)
      for syntax in UNCOMPRESSED
    ]

  def _store_one(
    self, association: Any, instance: pacs.Instance, deadline: pacs.Deadline
  ) -> pacs.StoreAnswer:
    accepted = {
      context.transfer_syntax[0]
      for context in association.accepted_contexts
      if context.abstract_syntax == instance.sop_class_uid
    }
    if not accepted:
      return _not_stored(instance, 'it does not take this SOP class')
    as_it_is = instance.transfer_syntax_uid in accepted
    if not as_it_is and not _convertible(instance.transfer_syntax_uid):
      name = uid.UID(instance.transfer_syntax_uid).name
      return _not_stored(
        instance, f'it does not take {name}, which cannot be converted without loss'
      )
    slack_s = instance.size_bytes / _SLOWEST_BYTES_PER_S
    association.dimse_timeout = min(
      self._limits.answer_s + slack_s, deadline.left_s() + 1
    )
    with _sending_from_files(self._net):
      status = association.send_c_store(
        instance.path if as_it_is else _plain(instance, accepted)
      )
    code = self._status(status, 'C-STORE')
    if code == _SUCCESS:
      return pacs.StoreAnswer(instance, pacs.Outcome.STORED, code)
    # What is sent twice is stored once: that it is there is no failure.
    is_warning = code in (DUPLICATE, 0x0001, 0x0107, 0x0116) or code >> 12 == 0xB
    outcome = pacs.Outcome.WARNING if is_warning else pacs.Outcome.FAILED
    return pacs.StoreAnswer(instance, outcome, code, words(code))

  def find(
    self, study_uid: str, series_uid: str | None = None
  ) -> tuple[pacs.Listed, ...]:
    """Lists instances by C-FIND, series by series; see `pacs.Archive`."""

    def ask(deadline: pacs.Deadline) -> tuple[pacs.Listed, ...]:
      context = self._net.build_context(STUDY_ROOT_FIND, list(UNCOMPRESSED))
      with self._association([context], deadline) as association:
        self._require_context(association, STUDY_ROOT_FIND)
        all_series = (
          [series_uid] if series_uid else self._series(association, study_uid, deadline)
        )
        return tuple(
          listed
          for series in all_series
          for listed in self._instances(association, study_uid, series, deadline)
        )

    return pacs.repeated(ask, self.name, self._limits)

  def _series(
    self, association: Any, study_uid: str, deadline: pacs.Deadline
  ) -> list[str]:
    query = _identifier('SERIES', study_uid)
    query.SeriesInstanceUID = ''
    found = self._matches(association, query, deadline)
    return sorted({self._uid_of(match, 'SeriesInstanceUID') for match in found})

  def _instances(
    self, association: Any, study_uid: str, series_uid: str, deadline: pacs.Deadline
  ) -> list[pacs.Listed]:
    query = _identifier('IMAGE', study_uid, series_uid)
    query.SOPInstanceUID = ''
    query.SOPClassUID = ''
    found = self._matches(association, query, deadline)
    return [
      pacs.Listed(
        study_uid,
        series_uid,
        self._uid_of(match, 'SOPInstanceUID'),
        str(match.get('SOPClassUID') or ''),
      )
      for match in found
    ]

  def _matches(
    self, association: Any, query: dataset_lib.Dataset, deadline: pacs.Deadline
  ) -> list[dataset_lib.Dataset]:
    """What a C-FIND answers; all of it is of the study that was asked for."""
    found: list[dataset_lib.Dataset] = []
    for answer, match in association.send_c_find(query, STUDY_ROOT_FIND):
      deadline.left_s()
      status = self._status(answer, 'C-FIND')
      if status == _SUCCESS:
        return found
      if status not in _PENDING:
        raise self._failed('C-FIND', status)
      if match is None:
        raise errors.PACSError(f'{self.name}: a match of C-FIND cannot be read.')
      for keyword in ('StudyInstanceUID', 'SeriesInstanceUID'):
        if query.get(keyword) and match.get(keyword, query[keyword].value) != (
          query[keyword].value
        ):
          raise errors.PACSError(
            f'{self.name}: C-FIND answered with another {keyword} than was asked for.'
          )
      found.append(match)
    raise pacs.TransientError(f'{self.name}: C-FIND ended without a last answer.')

  def _uid_of(self, match: dataset_lib.Dataset, keyword: str) -> str:
    found = str(match.get(keyword) or '').strip(' \0')
    if not elements.legal_uid(found):
      raise errors.PACSError(
        f'{self.name}: C-FIND answered without a legal {keyword} (digits and dots).'
      )
    return found

  def retrieve(
    self, study_uid: str, series_uid: str | None, receiver: pacs.Receiver
  ) -> None:
    """Retrieves by C-GET, or C-MOVE where that is all there is; see `pacs.Archive`."""

    def get(deadline: pacs.Deadline) -> None:
      is_done = False
      if not self._use_move:
        with contextlib.suppress(_NotOfferedError):
          is_done = self._get(study_uid, series_uid, receiver, deadline)
      if not is_done:
        self._require_port(f'{self.name} offers no C-GET, and C-MOVE')
        self._move(study_uid, series_uid, receiver, deadline)

    pacs.repeated(get, self.name, self._limits)

  def _get(
    self,
    study_uid: str,
    series_uid: str | None,
    receiver: pacs.Receiver,
    deadline: pacs.Deadline,
  ) -> bool:
    """Whether C-GET is offered; then all that it sent has been taken."""
    classes = _classes(receiver)
    contexts = [self._net.build_context(STUDY_ROOT_GET, list(UNCOMPRESSED))]
    contexts += self._proposed(classes)[: _MOST_CONTEXTS - 1]
    roles = [self._net.build_role(kind, scp_role=True) for kind in classes]
    handlers = [(self._net.evt.EVT_C_STORE, _taking(receiver))]
    with self._association(contexts, deadline, roles, handlers) as association:
      if not _accepts(association, STUDY_ROOT_GET):
        return False
      query = _retrieved(study_uid, series_uid)
      answers = association.send_c_get(query, STUDY_ROOT_GET)
      self._await_end('C-GET', association, answers, receiver, deadline)
    return True

  def _move(
    self,
    study_uid: str,
    series_uid: str | None,
    receiver: pacs.Receiver,
    deadline: pacs.Deadline,
  ) -> None:
    contexts = self._proposed(_classes(receiver))
    handlers = [(self._net.evt.EVT_C_STORE, _taking(receiver))]
    move = self._net.build_context(STUDY_ROOT_MOVE, list(UNCOMPRESSED))
    with (
      self._listening(contexts, handlers),
      self._association([move], deadline) as association,
    ):
      self._require_context(association, STUDY_ROOT_MOVE)
      query = _retrieved(study_uid, series_uid)
      answers = association.send_c_move(query, self._own.ae_title, STUDY_ROOT_MOVE)
      self._await_end('C-MOVE', association, answers, receiver, deadline)
      end = time.monotonic() + min(_LATE_S, self._limits.answer_s)
      while receiver.missing and not receiver.failure and time.monotonic() < end:
        time.sleep(0.05)

  def _await_end(
    self,
    operation: str,
    association: Any,
    answers: Iterator[tuple[dataset_lib.Dataset, dataset_lib.Dataset | None]],
    receiver: pacs.Receiver,
    deadline: pacs.Deadline,
  ) -> None:
    """Follows a retrieval to its last answer; raises what failed."""
    for answer, _ in answers:
      if receiver.failure:
        association.abort()
        raise receiver.failure
      status = self._status(answer, operation)
      deadline.left_s()
      if status in _PENDING:
        continue
      # 0xB000: some sub-operations failed; which, `receiver.missing` knows.
      if status not in (_SUCCESS, 0xB000):
        raise self._failed(operation, status)
      return
    raise pacs.TransientError(f'{self.name}: {operation} ended without a last answer.')

  def commit(self, instances: Sequence[pacs.Instance]) -> pacs.Commitment | None:
    """Asks for storage commitment (PS3.4 annex J); see `pacs.Archive`."""

    def ask(deadline: pacs.Deadline) -> pacs.Commitment | None:
      transaction = uid.generate_uid(prefix=None)
      report = _Report(transaction)
      handlers = [(self._net.evt.EVT_N_EVENT_REPORT, report.take)]
      context = self._net.build_context(STORAGE_COMMITMENT, list(UNCOMPRESSED))
      with contextlib.ExitStack() as stack:
        if self._own.port is not None:
          stack.enter_context(self._listening([context], handlers))
        association = stack.enter_context(
          self._association([context], deadline, handlers=handlers)
        )
        if not _accepts(association, STORAGE_COMMITMENT):
          return None
        status, _ = association.send_n_action(
          _commitment_request(transaction, instances),
          1,
          STORAGE_COMMITMENT,
          _COMMITMENT_INSTANCE,
        )
        if self._status(status, 'N-ACTION') != _SUCCESS:
          return None
        here = self._own.port is None
        patience_s = (
          min(_REPORT_HERE_S, self._limits.answer_s)
          if here
          else (self._limits.answer_s)
        )
        return report.within(min(patience_s, deadline.left_s()))

    try:
      return pacs.repeated(ask, self.name, self._limits)
    except _NotOfferedError:
      return None

  def _proposed(self, classes: Sequence[str]) -> list[Any]:
    """Storage contexts for what is to come: each syntax alone, the usual ones first."""
    return [
      self._net.build_context(kind, syntax)
      for syntax in (*UNCOMPRESSED, *COMPRESSED)
      for kind in classes
    ]

  @contextlib.contextmanager
  def _association(
    self,
    contexts: list[Any],
    deadline: pacs.Deadline,
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
  ) -> Iterator[Any]:
    """Yields an established association; released after, aborted after an error."""
    entity = self._entity(deadline)
    try:
      association = entity.associate(
        self._address.host,
        self._address.port,
        contexts=contexts,
        ae_title=self._address.ae_title,
        ext_neg=list(roles),
        evt_handlers=list(handlers),
        tls_args=(self._ssl, self._address.host) if self._ssl else None,
      )
    except (OSError, RuntimeError) as error:
      raise self._unreachable(error) from error
    if not association.is_established:
      raise self._why_not(association)
    _send_at_once(association)
    try:
      yield association
      if association.is_established:
        association.release()
    finally:
      if association.is_established:
        association.abort()

  def _entity(self, deadline: pacs.Deadline) -> Any:
    entity = self._net.AE(self._own.ae_title)
    left_s = deadline.left_s()
    entity.connection_timeout = min(self._limits.connect_s, left_s)
    entity.acse_timeout = min(self._limits.answer_s, left_s)
    entity.dimse_timeout = min(self._limits.answer_s, left_s)
    entity.network_timeout = None  # The limits above see to it.
    return entity

  @contextlib.contextmanager
  def _listening(self, contexts: list[Any], handlers: Sequence[Any]) -> Iterator[None]:
    """Within the block a PACS can open associations to us."""
    entity = self._net.AE(self._own.ae_title)
    entity.require_called_aet = True
    for context in contexts:
      entity.add_supported_context(
        context.abstract_syntax, context.transfer_syntax, scu_role=True, scp_role=True
      )
    tls = self._ssl and self._server_context()
    try:
      server = entity.start_server(
        ('', self._own.port), block=False, evt_handlers=list(handlers), ssl_context=tls
      )
    except OSError as error:
      raise errors.UsageError(
        f'--own-port {self._own.port}: a free port is required, found: '
        f'{error.strerror}.'
      ) from error
    try:
      yield
    finally:
      server.shutdown()

  def _server_context(self) -> ssl.SSLContext | None:
    raise errors.UsageError(
      '--own-port with --tls: listening with encryption is not offered; retrieve by '
      'C-GET or DICOMweb, and verify without --own-port.'
    )

  def _status(self, answer: dataset_lib.Dataset, operation: str) -> int:
    """The status of an answer; what has none was lost."""
    if 'Status' not in answer:
      raise pacs.TransientError(
        f'{self.name}: no answer to {operation} within {self._limits.answer_s:g} s, or '
        'the connection was lost or aborted meanwhile.'
      )
    return int(answer.Status)

  def _failed(self, operation: str, status: int) -> errors.PACSError:
    return errors.PACSError(
      f'{self.name}: {operation} failed: {words(status)} (0x{status:04X}).'
    )

  def _require_context(self, association: Any, abstract: str) -> None:
    if not _accepts(association, abstract):
      raise self._not_offered(abstract)

  def _not_offered(self, abstract: str) -> errors.PACSError:
    return _NotOfferedError(
      f'{self.name}: it does not offer {uid.UID(abstract).name} to us; ask its '
      f'administrator to allow it for {self._own.ae_title}.'
    )

  def _require_port(self, what: str) -> None:
    if self._own.port is None:
      raise errors.UsageError(
        f'{what} needs a port of ours that the PACS can reach: give --own-port, and '
        f'have {self._own.ae_title} with our host and that port added there.'
      )

  def _why_not(self, association: Any) -> errors.PACSError:
    """Why an association was not established."""
    if association.is_rejected:
      answer = association.acceptor.primitive
      reason = _REFUSED_FOR.get(
        (answer.result_source, answer.diagnostic), 'it gives no reason'
      )
      text = f'{self.name}: the association was rejected: {reason}.'
      is_transient = answer.result == 2
      return pacs.TransientError(text) if is_transient else errors.PACSError(text)
    if association.rejected_contexts and not association.accepted_contexts:
      return self._not_offered(association.rejected_contexts[0].abstract_syntax)
    try:  # pynetdicom does not tell what the socket said: ask it again.
      with socket.create_connection(
        (self._address.host, self._address.port), self._limits.connect_s
      ) as connection:
        if self._ssl:
          self._ssl.wrap_socket(connection, server_hostname=self._address.host).close()
    except OSError as error:
      return self._unreachable(error)
    tls = '' if self._ssl else ' Does it ask for encryption (--tls)?'
    return pacs.TransientError(
      f'{self.name}: it takes the connection, but no association: it aborted, or gave '
      f'no answer within {self._limits.answer_s:g} s.{tls}'
    )

  def _unreachable(self, error: Exception) -> errors.PACSError:
    if isinstance(error, ssl.SSLError):
      reason = getattr(error, 'verify_message', '') or error.reason or 'TLS failed'
      return errors.PACSError(
        f'{self.name}: no encrypted connection: {reason}; give the authority of its '
        'certificate (--tls-ca), our own where it asks for one (--tls-certificate, '
        '--tls-key), and the host name that its certificate has.'
      )
    if isinstance(error, TimeoutError):
      reason = f'no connection within {self._limits.connect_s:g} s'
    else:
      reason = getattr(error, 'strerror', None) or type(error).__name__
    return pacs.TransientError(
      f'{self.name}: cannot be reached: {reason}; check host, port and firewall.'
    )


def _send_at_once(association: Any) -> None:
  """Commands and data sets are small writes; Nagle's rule holds each for 40 ms."""
  connection = association.dul.socket
  with contextlib.suppress(AttributeError, OSError):
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _NotOfferedError(errors.PACSError):
  """No presentation context was accepted for what is asked."""


class _Report:
  """The N-EVENT-REPORT of one transaction, which comes on any association."""

  def __init__(self, transaction: str):
    self._transaction = transaction
    self._come = threading.Event()
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
          str(item.ReferencedSOPInstanceUID): words(int(item.get('FailureReason', 0)))
          for item in found.get('FailedSOPSequence') or ()
        },
      )
    except (AttributeError, TypeError, ValueError):
      return 0x0110, None
    self._come.set()
    return _SUCCESS, None

  def within(self, seconds: float) -> pacs.Commitment | None:
    """The answer, or None where none came."""
    self._come.wait(seconds)
    return self._commitment


def _commitment_request(
  transaction: str, instances: Sequence[pacs.Instance]
) -> dataset_lib.Dataset:
  request = dataset_lib.Dataset()
  request.TransactionUID = transaction
  request.ReferencedSOPSequence = []
  for instance in instances:
    item = dataset_lib.Dataset()
    item.ReferencedSOPClassUID = instance.sop_class_uid
    item.ReferencedSOPInstanceUID = instance.sop_instance_uid
    request.ReferencedSOPSequence.append(item)
  return request


def _identifier(
  level: str, study_uid: str, series_uid: str | None = None
) -> dataset_lib.Dataset:
  query = dataset_lib.Dataset()
  query.QueryRetrieveLevel = level
  query.StudyInstanceUID = study_uid
  if series_uid:
    query.SeriesInstanceUID = series_uid
  return query


def _retrieved(study_uid: str, series_uid: str | None) -> dataset_lib.Dataset:
  return _identifier('SERIES' if series_uid else 'STUDY', study_uid, series_uid)


def _accepts(association: Any, abstract: str) -> bool:
  return any(
    context.abstract_syntax == abstract for context in association.accepted_contexts
  )


def _classes(receiver: pacs.Receiver) -> list[str]:
  """SOP classes of what is to come."""
  found = {listed.sop_class_uid for listed in receiver.listed.values()}
  return sorted(found - {''} | (set(USUAL_CLASSES) if '' in found else set()))


def _taking(receiver: pacs.Receiver) -> Callable[[Any], int]:
  """A handler of EVT_C_STORE that hands files to a receiver."""

  def handle(event: Any) -> int:
    if receiver.failure:
      return 0xA700
    try:
      receiver.write(event.encoded_dataset())
    except OSError:
      return 0xA700
    except Exception as error:
      receiver.failure = receiver.failure or error
      return 0xC000
    return _SUCCESS

  return handle


def _convertible(syntax: str) -> bool:
  return syntax in UNCOMPRESSED or syntax in LOSSLESS


def _plain(instance: pacs.Instance, accepted: set[str]) -> dataset_lib.Dataset:
  """The data set uncompressed, under the same UIDs, as the PACS takes it."""
  found = pydicom.dcmread(instance.path)
  if found.file_meta.TransferSyntaxUID.is_compressed and (
    instance.transfer_syntax_uid != uid.DeflatedExplicitVRLittleEndian
  ):
    found.decompress(generate_instance_uid=False)
  if found.file_meta.TransferSyntaxUID == uid.DeflatedExplicitVRLittleEndian:
    found.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  return found


def _not_stored(instance: pacs.Instance, reason: str) -> pacs.StoreAnswer:
  return pacs.StoreAnswer(instance, pacs.Outcome.FAILED, None, reason)


def _in_associations(
  instances: Sequence[pacs.Instance],
) -> Iterator[list[pacs.Instance]]:
  """Instances in groups whose kinds fit into one association's contexts."""
  group: list[pacs.Instance] = []
  kinds: set[tuple[str, str]] = set()
  for instance in instances:
    kind = (instance.sop_class_uid, instance.transfer_syntax_uid)
    # At most three contexts a kind: its own syntax and the two uncompressed.
    if kind not in kinds and 3 * (len(kinds) + 1) > _MOST_CONTEXTS:
      yield group
      group, kinds = [], set()
    kinds.add(kind)
    group.append(instance)
  if group:
    yield group


_reading_files = threading.Lock()


@contextlib.contextmanager
def _sending_from_files(net: Any) -> Iterator[None]:
  """pynetdicom sends files as they are, piece by piece; else it holds them twice."""
  config = net._config
  with _reading_files:
    before, config.STORE_SEND_CHUNKED_DATASET = config.STORE_SEND_CHUNKED_DATASET, True
  try:
    yield
  finally:
    with _reading_files:
      config.STORE_SEND_CHUNKED_DATASET = before
