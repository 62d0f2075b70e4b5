"""Where the server listens: loopback ports, a Unix socket, TLS or not."""

import errno
import os
import socket

import grpc

from covid_tf import errors
from covid_tf.predictors import protocol
from covid_tf.server import model_config

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
  config = model_config.read_text_file(ssl_config_file, protocol.SSLConfig)
  for name in ('server_key', 'server_cert'):
    if '-----BEGIN' not in getattr(config, name):
      raise errors.UsageError(
          f'{ssl_config_file}: required {name} as PEM text, found none.')
  if config.client_verify and not config.custom_ca:
    raise errors.UsageError(
        f'{ssl_config_file}: client_verify: required custom_ca too, found none; '
        'name the authority that signs the clients.')
  return grpc.ssl_server_credentials(
      [(config.server_key.encode(), config.server_cert.encode())],
      config.custom_ca.encode() or None, config.client_verify)


def listen(server: grpc.Server, host: str | None, port: int,
           secure: grpc.ServerCredentials | None) -> list[str]:
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
  hosts = _loopback_hosts() if host is None else (
      f'[{host}]' if ':' in host and not host.startswith('[') else host,)
  for _ in range(_ATTEMPTS if not port else 1):
    bound = _add_port(server, f'{hosts[0]}:{port}', secure)
    if not bound:
      break
    # A free port of IPv4 may be taken in IPv6: then both move on.
    if all(_is_free(other, bound) and _add_port(server, f'{other}:{bound}', secure)
           for other in hosts[1:]):
      return [f'{name}:{bound}' for name in hosts]
  raise errors.ModelError(
      f'--port {port}: required a free port on {", ".join(hosts)}, found it taken or '
      'the address not on this machine; choose another, or stop what listens there.')


def listen_on_socket(server: grpc.Server, path: str,
                     secure: grpc.ServerCredentials | None) -> str:
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
        f'{_LONGEST_SOCKET_PATH - 8} bytes, found {len(os.fsencode(path))}.')
  if not _add_port(server, f'unix:{hidden}', secure):
    raise errors.UsageError(
        f'--grpc_socket_path {path}: required a folder to write to, found none.')
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
