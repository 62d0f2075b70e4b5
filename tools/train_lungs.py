"""`python -m covid_tf.training.train_lungs`, from a checkout."""

from covid_tf.training import train_lungs

if __name__ == '__main__':
  train_lungs.run()
