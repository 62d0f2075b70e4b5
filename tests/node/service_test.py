"""A whole node as a process: what is sent is scored once, and nothing else is."""

import csv
import time

import batch_archive
import dimse_faults
import pydicom
import pytest
import running_node

from covid_tf.batch import records
from covid_tf.storage import result_json
from covid_tf.storage.dicom import objects

_OBJECTS = 3


@pytest.fixture(name='place', scope='module')
def _place(tmp_path_factory):
  """A node, and the PACS that its objects go to."""
  destination = dimse_faults.FakePacs()
  with destination.running():
    folder = tmp_path_factory.mktemp('node')
    with running_node.Node(folder, '--to', destination.address) as node:
      yield node, destination


@pytest.fixture(name='node')
def _node(place):
  return place[0]


@pytest.fixture(name='destination')
def _destination(place):
  return place[1]


def _uid(number: int) -> str:
  return batch_archive.study_uid(number)


def _objects(destination, uid: str) -> list[pydicom.Dataset]:
  return [each for each in destination.kept.values() if each.StudyInstanceUID == uid]


def _rows(node) -> list[str]:
  with open(node.output / records.MANIFEST_FILE, newline='', encoding='utf-8') as file:
    return [row['key'] for row in csv.DictReader(file)]


def _rest(node, count: int) -> None:
  """Looks for some time that the models are not asked again."""
  time.sleep(1.5)
  assert len(node.asked) == count


def test_a_study_is_scored_and_its_objects_are_sent_on(node, destination, tmp_path):
  slices = running_node.study(tmp_path, 1)
  assert set(running_node.send(node.port, slices)) == {0x0000}
  record = node.scored(_uid(1), len(slices))
  node.wait_for(lambda: len(_objects(destination, _uid(1))) == _OBJECTS or None)
  found = _objects(destination, _uid(1))
  assert sorted(each.Modality for each in found) == ['OT', 'SEG', 'SR']
  assert _rows(node).count(_uid(1)) == 1
  result = result_json.read_result(node.output / 'studies' / _uid(1))
  assert result.corona_score_cm3 == record.corona_score_cm3 > 0
  assert len(list((node.output / 'studies' / _uid(1) / objects.FOLDER).iterdir())) == 3

  # Sent again: no other score, and nothing sent on.
  asked, stored = len(node.asked), destination.stored
  assert set(running_node.send(node.port, slices)) == {0x0000}
  # Our own objects come back: no other images.
  assert set(running_node.send(node.port, found)) == {0x0000}
  _rest(node, asked)
  assert destination.stored == stored
  assert node.record(_uid(1)) == record
  assert not any(node.ask('/studies').values())


def test_an_aborted_study_is_not_scored_until_it_is_completed(node, tmp_path):
  slices = running_node.study(tmp_path, 2)
  asked = len(node.asked)
  running_node.send(node.port, slices, abort_after=8)
  reason = node.wait_for(lambda: node.told('incomplete', _uid(2)))
  assert 'SENDER' in reason and slices[0].SeriesInstanceUID in reason
  assert f'study {_uid(2)} is incomplete: {reason}' in node.log
  _rest(node, asked)
  running_node.send(node.port, slices)
  node.scored(_uid(2), len(slices))
  _rest(node, asked + 1)
  assert node.told('incomplete', _uid(2)) is None


def test_a_late_image_scores_anew(node, destination, tmp_path):
  slices = running_node.study(tmp_path, 3)
  running_node.send(node.port, slices[:-1])
  first = node.scored(_uid(3), len(slices) - 1)
  running_node.send(node.port, slices[-1:])
  second = node.scored(_uid(3), len(slices))
  assert second.fingerprint != first.fingerprint
  assert _rows(node).count(_uid(3)) == 1
  node.wait_for(lambda: len(_objects(destination, _uid(3))) == 2 * _OBJECTS or None)


def test_a_study_of_two_patients_is_refused_in_words(node, tmp_path):
  slices = running_node.study(tmp_path, 4)
  for dataset in slices[7:]:
    dataset.PatientID, dataset.PatientName = 'ID-0002', 'Other^Name'
  assert set(running_node.send(node.port, slices)) == {0x0000}
  record = node.wait_for(lambda: node.record(_uid(4)))
  assert record.status == records.REFUSED and 'patient' in record.reason
  assert 'ID-0002' not in record.reason and 'Other' not in record.reason
  asked = len(node.asked)
  running_node.send(node.port, slices)  # It stands.
  _rest(node, asked)


def test_two_studies_of_one_association_and_a_slow_sender(node, tmp_path):
  both = running_node.study(tmp_path / '5', 5) + running_node.study(tmp_path / '6', 6)
  asked = len(node.asked)
  running_node.send(node.port, both[::2] + both[1::2])
  node.scored(_uid(5), 14)
  node.scored(_uid(6), 14)
  for dataset in running_node.study(tmp_path / '7', 7):
    running_node.send(node.port, [dataset])  # An association for each.
  node.scored(_uid(7), 14)
  _rest(node, asked + 3)


def test_a_person_says_that_a_study_is_whole(node, tmp_path):
  slices = running_node.study(tmp_path, 8)
  running_node.send(node.port, slices, abort_after=12)
  node.wait_for(lambda: node.told('incomplete', _uid(8)))
  told = node.run('--accept', _uid(8))
  assert told.returncode == 0 and 'accepted' in told.stdout
  node.scored(_uid(8), 12)
  node.wait_for(lambda: not any((node.output / 'accepted').iterdir()) or None)
  assert node.run('--accept', '1.2.3').returncode == 2


def test_models_that_are_away_cost_nothing(node, tmp_path):
  (node.folder / 'away').touch()
  running_node.send(node.port, running_node.study(tmp_path, 9))
  reason = node.wait_for(lambda: node.told('failed', _uid(9)))
  assert reason == 'the model server is away'
  (node.folder / 'away').unlink()
  # It is tried again after a pause, or at once after the next start.
  assert node.stop() == 0
  node.start()
  node.scored(_uid(9), 14)


def test_logs_and_answers_name_nobody(node):
  told = node.log + str(node.ask('/studies'))
  assert 'Secret' not in told and 'ID-4711' not in told and '19330102' not in told
  assert 'Traceback' not in told and 'Warning' not in told
