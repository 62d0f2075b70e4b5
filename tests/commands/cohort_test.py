"""The command on cohorts good and bad, through its files."""

import json
import re

import cohort_files
import numpy as np
import pytest

from covid_tf import cli

POSITIVE = (5, 40, 80, 120, 33, 61, 250, 9, 300, 75, 18, 140)
NEGATIVE = (0, 0, 0, 2, 0, 7, 1, 0, 12, 0)
SEVERITY = (
  'non-severe',
  'non-severe',
  '',
  'severe',
  'non-severe',
  '',
  'severe',
  'non-severe',
  'severe',
  '',
  'non-severe',
  'severe',
)


def run(results, labels, output, *flags):
  return cli.main(
    [
      'cohort',
      str(results),
      str(labels),
      '--output',
      str(output),
      '--draws',
      '200',
      *flags,
    ]
  )


def content(output):
  def refuse(constant):
    raise AssertionError(f'{constant} in cohort.json')

  return json.loads((output / 'cohort.json').read_text(), parse_constant=refuse)


def test_a_whole_cohort(tmp_path, capsys):
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE, SEVERITY)
  output = tmp_path / 'out'
  assert run(results, labels, output, '--prevalence', '0.1', '--threshold', '10') == 0
  found = content(output)
  detection, severity = found['detection'], found['severity']
  wins = np.mean([(p > n) + 0.5 * (p == n) for p in POSITIVE for n in NEGATIVE])
  assert detection['auc'] == pytest.approx(wins)
  for name in ('auc_ci95_delong', 'auc_ci95_bootstrap', 'auc_ci95_newcombe'):
    low, high = detection[name]
    assert 0.7 < low < wins < high <= 1
  assert [point['name'] for point in detection['operating_points']] == [
    'youden',
    'sensitivity',
    'threshold',
  ]
  assert detection['operating_points'][2]['sensitivity']['count'] == 10
  assert detection['comparison']['second'] == 'involved lung fraction'
  assert severity['medians_cm3'] == {'non-severe': 18, 'severe': 195}
  assert severity['rank_sum_method'] == 'exact'
  assert severity['rank_sum_p_value'] < 0.05
  assert found['paper']['detection']['auc'] == 0.948
  assert found['paper']['severity']['medians_cm3_as_listed'] == [61.5, 227.5]
  for stem in ('detection_roc', 'severity_box_plot'):
    assert (output / 'figures' / f'{stem}.png').read_bytes()[:4] == b'\x89PNG'
    assert '<svg' in (output / 'figures' / f'{stem}.svg').read_text()
  assert 'AUC 0.9' in capsys.readouterr().out


def test_operating_point_is_what_score_reads(tmp_path):
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE)
  output = tmp_path / 'out'
  assert (
    run(results, labels, output, '--threshold', '10', '--operating-point', 'threshold')
    == 0
  )
  point = json.loads((output / 'operating_point.json').read_text())
  assert point['schema_version'] == 1 and point['case_corona_score_cm3'] == 10
  assert point['rule'].startswith('stated beforehand')
  assert point['models'] == {'lungs': 'a' * 64, 'classifier': 'b' * 64}
  assert point['thickness_mm'] is None  # As its results, of before there was one.
  assert point['smoothing_mm'] == 0


def test_page_needs_no_other_file_and_names_no_patient(tmp_path):
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE, SEVERITY)
  output = tmp_path / 'out'
  assert run(results, labels, output) == 0
  page = (output / 'cohort.html').read_text()
  assert page.count('<svg') == 2
  assert not re.search(r'(?:src|href)="(?!#)', page)
  assert '61.5 and 227.5' in page and 'caption of Fig. 4' in page
  for name in ('cohort.html', 'cohort.json', 'operating_point.json'):
    assert 'Patient-' not in (output / name).read_text()


def test_grades_of_the_user_are_text_on_the_page(tmp_path):
  grades = ['<b>bad</b>' if i % 2 else 'a$b_c$' for i in range(len(POSITIVE))]
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE, grades)
  assert run(results, labels, tmp_path / 'out') == 0
  assert '<b>bad' not in (tmp_path / 'out' / 'cohort.html').read_text()


def test_three_grades_and_their_order(tmp_path):
  grades = [
    ('mild', 'moderate', 'severe')[min(2, int(score > 30) + int(score > 110))]
    for score in POSITIVE
  ]
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE, grades)
  assert run(results, labels, tmp_path / 'plain') == 0
  severity = content(tmp_path / 'plain')['severity']
  assert severity['rank_sum_p_value'] is None and severity['trend'] is None
  assert severity['kruskal_wallis_p_value'] < 0.05
  assert any('no test for trend' in message for message in severity['messages'])
  assert (
    run(
      results, labels, tmp_path / 'ordered', '--severity-order', 'mild, moderate,severe'
    )
    == 0
  )
  severity = content(tmp_path / 'ordered')['severity']
  assert severity['trend']['p_value'] < 0.01 and severity['trend']['kendall_tau'] > 0.5
  assert run(results, labels, tmp_path / 'wrong', '--severity-order', 'mild,bad') == 2
  assert not (tmp_path / 'wrong').exists()


