"""The base install: all outside the packages of TensorFlow, where there is none."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]

# A fresh interpreter in which TensorFlow and its kin cannot be found.
_BLOCKED = """
import importlib, importlib.abc, pkgutil, sys

class Block(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in (
        'tensorflow', 'keras', 'tf_keras', 'segmentation_models'):
      raise ModuleNotFoundError(f'{name} is blocked', name=name)

sys.meta_path.insert(0, Block())
"""

_IMPORT_ALL = (
  _BLOCKED
  + """
import covid_tf

NEEDING = (
    'covid_tf.models', 'covid_tf.sessions', 'covid_tf.training', 'covid_tf.server')
# Extras of their own; what needs them is imported when it is asked for.
EXTRAS = ('dask', 'distributed', 'highdicom', 'pynetdicom', 'dicomweb_client')
seen = []

def walk(package):
  for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):
    if module.name in NEEDING:
      continue
    try:
      found = importlib.import_module(module.name)
    except ModuleNotFoundError as error:
      if error.name.split('.')[0] not in EXTRAS:
        raise
      continue
    seen.append(module.name)
    if module.ispkg:
      walk(found)

walk(covid_tf)
for name in covid_tf.__all__:
  getattr(covid_tf, name)
print('\\n'.join(seen))
"""
)

# What only POSIX systems have, as far as it can be taken away here.
_WITHOUT_POSIX = """
import os, signal, sys
POSIX = ('fcntl', 'grp', 'pwd', 'resource', 'termios', 'tty', 'pty', 'syslog')
for name in POSIX:
  sys.modules[name] = None
for name in ('sched_getaffinity', 'sysconf', 'fork', 'getuid', 'geteuid', 'mkfifo'):
  delattr(os, name)
for name in ('SIGKILL', 'SIGBUS', 'SIGHUP', 'SIGALRM'):
  delattr(signal, name)
"""

_SCORE = (
  _BLOCKED
  + """
import pathlib
import covid_tf
from covid_tf.reports import scored_study
import fake_models, synthetic_case

shape = (17, 42, 64)
affine = synthetic_case.axial_affine((16.0, 6.0, 6.0), shape)
volume = synthetic_case.make_volume(affine, shape)
with fake_models.FakeModels() as models:
  result = covid_tf.analyze(volume, models)
folder = pathlib.Path(sys.argv[1])
scored_study.write_all(folder, result, volume, demo_models=False)
print(result.corona_score_cm3)
"""
)


def _run(code, *arguments):
  done = subprocess.run(
    [sys.executable, '-c', code, *arguments],
    capture_output=True,
    text=True,
    check=False,
    env=os.environ
    | {'PYTHONPATH': os.pathsep.join([str(_ROOT / 'tests' / 'support'), *sys.path])},
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_the_block_blocks():
  assert 'blocked' in _run(
    _BLOCKED
    + """
try:
  import tensorflow
except ModuleNotFoundError as error:
  print(error)
"""
  )


def test_nothing_but_locks_needs_posix(tmp_path):
  seen = _run(_WITHOUT_POSIX + _IMPORT_ALL).split()
  assert {'covid_tf.readers.reading', 'covid_tf.batch.archive_run'} <= set(seen)
  score = float(_run(_WITHOUT_POSIX + _SCORE, str(tmp_path)))
  assert score > 0 and (tmp_path / 'result.json').exists()
  said = _run(
    _WITHOUT_POSIX
    + """
from covid_tf import errors
from covid_tf.batch import archive_run
from covid_tf.batch import engines
try:
  with archive_run.exclusive(sys.argv[1]):
    pass
except errors.OutputError as error:
  print(error)
print(engines.worker_count(models_in_process=False))
""",
    str(tmp_path / 'archive'),
  )
  line, workers = said.splitlines()
  assert 'covid-tf batch needs locks of files' in line and 'found none; use' in line
  assert int(workers) >= 1


def test_every_other_package_can_be_imported():
  seen = _run(_IMPORT_ALL).split()
  package = _ROOT / 'covid_tf'
  expected = {
    path.name.removesuffix('.py')
    for path in package.iterdir()
    if path.suffix == '.py' or (path / '__init__.py').exists()
  }
  expected -= {'__init__', 'models', 'sessions', 'training', 'server'}
  assert {name.split('.')[1] for name in seen} == expected
  assert len(seen) == len(set(seen)) and 'covid_tf.commands.score' in seen


def test_a_study_is_scored_and_reported(tmp_path):
  score = float(_run(_SCORE, str(tmp_path)))
  assert score > 1
  result = json.loads((tmp_path / 'result.json').read_text())
  assert result['corona_score_cm3'] == score
  assert f'{score:.1f}' in (tmp_path / 'report.html').read_text()
  assert (tmp_path / 'localization.nii.gz').stat().st_size > 100
  assert (tmp_path / 'lung_mask.nii.gz').stat().st_size > 100


@pytest.mark.parametrize(
  'script, flags',
  [
    ('train_classifier', ['--output=x', '--shards=y']),
    ('train_lungs', ['--output=x', '--shards=y']),
    ('evaluate', ['--output=x']),
    ('export_models', ['--output=x']),
    ('import_dataset', ['--output=x', '--collection=phantom']),
  ],
)
def test_a_script_of_training_says_what_to_install_and_no_more(script, flags, tmp_path):
  code = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: (
  None if name == 'tensorflow' else find(name, *more))
sys.argv = sys.argv[1:]
runpy.run_module('covid_tf.training.' + sys.argv[0], run_name='__main__')
"""

  def run(*flags):
    return subprocess.run(
      [sys.executable, '-c', _BLOCKED + code, script, *flags],
      cwd=tmp_path,
      capture_output=True,
      text=True,
      env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
    )

  done = run(*flags)
  (line,) = done.stderr.splitlines()
  assert done.returncode == 4 and "pip install '.[models-cpu]'" in line
  assert line.startswith(f'{script}: ') and not list(tmp_path.iterdir())
  explained = run('--help')
  assert explained.returncode == 0 and '--output=VALUE' in explained.stdout
