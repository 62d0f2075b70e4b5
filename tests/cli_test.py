"""The command line as a user meets it: help, statuses, one line for what is wrong."""

import pathlib
import subprocess
import sys

import odd_series
import pytest

from covid_tf import __main__
from covid_tf import cli
from covid_tf import errors
from covid_tf import predictors
from covid_tf import version
from covid_tf.commands import inspect
from covid_tf.reports import scored_study

# Command to a flag that only its own help can know.
_COMMANDS = {
  'score': '--case-threshold',
  'rescore': '--slice-threshold',
  'viewer': '--study',
  'inspect': '--json',
  'serve': '--model_config_file',
  'check': '--accept-narrower',
  'demo': '--cases',
  'cohort': '--prevalence',
  'compare': '--same-patient',
  'review': '--most-pictures',
  'manifestations': '--weighting',
  'batch': '--scheduler',
  'echo': '--password-file',
  'fetch': '--move',
  'send': '--verify',
  'completion': 'fish',
}


@pytest.fixture(name='place', autouse=True)
def _place(tmp_path, monkeypatch):
  """A folder with a study, an empty folder, a file, and a folder with a file."""
  odd_series.save(odd_series.series(), tmp_path / 'study')
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'file').write_text('')
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'thesis.txt').write_text('mine')
  monkeypatch.chdir(tmp_path)

  def no_models(directory=None, **options):
    del options
    raise errors.ModelError(f'{directory}: exported models are required, found none.')

  monkeypatch.setattr(predictors, 'load_models', no_models)
  return tmp_path


def _status(line: str) -> int:
  try:
    return cli.main(line.split())
  except SystemExit as exit_:  # How argparse ends.
    return exit_.code or 0


def test_no_command_prints_the_help(capsys):
  for line in ('', '--help'):
    assert _status(line) == 0
    text = capsys.readouterr().out
    assert all(f'\n  {name} ' in text for name in _COMMANDS)
    assert 'Research use only' in text


@pytest.mark.parametrize('command, flag', _COMMANDS.items())
def test_each_command_explains_itself(command, flag, capsys):
  assert _status(f'{command} --help') == 0
  text = capsys.readouterr().out
  assert text.startswith(f'usage: covid-tf {command} ') and flag in text


def test_the_package_runs_as_a_module():
  done = subprocess.run(
    [sys.executable, '-m', 'covid_tf', '--version'],
    capture_output=True,
    text=True,
    check=True,
    cwd=pathlib.Path(__main__.__file__).parents[1],
  )
  assert done.stdout == f'{version.__version__}\n' and done.stderr == ''
  assert __main__.cli is cli


def test_the_version_is_the_packages(capsys):
  assert _status('--version') == 0
  assert capsys.readouterr().out == f'{version.__version__}\n'


@pytest.mark.parametrize(
  'line',
  [
    '-v inspect study',
    '--no-config --verbose inspect study',
    '--log-file log -v inspect study',
    '--log-file=log -v inspect study --no-config',
  ],
)
def test_flags_of_every_command_may_stand_before_it(line, capsys, place):
  assert _status(line) == 0
  captured = capsys.readouterr()
  assert 'mm' in captured.out and 'covid-tf inspect: version' in captured.err
  assert (place / 'log').exists() == ('log' in line)


@pytest.mark.parametrize(
  'line',
  [
    'nothing',
    '-v',
    '-v nothing',
    '--log-file inspect',
    '--timeout 3 score study',
    '--bogus',
    'score',
    'score study',
    'score study --output out --bogus',
    'score study --output out --timeout soon',
    'inspect',
    'inspect a b',
    'serve --port eighty',
    'demo --cases many',
    'cohort empty --output out',
    'compare --output out',
    'manifestations empty',
    'batch empty',
    'batch empty --output out --server a:1 --models b',
  ],
)
def test_wrong_arguments_are_status_2_below_the_usage(line, capsys, place):
  assert _status(line) == 2
  printed = capsys.readouterr()
  assert printed.err.startswith('usage: covid-tf')
  assert ': error: ' in printed.err.splitlines()[-1]
  assert printed.out == '' and not (place / 'out').exists()


