"""What is removed when, and all that never is."""

import dataclasses
import itertools
import os
import time

import node_results
import odd_series
import pytest

from covid_tf import errors
from covid_tf.batch import archive
from covid_tf.batch import records
from covid_tf.node import retention
from covid_tf.node import sent as sent_lib
from covid_tf.node import spool as spool_lib

_A, _B = '1.2.3.1', '1.2.3.2'
_DAY_S = 86_400.0
_DONE_S = 1_795_946_400.0  # 2026-11-29T10:00:00Z, when node_results' records finished.
_KEEP = retention.Keep()


@pytest.fixture(name='spool')
def _spool(tmp_path):
  with spool_lib.Spool(tmp_path / 'spool', reserve_bytes=0) as spool:
    yield spool


_numbers = itertools.count(1)


def _receive(spool, key, count=8, first=0, ending=spool_lib.Ending.RELEASED) -> None:
  """Images of a study come within one association; None leaves it open."""
  association = f'association-{next(_numbers)}'
  for data in odd_series.series(study_uid=key)[first : first + count]:
    data.SOPInstanceUID = f'{key}.{data.SOPInstanceUID.rpartition(".")[2]}'
    data.SeriesInstanceUID = f'{key}.9'
    path = odd_series.save_one(data, spool.new_file())
    spool.take(path, association, 'CT1')
  if ending:
    spool.end(association, ending)


def _listed(kept):
  studies = archive.find_studies(kept.folder).studies
  return studies[0] if studies else None


def _score(tmp_path, spool, key, status=records.SCORED) -> records.Record:
  """A result of the images as they are now."""
  node_results.write_result(tmp_path, key, status=status)
  folder = records.studies_folder(tmp_path) / key
  record = dataclasses.replace(
    records.read_record(folder), fingerprint=_listed(spool.study(key)).fingerprint
  )
  records.write_record(folder, record)
  return record


def _send(tmp_path, record, state=sent_lib.State.STORED) -> None:
  """All objects are answered, at the time of the test."""
  result = sent_lib.identity(record)
  answers = [sent_lib.Answer(f'{record.key}.1', 'report.dcm', result, state)]
  known = sent_lib.Sent(record.key, record.key, ended=result).having(answers)
  day = '2026-11-29T10:00:00Z'
  known = dataclasses.replace(
    known,
    answers={
      uid: dataclasses.replace(each, time=day) for uid, each in known.answers.items()
    },
  )
  sent_lib.write(tmp_path, known)


def _sweep(tmp_path, spool, days, keep=_KEEP, sends=True):
  return retention.sweep(
    tmp_path, spool, keep, _listed, sends=sends, now_s=_DONE_S + days * _DAY_S
  )


def test_images_go_a_week_after_they_are_scored_and_sent(tmp_path, spool):
  _receive(spool, _A)
  _send(tmp_path, _score(tmp_path, spool, _A))
  assert _sweep(tmp_path, spool, 6.9) == retention.Swept()
  assert _sweep(tmp_path, spool, 7.1).study_uids == (_A,)
  assert spool.studies() == () and not (spool.folder / 'studies' / _A).exists()
  # The result stays, for ever.
  assert _sweep(tmp_path, spool, 30_000) == retention.Swept()
  assert records.read_record(records.studies_folder(tmp_path) / _A)


def test_what_is_not_sent_stays_where_something_is_to_be_sent(tmp_path, spool):
  _receive(spool, _A)
  record = _score(tmp_path, spool, _A)
  assert _sweep(tmp_path, spool, 1000).study_uids == ()
  half = sent_lib.Sent(_A, _A).having(
    [sent_lib.Answer('1.2', 'report.dcm', 'x', sent_lib.State.BEGUN)]
  )
  sent_lib.write(tmp_path, half)
  assert _sweep(tmp_path, spool, 1000).study_uids == ()
  _send(tmp_path, dataclasses.replace(record, fingerprint='an earlier result'))
  assert _sweep(tmp_path, spool, 1000).study_uids == ()
  assert _sweep(tmp_path, spool, 7.1, sends=False).study_uids == (_A,)


def test_refused_and_rejected_ones_stay_a_month(tmp_path, spool):
  _receive(spool, _A)
  _score(tmp_path, spool, _A, records.REFUSED)
  _receive(spool, _B)
  _send(tmp_path, _score(tmp_path, spool, _B), sent_lib.State.REJECTED)
  assert _sweep(tmp_path, spool, 29.9).study_uids == ()
  assert _sweep(tmp_path, spool, 30.1).study_uids == (_A, _B)


def test_what_is_not_done_stays_for_ever(tmp_path, spool):
  _receive(spool, _A)
  _score(tmp_path, spool, _A, records.FAILED)
  _receive(spool, _B)  # Not scored at all.
  assert _sweep(tmp_path, spool, 30_000).study_uids == ()


def test_interrupted_open_and_changed_studies_stay(tmp_path, spool):
  _receive(spool, _A, 4)
  _send(tmp_path, _score(tmp_path, spool, _A))
  _receive(spool, _A, 1, 4, spool_lib.Ending.ABORTED)
  assert _sweep(tmp_path, spool, 1000).study_uids == ()
  spool.accept_as_whole(_A)  # A late image, which is not scored yet.
  assert _sweep(tmp_path, spool, 1000).study_uids == ()
  _receive(spool, _B, 4)
  _send(tmp_path, _score(tmp_path, spool, _B))
  _receive(spool, _B, 1, 0, None)  # Sent again, and still open.
  assert _sweep(tmp_path, spool, 1000).study_uids == ()