def test_first_time_point_of_each_patient(tmp_path):
  results, _ = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE)
  rows = [(f'1.2.1.{i}', f'P{i // 2}', 1, 10 - i % 2) for i in range(len(POSITIVE))]
  rows += [(f'1.2.0.{i}', f'N{i}', 0, '') for i in range(len(NEGATIVE))]
  rows.append(('1.2.1.99', 'P0', 1, 1))  # Earlier still, but never scored.
  labels = cohort_files.write_labels(
    tmp_path / 'labels.csv', rows, 'study_uid,patient_id,covid,time_point'
  )
  assert run(results, labels, tmp_path / 'out') == 0
  found = content(tmp_path / 'out')
  assert found['detection']['n_positive'] == 6
  assert [
    patient['study_uid'] for patient in found['patients'] if patient['covid']
  ] == sorted(f'1.2.1.{i}' for i in range(1, 12, 2))
  assert found['studies']['later_time_points'] == sorted(
    f'1.2.1.{i}' for i in range(0, 12, 2)
  )
  assert found['studies']['first_time_points_not_scored'] == ['1.2.1.99']


def test_everything_left_out_is_counted_and_listed(tmp_path, capsys):
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE)
  cohort_files.write_result(results, '1.5.5', 20)
  (results / 'site0' / 'broken').mkdir()
  with open(labels, 'a', encoding='utf-8') as file:
    file.write('1.6.6,Patient-absent,1,\n')
  assert run(results, labels, tmp_path / 'out') == 0
  studies = content(tmp_path / 'out')['studies']
  assert studies['failed'] == 1
  assert studies['failed_studies'] == [
    {'path': 'site0/broken', 'reason': 'no result.json'}
  ]
  assert studies['labels_without_result'] == ['1.6.6']
  assert studies['results_without_label'] == ['1.5.5/result.json']
  message = capsys.readouterr().err
  assert 'failed' in message and 'without a label' in message
  page = (tmp_path / 'out' / 'cohort.html').read_text()
  assert 'site0/broken' in page and '1.6.6' in page
  assert run(results, labels, tmp_path / 'strict', '--require-all') == 2
  assert 'found 3 that are not' in capsys.readouterr().err


@pytest.mark.parametrize(
  'positive, negative, words',
  [(POSITIVE, (), 'none has covid 0'), ((), NEGATIVE, 'none has covid 1')],
)
def test_one_class_gives_a_message(tmp_path, capsys, positive, negative, words):
  results, labels = cohort_files.write_cohort(tmp_path, positive, negative)
  assert run(results, labels, tmp_path / 'out') == 0
  detection = content(tmp_path / 'out')['detection']
  assert detection['auc'] is None and detection['auc_ci95_delong'] is None
  assert words in detection['messages'][0]
  assert words in (tmp_path / 'out' / 'cohort.html').read_text()
  assert words in capsys.readouterr().err
  assert not (tmp_path / 'out' / 'operating_point.json').exists()


@pytest.mark.parametrize(
  'positive, negative, severity, words',
  [
    ((5,), (1, 2), ('severe',), 'One patient in a group'),
    ((5,), (1,), (), 'One patient in a group'),
    ((5, 5, 5), (5, 5), ('a', 'b', 'b'), 'All scores are equal'),
    ((5, 6, 7), (1, 2), ('a', 'b'), 'separate wholly'),
    ((0, 0, 0, 1), (4, 5), (), 'swapped'),
    ((0, 0, 0, 1), (0, 0), (), 'No threshold reaches'),
  ],
)
def test_odd_cohorts_give_messages_and_no_nan(
  tmp_path, positive, negative, severity, words
):
  results, labels = cohort_files.write_cohort(tmp_path, positive, negative, severity)
  assert run(results, labels, tmp_path / 'out', '--prevalence', '0.2') == 0
  found = content(tmp_path / 'out')
  assert any(words in message for message in found['detection']['messages'])
  assert 'nan' not in (tmp_path / 'out' / 'cohort.html').read_text().lower().replace(
    'provenance', ''
  )


