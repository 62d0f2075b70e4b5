"""The server as a whole: built, started, drained."""

from concurrent import futures
import errno
import logging
import os
import socket
import threading

import grpc
from grpc_health.v1 import health
from grpc_health.v1 import health_pb2
from grpc_health.v1 import health_pb2_grpc

from covid_tf import errors
from covid_tf.predictors import protocol
from covid_tf.server import configuration
from covid_tf.server import loading
from covid_tf.server import services
from covid_tf.sessions import refusal

# Where the server listens: loopback ports, a Unix socket, TLS or not.

_LOOPBACK = ('127.0.0.1', '[::1]')  # Clients say localhost and mean either.
_ATTEMPTS = 20  # To find one free port for both.
_LONGEST_SOCKET_PATH = 107  # Bytes in sockaddr_un, less the final zero.


def credentials(ssl_config_file: str | None) -> grpc.ServerCredentials | None:
  """Reads an SSLConfig; None for plain text.

  Raises:
    errors.UsageError: it cannot be read, or holds no key and certificate.
  """
  if ssl_config_file is None:
    return None
  config = configuration.read_text_file(ssl_config_file, protocol.SSLConfig)
  for name in ('server_key', 'server_cert'):
    if '-----BEGIN' not in getattr(config, name):
      raise errors.UsageError(
        f'{ssl_config_file}: required {name} as PEM text, found none.'
      )
  if config.client_verify and not config.custom_ca:
    raise errors.UsageError(
      f'{ssl_config_file}: client_verify: required custom_ca too, found none; '
      'name the authority that signs the clients.'
    )
  return grpc.ssl_server_credentials(
    [(config.server_key.encode(), config.server_cert.encode())],
    config.custom_ca.encode() or None,
    config.client_verify,
  )


def listen(
  server: grpc.Server,
  host: str | None,
  port: int,
  secure: grpc.ServerCredentials | None,
) -> list[str]:
  """Opens the TCP ports.

  Args:
    server: not started yet.
    host: an address, or None for both loopback ones.
    port: 0 for one that is free on all of them.
    secure: credentials, or None for plain text.

  Returns:
    The addresses, with the real port.

  Raises:
    errors.ModelError: the port is taken, or the address is not this machine's.
  """
  hosts = (
    _loopback_hosts()
    if host is None
    else (f'[{host}]' if ':' in host and not host.startswith('[') else host,)
  )
  for _ in range(_ATTEMPTS if not port else 1):
    bound = _add_port(server, f'{hosts[0]}:{port}', secure)
    if not bound:
      break
    # A free port of IPv4 may be taken in IPv6: then both move on.
    if all(
      _is_free(other, bound) and _add_port(server, f'{other}:{bound}', secure)
      for other in hosts[1:]
    ):
      return [f'{name}:{bound}' for name in hosts]
  raise errors.ModelError(
    f'--port {port}: required a free port on {", ".join(hosts)}, found it taken or '
    'the address not on this machine; choose another, or stop what listens there.'
  )


def listen_on_socket(
  server: grpc.Server, path: str, secure: grpc.ServerCredentials | None
) -> str:
  """Opens a Unix socket beside `path`; `publish_socket` gives it that name.

  Returns:
    The name it has until then.

  Raises:
    errors.UsageError: the path is too long or its folder cannot be written to.
  """
  hidden = f'{os.path.abspath(path)}.{os.getpid()}'
  if len(os.fsencode(hidden)) > _LONGEST_SOCKET_PATH:
    raise errors.UsageError(
      f'--grpc_socket_path {path}: required at most '
      f'{_LONGEST_SOCKET_PATH - 8} bytes, found {len(os.fsencode(path))}.'
    )
  if not _add_port(server, f'unix:{hidden}', secure):
    raise errors.UsageError(
      f'--grpc_socket_path {path}: required a folder to write to, found none.'
    )
  return hidden


def publish_socket(hidden: str, path: str) -> os.stat_result:
  """Gives a listening socket its name; the newest server of a name takes it over.

  Returns:
    What `withdraw_socket` needs to know it by.
  """
  os.rename(hidden, path)
  return os.stat(path)


def withdraw_socket(path: str, published: os.stat_result) -> None:
  """Removes the name, unless another server has taken it over."""
  try:
    if os.path.samestat(os.stat(path), published):
      os.unlink(path)
  except FileNotFoundError:
    pass


