"""Limits, repetitions, and what is taken from a PACS."""

import dimse_faults
import odd_series
import pytest

from covid_tf import errors
from covid_tf.clinic import pacs

_STUDY, _SERIES = dimse_faults.STUDY_UID, dimse_faults.SERIES_UID
_LISTED = [pacs.Listed(_STUDY, _SERIES, f'{_SERIES}.{i + 1}') for i in range(2)]


def test_what_passes_is_repeated_and_the_rest_is_not(monkeypatch):
  pauses = []
  monkeypatch.setattr(pacs.time, 'sleep', pauses.append)
  left = [pacs.TransientError('busy'), pacs.TransientError('busy', 7.0)]

  def action(deadline):
    if left:
      raise left.pop(0)
    return 'done'

  assert pacs.repeated(action, 'PACS', pacs.Limits(attempts=3)) == 'done'
  assert pauses == [1.0, 7.0]

  def refuse(deadline):
    pauses.append('asked')
    raise errors.PACSError('never')

  with pytest.raises(errors.PACSError, match='never'):
    pacs.repeated(refuse, 'PACS', pacs.Limits())
  assert pauses.count('asked') == 1


def test_the_time_for_all_ends_it(monkeypatch):
  with pytest.raises(errors.PACSError, match='--total-timeout'):
    deadline = pacs.Deadline('PACS', pacs.Limits(total_s=1e-9))
    deadline.left_s()
  for wrong in (0, -1, float('nan'), 1e9):
    with pytest.raises(errors.UsageError, match='--answer-timeout'):
      pacs.Limits(answer_s=wrong)


def _part(receiver, dataset):
  path = receiver.temporary()
  odd_series.save_one(dataset, path)
  return path


def test_what_comes_gets_a_safe_name_once(tmp_path):
  slices = odd_series.series()
  receiver = pacs.Receiver(tmp_path, _LISTED)
  receiver.take(_part(receiver, slices[0]))
  assert receiver.missing == (f'{_SERIES}.2',)
  with pytest.raises(errors.PACSError, match='1 of 2 instances did not come'):
    receiver.require_whole('PACS')
  receiver.take(_part(receiver, slices[0]))  # The same again.
  slices[0].PatientComments = 'other'
  with pytest.raises(errors.PACSError, match='twice with different content'):
    receiver.take(_part(receiver, slices[0]))
  receiver.take(_part(receiver, slices[1]))
  receiver.require_whole('PACS')
  assert receiver.paths[f'{_SERIES}.2'] == tmp_path / _SERIES / f'{_SERIES}.2.dcm'


def test_what_is_no_dicom_or_nobody_asked_for(tmp_path):
  receiver = pacs.Receiver(tmp_path, _LISTED)
  with pytest.raises(errors.PACSError, match='no DICOM'):
    receiver.write(b'<html>')
  assert isinstance(receiver.failure, errors.PACSError)
  with pytest.raises(errors.PACSError, match='not asked for'):
    receiver.take(_part(receiver, odd_series.series()[5]))


def test_a_missing_library_is_said_in_words():
  with pytest.raises(errors.UsageError, match='no_such_library is required'):
    pacs.need('no_such_library')
