"""Training, evaluation and export of the networks; one module a script."""

from covid_tf.predictors import in_process

# Here: modules of this package import TensorFlow at their tops, which reads these
# settings once and prints while it is imported. Those that are scripts import them in
# functions, so that they can say what to install where there is none.
in_process.set_defaults()
