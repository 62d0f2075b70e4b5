"""What two application entities say to each other, checked before it is believed.

Of PS3.8 (section 9.3, PDUs) and PS3.7 (annex E, command sets) what an acceptor of
C-ECHO and C-STORE needs. Lengths are walked over without recursion and without a copy
for each item, so that a request costs what its size allows.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import struct
from typing import Any

from pydicom import uid

from covid_tf import version
from covid_tf.readers import elements

HEADER_BYTES = 6
ASSOCIATE_RQ, P_DATA, RELEASE_RQ, ABORT = 0x01, 0x04, 0x05, 0x07
# 128 contexts of 45 transfer syntaxes with a UID of 64 bytes each have 390 kB.
MOST_REQUEST_BYTES = 1 << 19
MOST_COMMAND_BYTES = 1 << 16
APPLICATION_CONTEXT = '1.2.840.10008.3.1.1.1'
# Ours: 2.25 and 128 bits of the SHA-256 of 'covid-tf implementation' (PS3.5 B.2).
IMPLEMENTATION_CLASS_UID = '2.25.298644246294236238104816012761937379568'

_MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers from 1 to 255.
_FIXED_BYTES = 68
_ITEM_APPLICATION, _ITEM_CONTEXT, _ITEM_USER = 0x10, 0x20, 0x50
_ITEM_ABSTRACT, _ITEM_TRANSFER, _ITEM_MOST_BYTES = 0x30, 0x40, 0x51
_LONGEST_COMMENT = 64  # VR LO.

# Reasons of a provider's A-ABORT, PS3.8 table 9-26.
UNSPECIFIED, UNRECOGNIZED_PDU, UNEXPECTED_PDU = 0, 1, 2
UNEXPECTED_PARAMETER, INVALID_VALUE = 5, 6


class ProtocolError(Exception):
  """The other side does not keep to the protocol; ends the association.

  Attributes:
    reason: of the A-ABORT.
  """

  def __init__(self, text: str, reason: int = INVALID_VALUE):
    super().__init__(text)
    self.reason = reason


@dataclasses.dataclass(frozen=True)
class Rejection:
  """Why an association is not accepted.

  Attributes:
    result: 1 for good, 2 for now.
    source: 1 user, 2 provider (ACSE), 3 provider (presentation).
    reason: PS3.8 table 9-21.
    text: the same in words.
  """

  result: int
  source: int
  reason: int
  text: str

  def encode(self) -> bytes:
    """The A-ASSOCIATE-RJ."""
    return struct.pack('>BxLxBBB', 0x03, 4, self.result, self.source, self.reason)


@dataclasses.dataclass(frozen=True)
class Proposed:
  """A presentation context that is proposed; UIDs as they came."""

  number: int
  abstract_syntax: str
  transfer_syntaxes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Request:
  """An A-ASSOCIATE-RQ.

  Attributes:
    speaks_version_1: whether it can speak the protocol that there is.
    application_context: UID.
    called, calling: AE titles without padding; '?' for what is not ASCII.
    contexts: odd numbers, each once.
  """

  speaks_version_1: bool
  application_context: str
  called: str
  calling: str
  contexts: tuple[Proposed, ...]


def decode_request(body: bytes) -> Request:
  """What an A-ASSOCIATE-RQ asks for.

  Args:
    body: the PDU after its header of six bytes.

  Raises:
    ProtocolError: it contradicts itself or the standard.
  """
  if len(body) < _FIXED_BYTES:
    raise ProtocolError(f'its request for an association has {len(body)} bytes')
  application, contexts = '', []
  for kind, value in _items(body, _FIXED_BYTES):
    if kind == _ITEM_APPLICATION:
      application = _uid(value)
    elif kind == _ITEM_CONTEXT:
      contexts.append(_decode_context(value))
  if not contexts:
    raise ProtocolError('it proposes no presentation context')
  if len(contexts) > _MOST_CONTEXTS:
    raise ProtocolError(f'it proposes {len(contexts)} presentation contexts, over 128')
  numbers = [context.number for context in contexts]
  if any(number % 2 == 0 for number in numbers):
    raise ProtocolError('it proposes a presentation context with an even ID')
  if len(set(numbers)) < len(numbers):
    raise ProtocolError('it proposes two presentation contexts with one ID')
  return Request(
    bool(struct.unpack_from('>H', body)[0] & 1),
    application,
    _ae_title(body[4:20]),
    _ae_title(body[20:36]),
    tuple(contexts),
  )


def _decode_context(value: memoryview) -> Proposed:
  if len(value) < 4:
    raise ProtocolError('it proposes a presentation context without an ID')
  abstract = [_uid(inner) for kind, inner in _items(value, 4) if kind == _ITEM_ABSTRACT]
  transfer = [_uid(inner) for kind, inner in _items(value, 4) if kind == _ITEM_TRANSFER]
  if len(abstract) != 1 or not transfer:
    raise ProtocolError(
      'it proposes a presentation context without one abstract syntax and a transfer '
      'syntax'
    )
  return Proposed(value[0], abstract[0], tuple(transfer))


def _items(data: bytes | memoryview, place: int) -> Iterator[tuple[int, memoryview]]:
  """Type and value of each item."""
  view = memoryview(data)
  while place < len(view):
    if place + 4 > len(view):
      raise ProtocolError('an item of its request breaks off')
    kind, length = struct.unpack_from('>BxH', view, place)
    place += 4
    if place + length > len(view):
      raise ProtocolError('the length of an item of its request is a lie')
    yield kind, view[place : place + length]
    place += length


def _uid(value: memoryview) -> str:
  return bytes(value[:65]).decode('ascii', 'replace').strip(' \0')


def _ae_title(value: bytes) -> str:
  return elements.printable(value.decode('ascii', 'replace').strip(' \0'))


def encode_acceptance(
  request: Request,
  accepted: Mapping[int, str],
  known_abstract: frozenset[str],
  most_pdu_bytes: int,
  net: Any,
) -> bytes:
  """The A-ASSOCIATE-AC.

  Args:
    request: what was asked for.
    accepted: context ID to transfer syntax.
    known_abstract: abstract syntaxes that we have.
    most_pdu_bytes: the longest P-DATA-TF that we take.
    net: pynetdicom.
  """
  primitives = net.pdu_primitives
  answer = primitives.A_ASSOCIATE()
  answer.application_context_name = APPLICATION_CONTEXT
  answer.calling_ae_title, answer.called_ae_title = request.calling, request.called
  answer.result, answer.result_source = 0x00, 0x01
  contexts = []
  for proposed in request.contexts:
    context = net.presentation.PresentationContext()
    context.context_id = proposed.number
    # Not significant where a context is not accepted.
    context.transfer_syntax = [
      accepted.get(proposed.number, uid.ImplicitVRLittleEndian)
    ]
    is_known = proposed.abstract_syntax in known_abstract
    context.result = 0 if proposed.number in accepted else 4 if is_known else 3
    contexts.append(context)
  answer.presentation_context_definition_results_list = contexts
  length = primitives.MaximumLengthNotification()
  length.maximum_length_received = most_pdu_bytes
  implementation = primitives.ImplementationClassUIDNotification()
  implementation.implementation_class_uid = uid.UID(IMPLEMENTATION_CLASS_UID)
  name = primitives.ImplementationVersionNameNotification()
  name.implementation_version_name = version.SOFTWARE[:16]
  answer.user_information = [length, implementation, name]
  pdu = net.pdu.A_ASSOCIATE_AC()
  pdu.from_primitive(answer)
  return bytes(pdu.encode())


RELEASE_RP = struct.pack('>BxL4x', 0x06, 4)


def encode_abort(reason: int, *, by_user: bool = False) -> bytes:
  """An A-ABORT, by the provider or, for what is no fault of the protocol, the user."""
  return struct.pack(
    '>BxLxxBB', ABORT, 4, 0 if by_user else 2, 0 if by_user else reason
  )


# Command sets: implicit little endian, group 0, no sequences (PS3.7 6.3.1).

AFFECTED_CLASS, COMMAND_FIELD, MESSAGE_ID = 0x00000002, 0x00000100, 0x00000110
_RESPONDED_TO, DATA_SET_TYPE, _STATUS = 0x00000120, 0x00000800, 0x00000900
_ERROR_COMMENT, AFFECTED_INSTANCE = 0x00000902, 0x00001000
C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
_RESPONSE = 0x8000
NO_DATA_SET = 0x0101


class Command:
  """A command set."""

  def __init__(self, data: bytes | bytearray):
    """Decodes it.

    Raises:
      ProtocolError: it is damaged.
    """
    self._values: dict[int, bytes] = {}
    place = 0
    while place < len(data):
      if place + 8 > len(data):
        raise ProtocolError('its command breaks off')
      group, element, length = struct.unpack_from('<HHL', data, place)
      place += 8
      if place + length > len(data):
        raise ProtocolError('the length of an element of its command is a lie')
      self._values[group << 16 | element] = bytes(data[place : place + length])
      place += length

  def number(self, tag: int) -> int:
    """A value of VR US.

    Raises:
      ProtocolError: it is missing.
    """
    value = self._values.get(tag, b'')
    if len(value) != 2:
      raise ProtocolError(f'its command has no ({tag >> 16:04x},{tag & 0xFFFF:04x})')
    return int.from_bytes(value, 'little')

  def uid(self, tag: int) -> str:
    """A UID without padding; '' where it is missing or not legal."""
    found = self._values.get(tag, b'')[:66].decode('latin-1').strip(' \0')
    return found if elements.legal_uid(found) else ''


def encode_response(
  request: Command, context: int, status: int, comment: str = ''
) -> bytes:
  """The P-DATA-TF with the answer to C-ECHO or C-STORE.

  Args:
    request: what is answered.
    context: presentation context ID.
    status: PS3.7 annex C, PS3.4 B.2.3.
    comment: in words; at most 64 characters are sent.
  """
  values: list[tuple[int, bytes]] = [
    (COMMAND_FIELD, _us(request.number(COMMAND_FIELD) | _RESPONSE)),
    (_RESPONDED_TO, _us(request.number(MESSAGE_ID))),
    (DATA_SET_TYPE, _us(NO_DATA_SET)),
    (_STATUS, _us(status)),
  ]
  for tag in (AFFECTED_CLASS, AFFECTED_INSTANCE):
    if found := request.uid(tag):
      values.append((tag, _even(found.encode('ascii'), b'\0')))
  if comment:
    text = comment[:_LONGEST_COMMENT].encode('ascii', 'replace')
    values.append((_ERROR_COMMENT, _even(text, b' ')))
  return _in_pdu(_encode_command(sorted(values)), context)


def _encode_command(values: Sequence[tuple[int, bytes]]) -> bytes:
  rest = b''.join(
    struct.pack('<HHL', tag >> 16, tag & 0xFFFF, len(value)) + value
    for tag, value in values
  )
  return struct.pack('<HHLL', 0, 0, 4, len(rest)) + rest


def _in_pdu(command: bytes, context: int) -> bytes:
  """A whole command as one presentation data value in one P-DATA-TF."""
  value = struct.pack('>LBB', len(command) + 2, context, 0x03) + command
  return struct.pack('>BxL', P_DATA, len(value)) + value


def _us(number: int) -> bytes:
  return struct.pack('<H', number)


def _even(value: bytes, padding: bytes) -> bytes:
  return value + padding * (len(value) % 2)