def _add_port(server, address, secure) -> int:
  try:
    if secure is None:
      return server.add_insecure_port(address)
    return server.add_secure_port(address, secure)
  except RuntimeError:  # gRPC's way to say that it could not bind.
    return 0


def _loopback_hosts() -> tuple[str, ...]:
  try:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
      probe.bind(('::1', 0))
  except OSError as error:
    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
      raise
    return _LOOPBACK[:1]
  return _LOOPBACK


def _is_free(host: str, port: int) -> bool:
  with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe.connect_ex((host.strip('[]'), port)) != 0


_log = logging.getLogger(__name__)
# Threads for what must be answered however long the queue is: status, health.
_SPARE_THREADS = 8
_UNLIMITED = -1
_DRAIN_TICK_S = 0.1
_QUIET_TICKS = 3


class Server:
  """A started server.

  Attributes:
    addresses: where it listens, with real ports.
  """

  def __init__(self, options: configuration.ServerOptions):
    """Loads the models, then listens: who can connect finds them served.

    Raises:
      errors.UsageError: a file or flag is wrong.
      errors.ModelError: a model cannot be loaded, or the port is taken.
    """
    self._options = options
    self._stopping = threading.Event()
    self._socket: os.stat_result | None = None
    secure = credentials(options.ssl_config_file)
    config = configuration.model_configuration(options)
    self._manager = loading.ModelManager(options)
    self._services = services.Services(
      self._manager,
      services.Admission(options.running, options.waiting),
      options.as_content,
    )
    try:
      self._manager.start(config)
      self._server, self._health = self._make_server()
      self.addresses = self._listen(secure)
    except refusal.Refusal as error:
      self._manager.close()
      raise errors.ModelError(f'Failed to start server. Error: {error}') from error
    except BaseException:
      self._manager.close()
      raise
    if options.model_config_file and options.config_poll_s > 0:
      threading.Thread(
        target=self._poll_config, name='config-poll', daemon=True
      ).start()

  def models(self) -> list[tuple[str, int]]:
    """(name, version) of what answers now."""
    return self._manager.registry.available()

  def stop(self) -> None:
    """Takes no new requests, lets the running ones end, frees the models."""
    self._stopping.set()
    if self._socket is not None and self._options.socket_path is not None:
      withdraw_socket(self._options.socket_path, self._socket)
    stopped = self._server.stop(self._options.drain_s)
    # After it: whoever reads NOT_SERVING finds that nothing more is taken.
    self._health.enter_graceful_shutdown()
    quiet = 0
    while not stopped.wait(_DRAIN_TICK_S):
      # More than once: a call that came last may not have reached its handler yet.
      quiet = quiet + 1 if self._services.is_idle() else 0
      if quiet == _QUIET_TICKS:
        # What is left are watchers of the health, who would stay to the end.
        self._server.stop(0).wait()
    self._manager.close()

  def _make_server(self):
    threads = self._options.running + self._options.waiting + _SPARE_THREADS
    settings = {
      'grpc.max_receive_message_length': _UNLIMITED,
      'grpc.max_send_message_length': _UNLIMITED,
      # Two servers on one port would share the clients without a word.
      'grpc.so_reuseport': 0,
      **dict(self._options.channel_arguments),
    }
    server = grpc.server(
      futures.ThreadPoolExecutor(threads), options=list(settings.items())
    )
    server.add_generic_rpc_handlers(self._services.handlers())
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for service in (protocol.PREDICTION_SERVICE, protocol.MODEL_SERVICE):
      # Probes in use name them with and without their package.
      for name in ('', service, service.rpartition('.')[2]):
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server, servicer

  def _listen(self, secure) -> list[str]:
    options = self._options
    addresses = listen(self._server, options.host, options.port, secure)
    if options.socket_path is None:
      self._server.start()
      return addresses
    hidden = listen_on_socket(self._server, options.socket_path, secure)
    self._server.start()
    self._socket = publish_socket(hidden, options.socket_path)
    return [*addresses, f'unix:{options.socket_path}']

  def _poll_config(self) -> None:
    while not self._stopping.wait(self._options.config_poll_s):
      try:
        config = configuration.model_configuration(self._options)
        # Also what was set by a call meanwhile: the file has the last word.
        if config != self._manager.registry.config:
          # Without waiting for new models: one whose folder is misspelled would keep
          # the corrected file from being read.
          self._manager.reload(config, lambda: False)
      except (errors.UsageError, refusal.Refusal) as error:
        _log.warning('the configuration stays as it was: %s', error)
