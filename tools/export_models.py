"""`python -m covid_tf.training.export_models`, from a checkout."""

from covid_tf.training import export_models

if __name__ == '__main__':
  export_models.run()
