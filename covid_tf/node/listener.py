"""A Storage SCP that answers whoever opens a connection, and outlasts all of them.

Who may send what is decided here, once for each association; `association` then serves
it. Back-pressure refuses associations, for now, and never a single instance: senders
do not repeat what was refused one by one.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import ipaddress
import itertools
import logging
import socket
import threading
import time
import types
from typing import Any
import uuid

from pydicom import uid

from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import pacs
from covid_tf.node import association as association_lib
from covid_tf.node import pdus
from covid_tf.node import spool as spool_lib

_log = logging.getLogger(__name__)

# Connections that have not said yet what they want; a scanner needs milliseconds.
_MOST_WAITING = 64
_BACKLOG = 128
_POLL_S = 0.25  # How late a time limit may be noticed, and an end begin.
_PAUSE_S = 0.2  # After the system has refused us a connection.
_JOIN_S = 5.0
_LINE_S = 10.0  # Between two lines about connections that are turned away.

# Explicit VR first: nothing is lost of private elements, and nothing is decoded.
_FIRST = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
# Pixels lie elsewhere in these, behind a URL.
_REFERENCED = frozenset(
  (
    '1.2.840.10008.1.2.4.94',
    '1.2.840.10008.1.2.4.95',
    '1.2.840.10008.1.2.4.204',
    '1.2.840.10008.1.2.4.205',
  )
)
_STORAGE_ROOT = '1.2.840.10008.5.1.4.1.1.'


@dataclasses.dataclass(frozen=True)
class Settings:
  """Where we listen, for whom, and how much at most.

  Attributes:
    ae_title: ours; an association for another one is rejected.
    port: TCP port; 0 for any that is free.
    host: address or name of the interface to listen at.
    callers: AE titles that may send; empty for any.
    any_caller: allows empty `callers` where others than this machine reach us.
    most_associations: at one time; more are rejected for now.
    request_s: seconds from a connection to its whole request.
    idle_s: seconds that an association may do nothing.
    longest_association_s: seconds after which an association is cut.
    largest_instance_bytes: of an instance; a larger one ends its association.
    tls: our certificate, its key, and the authority of those of callers, for encrypted
      connections only; None, or without `tls`, for connections in the clear.
  """

  ae_title: str = 'COVIDTF'
  port: int = 11112
  host: str = '127.0.0.1'
  callers: frozenset[str] = frozenset()
  any_caller: bool = False
  most_associations: int = 32
  request_s: float = 15.0
  idle_s: float = 300.0
  longest_association_s: float = 4 * 3600.0
  largest_instance_bytes: int = 2 << 30
  tls: addresses.Security | None = None

  def __post_init__(self) -> None:
    addresses.require_ae_title(self.ae_title, '--aet')
    for caller in self.callers:
      addresses.require_ae_title(caller, '--callers')
    if not 0 <= self.port <= 65535:
      raise errors.UsageError(
        f'--port: a number from 0 (any free port) to 65535 is required, found '
        f'{self.port}.'
      )
    for flag, value in (
      ('--most-associations', self.most_associations),
      ('--request-timeout', self.request_s),
      ('--idle-timeout', self.idle_s),
      ('--longest-association', self.longest_association_s),
      ('--largest-instance', self.largest_instance_bytes),
    ):
      if not value > 0:
        raise errors.UsageError(f'{flag}: a number above 0 is required, found {value}.')
    if not self.callers and not self.any_caller and not _is_loopback(self.host):
      raise errors.UsageError(
        f'--host {self.host}: other machines can reach us there, so the AE titles that '
        'may send are required; give them by --callers, or --any-caller where the '
        'network itself keeps others out.'
      )


class Listener:
  """Listens while its `with` block runs.

  Attributes:
    port: where it listens, inside the block.
  """

  def __init__(
    self,
    settings: Settings,
    spool: spool_lib.Spool,
    congested: Callable[[], str | None],
    metrics: association_lib.Metrics,
  ):
    """Opens nothing yet.

    Args:
      settings: where, for whom, how much.
      spool: takes what comes.
      congested: why associations are refused at the moment, in words, or None.
      metrics: counts what comes.

    Raises:
      errors.UsageError: a certificate cannot be read, or the extra `clinic` is not
        installed.
    """
    net = pacs.need('pynetdicom')
    tls = settings.tls
    self._settings = settings
    self._congested = congested
    self._metrics = metrics
    self._services = association_lib.Services(
      net,
      spool,
      metrics,
      association_lib.Limits(
        settings.request_s,
        settings.idle_s,
        settings.longest_association_s,
        settings.largest_instance_bytes,
      ),
      self._admit,
      accepted_syntaxes(net),
      tls.server_ssl_context() if tls and tls.tls else None,
    )
    self._lock = threading.Lock()
    self._running: dict[association_lib.Association, threading.Thread] = {}
    self._draining = False
    self._turned_away, self._next_line_s = 0, 0.0
    self._stopping = threading.Event()
    self._numbers = itertools.count(1)
    # Names are never used twice, also by the process after this one.
    self._name = uuid.uuid4().hex[:12]
    self.port = settings.port
    self._thread: threading.Thread | None = None

  def __enter__(self) -> 'Listener':
    """Begins to listen.

    Raises:
      errors.UsageError: the place is taken, or not ours.
    """
    try:
      self._socket = _listening(self._settings.host, self._settings.port)
    except OSError as error:
      raise errors.UsageError(
        f'--host {self._settings.host} --port {self._settings.port}: a free port of '
        f'this machine is required, found: {error.strerror or error}.'
      ) from None
    self.port = self._socket.getsockname()[1]
    self._thread = threading.Thread(target=self._accept_all, name='listener')
    self._thread.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    self._stopping.set()
    if self._thread:
      self._thread.join()
    self._socket.close()
    with self._lock:
      running = list(self._running.items())
    for association, _ in running:
      association.cut('the node stops')
    until = time.monotonic() + _JOIN_S
    for _, thread in running:
      thread.join(max(0.0, until - time.monotonic()))

  @property
  def is_alive(self) -> bool:
    """Whether connections are taken."""
    return self._thread is not None and self._thread.is_alive()

  @property
  def open_associations(self) -> int:
    """Associations that were accepted and have not ended."""
    with self._lock:
      return sum(1 for each in self._running if each.is_accepted)

  def drain(self, timeout_s: float) -> bool:
    """Refuses new associations and lets the running ones end.

    Args:
      timeout_s: how long they may take.

    Returns:
      Whether all have ended; `__exit__` cuts the others.
    """
    self._draining = True
    until = time.monotonic() + timeout_s
    while self.open_associations:
      if time.monotonic() >= until:
        return False
      time.sleep(min(0.05, timeout_s))
    return True

  # Connections.

  def _accept_all(self) -> None:
    self._socket.settimeout(_POLL_S)
    while not self._stopping.is_set():
      try:
        connection, address = self._socket.accept()
      except TimeoutError:
        self._cut_overdue()
        continue
      except OSError as error:  # No descriptors left, or gone before we looked.
        _log.warning('a connection could not be taken: %s.', error.strerror)
        time.sleep(_PAUSE_S)
        continue
      self._cut_overdue()
      try:
        self._serve(connection, str(address[0]))
      except RuntimeError:  # The system has no thread for us.
        _log.warning('a connection could not be served: no more threads.')
        connection.close()

  def _serve(self, connection: socket.socket, peer: str) -> None:
    """Serves a connection in a thread of its own, if there are not too many."""
    with self._lock:
      waiting = sum(1 for each in self._running if not each.is_accepted)
    if waiting >= _MOST_WAITING:
      self._turn_away(connection, peer)
      return
    name = f'{self._name}-{next(self._numbers)}'
    association = association_lib.Association(connection, peer, name, self._services)
    # Not a daemon's: what it has begun to write is finished before the process ends.
    thread = threading.Thread(target=self._run, args=(association,), name=name)
    with self._lock:
      self._running[association] = thread
    try:
      thread.start()
    except RuntimeError:
      with self._lock:
        del self._running[association]
      raise

  def _run(self, association: association_lib.Association) -> None:
    try:
      association.run()
    finally:
      with self._lock:
        del self._running[association]

  def _turn_away(self, connection: socket.socket, peer: str) -> None:
    """Refuses a connection without a thread, and without a wait."""
    self._metrics.association('refused')
    self._turned_away += 1
    now = time.monotonic()
    if now >= self._next_line_s:  # Who floods us shall not fill the log as well.
      _log.warning(
        '%d connection(s), the last from %s: refused: too many wait.',
        self._turned_away,
        peer,
      )
      self._turned_away, self._next_line_s = 0, now + _LINE_S
    with contextlib.suppress(OSError), connection:
      connection.setblocking(False)
      connection.send(_LIMIT.encode())
      connection.shutdown(socket.SHUT_WR)

  def _cut_overdue(self) -> None:
    now = time.monotonic()
    with self._lock:
      overdue = [each for each in self._running if each.deadline_s < now]
    for association in overdue:
      association.cut('its time is over')

  # Associations.

  def _admit(
    self, association: association_lib.Association, request: pdus.Request
  ) -> pdus.Rejection | None:
    """Why an association is not accepted; it is counted where it is."""
    if rejection := self._not_allowed(request):
      return rejection
    reason = 'the node stops' if self._draining else self._congested()
    if reason:
      return pdus.Rejection(2, 3, 1, reason)
    with self._lock:
      accepted = sum(1 for each in self._running if each.is_accepted)
      if accepted >= self._settings.most_associations:
        return _LIMIT
      association.is_accepted = True
    return None

  def _not_allowed(self, request: pdus.Request) -> pdus.Rejection | None:
    settings = self._settings
    if not request.speaks_version_1:
      return pdus.Rejection(1, 2, 2, 'it speaks another version of the protocol')
    if request.application_context != pdus.APPLICATION_CONTEXT:
      return pdus.Rejection(1, 1, 2, 'it asks for another application than DICOM')
    if request.called != settings.ae_title.strip():
      return pdus.Rejection(1, 1, 7, f'it calls {request.called}, which we are not')
    allowed = {caller.strip() for caller in settings.callers}
    if not request.calling or (allowed and request.calling not in allowed):
      return pdus.Rejection(1, 1, 3, 'its AE title is not among those allowed')
    return None


_LIMIT = pdus.Rejection(2, 3, 2, 'too many associations are open')


def accepted_syntaxes(net: Any) -> dict[str, tuple[str, ...]]:
  """Abstract syntaxes that are accepted, and the transfer syntaxes of each."""
  every = tuple(
    dict.fromkeys(
      syntax
      for syntax in (*_FIRST, *net.ALL_TRANSFER_SYNTAXES)
      if syntax not in _REFERENCED
    )
  )
  storage = {
    str(context.abstract_syntax) for context in net.AllStoragePresentationContexts
  }
  storage |= {  # Retired ones too: old scanners live long.
    found
    for found, (name, kind, *_) in uid.UID_dictionary.items()
    if kind == 'SOP Class' and found.startswith(_STORAGE_ROOT) and 'Storage' in name
  }
  return {association_lib.VERIFICATION: _FIRST, **dict.fromkeys(sorted(storage), every)}


def _listening(host: str, port: int) -> socket.socket:
  """A socket at the first address of a host."""
  family, kind, protocol, _, address = socket.getaddrinfo(
    host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
  )[0]
  found = socket.socket(family, kind, protocol)
  try:
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(address)
    found.listen(_BACKLOG)
  except BaseException:
    found.close()
    raise
  return found


def _is_loopback(host: str) -> bool:
  """Whether only this machine reaches an address; a name that is unknown is none."""
  if not host:
    return False
  try:
    found = socket.getaddrinfo(host, None)
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)
  except (OSError, ValueError, UnicodeError):
    return False
