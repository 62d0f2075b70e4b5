"""Each object goes out once, whatever the destination does and whenever we die."""

import collections
import json
import os
import shutil
import subprocess
import sys
from unittest import mock

import dimse_faults
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import node_results
import pytest
import web_faults

from covid_tf import clinic
from covid_tf.batch import records
from covid_tf.clinic import addresses
from covid_tf.clinic import pacs
from covid_tf.node import forwarding
from covid_tf.node import metrics as metrics_lib
from covid_tf.node import sent as sent_lib

pytest.importorskip('pynetdicom', reason='no extra clinic')
pytest.importorskip('prometheus_client', reason='no extra clinic')

_A, _B = '1.2.3.1', '1.2.3.2'
# Sends all that is to be sent, and dies instead of its N-th record of it.
_CHILD = """
import os, sys
from covid_tf import clinic
from covid_tf.clinic import pacs
from covid_tf.node import forwarding, metrics, sent

output, address, die_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
write, written = sent.write, []

def dying(*arguments):
  written.append(None)
  if len(written) == die_at:
    os._exit(9)
  write(*arguments)

sent.write = dying
forwarder = forwarding.Forwarder(
  output, lambda: clinic.connect(address, limits=pacs.Limits(attempts=1)),
  metrics.Metrics(),
)
forwarder.recover()
while forwarder.step() is not None:
  pass
"""


class _Clock:
  """Seconds that pass when a test says so."""

  now = 1000.0

  def __call__(self) -> float:
    return self.now


def _forwarder(tmp_path, destination, **options):
  return forwarding.Forwarder(
    tmp_path, lambda: destination, metrics_lib.Metrics(), **options
  )


def _sent_all(forwarder) -> None:
  """Steps until nothing is left; a failure would be waited for."""
  forwarder.recover()
  while (left_s := forwarder.step()) is not None:
    assert left_s == 0, forwarder.waiting()


def _states(tmp_path, key) -> collections.Counter:
  content = json.loads((tmp_path / 'sent' / f'{key}.json').read_text())
  return collections.Counter(each['state'] for each in content['objects'])


def test_what_is_scored_is_sent_once_and_the_rest_not_at_all(tmp_path):
  uids = node_results.write_result(tmp_path, _A)
  node_results.write_result(tmp_path, _B, status=records.REFUSED)
  destination = node_results.Destination()
  for _ in range(3):  # Three starts.
    _sent_all(_forwarder(tmp_path, destination))
  assert destination.arrived == sorted(uids) and destination.asked == 0
  assert _states(tmp_path, _A) == {'stored': 3}
  assert os.listdir(tmp_path / 'sent') == [f'{_A}.json']


def test_within_its_block_a_thread_sends_what_it_is_handed(tmp_path):
  destination = node_results.Destination()
  with _forwarder(tmp_path, destination) as forwarder:
    assert forwarder.is_alive and forwarder.drain(60)
    uids = node_results.write_result(tmp_path, _A)
    forwarder.hand(_A)
    assert forwarder.drain(60)
    assert destination.arrived == sorted(uids)
  assert not forwarder.is_alive


@pytest.mark.parametrize('die_at', [1, 2, 4, 5])
def test_killed_between_answer_and_record_nothing_goes_twice(tmp_path, die_at):
  uids = node_results.write_result(tmp_path, _A)
  fake = dimse_faults.FakePacs()
  with fake.running():
    assert _child(tmp_path, fake.address, die_at) == 9
    assert fake.stored == min(die_at - 1, 3)
    assert _child(tmp_path, fake.address, 0) == 0
  assert sorted(fake.kept) == sorted(uids) and fake.stored == 3
  assert set(_states(tmp_path, _A)) == {'stored'}


def test_killed_after_a_request_of_the_web(tmp_path):
  uids = node_results.write_result(tmp_path, _A)
  with web_faults.FakeWeb().running() as fake:
    assert _child(tmp_path, fake.url, 2) == 9
    assert _child(tmp_path, fake.url, 0) == 0
    posts = [each for each in fake.requests if each[0] == 'POST']
  assert len(posts) == 1 and sorted(fake.kept) == sorted(uids)
  assert _states(tmp_path, _A) == {'stored': 3}