def test_mixed_models_are_refused_unless_asked_for(tmp_path, capsys):
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE)
  output = tmp_path / 'out'
  assert run(results, labels, output) == 0
  other = [cohort_files.MODELS[0], cohort_files.MODELS[1] | {'card_sha256': 'c' * 64}]
  cohort_files.write_result(results, '1.2.1.0', 5, folder='site0/1.2.1.0', models=other)
  assert run(results, labels, output) == 2
  assert 'found 2 models' in capsys.readouterr().err
  assert run(results, labels, output, '--allow-mixed') == 0
  found = content(output)
  assert 'Mixed results' in found['warnings'][0]
  assert len(found['models']['classifier']) == 2
  # A threshold of an earlier, unmixed run must not stay beside these.
  assert not (output / 'operating_point.json').exists()


def test_second_results_are_compared_on_the_same_patients(tmp_path):
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE)
  rng = np.random.default_rng(0)
  for i in range(len(POSITIVE) - 2):
    cohort_files.write_result(tmp_path / 'other', f'1.2.1.{i}', rng.uniform(0, 9))
  for i in range(len(NEGATIVE)):
    cohort_files.write_result(tmp_path / 'other', f'1.2.0.{i}', rng.uniform(0, 9))
  assert (
    run(results, labels, tmp_path / 'out', '--second-results', str(tmp_path / 'other'))
    == 0
  )
  comparison = content(tmp_path / 'out')['detection']['comparison']
  assert (comparison['n_positive'], comparison['n_negative']) == (10, 10)
  assert comparison['auc'] > comparison['second_auc']
  assert comparison['paired']['p_value'] < 0.05
  assert comparison['second'] == 'Corona score in other'


def test_one_patient_under_two_ids_is_refused(tmp_path, capsys):
  results, labels = cohort_files.write_cohort(tmp_path, (5, 6, 7), (1, 2))
  for i in (0, 2):
    cohort_files.write_result(
      results, f'1.2.1.{i}', 5 + i, folder=f'site{i}/1.2.1.{i}', patient_key='f' * 64
    )
  assert run(results, labels, tmp_path / 'out') == 2
  message = capsys.readouterr().err
  assert 'row 4' in message and 'patient_key of row 2' in message
  assert 'Patient-' not in message


def test_labels_of_other_studies_are_refused(tmp_path, capsys):
  results, _ = cohort_files.write_cohort(tmp_path, (5, 6), (1, 2))
  labels = cohort_files.write_labels(tmp_path / 'other.csv', [('9.9', 'P', 1)])
  assert run(results, labels, tmp_path / 'out') == 2
  assert 'no study_uid in common' in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
  results, labels = cohort_files.write_cohort(tmp_path, (5, 6), (1, 2))
  assert run(results, labels, labels) == 5
  assert 'a folder that can be written is required' in capsys.readouterr().err


@pytest.mark.parametrize(
  'flags',
  [
    ('--sensitivity', '0'),
    ('--sensitivity', 'nan'),
    ('--prevalence', '1'),
    ('--threshold', '-1'),
    ('--threshold', 'inf'),
    ('--operating-point', 'threshold'),
    ('--severity-order', 'mild'),
    ('--severity-order', 'mild,,severe'),
    ('--draws', '5'),
    ('--seed', '-1'),
  ],
)
def test_flags_out_of_range_are_refused(tmp_path, flags):
  results, labels = cohort_files.write_cohort(tmp_path, (5, 6), (1, 2))
  assert run(results, labels, tmp_path / 'out', *flags) == 2
  assert not (tmp_path / 'out').exists()


def _review(path, rows):
  path.write_text('result,decision,comment\n' + ''.join(f'{row}\n' for row in rows))
  return path


def test_rejected_results_are_left_out_and_counted(tmp_path, capsys):
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE)
  review = _review(
    tmp_path / 'review.csv',
    [
      'site0/1.2.1.0,rejected,motion',
      'site1/1.2.1.1,rejected,motion',
      'site2/1.2.0.2,rejected,',
      'site0/1.2.1.3,accepted,',
    ],
  )
  output = tmp_path / 'out'
  assert run(results, labels, output, '--review', str(review), '--require-all') == 0
  found = content(output)
  studies = found['studies']
  assert studies['results'] == 19 and studies['labels_without_result'] == []
  assert studies['review'] == {
    'accepted': 1,
    'rejected': 3,
    'not_reviewed': 18,
    'rejected_by_reason': {'motion': 2, 'no reason given': 1},
    'rejected_results': {
      'site0/1.2.1.0': 'motion',
      'site1/1.2.1.1': 'motion',
      'site2/1.2.0.2': 'no reason given',
    },
  }
  kept = [p for i, p in enumerate(POSITIVE) if i > 1]
  without = [n for i, n in enumerate(NEGATIVE) if i != 2]
  wins = np.mean([(p > n) + 0.5 * (p == n) for p in kept for n in without])
  assert found['detection']['auc'] == pytest.approx(wins)
  said = capsys.readouterr().err
  assert 'left out: 3 of 22 (motion: 2; no reason given: 1)' in said
  assert 'not reviewed: 18 of 22' in said
  page = (output / 'cohort.html').read_text()
  assert 'rejected in review: 3' in page and 'site0/1.2.1.0: motion' in page
  assert content(output)['studies']['failed'] == 0


