"""Training, evaluation and export of the networks; one module a script."""

from covid_tf.predictors import in_process
from covid_tf.training import script

script.require_tensorflow(__path__[0])
# Here: every module of this package imports TensorFlow at its top, which reads these
# settings once and prints while it is imported.
in_process.set_defaults()
