"""Scripts of tools: what is asked wrongly ends at once, in one line, with status 2."""

import json
import os
import pathlib
import re
import subprocess
import sys

import fake_collections
import pytest

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
def test_wrong_use_is_one_line_and_status_2(flags, message):
  done = _run(*flags)
  (line,) = done.stderr.splitlines()
  assert line.startswith('import_dataset: ') and not done.stdout
  assert message in line and done.returncode == 2


def test_a_training_keeps_to_one_thickness_and_its_run_says_it(tmp_path):
  own = fake_collections.own(tmp_path / 'own', 8)
  shards = {}
  for name, flags in (('slices', ()), ('slabs', ('--thickness_mm=7.5',))):
    output = tmp_path / name
    sets = ('--sets=train=1', '--size=24', f'--output={output}')
    done = _run('--collection=own', f'--folder={own}', *sets, *flags)
    assert done.returncode == 0, done.stderr
    shards[name] = f'--shards={output}/train/*'
  run = tmp_path / 'run'
  begun = (f'--output={run}', '--stage=32:1:1e-3:1e-3', '--batch=2', '--notensorboard')
  done = _run(*begun, *shards.values(), script='train_lungs')
  line = done.stderr.splitlines()[-1]
  assert done.returncode == 2 and 'slices of one thickness are required' in line
  assert not run.exists()
  done = _run(*begun, shards['slabs'], script='train_lungs')
  assert done.returncode == 0, done.stderr
  assert json.loads((run / 'configuration.json').read_text())['thickness_mm'] == 7.5


# What a script alone is; modules that several share are none.
_SCRIPTS = sorted(
  path.relative_to(_TOOLS).with_suffix('')
  for path in (*_TOOLS.glob('*.py'), *_TOOLS.glob('benchmarks/*.py'))
  if "\nif __name__ == '__main__'" in path.read_text('utf-8')
)


@pytest.mark.parametrize('script', _SCRIPTS, ids=str)
def test_help_says_everything_and_ends_well(script):
  done = _run('--help', script=script)
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
def test_an_unknown_flag_is_status_2(script):
  done = _run('--no-such-flag', script=script)
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  assert 'no-such-flag' in done.stderr.splitlines()[-1] or (
    'required' in done.stderr.splitlines()[-1]
  )


def test_help_is_printed_in_every_encoding():
  done = _run('--help', environment={'PYTHONIOENCODING': 'ascii'})
  assert (done.returncode, done.stderr) == (0, '')
