"""`python -m covid_tf.training.train_classifier`, from a checkout."""

from covid_tf.training import train_classifier

if __name__ == '__main__':
  train_classifier.run()
