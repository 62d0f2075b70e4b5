"""A node's state for whoever watches it: liveness, readiness, counters, its studies.

Four paths, read only, over HTTP: `/healthz`, `/readyz`, `/metrics`, `/studies`. Nobody
is asked for a password, so it listens on loopback unless told otherwise; it tells UIDs
and reasons, and never a name.
"""

from collections.abc import Callable, Mapping
import contextlib
import http
import http.server
import json
import logging
import socket
import socketserver
import threading
from typing import Any

from covid_tf import errors
from covid_tf import version
from covid_tf.node import metrics as metrics_lib

_log = logging.getLogger(__name__)

_SLOWEST_S = 10.0  # All that one client may take, whatever it sends meanwhile.
_MOST_CLIENTS = 16  # At once; the one that has been there longest makes room.
_JSON = 'application/json; charset=utf-8'


class Health:
  """The HTTP server; a context manager, which listens within the block."""

  def __init__(
    self,
    host: str,
    port: int,
    metrics: metrics_lib.Metrics,
    state: Callable[[], Mapping[str, Any]],
    *,
    slowest_s: float = _SLOWEST_S,
  ):
    """Listens nowhere yet.

    Args:
      host: address of this machine, IPv4 or IPv6, or a name of it; loopback where
        nobody else may read it.
      port: 0 for any free one.
      metrics: what `/metrics` tells.
      state: asked at each request, from any thread. `threads`: name to whether it
        lives (`/healthz`: all do). `ready`: what is needed to whether it is there, or
        to a text that says what is wrong with it (`/readyz`: all are True). `studies`:
        what `/studies` tells, JSON values. What is missing counts as empty.
      slowest_s: how long a client may take for a request, and for an answer.
    """
    self._address = (host, port)
    self._slowest_s = slowest_s
    self._handler = type(
      'Handler', (_Handler,), {'metrics': metrics, 'state': staticmethod(state)}
    )
    self._server: _Server | None = None
    self._thread: threading.Thread | None = None

  def __enter__(self) -> 'Health':
    """Listens.

    Raises:
      errors.UsageError: the address is in use, or none of this machine.
    """
    host, port = self._address
    try:
      self._server = _server_at(host, port, self._handler, self._slowest_s)
    except OSError as error:
      raise errors.UsageError(
        f'--health-port {port}: a free port of an address of this machine is required '
        f'({host}), found: {error.strerror or error}.'
      ) from error
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.2,), name='health', daemon=True
    )
    self._thread.start()
    return self

  def __exit__(self, *exception: object) -> None:
    if self._server and self._thread:
      self._server.shutdown()
      self._server.server_close()
      self._thread.join()

  @property
  def port(self) -> int:
    """Where it listens, once it does."""
    return self._server.server_port if self._server else self._address[1]

  @property
  def is_alive(self) -> bool:
    """Whether its thread runs."""
    return self._thread is not None and self._thread.is_alive()


class _Server(http.server.ThreadingHTTPServer):
  """A thread for each client; none stays long, and none leaves a traceback."""

  daemon_threads = True
  request_queue_size = 32

  def __init__(
    self, address: tuple[str, int], handler: Any, family: int, slowest_s: float
  ):
    self.address_family = family
    self._slowest_s = slowest_s
    self._clients: dict[socket.socket, None] = {}  # The oldest first.
    self._changing = threading.Lock()
    super().__init__(address, handler)

  def server_bind(self) -> None:
    """As HTTPServer does, without asking a name server who we are."""
    socketserver.TCPServer.server_bind(self)
    self.server_name, self.server_port = 'localhost', self.socket.getsockname()[1]

  def process_request(self, request: Any, client_address: Any) -> None:
    """Hands a client to a thread of its own."""
    with self._changing:
      self._clients[request] = None
      oldest = next(iter(self._clients)) if len(self._clients) > _MOST_CLIENTS else None
    if oldest:
      _cut_off(oldest)
    super().process_request(request, client_address)

  def process_request_thread(self, request: Any, client_address: Any) -> None:
    """Serves one client, for a limited time."""
    timer = threading.Timer(self._slowest_s, _cut_off, (request,))
    timer.daemon = True
    timer.start()
    try:
      super().process_request_thread(request, client_address)
    finally:
      timer.cancel()
      with self._changing:
        del self._clients[request]

  def handle_error(self, request: Any, client_address: Any) -> None:
    """A line for the log, where socketserver prints a traceback."""
    del request, client_address
    _log.debug('a client of the health port left before it was answered')


