"""`covid-tf demo`: the whole path on a phantom cohort, offline."""

import argparse
import pathlib
import signal
import sys
import time

from covid_tf import errors
from covid_tf.demo import drawing
from covid_tf.demo import running
from covid_tf.demo import summary
from covid_tf.predictors import in_process

_FEWEST_CASES, _MOST_CASES = 1, 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    '--output',
    type=pathlib.Path,
    default=pathlib.Path('demo_output'),
    metavar='DIR',
    help='an empty folder or an earlier demo (default %(default)s)',
  )
  parser.add_argument(
    '--cases',
    type=int,
    default=12,
    metavar='N',
    help='phantom patients, a third of each kind (default %(default)s)',
  )


def run(arguments: argparse.Namespace) -> int:
  """Runs the demo; returns 0."""
  begin = time.monotonic()
  if not _FEWEST_CASES <= arguments.cases <= _MOST_CASES:
    raise errors.UsageError(
      f'--cases must be from {_FEWEST_CASES} to {_MOST_CASES}, found {arguments.cases}.'
    )
  in_process.require_tensorflow('the demo, which serves its models, requires')
  # Ends as an exception, so that the server and half-written folders go too.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  folder = drawing.claim_folder(arguments.output)
  folder.clear()
  named = running.run(folder, running.demo_cases(arguments.cases), _say)
  missed = summary.failures(named)
  if missed:
    print(
      f'covid-tf demo: below what is required: {", ".join(missed)}', file=sys.stderr
    )
  print(
    f'\nDone in {time.monotonic() - begin:.0f} s. Open {folder.page}.\n'
    'Research use only: phantoms and demo models, no patient.'
  )
  return 0


def _say(text: str) -> None:
  print(text, flush=True)
