"""TensorFlow set up as the commands set it; a benchmark imports this before it."""

from covid_tf.predictors import in_process

in_process.set_defaults()
