import dataclasses
import json
import os
import pathlib

import cohort_files
import pytest
import scored_studies

from covid_tf import errors
from covid_tf.cohort import results as results_lib
from covid_tf.storage import result_json


def test_finds_results_at_any_depth(tmp_path):
  cohort_files.write_result(tmp_path, '1.1', 3.5, folder='a/b/c/case')
  cohort_files.write_result(tmp_path, '1.2', 0, folder='case')
  results, failed = results_lib.load_results(tmp_path)
  assert {
    result.study_uid: result.scores['corona_score_cm3'] for result in results
  } == {'1.1': 3.5, '1.2': 0.0}
  assert not failed
  assert results[0].models['lungs'] == ('1', 'a' * 64)
  assert results[0].thresholds == {
    'slice_probability': 0.5,
    'map': 0.6,
    'thickness_mm': None,
    'smoothing_mm': 0,
  }
  assert results[0].scores['positive_slice_fraction'] == 0.5
  assert results[0].scores['highest_slice_probability'] == 0.9


def test_finds_results_below_a_result(tmp_path):
  cohort_files.write_result(tmp_path, '1.1', 1, folder='.')
  cohort_files.write_result(tmp_path, '1.2', 2, folder='first')
  cohort_files.write_result(tmp_path, '1.3', 3, folder='first/later')
  (tmp_path / 'figures').mkdir()  # Of the study above, not a failed one.
  results, failed = results_lib.load_results(tmp_path)
  assert [result.study_uid for result in results] == ['1.1', '1.2', '1.3']
  assert not failed


def test_lists_every_failed_study_with_its_reason(tmp_path):
  cohort_files.write_result(tmp_path, '1.1', 3)
  cohort_files.write_result(tmp_path, '1.2', 3, corona_score_cm3=None)
  cohort_files.write_result(tmp_path, '1.3', float('nan'))
  cohort_files.write_result(tmp_path, '1.4', -1)
  cohort_files.write_result(tmp_path, '1.5', 3, corona_score_cm3=10**400)
  cohort_files.write_result(tmp_path, '1.55', 3, thresholds='none')
  torn = cohort_files.write_result(tmp_path, '1.6', 3)
  torn.write_text(torn.read_text()[:40])
  (tmp_path / '1.7').mkdir()
  (tmp_path / '1.8').mkdir()
  (tmp_path / '1.8' / 'failure.json').write_text('{"reason": "slices are missing"}')
  (tmp_path / '.1.9.partial').mkdir()
  results, failed = results_lib.load_results(tmp_path)
  assert [result.study_uid for result in results] == ['1.1']
  reasons = {
    (study.path.parent if study.path.is_file() else study.path).name: study.reason
    for study in failed
  }
  assert set(reasons) == {'1.2', '1.3', '1.4', '1.5', '1.55', '1.6', '1.7', '1.8'}
  assert 'found None' in reasons['1.2'] and 'found -1' in reasons['1.4']
  assert reasons['1.6'] == 'not a whole JSON file'
  assert reasons['1.7'] == 'no result.json'
  assert reasons['1.8'] == 'slices are missing'


def test_not_every_folder_is_a_failed_study(tmp_path):
  cohort_files.write_result(tmp_path / 'results', '1.1', 3)
  (tmp_path / 'models' / 'lungs' / '1').mkdir(parents=True)
  (tmp_path / 'models' / 'lungs' / '1' / 'saved_model.pb').write_bytes(b'')
  (tmp_path / 'studies' / '1.2').mkdir(parents=True)
  (tmp_path / 'studies' / '1.2' / '1.dcm').write_bytes(b'')
  (tmp_path / 'elsewhere' / 'torn').mkdir(parents=True)
  (tmp_path / 'elsewhere' / 'torn' / 'report.html').write_bytes(b'')
  _, failed = results_lib.load_results(tmp_path)
  assert [study.path.name for study in failed] == ['torn']