def test_without_a_review_none_is_stated(tmp_path):
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE)
  assert run(results, labels, tmp_path / 'out') == 0
  assert content(tmp_path / 'out')['studies']['review'] is None


@pytest.mark.parametrize(
  'rows, words',
  [
    (['1.2.1.0,rejected,'], "no result in a folder '1.2.1.0'"),
    (['site0/1.2.1.0,bad,'], "the decision 'bad'"),
    (['site0/1.2.1.0,accepted,', 'site0/1.2.1.0,rejected,'], 'again, after row 2'),
  ],
)
def test_a_review_of_other_results_is_refused(tmp_path, rows, words, capsys):
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE)
  review = _review(tmp_path / 'review.csv', rows)
  assert run(results, labels, tmp_path / 'out', '--review', str(review)) == 2
  assert words in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_all_rejected_leaves_nothing(tmp_path, capsys):
  results, labels = cohort_files.write_cohort(tmp_path, [5], [1])
  review = _review(
    tmp_path / 'review.csv',
    ['site0/1.2.1.0,rejected,', 'site0/1.2.0.0,rejected,'],
  )
  assert run(results, labels, tmp_path / 'out', '--review', str(review)) == 2
  assert 'not rejected is required, found 2 rejected of 2' in capsys.readouterr().err


def test_edited_results_are_said(tmp_path, capsys):
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE)
  edits = {
    'lung_mask_sha256': 'a' * 64,
    'excluded_slices': [],
    'rescored_from_sha256': None,
    'thresholds_before': {},
  }
  cohort_files.write_result(
    results, '1.2.1.0', 5.0, folder='site0/1.2.1.0', edits=edits
  )
  assert run(results, labels, tmp_path / 'out') == 0
  assert '1 of 22 (lung mask given)' in capsys.readouterr().err
  assert any('Edited results' in text for text in content(tmp_path / 'out')['warnings'])


def test_second_results_that_were_edited_are_said(tmp_path, capsys):
  results, labels = cohort_files.write_cohort(tmp_path, POSITIVE, NEGATIVE)
  others, _ = cohort_files.write_cohort(tmp_path / 'others', POSITIVE, NEGATIVE)
  edits = {
    'lung_mask_sha256': None,
    'excluded_slices': [0],
    'rescored_from_sha256': 'b' * 64,
    'thresholds_before': {},
  }
  cohort_files.write_result(others, '1.2.1.0', 4.0, folder='site0/1.2.1.0', edits=edits)
  assert run(results, labels, tmp_path / 'out', '--second-results', str(others)) == 0
  assert '1 of 22 (slices excluded)' in capsys.readouterr().err


def test_groups_of_two_scanners_are_told_before_the_numbers(tmp_path, capsys):
  results, labels = cohort_files.write_cohort(tmp_path, (5, 40, 80), (0, 0, 3))
  for path in results.rglob('result.json'):
    covid = json.loads(path.read_text())['study_uid'].split('.')[2]
    model = {'1': 'Sensation <10>', '0': 'LightSpeed16'}[covid]
    content_ = json.loads(path.read_text()) | {'acquisition': {'model': model}}
    path.write_text(json.dumps(content_))
  output = tmp_path / 'out'
  assert run(results, labels, output) == 0
  printed = capsys.readouterr()
  assert 'Patients with and without disease differ in scanner' in printed.err
  (factor,) = content(output)['acquisition']
  assert factor['name'] == 'scanner' and factor['separates']
  assert {each['name'] for each in factor['strata']} == {
    'SENSATION <10>',
    'LIGHTSPEED16',
  }
  page = (output / 'cohort.html').read_text()
  assert 'By scanner' in page and 'SENSATION &lt;10&gt;' in page


def test_an_acquisition_that_is_none_is_a_failed_study(tmp_path):
  results, labels = cohort_files.write_cohort(tmp_path, (5, 40), (0, 3))
  path = next(results.rglob('result.json'))
  path.write_text(
    json.dumps(json.loads(path.read_text()) | {'acquisition': {'kvp': 'high'}})
  )
  assert run(results, labels, tmp_path / 'out') == 0
  (failed,) = content(tmp_path / 'out')['studies']['failed_studies']
  assert 'acquisition must be an object whose kvp is' in failed['reason']
