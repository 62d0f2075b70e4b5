"""What is encoded here is what pynetdicom reads, and the other way round."""

import io
import struct

import hypothesis
from hypothesis import strategies
import listening
from pydicom import uid
import pynetdicom
from pynetdicom import dimse_messages
from pynetdicom import dsutils
from pynetdicom import pdu as pdu_lib
from pynetdicom import pdu_primitives
import pytest

from covid_tf.node import pdus


def _request(contexts, calling='SCANNER', called='NODE') -> bytes:
  primitive = pdu_primitives.A_ASSOCIATE()
  primitive.application_context_name = pdus.APPLICATION_CONTEXT
  primitive.calling_ae_title, primitive.called_ae_title = calling, called
  for number, context in enumerate(contexts):
    context.context_id = 2 * number + 1
  primitive.presentation_context_definition_list = contexts
  length = pdu_primitives.MaximumLengthNotification()
  length.maximum_length_received = 16382
  implementation = pdu_primitives.ImplementationClassUIDNotification()
  implementation.implementation_class_uid = uid.UID('1.2.3')
  role = pdu_primitives.SCP_SCU_RoleSelectionNegotiation()
  role.sop_class_uid, role.scu_role, role.scp_role = uid.CTImageStorage, True, False
  primitive.user_information = [length, implementation, role]
  found = pdu_lib.A_ASSOCIATE_RQ()
  found.from_primitive(primitive)
  return found.encode()[pdus.HEADER_BYTES :]


def test_a_request_of_pynetdicom():
  found = pdus.decode_request(
    _request(pynetdicom.StoragePresentationContexts, 'A B', 'OURS')
  )
  assert (found.calling, found.called) == ('A B', 'OURS')
  assert found.speaks_version_1
  assert found.application_context == pdus.APPLICATION_CONTEXT
  assert [context.number for context in found.contexts] == list(
    range(1, 2 * len(pynetdicom.StoragePresentationContexts), 2)
  )
  for context, asked in zip(found.contexts, pynetdicom.StoragePresentationContexts):
    assert context.abstract_syntax == asked.abstract_syntax
    assert list(context.transfer_syntaxes) == asked.transfer_syntax


def test_an_acceptance_as_pynetdicom_reads_it():
  request = pdus.decode_request(
    _request([pynetdicom.build_context(found) for found in ('1.2', '1.3', '1.4')])
  )
  encoded = pdus.encode_acceptance(
    request, {1: uid.RLELossless}, frozenset(('1.2', '1.3')), 4096, pynetdicom
  )
  found = listening.encoded_acceptance(encoded[pdus.HEADER_BYTES :])
  assert (found.calling_ae_title, found.called_ae_title) == ('SCANNER', 'NODE')
  results = found.presentation_context_definition_results_list
  assert [each.result for each in results] == [0, 4, 3]
  assert results[0].transfer_syntax == [uid.RLELossless]
  told = {type(each).__name__: each for each in found.user_information}
  assert told['MaximumLengthNotification'].maximum_length_received == 4096
  name = told['ImplementationVersionNameNotification'].implementation_version_name
  assert name.startswith('covid-tf')


def test_the_last_words():
  found = pdu_lib.A_ASSOCIATE_RJ()
  found.decode(pdus.Rejection(2, 3, 1, 'busy').encode())
  assert (found.result, found.source, found.reason_diagnostic) == (2, 3, 1)
  abort = pdu_lib.A_ABORT_RQ()
  abort.decode(pdus.encode_abort(pdus.INVALID_VALUE))
  assert (abort.source, abort.reason_diagnostic) == (2, 6)
  abort.decode(pdus.encode_abort(pdus.INVALID_VALUE, by_user=True))
  assert (abort.source, abort.reason_diagnostic) == (0, 0)
  assert pdus.RELEASE_RP == pdu_lib.A_RELEASE_RP().encode()


@pytest.mark.parametrize('comment', ('', 'odd', 'even', 'x' * 100))
def test_an_answer_as_pynetdicom_reads_it(comment):
  request = pdus.Command(listening.store_command('1.2.34'))
  found = pdu_lib.P_DATA_TF()
  found.decode(pdus.encode_response(request, 5, 0xA900, comment))
  message = dimse_messages.DIMSEMessage()
  assert message.decode_msg(found.to_primitive())
  answer = message.message_to_primitive()
  assert isinstance(answer, pynetdicom.dimse_primitives.C_STORE)
  assert (message.context_id, answer.Status) == (5, 0xA900)
  assert answer.MessageIDBeingRespondedTo == 7
  assert answer.AffectedSOPInstanceUID == '1.2.34'
  assert answer.AffectedSOPClassUID == uid.CTImageStorage
  assert (message.command_set.get('ErrorComment') or '') == comment[:64]
  group_length = message.command_set.CommandGroupLength
  encoded = dsutils.encode(message.command_set, True, True)
  assert group_length == len(encoded) - 12


def test_a_command():
  command = pdus.Command(listening.store_command('1.2.345'))
  assert command.number(pdus.MESSAGE_ID) == 7
  assert command.uid(pdus.AFFECTED_INSTANCE) == '1.2.345'
  assert command.uid(0x00001001) == ''
  with pytest.raises(pdus.ProtocolError, match=r'has no \(0000,0120\)'):
    command.number(0x00000120)
  with pytest.raises(pdus.ProtocolError, match=r'has no \(0000,1000\)'):
    command.number(pdus.AFFECTED_INSTANCE)


@hypothesis.given(strategies.binary(max_size=400))
def test_whatever_bytes_come(data):
  for decode in (pdus.decode_request, pdus.Command):
    try:
      decode(data)
    except pdus.ProtocolError:
      pass


@hypothesis.given(
  places=strategies.lists(strategies.integers(0, 300), min_size=1, max_size=6),
  byte=strategies.integers(0, 255),
)
def test_requests_that_are_damaged(places, byte):
  data = bytearray(listening.request_body(*map(listening.context_item, (1, 3, 5))))
  for place in places:
    data[place % len(data)] = byte
  try:
    found = pdus.decode_request(bytes(data))
  except pdus.ProtocolError as error:
    assert str(error).isprintable()
  else:
    assert found.calling.isprintable() and found.called.isprintable()
    assert all(context.number % 2 for context in found.contexts)


def test_a_request_costs_what_its_size_allows():
  """Items of no length, as many as a request can have: no copy for each."""
  items = listening.item(0x99, b'') * (pdus.MOST_REQUEST_BYTES // 4 - 100)
  body = listening.request_body(listening.context_item(1), items)
  assert len(pdus.decode_request(body).contexts) == 1
  inner = struct.pack('>Bxxx', 1) + listening.item(0x40, b'') * 16000
  with pytest.raises(pdus.ProtocolError, match='without one abstract syntax'):
    pdus.decode_request(listening.request_body(listening.item(0x20, inner)))


def test_a_request_of_the_largest_use_fits():
  syntaxes = [f'1.2.3.{"4" * 53}.{number}' for number in range(45)]
  contexts = [
    pynetdicom.build_context(f'1.2.5.{"4" * 53}.{number}', syntaxes)
    for number in range(128)
  ]
  body = io.BytesIO(_request(contexts)).getvalue()
  assert len(body) <= pdus.MOST_REQUEST_BYTES
  assert len(pdus.decode_request(body).contexts) == 128
