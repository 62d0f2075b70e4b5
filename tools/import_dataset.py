"""`python -m covid_tf.training.import_dataset`, from a checkout."""

from covid_tf.training import import_dataset

if __name__ == '__main__':
  import_dataset.run()
