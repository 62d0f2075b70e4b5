"""The demo's figures against cases whose answers are known by hand."""

import dataclasses

import numpy as np
import pytest
import report_page

from covid_tf.datasets.phantom import written
from covid_tf.demo import drawing
from covid_tf.demo import summary


def _case(
  name,
  volume,
  score,
  *,
  truth_slices=(1, 2),
  found=(1, 2),
  hits=2,
  lung_dice=0.97,
  probability=(0.1, 0.9, 0.9, 0.1),
):
  kind = 'focal' if volume else 'none'
  truth = written.Truth(
    seed=1,
    kind=kind,
    severe=False,
    study_uid=f'2.25.{name[-1]}',
    series_uid='2.25.9',
    lesion_volume_cm3=volume,
    lung_volume_cm3=4000.0,
    positive_slices=truth_slices if volume else (),
    slice_count=4,
  )
  both = len(set(truth.positive_slices) & set(found))
  return summary.CaseAgreement(
    name,
    truth,
    score,
    0.0,
    3900.0,
    found,
    probability,
    lung_dice,
    both,
    min(hits, both),
    8.0,
  )


_COHORT = (
  _case('p-1', 100.0, 50.0),
  _case('p-2', 200.0, 90.0, hits=1),
  _case('p-3', 300.0, 80.0),
  _case('n-4', 0.0, 60.0, found=(3,)),
  _case('n-5', 0.0, 0.0, found=(), lung_dice=0.91),
)


def test_scores_against_truth():
  named = summary.cohort_metrics(_COHORT)
  assert named['patients'] == 5
  assert named['positive_patients'] == 3
  assert named['score_auc'] == pytest.approx(5 / 6)  # One of six pairs is wrong.
  assert named['positives_above_negatives'] == pytest.approx(2 / 3)
  assert named['lowest_positive_score_cm3'] == 50
  assert named['highest_negative_score_cm3'] == 60
  assert named['volume_rank_correlation'] == pytest.approx(0.5)


def test_maps_and_slices_against_truth():
  named = summary.cohort_metrics(_COHORT)
  assert named['true_positive_slices'] == 6
  assert named['map_hits_lesion_fraction'] == pytest.approx(5 / 6)
  assert named['slice_sensitivity'] == 1.0
  assert named['slice_specificity'] == pytest.approx(13 / 14)
  assert named['lung_dice_min'] == 0.91
  assert named['seconds_per_slice'] == pytest.approx(2.0)


def test_what_is_missed_is_named():
  assert summary.failures(summary.cohort_metrics(_COHORT)) == [
    'positives_above_negatives',
    'volume_rank_correlation',
    'map_hits_lesion_fraction',
    'lung_dice_min',
  ]
  good = [case for case in _COHORT if case.name in ('p-1', 'p-3', 'n-5')]
  good = [dataclasses.replace(case, lung_dice=0.96) for case in good]
  assert summary.failures(summary.cohort_metrics(good)) == []


@pytest.mark.parametrize('cases', ((), _COHORT[:1], _COHORT[3:]))
def test_what_a_cohort_cannot_have_is_none(cases):
  named = summary.cohort_metrics(cases)
  assert named['score_auc'] is None
  assert named['positives_above_negatives'] is None
  assert named['volume_rank_correlation'] is None
  assert summary.failures(named) in ([], ['lung_dice_min'])


def test_equal_scores_are_no_correlation():
  equal = [dataclasses.replace(case, corona_score_cm3=5.0) for case in _COHORT[:3]]
  assert summary.cohort_metrics(equal)['volume_rank_correlation'] == 0.0


def test_the_text_says_what_is_not_reached():
  text = summary.metrics_text(summary.cohort_metrics(_COHORT))
  assert '0.833  (required 0.9: NOT REACHED)' in text
  assert 'AUC of the score' in text


def test_dice():
  first, second = np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint8)
  assert summary.dice(first, second) == 1.0
  first[0], second[0, :2] = 1, 1
  assert summary.dice(first, second) == pytest.approx(4 / 6)


def test_the_page_sets_no_score_beside_a_volume_as_if_it_were_one(tmp_path):
  """Old: 'lesion, score (cm³) 580.3 | 169.4' read as an error."""
  shown = summary.Thumbnail('data:,', '', '', 100.0, 80.0, 1)
  folder = drawing.DemoFolder(tmp_path)
  summary.write_page(folder, _COHORT, dict.fromkeys((c.name for c in _COHORT), shown))
  rows = [row.words() for row in report_page.Page(folder.page.read_bytes()).all('tr')]
  assert 'lesion volume (cm³)100.0–' in rows
  assert 'Corona score (cm³)–50.0' in rows
  assert not any('100.0' in row and '50.0' in row for row in rows)
