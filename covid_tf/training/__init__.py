"""Training, evaluation and export of the networks; one module a script."""

import pathlib
import sys

from covid_tf import errors
from covid_tf.predictors import in_process


def _is_script() -> bool:
  """Whether a module of this package is started: by `python -m`, or from tools."""
  started = pathlib.Path(sys.argv[0] if sys.argv else '').absolute()
  here = pathlib.Path(__file__).absolute().parent
  return started.name == '-m' or (
    started.parent == here.parents[1] / 'tools' and (here / started.name).exists()
  )


if _is_script():
  try:
    in_process.require_tensorflow('training, evaluation and export require')
  except errors.ModelError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
# Here: every module of this package imports TensorFlow at its top, which reads these
# settings once and prints while it is imported.
in_process.set_defaults()
