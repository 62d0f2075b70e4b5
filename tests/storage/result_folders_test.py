"""Many results as one table, with pandas and without."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest
import scored_studies

import covid_tf
from covid_tf import errors
from covid_tf.storage import result_folders


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('results')
  scored_studies.write_study(folder / 'b', measured=True)
  scored_studies.write_study(folder / 'a' / 'inner', maps=False)
  scored_studies.write_study(folder / '.being_written')
  (folder / 'empty').mkdir()
  return folder


@pytest.fixture
def without_pandas(monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *rest: None if name == 'pandas' else find(name, *rest),
  )


def test_rows_without_pandas(root, without_pandas):
  rows = covid_tf.results_table(root)
  assert [pathlib.Path(row['folder']).name for row in rows] == ['inner', 'b']
  plain, measured = rows
  assert list(plain) == list(measured)
  assert plain['zone_score'] is None and measured['zone_score'] >= 1
  assert plain['mean_lung_density_hu'] is None
  assert -900 < measured['mean_lung_density_hu'] < -600
  assert 0 <= measured['ground_glass_share'] <= 1
  assert measured['corona_score_right_cm3'] > 0 and measured['slice_mm'] == 16.0
  assert measured['lungs_version'] == 3 and measured['classifier_version'] == 7
  assert measured['positive_slice_count'] < measured['slice_count'] == 17


def test_a_data_frame(root):
  pandas = pytest.importorskip('pandas')
  table = covid_tf.results_table(root)
  assert isinstance(table, pandas.DataFrame) and len(table) == 2
  assert table['corona_score_cm3'].dtype.kind == 'f'
  other = covid_tf.results_table([root / 'b', root / 'a' / 'inner' / 'result.json'])
  assert other['folder'].tolist() == table['folder'].tolist()[::-1]
  assert len(covid_tf.results_table(iter([root / 'b']))) == 1
  assert len(covid_tf.results_table(root / 'b' / 'result.json')) == 1


def test_what_cannot_be_read_is_named(root, tmp_path, without_pandas):
  with pytest.raises(errors.UsageError, match='empty.*found none'):
    covid_tf.results_table(root / 'empty')
  with pytest.raises(errors.UsageError, match='empty.*result.json'):
    covid_tf.results_table([root / 'empty'])
  with pytest.raises(errors.UsageError, match='found int'):
    covid_tf.results_table(7)
  scored_studies.write_study(tmp_path / 'c')
  (tmp_path / 'c' / 'result.json').write_text('{"schema_version": 3')
  with pytest.raises(errors.UsageError, match='c/result.json: not a result'):
    covid_tf.results_table(tmp_path)


def test_a_table_of_no_result_is_empty(without_pandas):
  assert covid_tf.results_table([]) == []


def test_pandas_is_imported_only_for_a_table():
  code = (
    'import sys, covid_tf\n'
    'covid_tf.load_result, covid_tf.results_table, covid_tf.CaseResult\n'
    "print([name for name in ('pandas', 'SimpleITK') if name in sys.modules])"
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert done.stdout == '[]\n' and done.stderr == ''
  assert result_folders.load_result is covid_tf.load_result
