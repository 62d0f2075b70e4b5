"""One association that another application entity has opened to us.

A thread reads it from its first byte to its last. Data sets go from the socket to the
disk piece by piece, and every wait has an end, so that neither a large instance nor a
hostile sender costs more than a buffer and a thread (docs/adr/0200).
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import io
import logging
import pathlib
import socket
import ssl
import struct
import time
from typing import Any, Literal, Protocol

from covid_tf.node import arrival
from covid_tf.node import connection as connection_lib
from covid_tf.node import pdus
from covid_tf.node import spool as spool_lib

_log = logging.getLogger(__name__)

VERIFICATION = '1.2.840.10008.1.1'
MOST_PDU_BYTES = 1 << 18  # Larger ones make nothing faster.
_SUCCESS, _DUPLICATE = 0x0000, 0x0111


@dataclasses.dataclass(frozen=True)
class Limits:
  """How long and how large anything may be.

  Attributes:
    request_s: from the connection to the whole request for an association.
    idle_s: between two PDUs, and from the first byte of one to its last.
    longest_s: of an association.
    largest_bytes: of an instance.
  """

  request_s: float
  idle_s: float
  longest_s: float
  largest_bytes: int


class Metrics(Protocol):
  """What is counted of associations and instances."""

  def association(
    self, outcome: Literal['accepted', 'refused', 'released', 'aborted', 'lost']
  ) -> None:
    """Counts an association."""

  def instance(
    self,
    outcome: Literal['new', 'again', 'different', 'refused'],
    size_bytes: int,
  ) -> None:
    """Counts an instance."""


@dataclasses.dataclass(frozen=True)
class Services:
  """What all associations share.

  Attributes:
    net: pynetdicom.
    spool: takes the instances.
    metrics: counts.
    limits: of time and size.
    admit: called with each request: why it is not accepted, or None where
      `is_accepted` is set now.
    syntaxes: abstract syntax to transfer syntaxes, the preferred first.
    tls: for connections that begin with a handshake; None for those in the clear.
  """

  net: Any
  spool: spool_lib.Spool
  metrics: Metrics
  limits: Limits
  admit: Callable[['Association', pdus.Request], pdus.Rejection | None]
  syntaxes: dict[str, tuple[str, ...]]
  tls: ssl.SSLContext | None = None


class _AbortedError(Exception):
  """The other side has aborted."""


class _LocalError(Exception):
  """We cannot go on: the disk does not take what comes."""


@dataclasses.dataclass
class _Message:
  """A C-STORE whose data set is coming.

  Attributes:
    command: the request.
    context: presentation context ID.
    path, file: where it is written; None for what is refused already.
    refusal: why it is.
    size_bytes: of what has come.
  """

  command: pdus.Command
  context: int
  path: pathlib.Path | None = None
  file: io.RawIOBase | None = None
  refusal: str = ''
  size_bytes: int = 0


class Association:
  """An association, from the connection to its end.

  Attributes:
    name: of digits and letters, never used before.
    deadline_s: `time.monotonic()` when it is over whatever it does.
    is_accepted: whether the request was accepted.
  """

  def __init__(
    self, connection: socket.socket, peer: str, name: str, services: Services
  ):
    """Reads nothing yet.

    Args:
      connection: closed when `run` ends.
      peer: its address, for the log.
      name: of the association.
      services: what all share.
    """
    self.name = name
    self.is_accepted = False
    self.deadline_s = time.monotonic() + services.limits.request_s
    self._connection = connection_lib.Connection(connection, services.limits.idle_s)
    self._services = services
    self._limits = services.limits
    self._caller = ''
    self._who = f'association {name} from {peer}'
    self._contexts: dict[int, tuple[str, str]] = {}
    self._command = bytearray()
    self._command_context = 0
    self._message: _Message | None = None
    self._counts: dict[str, int] = {}

  def cut(self, reason: str) -> None:
    """Ends it from another thread; `run` ends soon."""
    self._connection.cut(reason)

  def run(self) -> None:
    """Serves it to its end, says in the log how that was, and raises nothing."""
    ending, last_word = spool_lib.Ending.LOST, b''
    try:
      ending, last_word = self._run()
    except Exception as error:
      # Ours, not the sender's; its type says as much as may be in a log.
      _log.error('%s: lost: %s in covid_tf.', self._who, type(error).__name__)
      last_word = pdus.encode_abort(pdus.UNSPECIFIED, by_user=True)
    finally:
      self._drop_message()
      self._services.spool.end(self.name, ending)
      if not self._connection.is_probe:
        self._services.metrics.association(
          ending.value if self.is_accepted else 'refused'
        )
      if last_word:
        self._connection.send_last(last_word)
      self._connection.close()

  def _run(self) -> tuple[spool_lib.Ending, bytes]:
    """How it ended, and what is still to be said."""
    lost = spool_lib.Ending.LOST
    try:
      if rejection := self._negotiate():
        _log.warning('%s: refused: %s.', self._who, rejection.text)
        return lost, rejection.encode()
      while self._serve_pdu():
        pass
      self._note(logging.INFO, 'released')
      return spool_lib.Ending.RELEASED, b''
    except _AbortedError:
      self._note(logging.WARNING, 'aborted by its sender')
      return spool_lib.Ending.ABORTED, b''
    except pdus.ProtocolError as error:
      self._note(logging.WARNING, f'aborted by us: {error}')
      return lost, pdus.encode_abort(error.reason)
    except connection_lib.LostError as error:
      level = logging.INFO if self._connection.is_probe else logging.WARNING
      self._note(level, f'lost: {error}')
      return lost, pdus.encode_abort(pdus.UNSPECIFIED) if self.is_accepted else b''
    except _LocalError as error:
      self._note(logging.ERROR, f'aborted by us: {error}')
      return lost, pdus.encode_abort(pdus.UNSPECIFIED, by_user=True)

  def _note(self, level: int, text: str) -> None:
    counts = ', '.join(f'{count} {what}' for what, count in self._counts.items())
    _log.log(level, '%s: %s%s.', self._who, text, f' ({counts})' if counts else '')

  # From the connection to the answer to its request.

  def _negotiate(self) -> pdus.Rejection | None:
    """Why the association is not accepted; None where it is."""
    if self._services.tls:
      self._connection.encrypt(self._services.tls, self.deadline_s)
    kind, length = self._connection.read_header(self.deadline_s)
    if kind != pdus.ASSOCIATE_RQ:
      raise pdus.ProtocolError(
        f'a request for an association is required first, found a PDU of type '
        f'0x{kind:02X}',
        pdus.UNEXPECTED_PDU if 1 <= kind <= 7 else pdus.UNRECOGNIZED_PDU,
      )
    if length > pdus.MOST_REQUEST_BYTES:
      raise pdus.ProtocolError(f'its request for an association claims {length} bytes')
    request = pdus.decode_request(self._connection.read(length, self.deadline_s))
    self._caller = request.calling
    self._who = f'{self._who}, {request.calling}'
    if rejection := self._services.admit(self, request):
      return rejection
    self.deadline_s = time.monotonic() + self._limits.longest_s
    self._services.metrics.association('accepted')
    self._accept(request)
    return None

  def _accept(self, request: pdus.Request) -> None:
    chosen = {}
    for proposed in request.contexts:
      known = self._services.syntaxes.get(proposed.abstract_syntax, ())
      for syntax in known:
        if syntax in proposed.transfer_syntaxes:
          chosen[proposed.number] = syntax
          self._contexts[proposed.number] = (proposed.abstract_syntax, syntax)
          break
    self._connection.send(
      pdus.encode_acceptance(
        request,
        chosen,
        frozenset(self._services.syntaxes),
        MOST_PDU_BYTES,
        self._services.net,
      )
    )
    _log.info('%s: accepted.', self._who)

  # From PDU to PDU.

  def _serve_pdu(self) -> bool:
    """Whether another one may follow."""
    now = time.monotonic()
    kind, length = self._connection.read_header(
      min(now + self._limits.idle_s, self.deadline_s)
    )
    until = min(time.monotonic() + self._limits.idle_s, self.deadline_s)
    if kind == pdus.P_DATA:
      if length > MOST_PDU_BYTES:
        raise pdus.ProtocolError(
          f'a PDU of {MOST_PDU_BYTES} bytes at most was agreed, found {length}'
        )
      self._take_data(length, until)
      return True
    if kind == pdus.ABORT:
      raise _AbortedError
    if kind == pdus.RELEASE_RQ and length == 4:
      self._connection.read(length, until)
      if self._message or self._command:
        raise pdus.ProtocolError('it releases within a message', pdus.UNEXPECTED_PDU)
      # Noted before it is answered: what is answered is whole.
      self._services.spool.end(self.name, spool_lib.Ending.RELEASED)
      with contextlib.suppress(connection_lib.LostError):
        self._connection.send(pdus.RELEASE_RP)
      return False
    is_known = 1 <= kind <= 7
    raise pdus.ProtocolError(
      f'data, release or abort are required, found a PDU of type 0x{kind:02X}',
      pdus.UNEXPECTED_PDU if is_known else pdus.UNRECOGNIZED_PDU,
    )

  def _take_data(self, left: int, until: float) -> None:
    """The presentation data values of one P-DATA-TF (PS3.8 9.3.5)."""
    while left:
      if left < 6:
        raise pdus.ProtocolError('a presentation data value breaks off')
      length, context, control = struct.unpack('>LBB', self._connection.read(6, until))
      left -= 4 + length
      if length < 2 or left < 0:
        raise pdus.ProtocolError('the length of a presentation data value is a lie')
      if context not in self._contexts:
        raise pdus.ProtocolError(
          f'it uses presentation context {context}, which was not accepted'
        )
      is_last = bool(control & 2)
      if control & 1:
        self._take_command(context, self._connection.read(length - 2, until), is_last)
      else:
        self._take_data_set(context, length - 2, is_last, until)

  def _take_command(self, context: int, fragment: bytes, is_last: bool) -> None:
    if self._message:
      raise pdus.ProtocolError('a command comes within a data set')
    if self._command and context != self._command_context:
      raise pdus.ProtocolError('a command comes in two presentation contexts')
    self._command += fragment
    self._command_context = context
    if len(self._command) > pdus.MOST_COMMAND_BYTES:
      raise pdus.ProtocolError('its command is too long')
    if not is_last:
      return
    command = pdus.Command(self._command)
    self._command.clear()
    operation = command.number(pdus.COMMAND_FIELD)
    has_data = command.number(pdus.DATA_SET_TYPE) != pdus.NO_DATA_SET
    is_echo = self._contexts[context][0] == VERIFICATION
    if operation == pdus.C_ECHO_RQ and is_echo and not has_data:
      self._connection.send(pdus.encode_response(command, context, _SUCCESS))
    elif operation == pdus.C_STORE_RQ and not is_echo and has_data:
      self._message = self._begun(command, context)
    elif operation != pdus.C_CANCEL_RQ or has_data:
      raise pdus.ProtocolError(
        f'C-ECHO or C-STORE is required in presentation context {context}, found '
        f'operation 0x{operation:04X}{"" if has_data else " without a data set"}'
      )

  # From C-STORE to C-STORE.

  def _begun(self, command: pdus.Command, context: int) -> _Message:
    """Opens a file for an instance, or notes why it is not taken."""
    message = _Message(command, context)
    command.number(pdus.MESSAGE_ID)
    abstract, syntax = self._contexts[context]
    instance_uid = command.uid(pdus.AFFECTED_INSTANCE)
    if not instance_uid:
      message.refusal = 'its SOP Instance UID in the command is illegal'
    elif command.uid(pdus.AFFECTED_CLASS) != abstract:
      message.refusal = 'its SOP class is not that of its presentation context'
    else:
      with _local():
        message.path = self._services.spool.new_file()
        message.file = open(message.path, 'wb', buffering=0)
        message.file.write(arrival.file_meta(abstract, instance_uid, syntax))
    return message

  def _take_data_set(
    self, context: int, left: int, is_last: bool, until: float
  ) -> None:
    message = self._message
    if not message or message.context != context:
      raise pdus.ProtocolError('a data set comes without its command')
    message.size_bytes += left
    if message.size_bytes > self._limits.largest_bytes:
      raise pdus.ProtocolError(
        f'an instance of {self._limits.largest_bytes} bytes at most is taken, found a '
        'larger one'
      )
    while left:
      piece = self._connection.read_some(left, until)
      left -= len(piece)
      if message.file:
        with _local():
          _write(message.file, piece)
    if is_last:
      self._finish(message)

  def _finish(self, message: _Message) -> None:
    """Answers a C-STORE whose data set has come."""
    self._message = None
    if message.path and message.file:
      message.file.close()
      status, comment, outcome = self._taken(message.path)
    else:
      self._services.spool.doubt(self.name, self._caller)
      outcome = 'refused'
      status, comment = arrival.DOES_NOT_MATCH, message.refusal
    self._counts[outcome] = self._counts.get(outcome, 0) + 1
    self._services.metrics.instance(outcome, message.size_bytes)
    if comment:
      instance = message.command.uid(pdus.AFFECTED_INSTANCE) or 'without a legal UID'
      _log.warning('%s: instance %s: %s.', self._who, instance, comment)
    self._connection.send(
      pdus.encode_response(message.command, message.context, status, comment)
    )

  def _taken(
    self, path: pathlib.Path
  ) -> tuple[int, str, Literal['new', 'again', 'different', 'refused']]:
    try:
      with _local():
        taken = self._services.spool.take(path, self.name, self._caller)
    except arrival.RefusedError as error:
      return error.status, str(error), 'refused'
    if taken is spool_lib.Taken.DIFFERENT:
      return _DUPLICATE, 'it is here with other content; the first is kept', 'different'
    return _SUCCESS, '', 'new' if taken is spool_lib.Taken.NEW else 'again'

  def _drop_message(self) -> None:
    """Removes what did not come whole."""
    message, self._message = self._message, None
    if message and message.path and message.file:
      with contextlib.suppress(Exception):  # `incoming` is emptied at the next start.
        message.file.close()
        self._services.spool.drop(message.path, self.name, self._caller)


def _write(file: io.RawIOBase, piece: memoryview) -> None:
  while piece:
    piece = piece[file.write(piece) or 0 :]


@contextlib.contextmanager
def _local() -> Iterator[None]:
  """What the disk refuses is no fault of the sender's."""
  try:
    yield
  except OSError as error:
    raise _LocalError(
      f'what comes cannot be kept: {connection_lib.in_words(error)}'
    ) from error
