"""`python -m covid_tf.training.evaluate`, from a checkout."""

from covid_tf.training import evaluate

if __name__ == '__main__':
  evaluate.run()
