"""The connection to a model server: address, TLS, limits."""

import dataclasses
import os
import pathlib

import grpc

from covid_tf import errors

_UNLIMITED = -1  # gRPC's word for it; its default is 4 MiB an answer.
_LOOPBACK = ('localhost', '127.', '[::1]', 'unix:', 'ipv4:127.', 'ipv6:[::1]')


@dataclasses.dataclass(frozen=True)
class TLS:
  """How to trust a server, and how it is to trust us.

  Attributes:
    ca_file: PEM file of the authorities that may sign the server's certificate;
      None: those that gRPC ships.
    certificate_file: PEM file of our own certificate, for mutual TLS.
    key_file: PEM file of its private key.
    server_name: the name that the server's certificate must hold, where it
      differs from the address.
  """

  ca_file: str | os.PathLike | None = None
  certificate_file: str | os.PathLike | None = None
  key_file: str | os.PathLike | None = None
  server_name: str | None = None

  def __post_init__(self):
    if (self.certificate_file is None) != (self.key_file is None):
      raise errors.UsageError(
          'TLS: certificate_file and key_file go together, found only '
          f'{"key_file" if self.certificate_file is None else "certificate_file"}.')


def open_channel(address: str, tls: TLS | None) -> grpc.Channel:
  """Opens a channel; nothing is sent before the first call.

  Args:
    address: 'host:port', '[::1]:8500' or 'unix:/path/to.sock'.
    tls: None for plain text.

  Returns:
    A channel that takes messages of any size.

  Raises:
    errors.UsageError: the address is none, or a TLS file cannot be read.
  """
  _check_address(address)
  options = [
      ('grpc.max_receive_message_length', _UNLIMITED),
      ('grpc.max_send_message_length', _UNLIMITED),
      # Our own policy decides what is repeated, and when.
      ('grpc.enable_retries', 0),
      # A server that comes back must be found well before the patience ends.
      ('grpc.max_reconnect_backoff_ms', 2000),
      ('grpc.initial_reconnect_backoff_ms', 200),
      ('grpc.min_reconnect_backoff_ms', 200),
      # One connection an object: closing it closes no one else's.
      ('grpc.use_local_subchannel_pool', 1),
  ]
  if address.startswith(_LOOPBACK):
    options.append(('grpc.enable_http_proxy', 0))  # No proxy leads back here.
  if tls is None:
    return grpc.insecure_channel(address, options)
  if tls.server_name:
    options.append(('grpc.ssl_target_name_override', tls.server_name))
  return grpc.secure_channel(address, _credentials(tls), options)


def _check_address(address: str) -> None:
  host, _, port = address.rpartition(':')
  if address.startswith('unix:') and len(address) > len('unix:'):
    return
  if not host or '/' in address or not port.isdigit() or not 0 < int(port) < 65536:
    raise errors.UsageError(
        "server address: required 'host:port' or 'unix:/path', found "
        f'{address!r}; for instance localhost:8500.')


def _credentials(tls: TLS) -> grpc.ChannelCredentials:
  contents = {}
  for name in ('ca_file', 'key_file', 'certificate_file'):
    path = getattr(tls, name)
    try:
      contents[name] = None if path is None else pathlib.Path(path).read_bytes()
    except OSError as error:
      raise errors.UsageError(
          f'TLS {name} {path}: required a readable PEM file, found '
          f'{error.strerror.lower()}.') from error
    if contents[name] is not None and b'-----BEGIN' not in contents[name]:
      raise errors.UsageError(
          f'TLS {name} {path}: required a PEM file, found other content; convert '
          'it with openssl.')
  return grpc.ssl_channel_credentials(
      contents['ca_file'], contents['key_file'], contents['certificate_file'])
