"""The PACS that sends is asked, again and again, and holds nothing up."""

import threading
import time
import types

import pytest

from covid_tf import errors
from covid_tf.clinic import pacs
from covid_tf.node import forwarding
from covid_tf.node import source_pacs


class _Pacs:
  """Answers by what a test puts in; counts."""

  def __init__(self):
    self.lists: dict[str, list[pacs.Listed]] = {}
    self.asked: list[str] = []
    self.error: Exception | None = None
    self.free = threading.Event()
    self.free.set()

  def find(self, uid):
    self.asked.append(uid)
    self.free.wait(60)
    if self.error:
      raise self.error
    return tuple(self.lists.get(uid, ()))


@pytest.fixture(name='archive')
def _archive():
  return _Pacs()


@pytest.fixture(name='source')
def _source(archive):
  spool = types.SimpleNamespace(has_instances=lambda uid: {'1.1': frozenset('ab')})
  pauses = forwarding.Pauses(0.05, 0.05)
  with source_pacs.Source(lambda: archive, spool, pauses=pauses) as source:
    yield source
    archive.free.set()


def _until(what):
  end = time.monotonic() + 60
  while not (found := what()):
    assert time.monotonic() < end
    time.sleep(0.01)
  return found


def test_its_answer_is_compared_and_asked_again_until_it_is_not_wanted(source, archive):
  source.want({'1': 7})
  found = _until(lambda: source.answer('1', 7))
  assert found.listed == {'1.1': 0} and not found.confirms('1.1')
  archive.lists['1'] = [pacs.Listed('1', '1.1', name) for name in 'abc']
  found = _until(lambda: source.answer('1', 7).missing['1.1'] and source.answer('1', 7))
  assert found.listed == {'1.1': 3} and found.missing == {'1.1': 1}
  assert source.answer('1', 8) is None  # Of what was kept then.
  source.want({'1': 8})
  _until(lambda: source.answer('1', 8))
  source.want({})

  def is_quiet():
    count = len(archive.asked)
    time.sleep(0.2)  # Four times its pause.
    return len(archive.asked) == count

  _until(is_quiet)
  assert source.answer('1', 8) is None


def test_a_failure_is_said_and_the_next_one_is_asked(source, archive, caplog):
  archive.error = errors.PACSError('it is away')
  source.want({'1': 1, '2': 1})
  assert _until(lambda: source.problem('1')) == 'it is away'
  _until(lambda: archive.asked.count('2') > 1)
  assert source.answer('1', 1) is None and source.is_alive
  assert caplog.messages.count('study 1: it is away') == 1
  archive.error = ValueError('Secret^Person')
  _until(lambda: 'ValueError' in source.problem('1'))
  assert 'Secret' not in source.problem('1') + caplog.text
  archive.error = None
  _until(lambda: source.answer('1', 1))
  assert source.problem('1') == ''


def test_one_that_never_answers_holds_up_nobody(source, archive):
  archive.free.clear()
  source.want({'1': 1})
  _until(lambda: archive.asked)
  source.want({'1': 1, '2': 1})
  assert source.answer('1', 1) is None and source.problem('2') == ''
  assert archive.asked == ['1']  # It is still to answer.
