"""Densities and zone scores of a cohort, through the command's files."""

import json

import cohort_files
import numpy as np
import pytest

from covid_tf import cli
from covid_tf.cohort import labels
from covid_tf.cohort import results
from covid_tf.cohort.accuracy import measures

_POSITIVE = (5, 40, 80, 120, 33)
_NEGATIVE = (0, 6, 2, 19)
_GRADES = ('mild', 'severe', 'severe', 'mild', 'severe')


def _cohort(root, measured=True):
  folder, table = cohort_files.write_cohort(root, _POSITIVE, _NEGATIVE, _GRADES)
  if measured:
    for path in folder.rglob('result.json'):
      content = json.loads(path.read_text())
      score = content['corona_score_cm3']
      # The second zone score ranks as the first; low attenuation is constant.
      content |= cohort_files.measured(int(score // 10), -850 + score, score / 500)
      path.write_text(json.dumps(content))
  return folder, table


def _run(folder, table, output):
  flags = ['--output', str(output), '--draws', '100']
  assert cli.main(['cohort', str(folder), str(table), *flags]) == 0
  content = json.loads((output / 'cohort.json').read_text())
  return content, (output / 'cohort.html').read_text()


def test_each_measure_is_compared_on_the_same_patients(tmp_path):
  content, page = _run(*_cohort(tmp_path), tmp_path / 'out')
  found = {score['name']: score for score in content['measures']['scores']}
  assert list(found) == list(results.MEASURES)
  zones = found['zone_score']
  positive, negative = (np.array(each) // 10 for each in (_POSITIVE, _NEGATIVE))
  wins = np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in negative])
  assert zones['auc'] == pytest.approx(wins) and wins < content['detection']['auc']
  paired = zones['corona_score_against_it']
  assert paired['paired']['difference'] == pytest.approx(
    content['detection']['auc'] - wins
  )
  density = found['mean_lung_density_hu']
  assert density['auc'] == content['detection']['auc']
  assert density['severity']['medians'] == {'mild': -850 + 62.5, 'severe': -850 + 40}
  assert density['severity']['p_value'] == content['severity']['rank_sum_p_value']
  assert len(density['roc']['sensitivity']) == len(density['roc']['threshold'])
  for title in results.MEASURES.values():
    assert title in page
  for stem in ('measures_roc', 'measures_box_plot'):
    assert (tmp_path / 'out' / 'figures' / f'{stem}.png').stat().st_size > 1000
  assert page.count('<svg') == 4


def test_a_constant_measure_is_no_error(tmp_path):
  content, page = _run(*_cohort(tmp_path), tmp_path / 'out')
  (constant,) = (
    score
    for score in content['measures']['scores']
    if score['name'] == 'low_attenuation_share'
  )
  assert constant['auc'] == 0.5
  assert constant['severity']['p_value'] == 1
  (said,) = content['measures']['messages']
  assert said.startswith('Low attenuation') and 'all values are equal' in said
  assert said in page


def test_results_without_them_say_so(tmp_path):
  content, page = _run(*_cohort(tmp_path, measured=False), tmp_path / 'out')
  assert content['measures'] == {'scores': [], 'messages': [measures.NONE_MEASURED]}
  assert measures.NONE_MEASURED in page
  assert not (tmp_path / 'out' / 'figures' / 'measures_roc.png').exists()


def test_patients_without_a_measure_are_counted_and_left_out():
  patients = [
    labels.Patient('1', True, 'a', {results.CORONA_SCORE: 9.0, 'zone_score': 3.0}),
    labels.Patient('2', False, None, {results.CORONA_SCORE: 1.0}),
  ]
  (found,) = measures.measure_all(patients)
  assert (found.n_positive, found.n_negative, found.auc) == (1, 0, None)
  assert '1 patients have a result without it' in found.messages[0]
  assert found.curve is None and found.comparison is None