@pytest.mark.parametrize(
  'line, status, words',
  [
    ('score gone --output out', 3, 'gone'),
    ('score empty --output out', 3, 'empty'),
    ('score study --output file', 5, 'file'),
    ('score study --output out --models gone', 4, 'gone'),
    ('score study --output out --tls', 2, '--tls'),
    ('score study --output out --case-threshold gone', 2, '--case-threshold gone'),
    ('inspect gone', 3, 'gone'),
    ('inspect empty --json', 3, 'empty'),
    ('check --models gone', 4, 'gone'),
    ('check --batches 0', 2, '--batches'),
    ('check --tls', 2, '--tls'),
    ('serve --model_name m', 2, '--model_base_path'),
    ('serve --models gone', 2, 'gone'),
    ('serve --models empty', 2, 'empty'),
    ('serve --models empty --port 99999', 2, '99999'),
    ('serve --models empty --batch_size=3', 2, '--batch_size'),
    ('demo --cases 0', 2, '--cases'),
    ('demo --output full', 2, 'full'),
    ('demo --output file', 5, 'file'),
    ('cohort empty gone --output out', 2, 'gone'),
    ('cohort empty file --output out --sensitivity 2', 2, '--sensitivity'),
    ('compare empty --output out', 2, 'empty/result.json'),
    ('compare gone gone --output out', 2, 'gone'),
    ('manifestations gone --output out', 2, 'gone'),
    ('manifestations study --output out --clusters 0', 2, '--clusters'),
    ('manifestations study --output out', 4, 'exported models'),
    ('batch gone --output out', 2, 'gone'),
    ('batch empty --output out', 2, 'at least one CT study'),
    ('batch study --output file', 5, 'file'),
    ('batch study --output out --processes 0', 2, '--processes'),
  ],
)
def test_what_is_wrong_is_one_line_and_its_status(line, status, words, capsys, place):
  assert _status(line) == status
  printed = capsys.readouterr()
  assert printed.out == ''
  # `batch` says how many studies it found before it complains of them.
  last = printed.err.splitlines()[-1]
  assert last.startswith(f'covid-tf {line.split()[0]}: ') and words in last
  if not line.startswith('batch'):
    assert printed.err.count('\n') == 1
  assert (place / 'full' / 'thesis.txt').read_text() == 'mine'
  assert not list(place.glob('out/**/result.json'))


@pytest.mark.parametrize(
  'error',
  [
    errors.UsageError,
    errors.CTReadError,
    errors.NoLungsError,
    errors.ModelError,
    errors.OutputError,
    errors.ClusterError,
  ],
)
def test_an_error_of_ours_is_its_status_and_its_text(error, monkeypatch, capsys):
  def fail(*arguments, **options):
    raise error('this is why.')

  monkeypatch.setattr(scored_study, 'score_study', fail)
  assert _status('score study --output out') == error.exit_status
  assert capsys.readouterr().err == 'covid-tf score: this is why.\n'


def test_an_interrupt_is_one_line_too(monkeypatch, capsys):
  def interrupted(arguments):
    raise KeyboardInterrupt

  monkeypatch.setattr(inspect, 'run', interrupted)
  assert _status('inspect study') == 130
  assert capsys.readouterr().err == 'covid-tf inspect: interrupted\n'


def test_statuses_reach_the_shell():
  for line, status in (('inspect study', 0), ('inspect empty', 3), ('nothing', 2)):
    done = subprocess.run(
      [sys.executable, '-m', 'covid_tf.cli', *line.split()],
      capture_output=True,
      text=True,
      check=False,
      env={'PYTHONPATH': ':'.join(sys.path)},
    )
    assert done.returncode == status
    assert 'Traceback' not in done.stderr
    assert bool(done.stderr) == bool(status)
