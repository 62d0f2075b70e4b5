"""`covid-tf demo` on small phantoms and a fake server, and its real server."""

import contextlib
import csv
import json
import os
import re
import signal as signal_lib
import sys
import time

import fake_serving
import pytest

from covid_tf import cli
from covid_tf import contract
from covid_tf import errors
from covid_tf.cohort import labels
from covid_tf.cohort import results
from covid_tf.datasets import phantom
from covid_tf.demo import drawing
from covid_tf.demo import running
from covid_tf.predictors import grpc
from covid_tf.predictors import in_process


def _cases(count):
  return phantom.cohort(
    count,
    running.FIRST_SEED,
    matrix=96,
    slice_spacing_mm=20.0,
    noise_hu=8.0,
    padded=False,
  )


@pytest.fixture(scope='module', name='server')
def _server():
  server = fake_serving.FakeServing()
  for model in server.models.values():
    model.card['training'] = {'demo_weights': True}
  yield server
  server.stop()


@pytest.fixture(scope='module', name='done')
def _done(server, tmp_path_factory):
  """A finished demo of three phantoms: (folder, what it printed)."""
  root, patch = tmp_path_factory.mktemp('demo') / 'out', pytest.MonkeyPatch()
  said = []
  with patch.context() as inside:
    inside.setattr(running, 'prepare', _prepare)
    inside.setattr(
      running, 'serving', lambda models: contextlib.nullcontext(server.address)
    )
    folder = drawing.claim_folder(root)
    running.run(folder, _cases(3), said.append)
  return folder, '\n'.join(said)


def _prepare(folder, cases):
  for case in cases:
    drawing.draw(folder, case)


def test_everything_is_where_the_design_says(done):
  folder, _ = done
  for case in _cases(3):
    name = drawing.case_name(case)
    assert list(folder.study(name).glob('*.dcm'))
    assert {path.name for path in folder.truth(name).iterdir()} == {
      'truth.json',
      'lung_mask.nii.gz',
      'lesion_mask.nii.gz',
    }
    assert {path.name for path in folder.result(name).iterdir()} == {
      'result.json',
      'report.html',
      'localization.nii.gz',
      'lung_mask.nii.gz',
    }


def test_truth_is_printed_beside_the_result(done):
  folder, said = done
  for case in json.loads(folder.summary.read_text())['cases']:
    line = next(line for line in said.splitlines() if line.startswith(case['name']))
    assert f'{case["truth"]["lesion_volume_cm3"]:.1f}' in line
    assert f'{case["result"]["corona_score_cm3"]:.1f}' in line


def test_summary_holds_truth_result_and_figures(done):
  folder, _ = done
  summary = json.loads(folder.summary.read_text())
  assert summary['note'].startswith('phantoms, not patients')
  assert [case['truth']['kind'] for case in summary['cases']] == [
    'none',
    'focal',
    'diffuse',
  ]
  for case in summary['cases']:
    stored = json.loads((folder.result(case['name']) / 'result.json').read_text())
    assert case['result']['corona_score_cm3'] == stored['corona_score_cm3']
    assert stored['study_uid'] == case['truth']['study_uid']
    assert any('demo models' in warning for warning in stored['warnings'])
  assert summary['figures']['patients'] == 3
  # The fake segmenter thresholds HU, which finds most of a healthy lung.
  assert summary['figures']['lung_dice_mean'] > 0.5


def test_the_page_links_to_reports_that_exist(done):
  folder, _ = done
  page = folder.page.read_text()
  links = re.findall(r'href="(results/[^"]+)"', page)
  assert len(links) == 3
  assert all((folder.root / link).is_file() for link in links)
  assert 'Phantoms, not patients' in page
  assert not re.search(r'(src|href)="https?:', page)


def test_labels_fit_the_cohort_command(done):
  folder, _ = done
  rows = list(csv.DictReader(folder.labels.read_text().splitlines()))
  assert [row['covid'] for row in rows] == ['0', '1', '1']
  assert rows[0]['severity'] == '' and rows[1]['severity'] == 'non-severe'
  known = labels.read_labels(folder.labels)
  found = results.load_results(folder.root / 'results')
  assert {label.study_uid for label in known} == {
    result.study_uid for result in found[0]
  }


def test_a_scored_case_is_known_until_model_or_case_change(done, server):
  folder, _ = done
  case, other = _cases(1)[0], phantom.draw_case(running.FIRST_SEED, 'none', matrix=64)
  with grpc.connect(server.address) as models:
    identities = models.identities()
  assert running.is_scored(folder, case, identities)
  assert not running.is_scored(folder, other, identities)
  assert not running.is_scored(folder, case, identities[:1])
  assert not running.is_scored(folder, _cases(4)[3], identities)