def test_refuses_one_study_in_two_places(tmp_path):
  cohort_files.write_result(tmp_path, '1.1', 3, folder='first')
  cohort_files.write_result(tmp_path, '1.1', 4, folder='second')
  with pytest.raises(errors.UsageError, match=r'1\.1: .*first.*second'):
    results_lib.load_results(tmp_path)


def test_a_source_without_uid_goes_by_its_folder(tmp_path):
  cohort_files.write_result(tmp_path, '', 3, folder='study_0255')
  (result,), _ = results_lib.load_results(tmp_path)
  assert result.study_uid == 'study_0255'


def test_follows_links_once(tmp_path):
  elsewhere = tmp_path / 'elsewhere'
  cohort_files.write_result(elsewhere, '1.1', 3)
  root = tmp_path / 'results'
  root.mkdir()
  os.symlink(elsewhere, root / 'linked')
  os.symlink(root, elsewhere / 'back')
  results, _ = results_lib.load_results(root)
  assert [result.study_uid for result in results] == ['1.1']


def test_its_own_output_is_no_study(tmp_path):
  cohort_files.write_result(tmp_path, '1.1', 3)
  (tmp_path / 'cohort' / 'figures').mkdir(parents=True)
  (tmp_path / 'cohort' / 'cohort.json').write_text('{}')
  _, failed = results_lib.load_results(tmp_path)
  assert not failed


def test_refuses_a_folder_without_results(tmp_path):
  with pytest.raises(errors.UsageError, match='found nothing'):
    results_lib.load_results(tmp_path / 'absent')
  with pytest.raises(errors.UsageError, match='found none'):
    results_lib.load_results(tmp_path)


@pytest.mark.parametrize(
  'change, words',
  [
    (
      {
        'models': [
          cohort_files.MODELS[0],
          cohort_files.MODELS[1] | {'card_sha256': 'c' * 64},
        ]
      },
      'models',
    ),
    (
      {'models': [cohort_files.MODELS[0], cohort_files.MODELS[1] | {'version': 2}]},
      'models',
    ),
    ({'thresholds': {'slice_probability': 0.5, 'map': 0.4}}, 'thresholds'),
  ],
)
def test_refuses_results_that_do_not_compare(tmp_path, change, words):
  cohort_files.write_result(tmp_path, '1.1', 3)
  cohort_files.write_result(tmp_path, '1.2', 3, **change)
  results, _ = results_lib.load_results(tmp_path)
  with pytest.raises(errors.UsageError, match=f'found 2 .*{words}.*--allow-mixed'):
    results_lib.require_comparable([result.provenance for result in results])


def test_a_case_threshold_does_not_change_a_score(tmp_path):
  cohort_files.write_result(tmp_path, '1.1', 3)
  path = cohort_files.write_result(tmp_path, '1.2', 3)
  content = json.loads(path.read_text())
  content['thresholds']['case_corona_score_cm3'] = 12.5
  path.write_text(json.dumps(content))
  loaded = results_lib.load_results(tmp_path)[0]
  results_lib.require_comparable([result.provenance for result in loaded])
  one, other = loaded
  assert (one.scores, one.thresholds) == (other.scores, other.thresholds)


def _made(path, **changes):
  return dataclasses.replace(
    results_lib.Provenance(
      pathlib.Path(path), 1, {'lungs': ('1', 'a' * 64)}, {'map': 0.6}
    ),
    **changes,
  )


def test_every_difference_is_a_warning_where_mixed_results_are_asked_for():
  other_card = {'lungs': ('1', 'b' * 64)}
  made = [_made('a'), _made('b', models=other_card, thresholds={'map': 0.5})]
  warnings = results_lib.require_comparable(made, allow_mixed=True)
  assert [warning.split(' different ')[1].split(':')[0] for warning in warnings] == [
    'models',
    'slice and map thresholds, thicknesses or smoothings',
  ]
  assert not results_lib.require_comparable(made[:1] * 2, allow_mixed=True)


