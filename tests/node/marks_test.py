"""Marks of a study say the same to the process that made them and to the next one."""

import pytest

from covid_tf.node import marks as marks_lib


@pytest.fixture(name='marks')
def _marks(tmp_path):
  return marks_lib.StudyMarks(tmp_path / '1.2')


def test_nothing_is_made_before_there_is_a_mark(marks):
  assert not marks.interrupted() and not marks.folder.exists()
  marks.open('1.2.1', 'a', 'SCANNER')
  assert marks.is_open('1.2.1', 'a') and not marks.is_open('1.2.1', 'b')
  assert not marks.interrupted()  # It runs.


@pytest.mark.parametrize(
  ('how', 'words'),
  (
    ('aborted', 'SCANNER aborted'),
    ('lost', 'of SCANNER was lost'),
    ('released', 'SCANNER sent was refused'),
  ),
)
def test_an_interruption_reads_the_same_later(marks, how, words):
  marks.open('1.2.1', 'a', 'SCANNER')
  marks.interrupt('1.2.1', 'a', how)
  assert words in marks.interrupted()['1.2.1']
  assert marks_lib.StudyMarks(marks.folder).interrupted() == marks.interrupted()


def test_completing_leaves_other_series_and_who_still_sends(marks):
  for series, association in (('1', 'a'), ('1', 'b'), ('1', 'c'), ('2', 'a')):
    marks.open(series, association, 'SCANNER')
  marks.interrupt('1', 'a', 'lost')
  marks.interrupt('2', 'a', 'lost')
  marks.complete('1', 'b')
  assert set(marks.interrupted()) == {'2'}
  assert marks.is_open('1', 'c')
  later = marks_lib.StudyMarks(marks.folder)
  assert 'node was stopped' in later.interrupted()['1']
  assert set(later.interrupted()) == {'1', '2'}


def test_an_instance_is_lacking_until_it_is_kept(marks):
  marks.lack('1', '1.5', 'SCANNER')
  marks.lack('2', '2.5', 'SCANNER', 'it breaks off')
  marks.keep('9')
  for found in (marks, marks_lib.StudyMarks(marks.folder)):
    assert 'did not come' in found.interrupted()['1']
    assert 'refused: it breaks off' in found.interrupted()['2']
  marks.keep('1.5')
  assert set(marks.interrupted()) == {'2'}
  assert set(marks_lib.StudyMarks(marks.folder).interrupted()) == {'2'}


def test_accepting_spares_who_still_sends(marks):
  marks.lack('1', '1.5', 'SCANNER')
  marks.open('1', 'a', 'SCANNER')
  marks.interrupt('1', 'a', 'lost')
  marks.open('2', 'b', 'SCANNER')
  marks.differ('1', '1.6')
  marks.accept()
  assert not marks.interrupted() and marks.is_open('2', 'b')
  later = marks_lib.StudyMarks(marks.folder)
  assert set(later.interrupted()) == {'2'}
  assert later.different == marks.different == {'1.6'}


@pytest.mark.parametrize('content', (b'', b'{"ca', b'[]', b'\xff', b'{"caller": null}'))
def test_a_mark_that_was_cut_off_still_counts(marks, content):
  marks.open('1', 'a', 'SCANNER')
  marks.lack('2', '2.5', 'SCANNER')
  for path in marks.folder.iterdir():
    path.write_bytes(content)
  later = marks_lib.StudyMarks(marks.folder)
  assert 'while a sender was sending' in later.interrupted()['1']
  assert 'a sender began to send' in later.interrupted()['2']


def test_a_disk_that_takes_nothing(marks, monkeypatch):
  marks.open('1', 'a', 'SCANNER')

  def full(name, **content):
    raise OSError('full')

  monkeypatch.setattr(marks, '_write', full)
  marks.interrupt('1', 'a', 'lost')
  marks.lack('2', '2.5', 'SCANNER')
  marks.differ('2', '2.6')
  assert set(marks.interrupted()) == {'1', '2'}
  with pytest.raises(OSError):
    marks.open('3', 'a', 'SCANNER')
