"""The settings TensorFlow gets before it is imported, and who sets them."""

import os
import subprocess
import sys

from covid_tf.predictors import in_process

_NAME = 'TF_ENABLE_ONEDNN_OPTS'


def test_what_the_user_has_set_is_kept(monkeypatch):
  monkeypatch.setenv(_NAME, '0')
  in_process.set_defaults()
  assert os.environ[_NAME] == '0'


def test_models_in_process_find_onednn_on():
  program = (
    'import os, sys\n'
    'from covid_tf.predictors import in_process\n'
    'from covid_tf import errors\n'
    'assert "tensorflow" not in sys.modules\n'
    'try:\n'
    '  in_process.load_models("/nowhere")\n'
    'except errors.ModelError:\n'
    f'  print(os.environ["{_NAME}"])\n'
  )
  environment = {name: value for name, value in os.environ.items() if name != _NAME}
  done = subprocess.run(
    [sys.executable, '-c', program],
    env=environment | {'PYTHONPATH': os.pathsep.join(sys.path)},
    capture_output=True,
    text=True,
  )
  assert done.stdout.split()[-1:] == ['1'], done.stderr


def _import(program, **environment):
  names = ('TF_CPP_MIN_LOG_LEVEL', _NAME)
  kept = {name: value for name, value in os.environ.items() if name not in names}
  return subprocess.run(
    [
      sys.executable,
      '-c',
      'from covid_tf.predictors import in_process\n'
      f'in_process.set_defaults()\n{program}',
    ],
    env=kept | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))} | environment,
    capture_output=True,
    text=True,
  )


def test_tensorflow_starts_in_silence():
  program = 'import tensorflow as tf\nprint(tf.constant(1).numpy())'
  done = _import(program)
  assert (done.returncode, done.stdout, done.stderr) == (0, '1\n', '')


def test_who_asks_for_startup_messages_gets_them():
  done = _import('import tensorflow', TF_CPP_MIN_LOG_LEVEL='0')
  assert 'oneDNN' in done.stderr


def _fake_tensorflow(folder, text):
  (folder / 'tensorflow.py').write_text(f'import os\n{text}\n', 'utf-8')
  return {'PYTHONPATH': os.pathsep.join([str(folder), *filter(None, sys.path)])}


def test_an_import_that_ends_the_process_is_heard(tmp_path):
  # As on a processor that lacks what the build asks for: a line, then abort().
  environment = _fake_tensorflow(
    tmp_path,
    (
      'os.write(2, b"I0000 00:00:1.5  7 port.cc:153] oneDNN is on\\n'
      'F0000 00:00:1.6  7 guard.cc:9] AVX is required\\n")\nos.abort()'
    ),
  )
  done = _import('import tensorflow', **environment)
  assert done.returncode < 0
  assert done.stderr == 'F0000 00:00:1.6  7 guard.cc:9] AVX is required\n'


def test_an_import_that_fails_is_heard(tmp_path):
  environment = _fake_tensorflow(
    tmp_path,
    (
      'os.write(2, b"E0000 00:00:1.6  7 a.cc:9] no library\\n")\n'
      'raise ImportError("a library is missing")'
    ),
  )
  done = _import('import tensorflow', **environment)
  assert 'no library' in done.stderr and 'a library is missing' in done.stderr
