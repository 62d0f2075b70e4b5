"""The judge: network and rule on the same slabs, scores, calibration, the page."""

import dataclasses
import json

import browser
import numpy as np
import pytest

from covid_tf import errors
from covid_tf import results
from covid_tf import volume
from covid_tf.analysis import slabs
from covid_tf.datasets import judged_chests
from covid_tf.training.evaluation import judging
from covid_tf.training.evaluation import judging_report

_SIDE = 56
_SLABS = 6


def _chest(name='a', studies=3, kernel='SOFT', seed=0):
  """Study s has squares of 10 + 4 s pixels on slabs 1 to 3."""
  random = np.random.default_rng(seed)
  hu = [random.normal(-850, 20, (_SLABS, _SIDE, _SIDE))]
  lesions = [np.zeros((_SLABS, _SIDE, _SIDE), np.uint8)]
  for study in range(studies):
    plane = np.zeros((3, _SIDE, _SIDE), np.uint8)
    plane[:, 10 : 20 + 4 * study, 10 : 20 + 4 * study] = 1
    hu.append(np.where(plane, -500, hu[0][1:4]))
    lesions.append(plane)
  lesion_mask = np.concatenate(lesions)
  study = np.array([-1] * _SLABS + [s for s in range(studies) for _ in range(3)])
  return judged_chests.JudgedChest(
    name,
    volume.Acquisition('ACME', 'Mark 1', kernel),
    (1.0, 1.0),
    5.0,
    np.ones((_SLABS, _SIDE, _SIDE), np.uint8),
    np.rint(np.concatenate(hu)).astype(np.int16),
    np.array([*range(_SLABS), *([1, 2, 3] * studies)], np.int32),
    study.astype(np.int32),
    np.where(study < 0, 0, 1).astype(np.int8),
    lesion_mask,
    lesion_mask.sum((1, 2)).reshape(-1)[_SLABS:].reshape(studies, 3).sum(1) * 5 / 1000,
    ('ground glass',) * studies,
    0,
    np.empty((0, _SIDE, _SIDE), np.int16),
    np.empty(0, np.int32),
    np.empty(0, np.int32),
  )


def _finder(hu):
  """A network that sees density, and marks it."""
  dense = hu > -700
  share = dense.mean((1, 2))
  fine = dense.reshape(len(hu), 28, 2, 28, 2).mean((2, 4))
  coarse = fine.reshape(len(hu), 14, 2, 14, 2).max((2, 4))
  return results.SliceExplanation(
    (share / (share + 0.01)).astype(np.float32),
    fine.astype(np.float32),
    coarse.astype(np.float32),
  )


def _blind(hu):
  """A network that answers by chance, of each slab's bytes."""
  return np.array(
    [np.random.default_rng(abs(int(plane.sum()))).random() for plane in hu], np.float32
  )


def test_a_network_that_sees_opacities_is_told_from_one_that_does_not():
  chests = [_chest('a'), _chest('b', seed=1), _chest('c', seed=2)]
  seeing = judging.judge(_finder, chests)
  assert seeing.overall.auc.value == 1 and seeing.overall.rule_auc.value == 1
  assert (seeing.overall.n_positive, seeing.overall.n_negative) == (27, 18)
  assert seeing.overall.n_chests == 3
  assert seeing.overall.sensitivity.value == 1 == seeing.overall.specificity.value
  blind = judging.judge(_blind, chests)
  assert 0.2 < blind.overall.auc.value < 0.8
  low, high = blind.overall.difference.interval
  assert low <= blind.overall.difference.value <= high < 0
  assert blind.overall.difference.value == pytest.approx(
    blind.overall.auc.value - blind.overall.rule_auc.value
  )
  assert not blind.studies and blind.rank_correlation.value is None


def test_slabs_with_too_little_opacity_are_in_no_area_but_in_the_score():
  chest = _chest()
  unknown = dataclasses.replace(
    chest, label=np.where(chest.study == 0, -1, chest.label).astype(np.int8)
  )
  both = [judging.judge(_finder, [case]) for case in (chest, unknown)]
  assert [found.overall.n_positive for found in both] == [9, 6]
  assert both[0].studies == both[1].studies


def test_scores_follow_the_opacity_and_maps_lie_on_it():
  found = judging.judge(_finder, [_chest()])
  assert [study.amount_cm3 for study in found.studies] == [1.5, 2.94, 4.86]
  for study in found.studies:
    assert study.score_cm3 == pytest.approx(study.amount_cm3, rel=0.35)
  assert found.rank_correlation.value == pytest.approx(1)
  assert (found.marked.count, found.marked.total) == (9, 9)
  low, middle, high = found.score_ratio
  assert low <= middle <= high

  def aside(hu):
    answer = _finder(hu)
    return answer._replace(cam_28=answer.cam_28[:, ::-1, ::-1])

  assert judging.judge(aside, [_chest()]).marked.count == 0


def test_an_alarm_outside_the_opacity_counts_in_the_score_of_each_study():
  chest = _chest()
  alarm = chest.hu.copy()
  alarm[5, 30:50, 30:50] = -500  # On a slab that no study touches.
  found = judging.judge(_finder, [dataclasses.replace(chest, hu=alarm)])
  plain = judging.judge(_finder, [chest])
  for more, less in zip(found.studies, plain.studies):
    assert more.score_cm3 - less.score_cm3 == pytest.approx(2, rel=0.25)
  assert found.overall.specificity.count == _SLABS - 1
  assert found.false_alarms[0].answer.slab == 5


