"""Each study goes to the engine when it is whole, once for the images that it has."""

import time
import types

import batch_archive
import pytest
import running_node

from covid_tf.batch import listing
from covid_tf.batch import records
from covid_tf.node import completeness
from covid_tf.node import forwarding
from covid_tf.node import spool as spool_lib
from covid_tf.node import studies as studies_lib
from covid_tf.storage import result_json

_RULES = completeness.Rules(settle_s=0.001, incomplete_after_s=3600)
_UID = batch_archive.study_uid(1)


@pytest.fixture(name='slices')
def _slices(tmp_path):
  return running_node.study(tmp_path / 'in', 1)


@pytest.fixture(name='spool')
def _spool(tmp_path):
  with spool_lib.Spool(tmp_path / 'spool') as spool:
    yield spool


@pytest.fixture(name='scorer')
def _scorer(tmp_path):
  return batch_archive.make_scorer(tmp_path / 'out')


def _give(spool, slices, association='a', ending=spool_lib.Ending.RELEASED):
  for dataset in slices:
    path = spool.new_file()
    dataset.save_as(path, enforce_file_format=True)
    spool.take(path, association, 'SENDER')
  spool.end(association, ending)
  time.sleep(0.01)


def _studies(tmp_path, spool, **options):
  return studies_lib.Studies(tmp_path / 'out', spool, _RULES, **options)


def _taken(studies) -> list[listing.Study]:
  return [next(studies.feed.taken()) for _ in range(len(studies.feed))]


def _score(studies, scorer, study) -> records.Record:
  record = scorer(study)
  studies.ended(study, record)
  return record


def test_a_whole_study_goes_to_the_engine_once(tmp_path, spool, slices, scorer):
  studies = _studies(tmp_path, spool)
  digest = scorer.configuration.digest
  studies.look(digest)
  assert studies.waiting == studies.incomplete == 0
  _give(spool, slices)
  for _ in range(3):
    studies.look(digest)
  (study,) = _taken(studies)
  assert studies.told()['queued'] == {_UID: ''} and studies.backlog == 1
  assert _score(studies, scorer, study).status == records.SCORED
  for restarted in (studies, _studies(tmp_path, spool)):
    restarted.look(digest)
    assert not restarted.feed and restarted.waiting == 0
  # The same again, by another association: no other images.
  _give(spool, slices, 'b')
  studies.look(digest)
  assert not studies.feed


def test_what_is_scored_is_known_at_once_after_a_start(tmp_path, spool, slices, scorer):
  _give(spool, slices)
  studies = _studies(tmp_path, spool)
  studies.look(scorer.configuration.digest)
  _score(studies, scorer, *_taken(studies))
  slow = studies_lib.Studies(tmp_path / 'out', spool, completeness.Rules(settle_s=600))
  slow.look('')  # Before any model has answered, and before it is quiet.
  assert slow.waiting == 0


def test_what_comes_while_it_is_scored_is_no_part_of_it(
  tmp_path, spool, slices, scorer
):
  _give(spool, slices[:-1])
  studies = _studies(tmp_path, spool)
  studies.look('x')
  (study,) = _taken(studies)
  _give(spool, slices[-1:], 'b')
  studies.look('x')
  assert not studies.feed  # Not twice at a time.
  assert _score(studies, scorer, study).slice_count == len(slices) - 1
  studies.look('x')
  (study,) = _taken(studies)
  assert _score(studies, scorer, study).slice_count == len(slices)
  studies.look('x')
  assert not studies.feed and studies.waiting == 0


def test_a_failure_is_tried_again_after_a_pause(
  tmp_path, spool, slices, scorer, monkeypatch
):
  passed_s = 0.0
  clock = types.SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s)
  monkeypatch.setattr(studies_lib, 'time', clock)
  _give(spool, slices)
  studies = _studies(tmp_path, spool, pauses=forwarding.Pauses(600, 600))
  studies.look('x')
  (study,) = _taken(studies)
  lost = scorer.configuration.digest, 0.0
  failed = batch_archive.scoring.end_record(study, records.FAILED, 'away', *lost)
  assert not studies.ended(study, failed)
  studies.look('x')
  assert studies.told()['failed'] == {_UID: 'away'} and not studies.feed
  assert studies.backlog == 1
  passed_s = 600.0
  studies.look('x')
  (study,) = _taken(studies)
  studies.ended(study, failed)
  studies.retry_now()
  studies.look('x')
  assert len(studies.feed) == 1


def test_what_an_engine_has_not_answered_for_is_handed_out_again(
  tmp_path, spool, slices
):
  _give(spool, slices)
  studies = _studies(tmp_path, spool)
  studies.look('x')
  _taken(studies)  # By an engine that was stopped.
  studies.given_up()
  studies.look('x')
  studies.given_up()
  studies.look('x')
  assert len(studies.feed) == 1


def test_nothing_is_handed_out_before_models_have_answered(tmp_path, spool, slices):
  _give(spool, slices)
  studies = _studies(tmp_path, spool)
  studies.look('')
  assert not studies.feed
  assert studies.told()['waiting'] == {_UID: 'no models have answered yet'}
  assert studies.backlog == 1


