import io
import pty
import select
import sys
import time

import pytest

from covid_tf.batch import progress
from covid_tf.batch import records


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def _record(number, status=records.SCORED, reason='', seconds=1.0):
  return records.Record(
    f'1.2.{number}',
    status,
    reason,
    '1.2',
    '',
    None,
    None,
    None,
    None,
    None,
    0,
    seconds,
    'host',
    '2020-03-01T00:00:00Z',
    'c',
    'f',
  )


@pytest.fixture(name='every')
def _every(monkeypatch):
  monkeypatch.setattr(progress, '_LINE_EVERY_S', 0.05)


def _wait_for(stream, text):
  deadline = time.monotonic() + 30
  while text not in stream.getvalue() and time.monotonic() < deadline:
    time.sleep(0.01)
  assert text in stream.getvalue()


def test_a_pipe_gets_lines_although_no_study_ends(every):
  stream = io.StringIO()
  with progress.Progress(3, stream=stream) as shown:
    _wait_for(stream, '0 of 3 studies')
    assert 'unknown time left' in stream.getvalue()
    shown.add(_record(1))
    shown.add(_record(2, records.REFUSED, 'no lungs'))
    _wait_for(stream, '2 of 3 studies')
  assert '1 refused, 1 scored' in stream.getvalue()
  assert 'studies/h' in stream.getvalue() and '0 h 00 min left' in stream.getvalue()
  assert '\r' not in stream.getvalue()
  said = stream.getvalue()
  time.sleep(0.2)
  assert stream.getvalue() == said  # Nothing is said after the end.


def test_a_terminal_gets_a_bar():
  stream = _Terminal()
  with progress.Progress(4, stream=stream) as shown:
    for number in range(3):
      shown.add(_record(number))
  assert '\r' in stream.getvalue() and '3/4' in stream.getvalue()
  assert 'studies/h: 3 scored' in stream.getvalue()


def test_a_terminal_without_a_size_gets_a_bar(monkeypatch):
  ours, theirs = pty.openpty()
  with open(ours, 'rb', buffering=0) as screen, open(theirs, 'w') as stream:
    monkeypatch.setattr(sys, 'stderr', stream)  # tqdm asks for the size of no other.
    with progress.Progress(2) as shown:
      shown.add(_record(1))
      shown.add(_record(2))
    monkeypatch.undo()
    stream.flush()
    said = ''
    while select.select([screen], [], [], 1)[0] and '2 scored' not in said:
      said += screen.read(4096).decode()
  assert '2/2' in said and 'studies/h: 2 scored' in said


def test_the_slowest_and_the_reasons_are_kept():
  with progress.Progress(30, stream=io.StringIO()) as shown:
    for number in range(20):
      shown.add(
        _record(number, records.REFUSED, f'a gap of {number} mm', seconds=float(number))
      )
  assert [seconds for seconds, _ in shown.slowest] == list(range(19, 9, -1))
  (reason,) = shown.reasons.values()
  assert reason.count == 20 and reason.keys == ['1.2.0', '1.2.1', '1.2.2']