def test_a_folder_of_others_is_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').write_text('years of work')
  with pytest.raises(errors.UsageError, match='an empty folder, or one of an earlier'):
    drawing.claim_folder(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_an_earlier_demo_is_cleared(tmp_path):
  folder = drawing.claim_folder(tmp_path / 'out')
  folder.study('old').mkdir(parents=True)
  folder.summary.write_text('{}')
  (folder.root / 'mine.txt').write_text('kept')
  again = drawing.claim_folder(tmp_path / 'out')
  again.clear()
  assert sorted(path.name for path in again.root.iterdir()) == [
    'README.txt',
    'mine.txt',
  ]


@pytest.mark.parametrize('cases', ('0', '-3', '1001'))
def test_a_wrong_number_of_cases_is_refused(cases, tmp_path, capsys):
  status = cli.main(['demo', '--output', str(tmp_path / 'out'), '--cases', cases])
  assert status == 2
  assert '--cases must be from 1 to 1000' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


def test_without_tensorflow_it_says_what_to_install(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(in_process.importlib.util, 'find_spec', lambda name: None)
  assert cli.main(['demo', '--output', str(tmp_path / 'out')]) == 4
  assert "pip install '.[models-cpu]'" in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


def test_the_command_tells_what_was_not_reached(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(
    running,
    'run',
    lambda folder, cases, say: {
      'positives_above_negatives': 1.0,
      'volume_rank_correlation': 0.5,
      'map_hits_lesion_fraction': None,
      'lung_dice_min': 0.99,
    },
  )
  assert cli.main(['demo', '--output', str(tmp_path / 'out'), '--cases', '3']) == 0
  captured = capsys.readouterr()
  assert 'below what is required: volume_rank_correlation' in captured.err
  assert 'index.html' in captured.out


def test_demo_patients_are_held_out_from_training():
  cases = running.demo_cases(12)
  assert min(case.seed for case in cases) >= phantom.TRAINING_SEED_LIMIT
  assert [case.kind for case in cases].count('none') == 4


def test_a_real_server_comes_up_and_goes(tmp_path):
  tiny_models = pytest.importorskip('tiny_models')
  models = tiny_models.export_both(tmp_path)
  with running.serving(models) as address:
    with grpc.connect(address) as connected:
      assert [model.name for model in connected.identities()] == [
        contract.LUNGS_MODEL,
        contract.CLASSIFIER_MODEL,
      ]
  with pytest.raises(errors.ModelError):
    with grpc.connect(address, timeout_s=2) as connected:
      connected.identities()


def test_a_server_that_ends_is_quoted(tmp_path):
  with pytest.raises(errors.ModelError) as caught:
    with running.serving(tmp_path / 'absent'):
      pass
  assert 'covid-tf serve, which the demo started, ended with status 2 before' in str(
    caught.value
  )
  assert f'{tmp_path / "absent"}' in str(caught.value)


# A server that says it is ready, and dies once somebody knocks or at once.
_DYING = """
import os, signal, socket, sys
with socket.create_server(('127.0.0.1', 0)) as server:
  print('I0000 00:00: greetings', 'loading', 'corrupted weights', sep='\\n',
        file=sys.stderr, flush=True)
  if {is_ready}:
    print(f'ready on 127.0.0.1:{{server.getsockname()[1]}}, x', flush=True)
    server.accept()
  os.kill(os.getpid(), signal.{signal})
"""


@pytest.mark.parametrize(
  'is_ready, when', [(True, 'while it was used'), (False, 'before it was ready')]
)
@pytest.mark.parametrize(
  'signal, words',
  [
    ('SIGSEGV', ('segmentation fault', 'TF_ENABLE_ONEDNN_OPTS=0')),
    ('SIGKILL', ('killed from outside', 'memory')),
  ],
)
def test_a_server_that_dies_is_named_by_its_signal(
  monkeypatch, tmp_path, is_ready, when, signal, words
):
  program = _DYING.format(is_ready=is_ready, signal=signal)
  monkeypatch.setattr(
    running, '_command', lambda models: (sys.executable, '-c', program)
  )
  with pytest.raises(errors.ModelError) as caught:
    with running.serving(tmp_path) as address:
      grpc.connect(address, connect_patience_s=1).close()
  text = str(caught.value)
  assert f'was ended by {signal}' in text and when in text and '\n' not in text
  assert 'said: loading | corrupted weights: ' in text
  for word in words:
    assert word in text


def test_another_failure_beside_a_living_server_stays_itself(monkeypatch, tmp_path):
  monkeypatch.setattr(
    running,
    '_command',
    lambda models: (
      sys.executable,
      '-c',
      'import time; print("ready on a:1", flush=True); time.sleep(60)',
    ),
  )
  with pytest.raises(errors.ModelError, match='^another$'):
    with running.serving(tmp_path):
      raise errors.ModelError('another')


def _die(number):
  os.kill(os.getpid(), number)
  time.sleep(60)


def test_a_drawing_process_that_dies_is_named_by_its_signal():
  with pytest.raises(errors.CovidTFError, match=r'SIGSEGV \(segmentation fault\)'):
    with drawing.workers() as pool:
      pool.submit(_die, signal_lib.SIGSEGV).result()
