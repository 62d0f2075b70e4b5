"""Associations with a PACS that speaks DIMSE: opened, accepted, and why there is none.

Statuses are those of PS3.4 (B.2.3, C.4, J.3) and PS3.7 annex C.
"""

from collections.abc import Iterator, Sequence
import contextlib
import socket
import ssl
from typing import Any

from pydicom import dataset as dataset_lib
from pydicom import uid

from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import pacs

VERIFICATION = '1.2.840.10008.1.1'
STUDY_ROOT_FIND = '1.2.840.10008.5.1.4.1.2.2.1'
STUDY_ROOT_MOVE = '1.2.840.10008.5.1.4.1.2.2.2'
STUDY_ROOT_GET = '1.2.840.10008.5.1.4.1.2.2.3'
STORAGE_COMMITMENT = '1.2.840.10008.1.20.1'

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
MOST_CONTEXTS = 128  # PS3.8 section 9.3.2.2: odd numbers from 1 to 255.

SUCCESS, _CANCEL, PENDING = 0x0000, 0xFE00, (0xFF00, 0xFF01)
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


class NotOfferedError(errors.PACSError):
  """No presentation context was accepted for what is asked."""


class Peer:
  """An application entity that we speak with.

  Attributes:
    net: the module pynetdicom.
    own: our AE title and port.
    limits: how long it may take.
  """

  def __init__(
    self,
    address: addresses.DimseAddress,
    *,
    own: addresses.OwnNode | None = None,
    security: addresses.Security | None = None,
    limits: pacs.Limits | None = None,
  ):
    """Connects nothing yet; see `dimse.DimseArchive`."""
    self.net = pacs.need('pynetdicom')
    self._address = address
    self.own = own or addresses.OwnNode()
    self.limits = limits or pacs.Limits()
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
    listens = security.tls and self.own.port is not None
    self._server_ssl = security.server_ssl_context() if listens else None

  @property
  def name(self) -> str:
    """Its address, as messages show it."""
    return str(self._address)

  def context(self, sop_class_uid: str, *syntaxes: str) -> Any:
    """A presentation context of a SOP class; uncompressed without transfer syntaxes."""
    return self.net.build_context(sop_class_uid, list(syntaxes or UNCOMPRESSED))

  @contextlib.contextmanager
  def association(
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
    answer_at_once(association)
    try:
      yield association
      if association.is_established:
        association.release()
    finally:
      if association.is_established:
        association.abort()

  def _entity(self, deadline: pacs.Deadline) -> Any:
    from covid_tf.clinic import requesting  # It needs pynetdicom.

    entity = requesting.AE(self.own.ae_title)
    left_s = deadline.left_s()
    entity.connection_timeout = min(self.limits.connect_s, left_s)
    entity.acse_timeout = min(self.limits.answer_s, left_s)
    entity.dimse_timeout = min(self.limits.answer_s, left_s)
    entity.network_timeout = None  # The limits above see to it.
    return entity

  @contextlib.contextmanager
  def listening(self, contexts: list[Any], handlers: Sequence[Any]) -> Iterator[None]:
    """Within the block a PACS can open associations to us."""
    from covid_tf.clinic import accepting  # It needs pynetdicom.

    assert self.own.port is not None
    entity = self.net.AE(self.own.ae_title)
    entity.require_called_aet = True
    for context in contexts:
      entity.add_supported_context(
        context.abstract_syntax, context.transfer_syntax, scu_role=True, scp_role=True
      )
    with contextlib.ExitStack() as stack:
      try:
        stack.enter_context(
          accepting.listening(
            entity,
            ('', self.own.port),
            handlers,
            patience_s=self.limits.answer_s,
            ssl_context=self._server_ssl,
          )
        )
      except OSError as error:
        raise errors.UsageError(
          f'--own-port {self.own.port}: a free port is required, found: '
          f'{error.strerror}.'
        ) from error
      yield

  def status(self, answer: dataset_lib.Dataset, operation: str) -> int:
    """The status of an answer.

    Raises:
      pacs.TransientError: it has none, since it was lost.
    """
    if 'Status' not in answer:
      raise pacs.TransientError(
        f'{self.name}: no answer to {operation} within {self.limits.answer_s:g} s, or '
        'the connection was lost or aborted meanwhile.'
      )
    return int(answer.Status)

  def failed(self, operation: str, status: int) -> errors.PACSError:
    """The error of an operation that a status ended."""
    return errors.PACSError(
      f'{self.name}: {operation} failed: {words(status)} (0x{status:04X}).'
    )

  def require_context(self, association: Any, abstract: str) -> None:
    """Raises NotOfferedError where a SOP class is not offered."""
    if not accepts(association, abstract):
      raise self._not_offered(abstract)

  def _not_offered(self, abstract: str) -> errors.PACSError:
    return NotOfferedError(
      f'{self.name}: it does not offer {uid.UID(abstract).name} to us; ask its '
      f'administrator to allow it for {self.own.ae_title}.'
    )

  def require_port(self, what: str) -> None:
    """Raises errors.UsageError where a PACS cannot open associations to us."""
    if self.own.port is None:
      raise errors.UsageError(
        f'{what} needs a port of ours that the PACS can reach: give --own-port, and '
        f'have {self.own.ae_title} with our host and that port added there.'
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
        (self._address.host, self._address.port), self.limits.connect_s
      ) as connection:
        if self._ssl:
          self._ssl.wrap_socket(connection, server_hostname=self._address.host).close()
    except OSError as error:
      return self._unreachable(error)
    tls = '' if self._ssl else ' Does it ask for encryption (--tls)?'
    return pacs.TransientError(
      f'{self.name}: it takes the connection, but no association: it aborted, or gave '
      f'no answer within {self.limits.answer_s:g} s.{tls}'
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
      reason = f'no connection within {self.limits.connect_s:g} s'
    else:
      reason = getattr(error, 'strerror', None) or type(error).__name__
    return pacs.TransientError(
      f'{self.name}: cannot be reached: {reason}; check host, port and firewall.'
    )


def answer_at_once(association: Any) -> None:
  """Takes the waits of small writes out of an association, on both sides of it.

  Commands and data sets are small writes, which Nagle's rule holds back until the
  other side has acknowledged what came before; and it delays that by 40 ms. What we
  write is not held back any more; what the other side writes, see `acknowledge`.
  """
  connection = association.dul.socket
  raw = getattr(connection, 'socket', None)
  if raw is None:
    return
  with contextlib.suppress(OSError):
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
  receive = connection.recv

  def acknowledge_and_receive(size: int) -> bytearray:
    acknowledge(raw)
    return receive(size)

  connection.recv = acknowledge_and_receive


def acknowledge(raw: socket.socket) -> None:
  """Acknowledges at once what has come, where the system knows how (Linux).

  DCMTK's senders, Orthanc among them, write the head and the rest of each PDU
  separately, and the rest leaves when the head was acknowledged. To be called before
  each read: it holds for what is there.
  """
  option = getattr(socket, 'TCP_QUICKACK', None)
  if option is not None:
    with contextlib.suppress(OSError):
      raw.setsockopt(socket.IPPROTO_TCP, option, 1)


def accepts(association: Any, abstract: str) -> bool:
  """Whether an association has a context of a SOP class."""
  return any(
    context.abstract_syntax == abstract for context in association.accepted_contexts
  )
