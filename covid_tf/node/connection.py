"""A TCP connection, in the clear or encrypted, on which every wait has an end."""

import contextlib
import socket
import ssl
import struct
import threading
import time

from covid_tf.clinic import associations
from covid_tf.node import pdus

_BUFFER_BYTES = 1 << 18
_LINGER_S = 2.0  # For the other side to read why it is refused.
_LINGER_BYTES = 1 << 22


class LostError(Exception):
  """The connection is gone, or nothing came in time."""


class Connection:
  """Reads and writes of one thread; `cut` may come from any.

  Times are those of `time.monotonic()`.

  Attributes:
    is_probe: whether the other side closed it before its first byte, as those do who
      look whether a port is open.
  """

  def __init__(self, connected: socket.socket, send_s: float):
    """Takes over a socket.

    Args:
      connected: closed by `close`.
      send_s: how long the other side may take to receive what we send.
    """
    self._socket = connected
    self._send_s = send_s
    self._buffer = memoryview(b'')
    self._changing = threading.Lock()
    self._cut_because = ''
    self._has_read = False
    self.is_probe = False
    with contextlib.suppress(OSError):  # Answers are small; none shall wait.
      connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

  def encrypt(self, tls: ssl.SSLContext, until: float) -> None:
    """Shakes hands as a server.

    Raises:
      LostError: the other side does not, or not as we must ask for.
    """
    try:
      self._socket.settimeout(_left_s(until))
      wrapped = tls.wrap_socket(self._socket, server_side=True)
    except (OSError, ValueError) as error:  # ValueError: gone before it began.
      reason = getattr(error, 'reason', '') or in_words(error)
      raise LostError(f'no encrypted connection: {reason}') from None
    with self._changing:
      self._socket = wrapped
      if self._cut_because:
        raise LostError(self._cut_because)

  def cut(self, reason: str) -> None:
    """Ends it from another thread: what reads or writes raises LostError(reason)."""
    with self._changing:
      self._cut_because = self._cut_because or reason
      with contextlib.suppress(OSError, ValueError):
        self._socket.shutdown(socket.SHUT_RDWR)

  def close(self) -> None:
    """Closes it."""
    with self._changing, contextlib.suppress(OSError):
      self._socket.close()

  def read_header(self, until: float) -> tuple[int, int]:
    """Type and length of the next PDU.

    Raises:
      LostError: it did not come whole.
    """
    kind, length = struct.unpack('>BxL', self.read(pdus.HEADER_BYTES, until))
    return kind, length

  def read(self, count: int, until: float) -> bytes:
    """That many bytes.

    Raises:
      LostError: they did not come.
    """
    content = bytearray(count)
    view = memoryview(content)
    while view:
      view = view[self._receive_into(view, until) :]
    return bytes(content)

  def read_some(self, most: int, until: float) -> memoryview:
    """At least one byte, at most `most`; good until the next call.

    Raises:
      LostError: none came.
    """
    if not self._buffer:
      self._buffer = memoryview(bytearray(_BUFFER_BYTES))
    view = self._buffer[:most]
    return view[: self._receive_into(view, until)]

  def _receive_into(self, view: memoryview, until: float) -> int:
    """Number of bytes that came, at least one."""
    try:
      self._socket.settimeout(_left_s(until))
      associations.acknowledge(self._socket)
      count = self._socket.recv_into(view)
    except TimeoutError:
      raise self._lost('nothing, or too little, came in time') from None
    except (OSError, ValueError) as error:  # ValueError: of TLS that is closed.
      raise self._lost(in_words(error)) from None
    if not count:
      self.is_probe = not self._has_read
      raise self._lost('the connection was closed')
    self._has_read = True
    return count

  def send(self, data: bytes) -> None:
    """Sends all of it.

    Raises:
      LostError: the other side does not take it.
    """
    try:
      self._socket.settimeout(self._send_s)
      self._socket.sendall(data)
    except (OSError, ValueError) as error:
      raise self._lost(in_words(error)) from None

  def send_last(self, data: bytes) -> None:
    """Sends a last PDU, and waits a little so that it is read before the end.

    A connection that is closed while bytes lie unread is reset, and what was sent
    before may be lost to the other side.
    """
    until = time.monotonic() + _LINGER_S
    rest = memoryview(bytearray(1 << 16))
    with contextlib.suppress(OSError, ValueError, LostError):
      self._socket.settimeout(_LINGER_S)
      self._socket.sendall(data)
      self._socket.shutdown(socket.SHUT_WR)
      for _ in range(_LINGER_BYTES // len(rest)):
        self._receive_into(rest, until)

  def _lost(self, reason: str) -> LostError:
    return LostError(self._cut_because or reason)


def in_words(error: Exception) -> str:
  """What a system error says, without the names of files."""
  return getattr(error, 'strerror', None) or type(error).__name__


def _left_s(until: float) -> float:
  left_s = until - time.monotonic()
  if left_s <= 0:
    raise TimeoutError
  return left_s
