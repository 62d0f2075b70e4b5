"""DIMSE as a whole, and a PACS that offers less or answers what was not asked for."""

import dimse_faults
import free_ports
import pytest

from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import fetching
from covid_tf.clinic import pacs
from covid_tf.clinic import sending
from covid_tf.clinic import verifying


@pytest.fixture(name='instances', scope='module')
def _instances(tmp_path_factory):
  return dimse_faults.read_study(tmp_path_factory.mktemp('study'))


def test_echo_store_find_get(instances, tmp_path):
  with dimse_faults.FakePacs().running() as fake:
    archive = fake.archive()
    assert archive.echo() > 0
    answers = []
    sent = sending.send(instances, archive, answers.append)
    assert sent.is_complete and tuple(answers) == sent.answers
    assert len(fake.kept) == len(instances) == 8
    fetched = fetching.fetch(archive, dimse_faults.STUDY_UID, tmp_path / 'out')
    assert fetched.instance_count == 8
    assert verifying.verify(archive, instances).is_kept


def test_what_a_pacs_does_not_offer_is_said(instances, tmp_path):
  fake = dimse_faults.FakePacs()
  fake.services = {'store'}
  own = addresses.OwnNode('ME', free_ports.free_port())
  with fake.running():
    archive = fake.archive()
    for ask in (archive.echo, lambda: archive.find('1.2.3')):
      with pytest.raises(errors.PACSError, match='does not offer'):
        ask()
    assert archive.commit(instances) is None
    assert fake.archive(own=own).commit(instances) is None
  fake.services = {'echo'}
  fake.port = free_ports.free_port()
  with fake.running():
    sent = sending.send(instances, fake.archive())
  assert {answer.outcome for answer in sent.answers} == {pacs.Outcome.FAILED}


def test_c_move_where_that_is_all_there_is(instances, tmp_path):
  fake = dimse_faults.FakePacs()
  fake.services = {'store', 'find', 'move'}
  own = addresses.OwnNode('ME', free_ports.free_port())
  fake.destinations = {'ME': own.port}
  with fake.running():
    sending.send(instances, fake.archive())
    with pytest.raises(errors.UsageError, match='--own-port'):
      fetching.fetch(fake.archive(), dimse_faults.STUDY_UID, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    fetched = fetching.fetch(
      fake.archive(own=own), dimse_faults.STUDY_UID, tmp_path / 'out'
    )
    assert fetched.instance_count == 8
    fake.destinations = {}
    with pytest.raises(errors.PACSError, match='AE title as a destination'):
      fetching.fetch(fake.archive(own=own), dimse_faults.STUDY_UID, tmp_path / 'b')


@pytest.mark.parametrize(
  'keyword, value, words',
  [
    ('StudyInstanceUID', '1.2.3', 'another study'),
    ('SeriesInstanceUID', '1.2.3', 'not asked for'),
    ('SOPInstanceUID', '1.2.3', 'not asked for'),
    ('SOPInstanceUID', '../../etc/x', 'illegal UID'),
  ],
)
def test_what_was_not_asked_for_is_refused(instances, tmp_path, keyword, value, words):
  fake = dimse_faults.FakePacs()
  fake.change = lambda dataset: setattr(dataset, keyword, value)
  with fake.running():
    sending.send(instances, fake.archive())
    with pytest.raises(errors.PACSError, match=words):
      fetching.fetch(fake.archive(), dimse_faults.STUDY_UID, tmp_path / 'out')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  'keyword, value', [('SOPInstanceUID', '../x'), ('StudyInstanceUID', '1.2.3')]
)
def test_a_list_with_wrong_uids_is_refused(instances, keyword, value):
  fake = dimse_faults.FakePacs()
  fake.find_change = lambda answer: setattr(answer, keyword, value)
  with fake.running():
    sending.send(instances, fake.archive())
    with pytest.raises(errors.PACSError, match='C-FIND answered'):
      fake.archive().find(dimse_faults.STUDY_UID)