def test_a_score_stands_and_a_refusal_belongs_to_its_configuration(
  tmp_path, spool, slices, scorer
):
  _give(spool, slices)
  studies = _studies(tmp_path, spool)
  studies.look('x')
  _score(studies, scorer, *_taken(studies))
  other = _studies(tmp_path, spool)
  other.look('other models')
  assert not other.feed
  redoing = _studies(tmp_path, spool, redo=True)
  redoing.look('other models')
  assert len(redoing.feed) == 1
  (study,) = _taken(redoing)
  refused = batch_archive.scoring.end_record(study, records.REFUSED, 'why', 'x', 0.0)
  batch_archive.scoring.store(tmp_path / 'out', refused)
  for configuration, handed in (('x', 0), ('y', 1)):
    again = _studies(tmp_path, spool)
    again.look(configuration)
    assert len(again.feed) == handed


def test_an_interrupted_study_waits_for_a_person_or_the_rest(
  tmp_path, spool, slices, scorer, caplog
):
  _give(spool, slices[:9], ending=spool_lib.Ending.ABORTED)
  studies = _studies(tmp_path, spool)
  for _ in range(3):
    studies.look('x')
  assert not studies.feed and studies.incomplete == 1 and studies.backlog == 0
  assert sum('is incomplete' in text for text in caplog.messages) == 1
  assert not studies_lib.accept(tmp_path / 'out', spool.folder, '1.2.3')
  assert studies_lib.accept(tmp_path / 'out', spool.folder, _UID)
  studies.look('x')
  (study,) = _taken(studies)
  assert _score(studies, scorer, study).slice_count == 9
  assert not list((tmp_path / 'out' / studies_lib.ACCEPTED).iterdir())
  # It was said of what was there.
  _give(spool, slices[9:11], 'b', spool_lib.Ending.LOST)
  studies.look('x')
  assert not studies.feed and studies.incomplete == 1


def test_an_image_that_came_in_two_versions_is_told_in_the_result(
  tmp_path, spool, slices, scorer
):
  _give(spool, slices)
  slices[3].PatientComments = 'another one'
  _give(spool, slices[3:4], 'b')
  studies = _studies(tmp_path, spool)
  studies.look('x')
  _score(studies, scorer, *_taken(studies))
  warnings = result_json.read_result(tmp_path / 'out' / 'studies' / _UID).warnings
  assert '1 instances came again with other content' in warnings[0]


def test_what_holds_no_ct_is_nothing_to_score(tmp_path, spool, slices):
  for dataset in slices:
    dataset.Modality = 'SR'
  _give(spool, slices)
  studies = _studies(tmp_path, spool)
  studies.look('x')
  assert not studies.feed and studies.waiting == studies.incomplete == 0


def test_a_study_that_cannot_be_listed_does_not_hold_up_others(
  tmp_path, spool, slices, monkeypatch
):
  _give(spool, slices)
  _give(spool, running_node.study(tmp_path / 'other', 2), 'b')
  studies = _studies(tmp_path, spool)
  listed = studies_lib.archive.find_studies

  def find(folder):
    if folder.name == _UID:
      raise OSError('Secret^Person')
    return listed(folder)

  monkeypatch.setattr(studies_lib.archive, 'find_studies', find)
  studies.look('x')
  (study,) = _taken(studies)
  assert study.key == batch_archive.study_uid(2)
  assert studies.told()['failed'] == {_UID: 'OSError while its images were listed'}


def test_what_its_pacs_says_is_whole_is_not_interrupted_any_more(
  tmp_path, spool, slices, scorer
):
  class _Source:
    def want(self, generations):
      self.wanted = generations

    def problem(self, uid):
      return ''

    def answer(self, uid, generation):
      has = spool.has_instances(uid)
      return completeness.compare(has, has)

  _give(spool, slices, ending=spool_lib.Ending.LOST)
  rules = completeness.Rules(0.001, 3600, asks_source=True)
  source = _Source()
  studies = studies_lib.Studies(tmp_path / 'out', spool, rules, source=source)
  studies.look('x')
  assert source.wanted == {_UID: spool.study(_UID).generation}
  _score(studies, scorer, *_taken(studies))
  assert not spool.study(_UID).interrupted
  studies.look('x')
  assert source.wanted == {}


def test_a_study_that_always_fails_puts_no_sender_off(tmp_path, spool, slices):
  _give(spool, slices)
  studies = _studies(tmp_path, spool, pauses=forwarding.Pauses(0.001, 0.001))
  for failures in range(6):
    assert studies.backlog == (0 < failures < 5)
    studies.look('x')
    (study,) = _taken(studies)
    assert studies.backlog == 1
    lost = batch_archive.scoring.end_record(study, records.FAILED, 'why', 'x', 0.0)
    studies.ended(study, lost)
    time.sleep(0.01)
  assert studies.waiting == 1
