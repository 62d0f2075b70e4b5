"""A listener on loopback, and senders that keep to the protocol or do not."""

import collections
from collections.abc import Iterator
import contextlib
import pathlib
import socket
import struct

from pydicom import uid
import pynetdicom
from pynetdicom import pdu as pdu_lib
from pynetdicom import pdu_primitives
import small_instances as instances

from covid_tf.clinic import requesting
from covid_tf.node import listener as listener_lib
from covid_tf.node import spool as spool_lib

AE_TITLE = 'NODE'


class Counts:
  """Metrics that a test can look into."""

  def __init__(self):
    self.associations = collections.Counter()
    self.instances = collections.Counter()

  def association(self, outcome):
    self.associations[outcome] += 1

  def instance(self, outcome, size_bytes):
    assert size_bytes > 0
    self.instances[outcome] += 1


class Node:
  """A listener with its spool; `congested` is what it says of itself."""

  def __init__(self, folder: pathlib.Path, **settings):
    self.metrics = Counts()
    self.congested: str | None = None
    self.spool = spool_lib.Spool(folder / 'spool')
    settings = {'ae_title': AE_TITLE, 'port': 0, **settings}
    self.listener = listener_lib.Listener(
      listener_lib.Settings(**settings),
      self.spool,
      lambda: self.congested,
      self.metrics,
    )

  @property
  def port(self) -> int:
    """Where it listens."""
    return self.listener.port

  def connect(self) -> socket.socket:
    """A bare connection."""
    return socket.create_connection(('127.0.0.1', self.port), 60)

  def echoes(self) -> bool:
    """Whether it answers C-ECHO on an association of its own."""
    with associated(self, [pynetdicom.build_context('1.2.840.10008.1.1')]) as found:
      return found.is_established and found.send_c_echo().Status == 0


def arriving(spool: spool_lib.Spool) -> list[pathlib.Path]:
  """Files of instances that are not kept; empty ones are for those to come."""
  return [path for path in (spool.folder / 'incoming').iterdir() if path.stat().st_size]


@contextlib.contextmanager
def running(folder: pathlib.Path, **settings) -> Iterator[Node]:
  """A node that listens within the block."""
  node = Node(folder, **settings)
  with node.spool, node.listener:
    yield node


def contexts(*syntaxes: str, sop_class: str = uid.CTImageStorage) -> list:
  """Presentation contexts, one for each transfer syntax."""
  return [
    pynetdicom.build_context(sop_class, syntax)
    for syntax in syntaxes or (uid.ExplicitVRLittleEndian,)
  ]


@contextlib.contextmanager
def associated(
  node: Node, proposed=None, calling: str = 'SCANNER', called: str = AE_TITLE
) -> Iterator[pynetdicom.association.Association]:
  """An association of pynetdicom's, established or not; released at the end."""
  entity = requesting.AE(calling)
  entity.acse_timeout = entity.dimse_timeout = 60
  found = entity.associate(
    '127.0.0.1', node.port, contexts=proposed or contexts(), ae_title=called
  )
  try:
    yield found
  finally:
    if found.is_established:
      found.release()


def send(node: Node, *numbers: int, calling: str = 'SCANNER', **options) -> list:
  """C-STORE of slices in one association; the answers' data sets."""
  syntax = options.get('syntax', uid.ExplicitVRLittleEndian)
  with associated(node, contexts(syntax), calling) as found:
    assert found.is_established
    return [
      found.send_c_store(instances.instance(number, **options)) for number in numbers
    ]


# Bytes, where pynetdicom would not say what a test wants said.

ABORT, REJECTED, ACCEPTED = 0x07, 0x03, 0x02


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
  """A PDU, whose length may lie."""
  return struct.pack('>BxL', kind, len(body) if length is None else length) + body


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
  """An item of a request."""
  return struct.pack('>BxH', kind, len(body) if length is None else length) + body


def context_item(number: int, abstract: str = uid.CTImageStorage) -> bytes:
  """A proposed presentation context."""
  return item(
    0x20,
    struct.pack('>Bxxx', number)
    + item(0x30, abstract.encode())
    + item(0x40, uid.ExplicitVRLittleEndian.encode()),
  )


def request_body(*items: bytes, calling: bytes = b'SCANNER') -> bytes:
  """An A-ASSOCIATE-RQ without its header: application context, then these items."""
  return (
    struct.pack('>Hxx', 1)
    + AE_TITLE.encode().ljust(16)
    + calling.ljust(16)
    + bytes(32)
    + item(0x10, b'1.2.840.10008.3.1.1.1')
    + b''.join(items)
    + item(0x50, item(0x51, struct.pack('>L', 16384)))
  )


def values(context: int, control: int, data: bytes) -> bytes:
  """A P-DATA-TF with one presentation data value."""
  return pdu(0x04, struct.pack('>LBB', len(data) + 2, context, control) + data)


def store_command(instance_uid: str = '1.2.3', **changed: int) -> bytes:
  """The command set of a C-STORE-RQ."""
  numbers = {'field': 1, 'data': 0, **changed}
  elements = (
    (0x0002, uid.CTImageStorage.encode().ljust(26, b'\0')),
    (0x0100, struct.pack('<H', numbers['field'])),
    (0x0110, struct.pack('<H', 7)),
    (0x0700, struct.pack('<H', 0)),
    (0x0800, struct.pack('<H', numbers['data'])),
    (0x1000, instance_uid.encode() + b'\0' * (len(instance_uid) % 2)),
  )
  return b''.join(
    struct.pack('<HHL', 0, element, len(value)) + value for element, value in elements
  )


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
  """Type and body of what is answered; (0, b'') where the connection is closed."""
  try:
    header = connection.recv(6, socket.MSG_WAITALL)
    if len(header) < 6:
      return 0, b''
    kind, length = struct.unpack('>BxL', header)
    return kind, connection.recv(length, socket.MSG_WAITALL)
  except ConnectionResetError:
    return 0, b''


@contextlib.contextmanager
def established(node: Node, calling: bytes = b'SCANNER') -> Iterator[socket.socket]:
  """A bare connection with an accepted association; its CT context is number 1."""
  with node.connect() as connection:
    connection.sendall(pdu(0x01, request_body(context_item(1), calling=calling)))
    kind, _ = read_pdu(connection)
    assert kind == ACCEPTED
    yield connection


def encoded_acceptance(body: bytes) -> pdu_primitives.A_ASSOCIATE:
  """What pynetdicom makes of an A-ASSOCIATE-AC."""
  found = pdu_lib.A_ASSOCIATE_AC()
  found.decode(pdu(ACCEPTED, body))
  return found.to_primitive()