def _child(output, address, die_at) -> int:
  done = subprocess.run(
    [sys.executable, '-c', _CHILD, str(output), address, str(die_at)],
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
    timeout=600,
    capture_output=True,
    text=True,
  )
  assert 'Traceback' not in done.stderr, done.stderr
  return done.returncode


def test_a_destination_that_is_away_for_an_hour(tmp_path):
  uids = [*node_results.write_result(tmp_path, _A)]
  uids += node_results.write_result(tmp_path, _B)
  destination, clock = node_results.Destination(), _Clock()
  destination.failure = node_results.away()
  forwarder = _forwarder(tmp_path, destination, clock=clock)
  forwarder.recover()
  end = clock.now + 3600
  while clock.now < end:
    left_s = forwarder.step()
    assert left_s and left_s <= 300
    clock.now += left_s
  # Neither hammered nor forgotten: the pause is the destination's, not each result's.
  assert 12 <= destination.attempts <= 25
  assert any('cannot be reached' in reason for reason in forwarder.waiting().values())
  destination.failure = None
  while (left_s := forwarder.step()) is not None:
    clock.now += left_s
    assert clock.now < end + 600  # At most one longest pause each.
  assert sorted(destination.arrived) == sorted(uids) and not forwarder.waiting()


def test_a_study_that_always_fails_does_not_hold_up_the_others(tmp_path):
  node_results.write_result(tmp_path, _A)
  uids = node_results.write_result(tmp_path, _B)
  destination, clock = node_results.Destination(), _Clock()

  def answer(instance):
    if instance.study_uid == _A:
      raise node_results.away()
    return pacs.Outcome.STORED, 0, ''

  destination.answer = answer
  forwarder = _forwarder(tmp_path, destination, clock=clock)
  forwarder.recover()
  for _ in range(4):
    clock.now += forwarder.step() or 0
  assert destination.arrived == sorted(uids) and list(forwarder.waiting()) == [_A]


def test_lost_in_the_middle_the_rest_is_sent_and_nothing_twice(tmp_path):
  uids = node_results.write_result(tmp_path, _A)
  destination, clock = node_results.Destination(), _Clock()

  def lose(instance):
    if len(destination.arrived) == 2:
      destination.before_answer = lambda each: None
      raise node_results.away()

  destination.before_answer = lose
  forwarder = _forwarder(tmp_path, destination, clock=clock)
  forwarder.recover()
  clock.now += forwarder.step()
  assert len(destination.arrived) == 2 and forwarder.step() is None
  assert destination.arrived == sorted(uids) and destination.asked == 1


def test_a_destination_that_cannot_be_asked_gets_it_again(tmp_path):
  uids = node_results.write_result(tmp_path, _A)
  destination, clock = node_results.Destination(), _Clock()
  destination.finds, destination.failure = False, node_results.away()
  forwarder = _forwarder(tmp_path, destination, clock=clock)
  forwarder.recover()
  clock.now += forwarder.step()
  destination.failure = None
  assert forwarder.step() is None
  assert destination.arrived == sorted(uids) and destination.asked == 1


def test_a_warning_is_stored_and_recorded_in_words(tmp_path):
  node_results.write_result(tmp_path, _A)
  destination = node_results.Destination()
  destination.answer = lambda each: (pacs.Outcome.WARNING, 0xB000, 'it changed them')
  _sent_all(_forwarder(tmp_path, destination))
  assert _states(tmp_path, _A) == {'stored with a warning': 3}
  assert 'it changed them' in (tmp_path / 'sent' / f'{_A}.json').read_text()


