import collections
import itertools
import os
import signal
import threading
import time

import pytest

from covid_tf import errors
from covid_tf.batch import engines
from covid_tf.batch import records


def _square(number):
  return number * number, os.getpid()


def _with_a_killer(number):
  if number == 3:
    os.kill(os.getpid(), signal.SIGKILL)
  time.sleep(0.02)
  return number * number, os.getpid()


def _raising(number):
  if number == 2:
    raise ValueError('Secret^Person')
  return number


def _slow(number):
  time.sleep(0.1)
  return number


def test_every_study_ends_once_although_workers_are_killed():
  counts, killed = collections.Counter(), 0
  for study, (value, pid) in engines.map_studies(_square, range(60), processes=2):
    counts[study] += 1
    assert value == study * study
    if study in (10, 30):
      os.kill(pid, signal.SIGKILL)
      killed += 1
  assert counts == dict.fromkeys(range(60), 1) and killed == 2


def test_a_study_that_kills_its_workers_fails_alone():
  ends = dict(engines.map_studies(_with_a_killer, range(8), processes=1))
  assert ends.pop(3) == records.lost_by_deaths(-signal.SIGKILL)
  assert {study: value for study, (value, _) in ends.items()} == {
    study: study * study for study in (0, 1, 2, 4, 5, 6, 7)
  }


def test_an_exception_loses_its_study_without_its_text():
  ends = dict(engines.map_studies(_raising, range(4)))
  assert ends.pop(2) == records.Lost('ValueError while it was worked on')
  assert ends == {0: 0, 1: 1, 3: 3}


def test_studies_are_taken_as_workers_become_free_until_stopped():
  taken = []
  stop = threading.Event()

  def studies():
    for number in itertools.count():  # Endless: it could not be read to its end.
      taken.append(number)
      yield number

  ended = []
  for study, value in engines.map_studies(_slow, studies(), processes=1, stop=stop):
    ended.append(study)
    assert value == study and len(taken) <= len(ended) + 2
    if len(ended) == 3:
      stop.set()
  assert sorted(ended) == taken  # What was running has ended.


def test_workers_end_with_the_caller():
  run = engines.map_studies(_square, itertools.count(), processes=1)
  _, (_, pid) = next(run)
  run.close()
  try:
    os.kill(pid, 0)
    alive = True
  except ProcessLookupError:
    alive = False
  assert not alive


def _with_a_fault(number):
  if number == 1:
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)  # Any thread may take the signal.
  return number


def test_a_worker_that_dies_is_named_by_its_signal():
  ends = dict(engines.map_studies(_with_a_fault, range(3), processes=1))
  reason = ends.pop(1).reason
  assert 'died 3 times and was ended by SIGSEGV (segmentation fault)' in reason
  assert 'TF_ENABLE_ONEDNN_OPTS=0' in reason
  assert ends == {0: 0, 2: 2}


def _faulty_once(marker):
  """Dies the first time, as a rare fault does; works the second."""
  if marker:
    try:
      os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
      return 'done'
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)
  return 'done'


def test_a_study_whose_worker_died_once_is_tried_again(tmp_path):
  studies = ['', str(tmp_path / 'marker'), '']
  ends = list(engines.map_studies(_faulty_once, studies, processes=1))
  assert [value for _, value in ends] == ['done'] * 3


class _DiesOnArrival:
  """A function that no worker survives to receive."""

  def __reduce__(self):
    return os.kill, (_Own(), signal.SIGSEGV)


class _Own:
  """The number of whichever process unpickles it."""

  def __reduce__(self):
    return os.getpid, ()


def test_workers_that_die_before_they_start_are_named_by_their_signal():
  with pytest.raises(errors.ClusterError, match=r'SIGSEGV \(segmentation fault\)'):
    list(engines.map_studies(_DiesOnArrival(), range(3), processes=1))


def test_a_feed_is_waited_for_and_workers_are_heard_meanwhile():
  feed = engines.Feed()
  run = engines.map_studies(_slow, feed, processes=1)
  feed.put(1)
  assert next(run) == (1, 1)  # Although the feed has not ended.
  before = time.process_time()
  threading.Timer(1.0, feed.put, [2]).start()
  assert next(run) == (2, 2)
  assert time.process_time() - before < 0.5  # It slept.
  for number in (3, 4, 5):
    feed.put(number)
  feed.end()
  assert sorted(run) == [(3, 3), (4, 4), (5, 5)]
  feed.close()


def test_a_feed_that_nobody_feeds_ends_when_it_is_told_to():
  feed = engines.Feed()
  threading.Timer(0.3, feed.end).start()
  assert not list(engines.map_studies(_slow, feed))
  feed.close()


def test_what_a_stopped_run_has_not_taken_the_next_one_gets():
  feed = engines.Feed()
  for number in range(6):
    feed.put(number)
  stop = threading.Event()
  ended = []
  for study, _ in engines.map_studies(_slow, feed, stop=stop):
    ended.append(study)
    stop.set()
  assert len(ended) == 2 and len(feed) == 4
  feed.end()
  ended += [study for study, _ in engines.map_studies(_slow, feed)]
  assert sorted(ended) == list(range(6))
  feed.close()


def test_a_study_that_kills_its_workers_does_not_end_a_feed():
  feed = engines.Feed()
  for number in (2, 3, 4):
    feed.put(number)
  run = engines.map_studies(_with_a_killer, feed, processes=1)
  ends = dict(next(run) for _ in range(3))
  assert ends.pop(3) == records.lost_by_deaths(-signal.SIGKILL)
  assert {study: value for study, (value, _) in ends.items()} == {2: 4, 4: 16}
  feed.put(5)
  assert next(run)[0] == 5
  run.close()
  feed.close()


def test_a_cluster_takes_no_feed():
  with pytest.raises(errors.UsageError, match='one by one'):
    engines.map_studies(_slow, engines.Feed(), scheduler='tcp://host:1')
