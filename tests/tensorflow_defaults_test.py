"""What TensorFlow is told before it is imported, and by whom."""

import os
import subprocess
import sys

from covid_tf.predictors import tensorflow_defaults

_NAME = 'TF_ENABLE_ONEDNN_OPTS'


def test_what_the_user_has_set_is_kept(monkeypatch):
  monkeypatch.setenv(_NAME, '0')
  tensorflow_defaults.set_defaults()
  assert os.environ[_NAME] == '0'


def test_models_in_process_find_onednn_on():
  program = (
      'import os, sys\n'
      'from covid_tf.predictors import saved_model\n'
      'from covid_tf import errors\n'
      'assert "tensorflow" not in sys.modules\n'
      'try:\n'
      '  saved_model.load_models("/nowhere")\n'
      'except errors.ModelError:\n'
      f'  print(os.environ["{_NAME}"])\n')
  environment = {name: value for name, value in os.environ.items() if name != _NAME}
  done = subprocess.run(
      [sys.executable, '-c', program], env=environment | {
          'PYTHONPATH': os.pathsep.join(sys.path)}, capture_output=True, text=True)
  assert done.stdout.split()[-1:] == ['1'], done.stderr
