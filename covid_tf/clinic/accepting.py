"""Associations that others open to us: C-MOVE's instances, reports of commitment.

Imported where it is needed: it needs pynetdicom.
"""

from collections.abc import Iterator, Sequence
import contextlib
import logging
import socket
import ssl
import threading
import time
from typing import Any

import pynetdicom
from pynetdicom import evt
from pynetdicom import transport

from covid_tf.clinic import associations

_logger = logging.getLogger(__name__)

_TO_END_S = 1.0  # For answers and releases on their way when we stop to listen.


class Server(transport.ThreadedAssociationServer):
  """Takes associations; a caller that stops in the middle holds up nobody else.

  pynetdicom's own server shakes hands before it takes the next caller, and waits for
  the rest of a message without end.
  """

  daemon_threads = True  # Of handshakes; associations have threads of their own.

  def __init__(self, *arguments: Any, patience_s: float, **options: Any):
    """Listens from now on.

    Args:
      *arguments: of the class above.
      patience_s: how long a caller may keep a handshake or a message waiting.
      **options: of the class above.
    """
    self._patience_s = patience_s
    super().__init__(*arguments, **options)

  def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
    """The next caller; hands are shaken in a thread of its own."""
    assert self.socket is not None
    caller, address = self.socket.accept()
    caller.settimeout(self._patience_s)
    if self.ssl_context:
      caller = self.ssl_context.wrap_socket(
        caller, server_side=True, do_handshake_on_connect=False
      )
    return caller, address

  def process_request_thread(self, request: Any, client_address: Any) -> None:
    """Shakes hands and starts the association, or leaves the caller."""
    try:
      if isinstance(request, ssl.SSLSocket):
        request.do_handshake()
    except (OSError, ValueError) as error:
      _logger.info('A caller was left in its TLS handshake: %s', error)
      self.shutdown_request(request)
      return
    super().process_request_thread(request, client_address)

  def handle_error(self, request: Any, client_address: Any) -> None:
    """Says to the log, not to standard error, that a caller could not be taken."""
    _logger.info('A caller could not be taken.', exc_info=True)


@contextlib.contextmanager
def listening(
  entity: pynetdicom.AE,
  address: tuple[str, int],
  handlers: Sequence[Any],
  *,
  patience_s: float,
  ssl_context: ssl.SSLContext | None = None,
) -> Iterator[Server]:
  """Within the block others can open associations to an entity of ours.

  Args:
    entity: its AE title and the contexts that it supports.
    address: host, '' for every address of the machine, and port.
    handlers: of pynetdicom's events.
    patience_s: how long a caller may keep a handshake or a message waiting.
    ssl_context: of `addresses.Security.server_ssl_context`; None in the clear.

  Yields:
    The server; `server_address` says where it listens.

  Raises:
    OSError: the port is not free.
  """
  server = entity.make_server(
    address,
    ssl_context=ssl_context,
    evt_handlers=[(evt.EVT_CONN_OPEN, _answer_at_once), *handlers],
    server_class=Server,
    patience_s=patience_s,
  )
  assert isinstance(server, Server)
  entity._servers.append(server)  # Where `shutdown` takes it away again.
  thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    _end_all(server)


def _answer_at_once(event: Any) -> None:
  associations.answer_at_once(event.assoc)


def _end_all(server: Server) -> None:
  """Lets associations end by themselves for a moment, then aborts them."""
  end = time.monotonic() + _TO_END_S
  while time.monotonic() < end and any(
    association.is_established for association in server.active_associations
  ):
    time.sleep(0.02)
  for association in server.active_associations:
    if association.is_established:
      association.abort()
      continue
    raw: Any = getattr(association.dul.socket, 'socket', None)
    with contextlib.suppress(AttributeError, OSError):
      raw.shutdown(socket.SHUT_RDWR)  # Who waits for the rest of a message, ends.
    association.dul.kill_dul()
