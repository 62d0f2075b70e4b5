"""`covid_tf.training.script` for the scripts here, before anything of TensorFlow."""

from covid_tf.training import script

run = script.run
check_shift = script.check_shift
