"""Scripts of tools: what is asked wrongly ends at once, in one line, with status 2."""

import os
import pathlib
import subprocess
import sys

import pytest

_TOOLS = pathlib.Path(__file__).resolve().parents[1] / 'tools'


def _run(*flags, script='import_dataset'):
  return subprocess.run(
      [sys.executable, _TOOLS / f'{script}.py', *flags], capture_output=True,
      text=True, env=os.environ | {
          'PYTHONPATH': os.pathsep.join(filter(None, sys.path))})


@pytest.mark.parametrize('flags, message', [
    (['--collection=own'], '--output must have a value'),
    (['--collection=mine', '--output=x'], 'value should be one of <own'),
    (['--colection=own', '--output=x'], "Did you mean: collection"),
    (['--collection=own', '--output=x', 'more'], "found 'more'"),
    (['--collection=own', '--output=x', '--size=-1'], '--size=-1'),
    (['--collection=own', '--output=x', '--seed=-1'], '--seed=-1'),
    (['--collection=own', '--output=x'], '--folder is required for own'),
    (['--collection=phantom', '--output=x', '--phantoms=few'], "--phantoms=few"),
])
def test_wrong_use_is_one_line_and_status_2(flags, message):
  done = _run(*flags)
  (line,) = done.stderr.splitlines()
  assert line.startswith('import_dataset: ') and not done.stdout
  assert message in line and done.returncode == 2


@pytest.mark.parametrize('script, flag', [
    ('import_dataset', '--background_shares'), ('train_lungs', '--encoder_weights'),
    ('train_lungs', '--stage')])
def test_help_lists_the_flags(script, flag):
  assert flag in _run('--help', script=script).stdout