def test_results_of_other_smoothing_do_not_compare(tmp_path):
  for uid, smoothing in (('1.1', {'smoothing_mm': 6}), ('1.2', {'smoothing_mm': 6.0})):
    path = cohort_files.write_result(tmp_path, uid, 3.5)
    content = json.loads(path.read_text())
    content['thresholds'] |= smoothing
    path.write_text(json.dumps(content))
  alike, _ = results_lib.load_results(tmp_path)
  results_lib.require_comparable([result.provenance for result in alike])
  cohort_files.write_result(tmp_path, '1.3', 3.5)  # Of before logits were smoothed.
  mixed, _ = results_lib.load_results(tmp_path)
  with pytest.raises(errors.UsageError, match=r'smoothing_mm 6\.0.* smoothing_mm 0\.0'):
    results_lib.require_comparable([result.provenance for result in mixed])


def test_results_of_an_earlier_schema_compare():
  made = [_made('a'), _made('b', schema_version=3)]
  assert not results_lib.require_comparable(made, allow_mixed=True)


def test_versions_of_the_software_are_a_warning_and_no_refusal():
  made = [
    _made('a', software='covid-tf 0.1.0'),
    _made('b'),
    _made('c', software='covid-tf 0.2.0'),
  ]
  assert not results_lib.require_comparable(made)
  (warning,) = results_lib.software_warnings(made)
  assert 'covid-tf 0.1.0, covid-tf 0.2.0' in warning
  assert not results_lib.software_warnings(made[:2])


def test_a_stored_result_and_a_cohorts_one_have_one_provenance(tmp_path):
  folder = scored_studies.write_study(tmp_path / 'a', maps=False)
  ((read,), _) = results_lib.load_results(tmp_path)
  stored = result_json.read_result(folder)
  made = results_lib.provenance_of(folder / 'result.json', stored)
  assert made == read.provenance and made.software


def _edits(**changes):
  return {
    'lung_mask_sha256': None,
    'excluded_slices': [],
    'rescored_from_sha256': 'c' * 64,
    'thresholds_before': {},
  } | changes


def test_edited_results_are_never_compared_in_silence(tmp_path):
  plain = cohort_files.write_result(tmp_path, '1.1', 3)
  again = cohort_files.write_result(tmp_path, '1.2', 3, edits=_edits())
  case = cohort_files.write_result(
    tmp_path, '1.3', 3, edits=_edits(thresholds_before={'case_corona_score_cm3': 9})
  )
  made = [result.provenance for result in results_lib.load_results(tmp_path)[0]]
  # Scored again without an edit, or judged otherwise: the same score.
  assert [one.path for one in made] == [plain, again, case]
  assert results_lib.edit_warnings(made) == ()
  for number, changes in enumerate(
    (
      {'lung_mask_sha256': 'a' * 64},
      {'excluded_slices': [0]},
      {'thresholds_before': {'map': 0.5}},
      {'excluded_slices': [1], 'lung_mask_sha256': 'a' * 64},
    )
  ):
    cohort_files.write_result(tmp_path, f'2.{number}', 3, edits=_edits(**changes))
  made = [result.provenance for result in results_lib.load_results(tmp_path)[0]]
  (warning,) = results_lib.edit_warnings(made)
  assert '4 of 7 (lung mask given; slices excluded; thresholds changed): ' in warning
  assert str(tmp_path / '2.0') in warning and warning.endswith(', ….')
  assert results_lib.require_comparable(made) == ()


def test_edits_that_are_none_are_no_result(tmp_path):
  cohort_files.write_result(tmp_path, '1.1', 3)
  cohort_files.write_result(tmp_path, '1.2', 3, edits={'excluded_slices': 'all'})
  results, failed = results_lib.load_results(tmp_path)
  assert [result.study_uid for result in results] == ['1.1']
  assert 'edits must be an object' in failed[0].reason
