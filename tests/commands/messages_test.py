"""Standard error and the log file: what is said with -v, with -q and without."""

import argparse
import logging
import pathlib
import re
import subprocess
import sys

import pytest

from covid_tf import cli
from covid_tf import errors
from covid_tf.commands import messages

_log = logging.getLogger('covid_tf.somewhere')


def _say(*flags, error=None):
  parser = argparse.ArgumentParser()
  messages.add_arguments(parser)
  with messages.spoken('covid-tf job', parser.parse_args(flags)):
    _log.info('a step')
    _log.warning('a warning')
    print('by the way', file=sys.stderr)
    logging.getLogger('another.library').warning('header: Doe^Jane')
    if error:
      raise error


def test_warnings_are_said_and_steps_are_not(capsys):
  _say()
  lines = capsys.readouterr().err.splitlines()
  assert 'covid-tf job: a warning' in lines and 'by the way' in lines
  assert not any('a step' in line for line in lines)


def test_verbose_says_each_step(capsys):
  _say('-v')
  assert 'covid-tf job: a step\ncovid-tf job: a warning' in capsys.readouterr().err


def test_quiet_says_nothing_but_errors(capsys):
  _say('--quiet')
  _log.warning('after')
  printed = capsys.readouterr().err
  assert 'a warning' not in printed and 'by the way' not in printed


def test_a_log_file_gets_every_step_with_its_time(tmp_path, capsys):
  path = tmp_path / 'log'
  _say('--log-file', str(path), '-q')
  with pytest.raises(errors.UsageError):
    _say('--log-file', str(path), error=errors.UsageError('x: y is required.'))
  capsys.readouterr()
  lines = path.read_text().splitlines()
  assert all(
    re.match(r'\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4} \d+ covid-tf job [A-Z]+ ', line)
    for line in lines
  )
  said = [line.split('covid-tf job ')[1] for line in lines]
  assert said.count('INFO a step') == 2 and said.count('WARNING a warning') == 2
  assert said.count('INFO ends') == 1 and said[-1] == 'ERROR x: y is required.'
  assert 'Doe' not in path.read_text()


def test_a_library_that_configures_logging_repeats_nothing():
  code = """
import argparse, logging
from covid_tf.commands import messages
parser = argparse.ArgumentParser()
messages.add_arguments(parser)
with messages.spoken('covid-tf job', parser.parse_args([])):
  logging.basicConfig()
  logging.getLogger('covid_tf.somewhere').warning('a warning')
assert logging.getLogger('covid_tf').propagate
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    cwd=pathlib.Path(messages.__file__).parents[2],
  )
  assert done.stderr == 'covid-tf job: a warning\n'


def test_afterwards_the_loggers_are_as_before():
  logger = logging.getLogger('covid_tf')
  before = logger.level, list(logger.handlers), sys.stderr
  _say('-v')
  assert before == (logger.level, logger.handlers, sys.stderr)


def test_a_log_file_that_cannot_be_written_is_refused(tmp_path, capsys):
  line = ['inspect', 'study', '--log-file', str(tmp_path)]
  assert cli.main(line) == errors.OutputError.exit_status
  assert f'--log-file {tmp_path}: a file that can be' in capsys.readouterr().err


def test_loud_and_quiet_exclude_each_other(capsys):
  assert cli.main(['inspect', 'study', '-v', '-q']) == 2
  assert 'not allowed with' in capsys.readouterr().err
