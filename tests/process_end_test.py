"""The words for how a process ended."""

import signal
import subprocess
import sys

import pytest

from covid_tf import process_end


@pytest.mark.parametrize(
  'number, words',
  [
    (signal.SIGSEGV, 'segmentation fault'),
    (signal.SIGABRT, 'abort'),
    (signal.SIGKILL, 'killed from outside'),
    (signal.SIGTERM, 'SIGTERM'),
  ],
)
def test_a_signal_is_named(number, words):
  done = subprocess.run(
    [sys.executable, '-c', (f'import os; os.kill(os.getpid(), {int(number)})')],
    check=False,
  )
  for code in (done.returncode, 128 + number):  # A shell's number too.
    text = process_end.how(code)
    assert text.startswith(f'was ended by {number.name}') and words in text


@pytest.mark.parametrize('code', [0, 1, 4, 128, 255])
def test_a_status_is_a_status(code):
  assert process_end.how(code) == f'ended with status {code}'
  assert 'wrote last' in process_end.remedy(code)


def test_each_end_has_its_remedy():
  assert 'TF_ENABLE_ONEDNN_OPTS=0' in process_end.remedy(-signal.SIGSEGV)
  assert 'memory' in process_end.remedy(-signal.SIGKILL)
  assert 'memory' in process_end.remedy(None)
  assert 'somebody' in process_end.remedy(-signal.SIGTERM)


def test_last_lines_are_one_line_without_startup_messages():
  text = (
    'first\nsecond\n\nthird\n  fourth \n'
    'I0000 00:00:1795899543.329304   15358 port.cc:153] oneDNN is on.\n'
    '2026-11-28 21:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN\n'
    'WARNING: All log messages before absl::InitializeLog() is called\n'
  )
  assert process_end.last_lines(text) == 'second | third | fourth'
  assert process_end.last_lines('\n \n') == 'nothing'
  assert len(process_end.last_lines('x' * 5000)) <= 200
