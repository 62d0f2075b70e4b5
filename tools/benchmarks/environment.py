"""TensorFlow set up as the commands set it; a benchmark imports this before it."""

from covid_tf.predictors import tensorflow_defaults

tensorflow_defaults.set_defaults()
