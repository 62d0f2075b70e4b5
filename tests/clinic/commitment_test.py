"""Storage commitment: reported here or on an association of the PACS's own, or not."""

import queue
import time

import dimse_faults
import free_ports
from pynetdicom import association
from pynetdicom import dimse
from pynetdicom import dimse_primitives
import pytest

from covid_tf.clinic import addresses
from covid_tf.clinic import commitment
from covid_tf.clinic import sending
from covid_tf.clinic import verifying


@pytest.fixture(name='instances', scope='module')
def _instances(tmp_path_factory):
  return dimse_faults.read_study(tmp_path_factory.mktemp('study'))


def _fake(**attributes):
  fake = dimse_faults.FakePacs()
  fake.services |= {'commit'}
  for name, value in attributes.items():
    setattr(fake, name, value)
  return fake


@pytest.mark.parametrize('on_its_own', [False, True])
def test_what_it_keeps_and_what_it_does_not(instances, on_its_own):
  own = addresses.OwnNode('ME', free_ports.free_port() if on_its_own else None)
  fake = _fake(destinations={'ME': own.port} if on_its_own else {})
  with fake.running():
    archive = fake.archive(own=own)
    assert sending.send(instances, archive).is_complete
    kept = archive.commit(instances)
    assert kept.committed == {each.sop_instance_uid for each in instances}
    assert verifying.verify(archive, instances) == verifying.Verification(
      'storage commitment'
    )
    gone = instances[3].sop_instance_uid
    del fake.kept[gone]
    found = archive.commit(instances)
  assert found.refused == {gone: 'it knows no such instance'}
  assert found.committed == kept.committed - {gone}


@pytest.mark.parametrize(
  'attributes',
  [
    {'commit_status': 0x0110},
    {'services': {'store'}},
    {'_report': lambda asking, asked: None},
  ],
)
def test_none_where_it_is_not_offered_or_not_answered(
  instances, monkeypatch, attributes
):
  monkeypatch.setattr(commitment, '_REPORT_HERE_S', 0.3)
  fake = _fake(**attributes)
  with fake.running():
    assert fake.archive().commit(instances) is None


def test_a_report_of_another_transaction_is_not_ours(instances, monkeypatch):
  monkeypatch.setattr(commitment, '_REPORT_HERE_S', 0.3)
  fake = _fake()
  report = fake._report

  def changed(asking, asked):
    asked.TransactionUID = '1.2.3'
    report(asking, asked)

  monkeypatch.setattr(fake, '_report', changed)
  with fake.running():
    assert fake.archive().commit(instances) is None


def test_our_answer_goes_before_we_leave(instances, monkeypatch):
  """The answer is held up; the PACS gets it all the same."""
  send, report = dimse.DIMSEServiceProvider.send_msg, association.Association

  def late(provider, message, context_id):
    is_answer = message.MessageIDBeingRespondedTo is not None
    if is_answer and isinstance(message, dimse_primitives.N_EVENT_REPORT):
      time.sleep(0.3)
    send(provider, message, context_id)

  answers = queue.SimpleQueue()
  ask = report.send_n_event_report
  monkeypatch.setattr(dimse.DIMSEServiceProvider, 'send_msg', late)
  monkeypatch.setattr(
    report, 'send_n_event_report', lambda *content: answers.put(ask(*content))
  )
  with _fake().running() as fake:
    assert sending.send(instances, fake.archive()).is_complete
    assert fake.archive().commit(instances).committed
    assert answers.get(timeout=120)[0].Status == 0x0000