def test_what_is_rejected_is_shown_and_tried_again_only_when_asked_for(tmp_path):
  uids = sorted(node_results.write_result(tmp_path, _A))
  destination = node_results.Destination()

  def answer(instance):
    is_map = instance.name == 'parametric_map.dcm'
    outcome = pacs.Outcome.FAILED if is_map else pacs.Outcome.STORED
    return outcome, 0xA900, 'it does not take this SOP class' if is_map else ''

  destination.answer = answer
  words = 'parametric_map.dcm: it does not take this SOP class'
  for _ in range(2):
    forwarder = _forwarder(tmp_path, destination)
    _sent_all(forwarder)
    assert forwarder.rejected() == {_A: words} and not forwarder.waiting()
    forwarder.hand(_A)
    assert forwarder.step() is None and destination.attempts == 1
  forwarder = _forwarder(tmp_path, destination, retry_rejected=True)
  _sent_all(forwarder)
  forwarder.hand(_A)
  assert forwarder.step() is None and destination.attempts == 2
  destination.answer = node_results.Destination().answer
  forwarder = _forwarder(tmp_path, destination, retry_rejected=True)
  _sent_all(forwarder)
  assert not forwarder.rejected() and sorted(destination.arrived) == uids


@pytest.mark.parametrize('status', [0xA700, 0x0213])
def test_a_full_destination_is_tried_again(tmp_path, status):
  uids = node_results.write_result(tmp_path, _A)
  destination, clock = node_results.Destination(), _Clock()
  destination.answer = lambda each: (pacs.Outcome.FAILED, status, 'disk full?')
  forwarder = _forwarder(tmp_path, destination, clock=clock)
  forwarder.recover()
  clock.now += forwarder.step()
  assert 'disk full?' in forwarder.waiting()[_A] and not forwarder.rejected()
  destination.answer = node_results.Destination().answer
  assert forwarder.step() is None
  assert destination.arrived == sorted(uids) and destination.asked == 0


def test_a_late_image_makes_new_objects_which_are_sent_too(tmp_path):
  first = node_results.write_result(tmp_path, _A)
  destination = node_results.Destination()
  _sent_all(_forwarder(tmp_path, destination))
  second = node_results.write_result(tmp_path, _A, generation=2)
  for _ in range(2):
    _sent_all(_forwarder(tmp_path, destination))
  assert destination.arrived == sorted(first) + sorted(second)
  # Both stay at the destination; the file says which belong to which result.
  content = json.loads((tmp_path / 'sent' / f'{_A}.json').read_text())
  of_present = {
    each['sop_instance_uid']
    for each in content['objects']
    if each['result'] == content['ended']
  }
  assert len(content['objects']) == 6 and of_present == set(second)


def test_replaced_while_it_is_sent_each_answer_is_of_what_was_read(tmp_path):
  first = node_results.write_result(tmp_path, _A)
  destination = node_results.Destination()
  second = []

  def replace(instance):
    assert instance.path.is_file()
    if not second:
      second.extend(node_results.write_result(tmp_path, _A, generation=2))
      forwarder.hand(_A)
    header = pacs.read_header(instance.path)
    assert header['instance'] == instance.sop_instance_uid

  destination.before_answer = replace
  forwarder = _forwarder(tmp_path, destination)
  _sent_all(forwarder)
  assert destination.arrived == sorted(first) + sorted(second)


def test_a_damaged_file_means_asking_first(tmp_path):
  uids = node_results.write_result(tmp_path, _A)
  destination = node_results.Destination()
  _sent_all(_forwarder(tmp_path, destination))
  (tmp_path / 'sent' / f'{_A}.json').write_text('{"format": 1, "key"')
  (tmp_path / 'sent' / '.half.json').write_text('left by a kill')
  _sent_all(_forwarder(tmp_path, destination))
  assert destination.arrived == sorted(uids) and destination.asked == 1
  assert os.listdir(tmp_path / 'sent') == [f'{_A}.json']


def test_a_result_that_has_gone_or_has_no_objects_ends_nothing(tmp_path):
  node_results.write_result(tmp_path, _A, names=())
  destination = node_results.Destination()
  forwarder = _forwarder(tmp_path, destination)
  forwarder.hand('1.2.3.999')
  _sent_all(forwarder)
  assert destination.attempts == 0 and not forwarder.waiting()


def _real(tmp_path, address, **security):
  """A forwarder to a real address, whose first attempt has been made."""
  limits = pacs.Limits(connect_s=60, answer_s=60, total_s=300, attempts=1)
  forwarder = forwarding.Forwarder(
    tmp_path,
    lambda: clinic.connect(
      address, limits=limits, security=addresses.Security(**security)
    ),
    metrics_lib.Metrics(),
  )
  node_results.write_result(tmp_path, _A)
  forwarder.recover()
  forwarder.step()
  return forwarder