def test_groups_where_chests_differ_and_stress_apart():
  chests = [_chest('a'), _chest('b', kernel='SHARP', seed=1)]
  noisy = dataclasses.replace(chests[0], condition='lower dose')
  found = judging.judge(_finder, [*chests, noisy])
  assert found.overall.n_positive == 18  # Not the noisy ones.
  names = [(group.by, group.name) for group in found.groups]
  assert names == [
    ('chest', 'a'),
    ('chest', 'b'),
    ('kernel', 'SHARP'),
    ('kernel', 'SOFT'),
    ('condition', 'as it was scanned'),
    ('condition', 'lower dose'),
    ('opacity', 'less than 2 cm²'),
    ('opacity', '2 to 10 cm²'),
  ]
  small, large = found.groups[-2:]  # Squares of 1, 1.96 and 3.24 cm².
  assert (small.n_positive, large.n_positive) == (12, 6)
  assert small.n_negative == large.n_negative == 2 * _SLABS
  by_condition = {group.name: group.n_positive for group in found.groups[4:6]}
  assert by_condition == {'as it was scanned': 18, 'lower dose': 9}


def test_no_chest_is_refused():
  with pytest.raises(errors.UsageError, match='one chest'):
    judging.judge(_finder, [])


def test_the_page_shows_figures_and_the_worst_slabs(tmp_path):
  found = judging.judge(_finder, [_chest('a'), _chest('b', kernel='SHARP', seed=1)])
  judging_report.write(found, {'Classifier': 'demo'}, tmp_path)
  page = (tmp_path / 'evaluation.html').read_text('utf-8')
  for text in ('Worst misses', 'Worst false alarms', 'kernel: SHARP', 'simple rule'):
    assert text in page
  assert page.count('<image ') == len(found.misses) + len(found.false_alarms)
  content = json.loads((tmp_path / 'evaluation.json').read_text('utf-8'))
  assert content['overall']['auc']['value'] == 1
  assert len(content['slabs']) == 30 and len(content['studies']) == 6
  assert 'misses' not in content
  lines = judging_report.in_words(found)
  assert lines[0].startswith('slabs: 18 + 12 of 2 chests, AUC 1.0000')


def test_the_page_can_be_read_by_everybody(tmp_path):
  found = judging.judge(_finder, [_chest('a'), _chest('b', kernel='SHARP', seed=1)])
  judging_report.write(found, {'Classifier': 'a <b>'}, tmp_path)
  with browser.chromium(webgl=False) as chromium:
    browser.check_page(chromium, tmp_path / judging_report.PAGE_NAME)


def test_a_chest_without_its_opacities_has_no_curve(tmp_path):
  chest = _chest(studies=0)
  found = judging.judge(_finder, [chest])
  assert found.overall.auc.value is None and found.calibration is None
  judging_report.write(found, {'Classifier': 'demo'}, tmp_path)
  assert 'not defined' in (tmp_path / 'evaluation.html').read_text('utf-8')


def test_neighbours_are_smoothed_within_each_study():
  chest = _chest(studies=2)
  plain = judging.judge(_finder, [chest])
  smooth = judging.judge(_finder, [chest], smoothing_mm=6.0)
  for number in (-1, 0, 1):
    own = {s.slab: s.probability for s in plain.slabs if s.study == -1}
    own |= {s.slab: s.probability for s in plain.slabs if s.study == number}
    expected = slabs.smoothed(
      np.array([own[slab] for slab in range(_SLABS)], np.float32),
      5.0 * np.arange(_SLABS),
      6.0,
    )
    found = {s.slab: s.probability for s in smooth.slabs if s.study == number}
    assert found == pytest.approx({slab: expected[slab] for slab in found})
  assert smooth.overall.auc.value == 1
  # What smoothing decides counts: sure neighbours outweigh a slab, and its map.
  assert smooth.studies[0].score_cm3 == 0 < plain.studies[0].score_cm3


def test_what_lies_between_slabs_is_smoothed_over_but_not_judged():
  chest = _chest(studies=1)
  opaque = chest.hu[_SLABS + 1]  # Between the slabs 1 and 2, in both cases.
  with_steps = dataclasses.replace(
    chest,
    between_hu=np.stack([*chest.hu[: _SLABS - 1], opaque]),
    between_slab=np.array([*range(_SLABS - 1), 1], np.int32),
    between_study=np.array([-1] * (_SLABS - 1) + [0], np.int32),
  )
  plain, steps = (
    judging.judge(_finder, [with_steps], smoothing_mm=by) for by in (0, 6.0)
  )
  assert plain.slabs == judging.judge(_finder, [chest]).slabs
  assert len(steps.slabs) == len(chest.hu)
  logits = {step / 2: 0.0 for step in range(2 * _SLABS - 1)}
  answers = _finder(np.concatenate([with_steps.hu, with_steps.between_hu]))
  own, between = np.split(answers.covid_probability, [len(chest.hu)])
  logits |= dict(enumerate(own[:_SLABS]))
  logits |= {place + 0.5: between[place] for place in range(_SLABS - 1)}
  for study in (-1, 0):
    if study == 0:  # What shows no opacity of it is the chest's own.
      logits |= dict(zip((1, 2, 3), own[_SLABS:])) | {1.5: between[-1]}
    along = sorted(logits)
    expected = slabs.smoothed(
      np.array([logits[place] for place in along], np.float32),
      5.0 * np.array(along),
      6.0,
    )
    found = {s.slab: s.probability for s in steps.slabs if s.study == study}
    assert found == pytest.approx({p: expected[along.index(p)] for p in found})


def test_folds_are_pooled():
  chests = [_chest('a'), _chest('b', seed=1)]
  whole = judging.judge(_finder, chests)
  parts = judging.pooled([judging.judge(_finder, [chest]) for chest in chests])
  assert parts.overall == whole.overall and parts.studies == whole.studies
  assert parts.groups == whole.groups and parts.slabs == whole.slabs
  assert [s.answer for s in parts.misses] == [s.answer for s in whole.misses]
