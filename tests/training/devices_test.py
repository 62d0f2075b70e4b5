"""Several devices and several processes: the losses of one, batch by batch."""

import csv
import json
import os
import subprocess
import sys

import free_ports
import numpy as np
import pytest
import tensorflow as tf
import tiny_training

from covid_tf import errors
from covid_tf.training import loop

_PLAN = '16:10:0.02:0.02'


def _losses(folder):
  with open(folder / 'log.csv', newline='') as log:
    return [float(row['loss']) for row in csv.DictReader(log)]


def _start(folder, pattern, choice, **environment):
  paths = os.pathsep.join(filter(None, sys.path))
  return subprocess.Popen(
    [sys.executable, tiny_training.__file__, str(folder), pattern, choice, _PLAN, '0'],
    env=os.environ
    | environment
    | {'PYTHONPATH': paths, 'CUDA_VISIBLE_DEVICES': '-1', 'TF_CPP_MIN_LOG_LEVEL': '3'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )


def _cluster():
  """TF_CONFIG of two workers on free local ports."""
  workers = [f'127.0.0.1:{free_ports.free_port()}' for _ in range(2)]
  return [
    json.dumps(
      {'cluster': {'worker': workers}, 'task': {'type': 'worker', 'index': index}}
    )
    for index in range(2)
  ]


def test_two_devices_and_two_processes_train_as_one(tmp_path):
  pattern = tiny_training.write_shard(tmp_path / 'a.tfrecord')
  started = [
    _start(tmp_path / 'mirrored', pattern, 'mirrored'),
    *(
      _start(tmp_path / 'several', pattern, 'multi_worker', TF_CONFIG=cluster)
      for cluster in _cluster()
    ),
  ]
  try:
    tiny_training.train(
      tiny_training.options(tmp_path / 'one', _PLAN), pattern, tiny_training.TinyTask()
    )
    for process in started:
      output, _ = process.communicate(timeout=400)
      assert process.returncode == 0, output.decode()[-3000:]
  finally:
    for process in started:
      process.kill()
  one = _losses(tmp_path / 'one')
  assert len(one) == 2
  np.testing.assert_allclose(one, _losses(tmp_path / 'mirrored'), atol=1e-4)
  np.testing.assert_allclose(one, _losses(tmp_path / 'several'), atol=1e-4)


def test_several_machines_need_to_know_of_each_other(monkeypatch):
  monkeypatch.delenv('TF_CONFIG', raising=False)
  with pytest.raises(errors.UsageError, match='TF_CONFIG in every process'):
    loop.strategy('multi_worker')
  with pytest.raises(errors.UsageError, match="found 'tpu'"):
    loop.strategy('tpu')
  assert loop.worker_number(loop.strategy('none')) == 0


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path, monkeypatch):
  pattern = tiny_training.write_shard(tmp_path / 'a.tfrecord', 4)
  strategy = tf.distribute.get_strategy()
  monkeypatch.setattr(type(strategy), 'num_replicas_in_sync', 3)
  with pytest.raises(errors.UsageError, match='multiple of the 3 devices, found 8'):
    tiny_training.train(
      tiny_training.options(tmp_path, _PLAN),
      pattern,
      tiny_training.TinyTask(),
      strategy=strategy,
    )