def test_tls_where_there_is_none_is_said_and_tried_again(tmp_path):
  fake = dimse_faults.FakePacs()
  with fake.running():
    forwarder = _real(tmp_path, fake.address, tls=True)
  assert 'no encrypted connection' in forwarder.waiting()[_A]


def test_our_own_settings_are_wrong(tmp_path):
  secret = tmp_path / 'token'
  secret.write_text('abc')
  secret.chmod(0o644)
  forwarder = _real(tmp_path, 'https://pacs.invalid/dw', token_file=str(secret))
  assert 'only its owner may read' in forwarder.waiting()[_A]
  assert 'abc' not in forwarder.waiting()[_A].split()


def test_refused_associations_and_then_all_is_there(tmp_path):
  fake = dimse_faults.FakePacs()
  with fake.running(require_calling_aet=['OTHER']):
    forwarder = _real(tmp_path, fake.address)
    assert 'it does not know our AE title' in forwarder.waiting()[_A]
  with fake.running():
    _sent_all(
      forwarding.Forwarder(
        tmp_path, lambda: clinic.connect(fake.address), metrics_lib.Metrics()
      )
    )
  assert len(fake.kept) == fake.stored == 3


def test_names_of_results_are_the_only_thing_told(tmp_path, caplog):
  caplog.set_level('INFO')
  node_results.write_result(tmp_path, _A)
  destination, clock = node_results.Destination(), _Clock()

  def fail(instance):
    raise ValueError('Secret^Person')

  destination.before_answer = fail
  forwarder = _forwarder(tmp_path, destination, clock=clock)
  forwarder.recover()
  clock.now += forwarder.step()
  assert 'ValueError while it was sent' in forwarder.waiting()[_A]
  destination.before_answer = lambda each: None
  forwarder.step()
  assert _A in caplog.text
  for text in (caplog.text, (tmp_path / 'sent' / f'{_A}.json').read_text()):
    assert 'Secret' not in text and 'ID-4711' not in text


class _Killed(BaseException):
  """Ends a step where a kill would end the process."""


_TROUBLE = strategies.sampled_from(
  ['none', 'killed before record', 'killed after record', 'lost', 'away', 'full']
)


@pytest.fixture(name='results', scope='module')
def _results(tmp_path_factory):
  """Two results that are not sent; and the UIDs of their objects."""
  folder = tmp_path_factory.mktemp('results')
  return folder, sorted(
    uid for key in (_A, _B) for uid in node_results.write_result(folder, key)
  )


@settings(max_examples=40, deadline=None)
@given(troubles=strategies.lists(_TROUBLE, max_size=14))
def test_whatever_happens_each_object_arrives_once(results, troubles, tmp_path_factory):
  folder = tmp_path_factory.mktemp('node')
  shutil.copytree(results[0], folder, dirs_exist_ok=True)
  destination, clock = node_results.Destination(), _Clock()
  left = list(troubles)
  write = sent_lib.write

  def dying(output, known):
    trouble = left.pop(0) if left and left[0].startswith('killed') else 'none'
    if trouble != 'killed before record':
      write(output, known)
    if trouble != 'none':
      raise _Killed

  def lose(instance):
    if left and left[0] == 'lost':
      left.pop(0)
      raise node_results.away()

  def answer(instance):
    if left and left[0] in ('away', 'full', 'none'):
      trouble = left.pop(0)
      if trouble == 'away':
        raise node_results.away()
      if trouble == 'full':
        return pacs.Outcome.FAILED, 0xA700, 'disk full?'
    return pacs.Outcome.STORED, 0, ''

  destination.answer, destination.before_answer = answer, lose
  with mock.patch.object(sent_lib, 'write', dying):
    for _ in range(len(troubles) + 1):  # Starts; each kill needs one more.
      forwarder = _forwarder(folder, destination, clock=clock)
      try:
        forwarder.recover()
        while (left_s := forwarder.step()) is not None:
          clock.now += left_s
        break
      except _Killed:
        continue
  assert sorted(destination.arrived) == results[1]
  assert _states(folder, _A) == _states(folder, _B) == {'stored': 3}