def _cut_off(client: socket.socket) -> None:
  """Ends a connection, whoever reads from it or writes to it."""
  with contextlib.suppress(OSError):
    client.shutdown(socket.SHUT_RDWR)


def _server_at(host: str, port: int, handler: Any, slowest_s: float) -> _Server:
  family, _, _, _, address = socket.getaddrinfo(
    host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
  )[0]
  return _Server((str(address[0]), int(address[1])), handler, family, slowest_s)


class _Handler(http.server.BaseHTTPRequestHandler):
  """One request of one client; HTTP/1.0, so that none is kept open."""

  metrics: metrics_lib.Metrics
  state: Callable[[], Mapping[str, Any]]
  server_version, sys_version = f'covid-tf/{version.__version__}', ''

  def do_GET(self) -> None:  # noqa: N802
    """Answers one of the four paths."""
    path = self.path.partition('?')[0]
    answer = {
      '/healthz': self._alive,
      '/readyz': self._ready,
      '/metrics': self._counted,
      '/studies': self._studies,
    }.get(path)
    if answer is None:
      self._tell(404, {'error': '/healthz, /readyz, /metrics and /studies are here'})
      return
    try:
      status, kind, content = answer()
    except Exception as error:  # A part of the node is not as it should be.
      _log.error('%s: cannot be told: %s', path, type(error).__name__)
      self._tell(500, {'error': f'{type(error).__name__}; see the log'})
      return
    self._send(status, kind, content)

  do_HEAD = do_GET  # noqa: N815

  def _alive(self) -> tuple[int, str, bytes]:
    threads = dict(self.state().get('threads', {}))
    return _judged(threads, 'alive')

  def _ready(self) -> tuple[int, str, bytes]:
    state = self.state()
    return _judged({**state.get('threads', {}), **state.get('ready', {})}, 'ready')

  def _counted(self) -> tuple[int, str, bytes]:
    return 200, metrics_lib.CONTENT_TYPE, self.metrics.text()

  def _studies(self) -> tuple[int, str, bytes]:
    return 200, _JSON, _encoded(self.state().get('studies', {}))

  def _tell(self, status: int, content: Mapping[str, Any]) -> None:
    self._send(status, _JSON, _encoded(content))

  def _send(self, status: int, kind: str, content: bytes) -> None:
    self.send_response(status)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(content)))
    self.send_header('Cache-Control', 'no-store')
    self.send_header('X-Content-Type-Options', 'nosniff')
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(content)

  def send_error(
    self, code: int, message: str | None = None, explain: str | None = None
  ) -> None:
    """What http.server finds wrong with a request; nothing of it is repeated."""
    del message, explain
    status = 405 if code == 501 else code  # It says "unsupported" for each method.
    phrase = http.HTTPStatus(status).phrase
    self.close_connection = True
    self._tell(status, {'error': f'{phrase}: GET and HEAD are answered here'})

  def log_message(self, format: str, *arguments: Any) -> None:
    """Says nothing: a request each few seconds, written by whoever sends it."""


def _judged(parts: Mapping[str, bool | str], word: str) -> tuple[int, str, bytes]:
  """200 where all parts are True, else 503; and which are not."""
  wrong = {name: value for name, value in parts.items() if value is not True}
  status = 503 if wrong else 200
  content = {word: not wrong, **({'not': wrong} if wrong else {})}
  return status, _JSON, _encoded(content)


def _encoded(content: Mapping[str, Any]) -> bytes:
  return (json.dumps(content, indent=1, default=str) + '\n').encode()
