"""Scripts of tools: what is asked wrongly ends at once, in one line, with status 2."""

import json
import math
import os
import pathlib
import re
import subprocess
import sys

import fake_collections
import pytest
import warm_python

_TOOLS = pathlib.Path(__file__).resolve().parents[2] / 'tools'


def _run(*flags, script='import_dataset', environment=None):
  return subprocess.run(
    [sys.executable, _TOOLS / f'{script}.py', *flags],
    capture_output=True,
    text=True,
    env=os.environ
    | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    | (environment or {}),
  )


@pytest.fixture(scope='module')
def python():
  with warm_python.WarmPython() as started:
    yield started


@pytest.fixture
def run(python):
  """Runs a script with flags, in a process of its own that has TensorFlow already."""
  return lambda *flags, script='import_dataset': python.run(
    _TOOLS / f'{script}.py', *flags
  )


@pytest.mark.parametrize(
  'flags, message',
  [
    (['--collection=own'], '--output must have a value'),
    (['--collection=mine', '--output=x'], 'value should be one of <own'),
    (['--colection=own', '--output=x'], 'Did you mean: collection'),
    (['--collection=own', '--output=x', 'more'], "found 'more'"),
    (['--collection=own', '--output=x', '--size=-1'], '--size=-1'),
    (['--collection=own', '--output=x', '--seed=-1'], '--seed=-1'),
    (['--collection=own', '--output=x'], '--folder is required for own'),
    (['--collection=phantom', '--output=x', '--phantoms=few'], '--phantoms=few'),
  ],
)
def test_wrong_use_is_one_line_and_status_2(run, flags, message):
  done = run(*flags)
  (line,) = done.stderr.splitlines()
  assert line.startswith('import_dataset: ') and not done.stdout
  assert message in line and done.returncode == 2


def test_a_training_keeps_to_one_thickness_and_its_run_says_it(run, tmp_path):
  own = fake_collections.own(tmp_path / 'own', 8)
  shards = {}
  for name, flags in (('slices', ()), ('slabs', ('--thickness_mm=7.5',))):
    output = tmp_path / name
    sets = ('--sets=train=1', '--size=24', f'--output={output}')
    done = run('--collection=own', f'--folder={own}', *sets, *flags)
    assert done.returncode == 0, done.stderr
    shards[name] = f'--shards={output}/train/*'
  folder = tmp_path / 'run'
  begun = (
    f'--output={folder}',
    '--stage=32:1:1e-3:1e-3',
    '--batch=2',
    '--notensorboard',
  )
  done = run(*begun, *shards.values(), script='train_lungs')
  line = done.stderr.splitlines()[-1]
  assert done.returncode == 2 and 'slices of one thickness are required' in line
  assert not folder.exists()
  done = _run(*begun, shards['slabs'], script='train_lungs')
  assert done.returncode == 0, done.stderr
  assert json.loads((folder / 'configuration.json').read_text())['thickness_mm'] == 7.5


# What a script alone is; modules that several share are none.
def _evaluation(path, content):
  path.write_text(json.dumps(content))
  return f'--evaluation={path}'


def test_a_shift_is_chosen_from_what_evaluations_hold(run, tmp_path):
  one = {'label': 1, 'probability': 0.9, 'patient': 'a'}
  slices = [one | {'label': 0, 'probability': k / 100} for k in range(20)]
  fold = _evaluation(
    tmp_path / '1.json',
    {'slice_probability': [one, *slices, one | {'label': -1, 'probability': 1.0}]},
  )
  slab = {'label': 0, 'probability': 1.0, 'chest': 'b', 'condition': 'noise'}
  other = _evaluation(tmp_path / '2.json', {'slabs': [slab]})
  done = run(fold, other, script='choose_shift')
  assert done.returncode == 0, done.stderr
  *_, threshold, shift = done.stdout.splitlines()
  # Halfway between the two highest of twenty negatives: one is lost.
  assert threshold == 'probability that becomes 0.5: 0.1850'
  assert shift == f'--logit_shift={math.log(0.815 / 0.185):.4f}'
  assert '0.950 (' in done.stdout and '1 of 1)' in done.stdout


@pytest.mark.parametrize(
  'content, message',
  [
    ([], 'with a classifier is required'),
    ({'slice_probability': [{'label': 1}]}, 'with a classifier is required'),
    ({'slice_probability': []}, 'with and without opacity are required, found 0 and 0'),
  ],
)
def test_what_no_shift_can_be_chosen_from_is_refused(run, tmp_path, content, message):
  done = run(_evaluation(tmp_path / 'e.json', content), script='choose_shift')
  (line,) = done.stderr.splitlines()
  assert message in line and done.returncode == 2 and not done.stdout


@pytest.mark.parametrize(
  'script, flags',
  [('export_models', ['--lungs=demo']), ('encode_weights', ['--card=x', '--shards=x'])],
)
def test_a_shift_is_of_a_classifier(run, script, flags, tmp_path):
  flags = [*flags, f'--output={tmp_path}', '--logit_shift=1']
  if script == 'encode_weights':
    flags.append('--lungs=x')
  done = run(*flags, script=script)
  assert '--logit_shift: --classifier is required' in done.stderr.splitlines()[-1]
  assert done.returncode == 2


_SCRIPTS = sorted(
  path.relative_to(_TOOLS).with_suffix('')
  for path in (*_TOOLS.glob('*.py'), *_TOOLS.glob('benchmarks/*.py'))
  if "\nif __name__ == '__main__'" in path.read_text('utf-8')
)


@pytest.mark.parametrize('script', _SCRIPTS, ids=str)
def test_help_says_everything_and_ends_well(run, script):
  done = run('--help', script=script)
  assert (done.returncode, done.stderr) == (0, '')
  source = (_TOOLS / f'{script}.py').read_text('utf-8')
  asked = re.findall(r"DEFINE_\w+\(\s*'(\w+)'", source)
  asked += re.findall(r"add_argument\(\s*'--(\w+)'(?!.*SUPPRESS)", source)
  if 'training_flags' in source:
    asked += ['stage', 'batch', 'shards', 'devices']
  assert re.search('^usage:|^flags:', done.stdout, re.MULTILINE)
  missing = [
    flag
    for flag in asked
    if f'--{flag}' not in done.stdout and f'--[no]{flag}' not in done.stdout
  ]
  assert not missing


@pytest.mark.parametrize('script', _SCRIPTS, ids=str)
def test_an_unknown_flag_is_status_2(run, script):
  done = run('--no-such-flag', script=script)
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  assert 'no-such-flag' in done.stderr.splitlines()[-1] or (
    'required' in done.stderr.splitlines()[-1]
  )


def test_help_is_printed_in_every_encoding():
  done = _run('--help', environment={'PYTHONIOENCODING': 'ascii'})
  assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize(
  'name',
  ['evaluate', 'export_models', 'import_dataset', 'train_classifier', 'train_lungs'],
)
def test_a_script_of_the_package_is_that_of_the_checkout(python, run, name):
  module = python.run(f'covid_tf.training.{name}', '--help')
  script = run('--help', script=name)
  assert module.stdout == script.stdout and '--output=VALUE' in module.stdout
  assert module.stderr == script.stderr == ''


def test_a_cold_python_says_no_more_than_a_warm_one(run):
  module = subprocess.run(
    [sys.executable, '-m', 'covid_tf.training.train_lungs', '--help'],
    capture_output=True,
    text=True,
    cwd=_TOOLS.parent,
  )
  assert module.stdout == run('--help', script='train_lungs').stdout
  assert module.stderr == '' and '--output=VALUE' in module.stdout
