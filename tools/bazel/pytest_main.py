"""Main of every test target: pytest on the file that the target names."""

import os
import sys

import pytest


def main(arguments: list[str]) -> int:
  """Runs pytest inside a Bazel test; returns its exit status."""
  # Bazel may leave HOME unset, and libraries keep caches there.
  os.environ['HOME'] = os.environ.get('TEST_TMPDIR', os.environ.get('HOME', '/tmp'))
  options = ['-p', 'no:cacheprovider']
  if xml := os.environ.get('XML_OUTPUT_FILE'):
    options.append(f'--junitxml={xml}')
  chosen = os.environ.get('TESTBRIDGE_TEST_ONLY')  # Set by --test_filter.
  if chosen:
    options += ['-k', chosen]
  status = int(pytest.main(options + arguments))
  # A filter reaches every target; matching nothing in this one is no failure.
  nothing_ran = status == pytest.ExitCode.NO_TESTS_COLLECTED
  return 0 if chosen and nothing_ran else status


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
