"""Terminals that are not UTF-8, closed, full or gone: nothing raises, nothing is lost.

Each command runs in a process of its own, as under cron, Slurm or `| head`.
"""

import contextlib
import json
import os
import pathlib
import pty
import subprocess
import sys

import odd_series
import pytest
import synthetic_case

from covid_tf import commands
from covid_tf.reports import scored_study

_SHAPE = (24, 42, 64)
# The command line with models that answer at once.
_WITH_FAKE_MODELS = """
import sys
import fake_models
from covid_tf import cli
from covid_tf import predictors
predictors.load_models = lambda directory=None: fake_models.FakeModels()
sys.exit(cli.main())
"""
# The command line where the demo models cannot be exported.
_WITHOUT_EXPORT = """
import sys
import types
from covid_tf import cli
from covid_tf import errors
def export(folder):
  raise errors.ModelError('no export here')
sys.modules['covid_tf.models.export'] = types.SimpleNamespace(
    export_demo_models=export)
sys.exit(cli.main())
"""
# The command line, once for each list of arguments.
_HELP_OF_EACH = """
import json
import sys
from covid_tf import cli
for arguments in json.loads(sys.argv[1]):
  assert cli.main(arguments) == 0
"""
_ENCODINGS = (
  {'PYTHONIOENCODING': 'ascii'},
  {'PYTHONIOENCODING': 'latin-1'},
  {'PYTHONIOENCODING': 'ascii:strict', 'LC_ALL': 'C'},
  {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'},
)


def _run(*arguments, redirect='', environment=None):
  """Runs `covid-tf` below a shell that redirects; returns what came of it."""
  return subprocess.run(
    [
      'bash',
      '-c',
      f'exec "$@" {redirect}',
      'bash',
      sys.executable,
      '-c',
      _WITH_FAKE_MODELS,
      *map(os.fsencode, arguments),
    ],
    capture_output=True,
    check=False,
    env=os.environ
    | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    | (environment or {}),
  )


@pytest.fixture(name='study')
def _study(tmp_path):
  affine = synthetic_case.axial_affine((12.0, 6.0, 6.0), _SHAPE)
  volume = synthetic_case.make_volume(affine, _SHAPE)
  return synthetic_case.write_nifti(tmp_path / 'study.nii.gz', volume)


def _is_whole(output: pathlib.Path) -> bool:
  return sorted(os.listdir(output)) == sorted(scored_study.FILE_NAMES)


@pytest.mark.parametrize('environment', _ENCODINGS)
def test_a_score_ends_well_in_every_encoding(environment, study, tmp_path):
  done = _run(
    'score',
    study,
    '--output',
    tmp_path / 'out',
    '--models',
    'm',
    environment=environment,
  )
  assert done.returncode == 0 and done.stderr == b''
  assert b'Corona score' in done.stdout and b'cm' in done.stdout
  if environment.get('PYTHONIOENCODING') != 'latin-1':
    assert b' cm3;' in done.stdout
  assert _is_whole(tmp_path / 'out')
  # What is written is UTF-8 whatever the terminal is.
  assert 'cm³' in (tmp_path / 'out' / 'report.html').read_text('utf-8')
  json.loads((tmp_path / 'out' / 'result.json').read_text('utf-8'))


@pytest.mark.parametrize(
  'redirect',
  [
    '>&-',
    '2>&-',
    '>&- 2>&-',
    '<&- >&- 2>&-',
    '>/dev/full',
    '>/dev/full 2>/dev/full',
    '> >(exit)',
    '2> >(exit)',
    '> >(head -c 1 >/dev/null)',
  ],
)
def test_a_score_ends_well_wherever_its_words_go(redirect, study, tmp_path):
  done = _run(
    'score', study, '--output', tmp_path / 'out', '--models', 'm', redirect=redirect
  )
  assert done.returncode == 0
  assert _is_whole(tmp_path / 'out')
  assert done.stderr == b''


def _on_terminal(program, *arguments, **environment):
  """(status, what a terminal shows) of a program; the terminal reports size 0."""
  ours, its = pty.openpty()
  with os.fdopen(ours, 'rb', buffering=0) as shown:
    process = subprocess.Popen(
      [sys.executable, '-c', program, *map(os.fsencode, arguments)],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=its,
      env=os.environ
      | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
      | environment,
    )
    os.close(its)
    found = b''
    with contextlib.suppress(OSError):  # EIO: nobody writes any more.
      while piece := shown.read(1 << 16):
        found += piece
    return process.wait(), found.decode()


def test_a_terminal_of_size_0_has_a_bar_and_a_line_before_it(study, tmp_path):
  status, shown = _on_terminal(
    _WITH_FAKE_MODELS, 'score', study, '--output', tmp_path / 'out', '--models', 'm'
  )
  assert status == 0
  assert shown.count('TensorFlow starts') == 1
  assert '/24 ' in shown and '%|' in shown[shown.index('TensorFlow starts') :]


def test_a_terminal_reads_that_the_demo_models_are_exported_once(study, tmp_path):
  status, shown = _on_terminal(
    _WITHOUT_EXPORT,
    'score',
    study,
    '--output',
    tmp_path / 'out',
    XDG_CACHE_HOME=str(tmp_path / 'cache'),
  )
  assert status == 4 and 'no export here' in shown
  assert shown.count('The demo models are exported to') == 1
  assert '180 MB, about a minute, once' in shown


@pytest.mark.parametrize('redirect', ['2>&-', '2>/dev/full', '2> >(exit)'])
def test_a_refusal_keeps_its_status(redirect, tmp_path):
  done = _run(
    'score', tmp_path, '--output', tmp_path / 'out', '--models', 'm', redirect=redirect
  )
  assert done.returncode == 3 and done.stdout == b''
  assert not (tmp_path / 'out').exists()


def test_what_was_only_printed_and_not_taken_is_status_5(tmp_path):
  odd_series.save(odd_series.series(), tmp_path / 'study')
  for line in (['inspect', tmp_path / 'study', '--json'], ['--help'], ['--version']):
    done = _run(*line, redirect='>/dev/full')
    assert done.returncode == 5
    (said,) = done.stderr.decode().splitlines()
    assert 'standard output cannot be written: No space left' in said
    # The reader of a pipe who leaves has had enough.
    done = _run(*line, redirect='> >(exit)')
    assert done.returncode == 0 and done.stderr == b''


def test_help_is_printed_in_ascii():
  """Of each command; in one process, whose streams are what matters."""
  lines = [['--help'], *([name, '--help'] for name in commands.COMMANDS)]
  done = subprocess.run(
    [sys.executable, '-c', _HELP_OF_EACH, json.dumps(lines)],
    capture_output=True,
    env=os.environ
    | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    | _ENCODINGS[0],
  )
  assert done.returncode == 0 and done.stderr == b''
  helps = done.stdout.split(b'usage: covid-tf')
  assert helps[0] == b'' and len(helps) == 1 + len(lines)
  for line, text in zip(lines, helps[1:]):
    assert text.startswith(f' {line[0]} '.encode() if len(line) > 1 else b' ')


@pytest.mark.parametrize('environment', [{}, _ENCODINGS[0], _ENCODINGS[3]])
def test_names_that_are_no_text_are_shown_by_their_bytes(environment, study, tmp_path):
  name = os.fsencode(tmp_path) + b'/na\xefve.nii.gz'
  done = _run(
    'score',
    name,
    '--output',
    tmp_path / 'out',
    '--models',
    'm',
    environment=environment,
  )
  assert done.returncode == 3 and b'Traceback' not in done.stderr
  assert b'na' in done.stderr and b've.nii.gz: ' in done.stderr
  os.rename(study, name)
  done = _run('inspect', name, '--json', environment=environment)
  assert done.returncode == 0 and json.loads(done.stdout)
  done = _run(
    'score',
    name,
    '--output',
    os.fsencode(tmp_path) + b'/\xff',
    '--models',
    'm',
    environment=environment,
  )
  assert done.returncode == 0 and rb'\xff/report.html' in done.stdout
  assert _is_whole(pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b'/\xff')))