def test_sent_again_and_interrupted_a_scored_study_stays_a_month(tmp_path, spool):
  _receive(spool, _A)
  _send(tmp_path, _score(tmp_path, spool, _A))
  _receive(
    spool, _A, 3, 0, spool_lib.Ending.ABORTED
  )  # What was to follow, nobody knows.
  for sends in (True, False):
    assert _sweep(tmp_path, spool, 29.9, sends=sends).study_uids == ()
  assert _sweep(tmp_path, spool, 30.1).study_uids == (_A,)


def test_an_image_that_comes_while_a_study_is_looked_at_is_not_lost(tmp_path, spool):
  _receive(spool, _A, 4)
  _send(tmp_path, _score(tmp_path, spool, _A))

  def listed(kept):
    study = _listed(kept)
    _receive(spool, _A, 1, 4)
    return study

  late_s = _DONE_S + 8 * _DAY_S
  swept = retention.sweep(tmp_path, spool, _KEEP, listed, sends=True, now_s=late_s)
  assert swept.study_uids == () and spool.study(_A).counts == {f'{_A}.9': 5}


def test_what_holds_no_ct_goes_a_month_after_it_came(tmp_path, spool):
  data = odd_series.series(study_uid=_A)[0]
  data.SOPClassUID, data.Modality = '1.2.840.10008.5.1.4.1.1.88.67', 'SR'
  del data.PixelData
  path = odd_series.save_one(data, spool.new_file())
  spool.take(path, 'a', 'CT1')
  spool.end('a', spool_lib.Ending.RELEASED)
  now_s = time.time()
  for days, gone in ((29, ()), (31, (_A,))):
    swept = retention.sweep(
      tmp_path, spool, _KEEP, _listed, sends=True, now_s=now_s + days * _DAY_S
    )
    assert swept.study_uids == gone
  assert not list(tmp_path.glob('removed/*'))


def test_a_late_image_after_that_does_not_stand_for_the_study(tmp_path, spool):
  _receive(spool, _A, 4)
  _send(tmp_path, _score(tmp_path, spool, _A))
  _sweep(tmp_path, spool, 8)
  _receive(spool, _A, 1, 4)
  lacking = retention.lacking(tmp_path, spool.study(_A))
  assert list(lacking) == [f'{_A}.9']
  assert (
    '4 images were scored and removed since, 1 have come again' in (lacking[f'{_A}.9'])
  )
  assert _sweep(tmp_path, spool, 1000).study_uids == ()
  _receive(spool, _A, 4)
  assert retention.lacking(tmp_path, spool.study(_A)) == {}
  _receive(spool, _B)
  assert retention.lacking(tmp_path, spool.study(_B)) == {}


def test_results_go_only_where_somebody_said_so(tmp_path, spool):
  _receive(spool, _A)
  _send(tmp_path, _score(tmp_path, spool, _A))
  keep = retention.Keep(results_days=100)
  assert _sweep(tmp_path, spool, 6, keep).keys == ()
  assert _sweep(tmp_path, spool, 8, keep).study_uids == (_A,)
  assert _sweep(tmp_path, spool, 99, keep).keys == ()
  assert _sweep(tmp_path, spool, 101, keep).keys == (_A,)
  left = [path for path in tmp_path.rglob('*') if _A in path.name]
  assert left == []


def test_results_whose_images_are_here_or_that_are_unsent_stay(tmp_path, spool):
  _receive(spool, _A)
  _send(tmp_path, _score(tmp_path, spool, _A))
  node_results.write_result(tmp_path, _B)
  keep = retention.Keep(studies_days=30_000, results_days=1)
  assert _sweep(tmp_path, spool, 1000, keep).keys == ()
  assert _sweep(tmp_path, spool, 1000, keep, sends=False).keys == (_B,)


def test_killed_half_way_no_half_result_is_left(tmp_path, spool, monkeypatch):
  node_results.write_result(tmp_path, _B)
  keep = retention.Keep(results_days=1)

  def killed(path):
    raise KeyboardInterrupt

  with monkeypatch.context() as patched:
    patched.setattr(retention.shutil, 'rmtree', killed)
    with pytest.raises(KeyboardInterrupt):
      _sweep(tmp_path, spool, 3, keep, sends=False)
  assert list(records.read_records(tmp_path)) == []
  left = os.listdir(records.studies_folder(tmp_path))
  assert left and all(name.startswith('.') for name in left)  # The next start's.


def test_what_cannot_be_removed_is_said_and_the_rest_goes(
  tmp_path, spool, monkeypatch, caplog
):
  for key in (_A, _B):
    _receive(spool, key)
    _send(tmp_path, _score(tmp_path, spool, key))
  remove = spool.remove

  def failing(study_uid, generation):
    if study_uid == _A:
      raise PermissionError(13, 'Permission denied')
    remove(study_uid, generation)

  monkeypatch.setattr(spool, 'remove', failing)
  assert _sweep(tmp_path, spool, 8).study_uids == (_B,)
  assert f'{_A}: not removed: Permission denied' in caplog.text


@pytest.mark.parametrize('days', [-1, float('nan'), 1e9])
def test_days_that_are_none(days):
  with pytest.raises(errors.UsageError, match='--keep-studies'):
    retention.Keep(studies_days=days)
