"""A node that is killed or asked to end, at whichever stage: nothing lost, or twice."""

import threading
import time

import batch_archive
import dimse_faults
import pytest
import running_node

from covid_tf.clinic import requesting


def _uid(number: int) -> str:
  return batch_archive.study_uid(number)


@pytest.fixture(name='destination')
def _destination():
  destination = dimse_faults.FakePacs()
  with destination.running():
    yield destination


def _sent(destination, uid: str) -> int:
  return sum(each.StudyInstanceUID == uid for each in destination.kept.values())


def _wait_until_sent(node, destination, uid: str) -> None:
  """Until its objects are there, and the node has noted that they are."""
  node.wait_for(lambda: _sent(destination, uid) == 3 or None)
  node.wait_for(lambda: node.told('unsent', uid) is None or None)


def test_killed_at_every_stage(destination, tmp_path):
  flags = ('--to', destination.address)
  (tmp_path / 'away').touch()  # Nothing is scored before the first kill.
  with running_node.Node(tmp_path, *flags) as node:
    # After the last instance was acknowledged, before its association has ended.
    slices = running_node.study(tmp_path / '1', 1)
    whole = running_node.study(tmp_path / '2', 2)
    running_node.send(node.port, whole)
    killer = threading.Event()
    sender = threading.Thread(target=_send_and_hold, args=(node.port, slices, killer))
    sender.start()
    node.wait_for(lambda: _count(node, _uid(1)) == len(slices) or None)
    node.kill()
    killer.set()
    sender.join()
    (tmp_path / 'away').unlink()
    node.start()
    # Whoever was cut off before its release cannot know; it sends again.
    node.wait_for(lambda: node.told('incomplete', _uid(1)))
    node.scored(_uid(2), len(whole))
    running_node.send(node.port, slices)
    node.scored(_uid(1), len(slices))
    _wait_until_sent(node, destination, _uid(1))
    assert len(node.asked) == 2

    # While it is scored.
    (tmp_path / 'slow').touch()
    running_node.send(node.port, running_node.study(tmp_path / '3', 3))
    node.wait_for(lambda: len(node.asked) == 3 or None)
    node.kill()
    assert node.record(_uid(3)) is None
    (tmp_path / 'slow').unlink()
    node.start()
    node.scored(_uid(3), 14)
    node.wait_for(lambda: _sent(destination, _uid(3)) == 3 or None)
    assert len(node.asked) == 4
    assert destination.stored == len(destination.kept) == 9


def _send_and_hold(port, slices, until) -> None:
  """Sends, and does not release before an event."""
  entity = requesting.AE('HOLDER')
  entity.add_requested_context(slices[0].SOPClassUID)
  association = entity.associate('127.0.0.1', port, ae_title='COVIDTF')
  for dataset in slices:
    association.send_c_store(dataset)
  until.wait(300)
  association.abort()


def _count(node, uid: str) -> int:
  return len(list((node.output / 'spool' / 'studies' / uid).glob('*/*.dcm')))


def test_killed_between_the_score_and_its_sending(tmp_path):
  destination = dimse_faults.FakePacs()  # Away for now.
  with running_node.Node(tmp_path, '--to', destination.address) as node:
    running_node.send(node.port, running_node.study(tmp_path / 'in', 1))
    node.scored(_uid(1))
    node.wait_for(lambda: node.told('unsent', _uid(1)))
    node.kill()
    with destination.running():
      node.start()
      _wait_until_sent(node, destination, _uid(1))
      node.kill()
      node.start()
      time.sleep(2)
      assert destination.stored == 3 and len(node.asked) == 1


def test_asked_to_end_it_lets_senders_and_studies_end(destination, tmp_path):
  (tmp_path / 'slow').touch()
  with running_node.Node(tmp_path, '--to', destination.address) as node:
    running_node.send(node.port, running_node.study(tmp_path / '1', 1))
    node.wait_for(lambda: node.asked or None)
    slices = running_node.study(tmp_path / '2', 2)
    until = threading.Event()
    sender = threading.Thread(target=_send_and_hold, args=(node.port, slices, until))
    sender.start()
    node.wait_for(lambda: _count(node, _uid(2)) or None)
    ended = []
    stopper = threading.Thread(target=lambda: ended.append(node.stop()))
    stopper.start()
    node.wait_for(lambda: node.ask('/readyz')['ready'] is False or None)
    assert running_node.send(node.port, slices) == []  # Refused, for now.
    # Its threads end one by one: no reason to kill it.
    assert node.ask('/healthz') == {'alive': True}
    (tmp_path / 'slow').unlink()
    until.set()
    sender.join()
    stopper.join()
    assert ended == [0]
    assert _count(node, _uid(2)) == len(slices)
    assert node.scored(_uid(1)).slice_count == 14
    assert _sent(destination, _uid(1)) == 3
    assert 'Traceback' not in node.log


def test_what_its_source_lists_is_waited_for(tmp_path):
  source = dimse_faults.FakePacs()
  with source.running():
    slices = running_node.study(tmp_path / 'in', 1)
    for dataset in slices:
      source.kept[dataset.SOPInstanceUID] = dataset
    flags = ('--source-pacs', source.address, '--incomplete-after', '1')
    with running_node.Node(tmp_path, *flags) as node:
      running_node.send(node.port, slices[:9])
      reason = node.wait_for(lambda: node.told('incomplete', _uid(1)))
      reason = node.wait_for(
        lambda: (
          found
          if 'lists' in (found := node.told('incomplete', _uid(1)) or '')
          else None
        )
      )
      assert '5 of 14 instances that the PACS that sends lists' in reason
      # An aborted association, whose series the PACS says is whole now.
      running_node.send(node.port, [*slices[9:], slices[0]], abort_after=5)
      node.scored(_uid(1), 14)
      assert len(node.asked) == 1
