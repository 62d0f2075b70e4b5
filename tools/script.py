"""How every script here begins and ends: its flags, and the status it exits with."""

from collections.abc import Callable
import pathlib
import sys

from absl import app
from absl import flags
from absl import logging

from covid_tf import errors
from covid_tf.predictors import tensorflow_defaults

# Here: a script may import TensorFlow at its top, and it imports this module first.
tensorflow_defaults.set_defaults()

_INTERRUPTED = 130  # The shell's convention: 128 + SIGINT.


def run(main: Callable[[], None]) -> None:
  """Parses the flags and runs a script; exits as `covid-tf` does.

  Args:
    main: does the work. Of an errors.CovidTFError the text is printed, in one line,
      and its status is the script's.
  """
  app.run(lambda argv: _run(main, argv), flags_parser=_parse)


def _parse(argv):
  """Unlike absl's own, with the status of wrong use, and without a page of help."""
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    _exit(f'{error} --help lists the flags.', errors.UsageError.exit_status)
  if flags.FLAGS['verbosity'].using_default_value:
    flags.FLAGS.verbosity = logging.WARNING  # Else absl shows TensorFlow's notes.
  return rest


def _run(main, argv):
  if len(argv) > 1:
    _exit(f'only flags are understood, found {argv[1]!r}; a flag that takes several '
          'values is given once for each.', errors.UsageError.exit_status)
  try:
    main()
  except errors.CovidTFError as error:
    _exit(str(error), error.exit_status)
  except KeyboardInterrupt:
    _exit('interrupted', _INTERRUPTED)


def _exit(text, status):
  print(f'{pathlib.Path(sys.argv[0]).stem}: {text}', file=sys.stderr)
  sys.exit(status)
