"""The wheel, installed and used where there is no checkout."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest
import synthetic_case
import tiny_models

# A folder with one wheel, which tools/test.sh builds.
_WHEEL = os.environ.get('COVID_TF_WHEEL', '')
_MOST_BYTES = 40_000_000
_SHAPE = (24, 42, 64)

pytestmark = pytest.mark.skipif(
  not _WHEEL, reason='COVID_TF_WHEEL names no folder with a wheel (tools/test.sh does)'
)


@pytest.fixture(scope='module', name='wheel')
def _wheel():
  (path,) = pathlib.Path(_WHEEL).glob('covid_tf-*.whl')
  return path


@pytest.fixture(scope='module', name='place')
def _place(wheel, tmp_path_factory):
  """A folder with a study, small models and a fresh environment with the wheel."""
  place = tmp_path_factory.mktemp('elsewhere')
  venv.create(place / 'environment', with_pip=True)
  # What the wheel requires is installed for these tests, and too large to be twice.
  installed = sysconfig.get_paths()['purelib']
  (own,) = (place / 'environment').glob('lib/python*/site-packages')
  (own / 'installed.pth').write_text(f'{installed}\n')
  _run(place, 'pip', 'install', '--quiet', '--no-index', '--no-deps', str(wheel))
  affine = synthetic_case.axial_affine((12.0, 5.0, 5.0), _SHAPE)
  volume = synthetic_case.make_volume(affine, _SHAPE)
  synthetic_case.write_nifti(place / 'study.nii.gz', volume)
  tiny_models.export_both(place / 'exported')
  return place


def _run(place, *command):
  done = subprocess.run(
    [place / 'environment' / 'bin' / command[0], *command[1:]],
    cwd=place,
    env={'PATH': os.defpath, 'HOME': str(place)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_it_is_small_and_whole(wheel):
  assert wheel.stat().st_size <= _MOST_BYTES
  names = zipfile.ZipFile(wheel).namelist()
  for needed in (
    'covid_tf/py.typed',
    'covid_tf/models/weights/classifier.weights',
    'covid_tf/models/weights/lungs.weights',
    'covid_tf/predictors/protocol.binpb',
    'covid_tf/reports/templates/report.html',
    'covid_tf/storage/result.schema.json',
    'covid_tf/training/train_classifier.py',
  ):
    assert needed in names
  assert not [name for name in names if name.startswith(('tests', 'tools', 'docs'))]


def test_it_is_the_wheel_that_runs(place):
  said = _run(place, 'python', '-c', 'import covid_tf; print(covid_tf.__file__)')
  assert said.startswith(str((place / 'environment').resolve())), said
  assert sys.prefix not in said


def test_a_study_is_inspected_and_scored(place):
  assert '24' in _run(place, 'covid-tf', 'inspect', 'study.nii.gz')
  _run(
    place,
    *(
      'covid-tf',
      'score',
      'study.nii.gz',
      '--output',
      'result',
      '--models',
      'exported',
    ),
  )
  assert (place / 'result' / 'report.html').exists()


def test_a_server_of_it_answers_its_own_api(place):
  code = """
import re, subprocess, sys
import covid_tf
server = subprocess.Popen(
  ['environment/bin/covid-tf', 'serve', '--models', 'exported', '--port', '0'],
  stdout=subprocess.PIPE, text=True)
try:
  port = re.search(r'127\\.0\\.0\\.1:(\\d+)', server.stdout.readline())[1]
  with covid_tf.connect(f'127.0.0.1:{port}') as models:
    result = covid_tf.analyze(covid_tf.read_ct('study.nii.gz'), models)
finally:
  server.terminate()
print(result.shape[0])
sys.exit(server.wait())
"""
  assert _run(place, 'python', '-c', code).strip() == '24'


@pytest.mark.parametrize(
  'name',
  ['import_dataset', 'train_lungs', 'train_classifier', 'evaluate', 'export_models'],
)
def test_training_is_in_it(place, name):
  said = _run(place, 'python', '-m', f'covid_tf.training.{name}', '--help')
  assert f'python -m covid_tf.training.{name}' in said and '--output=VALUE' in said
