"""Runs: they learn, go on after a kill, refuse what is wrong, end in time."""

import csv
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tiny_training

from covid_tf import errors
from covid_tf.models import weights as weights_lib
from covid_tf.training import loop
from covid_tf.training import shards

_PLAN = '16:20:0.02:0.02'


@pytest.fixture(name='pattern')
def _pattern(tmp_path):
  return tiny_training.write_shard(tmp_path / 'a.tfrecord')


def _losses(folder):
  with open(folder / 'log.csv', newline='') as log:
    return [float(row['loss']) for row in csv.DictReader(log)]


def _environment():
  return os.environ | {
    'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
    'CUDA_VISIBLE_DEVICES': '-1',
    'TF_CPP_MIN_LOG_LEVEL': '3',
  }


def test_a_killed_run_ends_where_one_that_went_through_does(tmp_path, pattern):
  command = [
    sys.executable,
    tiny_training.__file__,
    str(tmp_path / 'cut'),
    pattern,
    'none',
    _PLAN,
    '3',
  ]
  killed = subprocess.run(command, env=_environment(), capture_output=True)
  assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
  assert not (tmp_path / 'cut' / weights_lib.FINAL_WEIGHTS).exists()
  seen = []
  whole, resumed = (
    tiny_training.train(
      tiny_training.options(tmp_path / name, _PLAN),
      pattern,
      tiny_training.TinyTask(),
      progress=lambda stage, step, *_, name=name: seen.append((name, step)),
    )
    for name in ('whole', 'cut')
  )
  assert [step for name, step in seen if name == 'cut'] == [15, 20]
  for one, two in zip(whole.get_weights(), resumed.get_weights(), strict=True):
    np.testing.assert_allclose(one, two, atol=1e-5)
  losses = _losses(tmp_path / 'whole')
  np.testing.assert_allclose(losses, _losses(tmp_path / 'cut'), atol=1e-5)
  assert losses[-1] < 0.7 * losses[0]


def test_a_folder_of_another_configuration_is_refused(tmp_path, pattern, monkeypatch):
  tiny_training.train(
    tiny_training.options(tmp_path, '16:1:0.02:0.02'), pattern, tiny_training.TinyTask()
  )
  monkeypatch.setattr(tiny_training, 'ASKED', {'network': 'tiny', 'seed': 4})
  with pytest.raises(errors.UsageError, match='begun with seed null, found 4 now'):
    tiny_training.train(
      tiny_training.options(tmp_path, _PLAN), pattern, tiny_training.TinyTask()
    )


def test_stages_follow_one_another_and_a_frozen_one_keeps_the_body(tmp_path, pattern):
  first = tiny_training.TinyTask().build(16).get_layer('body').get_weights()
  plan = ('16:5:0.02:0.02:frozen', '32:5:0.02:0.002')
  frozen = tiny_training.train(
    tiny_training.options(tmp_path / 'a', plan[0]), pattern, tiny_training.TinyTask()
  )
  both = tiny_training.train(
    tiny_training.options(tmp_path / 'b', *plan), pattern, tiny_training.TinyTask()
  )
  np.testing.assert_array_equal(frozen.get_layer('body').get_weights()[0], first[0])
  assert np.abs(both.get_layer('body').get_weights()[0] - first[0]).max() > 1e-3
  assert both.input_shape == (None, 32, 32, 3)


def test_a_stage_that_the_network_does_not_know_is_refused(tmp_path, pattern):
  with pytest.raises(errors.UsageError, match='plain or frozen, found guided'):
    tiny_training.train(
      tiny_training.options(tmp_path, f'{_PLAN}:guided'),
      pattern,
      tiny_training.TinyTask(),
    )
  assert not (tmp_path / weights_lib.CONFIGURATION).exists()


@pytest.mark.parametrize('plan', ['16:1:0.02:0.02', '72:1:0.02:0.02'])
def test_a_size_that_the_network_cannot_take_is_refused_before_any_stage(
  tmp_path, pattern, plan
):
  class Coarse(tiny_training.TinyTask):
    least_size = size_step = 32

  with pytest.raises(errors.UsageError, match='32 or more is required, a multiple of'):
    tiny_training.train(
      tiny_training.options(tmp_path, '32:1:0.02:0.02', plan), pattern, Coarse()
    )
  assert not (tmp_path / weights_lib.CONFIGURATION).exists()


def test_weights_that_do_not_fit_leave_the_folder_free(tmp_path, pattern):
  class Unfit(tiny_training.TinyTask):
    def build(self, size):
      raise errors.UsageError('weights of another network')

  with pytest.raises(errors.UsageError, match='of another network'):
    tiny_training.train(
      tiny_training.options(tmp_path / 'run', _PLAN), pattern, Unfit()
    )
  assert not (tmp_path / 'run').exists()


def test_a_guided_stage_needs_drawn_lesions(pattern, tmp_path):
  found = shards.look_through(pattern)
  assert (found.positives, found.drawn) == (12, 8)
  shards.require_drawn_lesions('--shards', [found])
  shards.write_shard(
    tmp_path / 'b.tfrecord',
    [
      dataclasses.replace(tiny_training.record(i, 1), lesion_mask=None)
      for i in range(3)
    ],
  )
  undrawn = shards.look_through(str(tmp_path / 'b.tfrecord'))
  with pytest.raises(errors.UsageError, match='required by a guided stage'):
    shards.require_drawn_lesions('--shards', [undrawn])


def test_early_stopping_ends_a_stage_and_the_best_weights_are_kept(tmp_path, pattern):
  scores = iter([0.5, 0.9, 0.8, 0.7, 1.0])
  weights = []

  class Scored(tiny_training.TinyTask):
    def measure(self, network, batches):
      weights.append(network.get_weights())
      return {'score': next(scores)}

  model = tiny_training.train(
    tiny_training.options(tmp_path, '16:40:0.02:0.02', patience=2, keep_best=True),
    pattern,
    Scored(),
  )
  assert len(weights) == 4
  for one, two in zip(model.get_weights(), weights[1], strict=True):
    np.testing.assert_array_equal(one, two)
  assert (tmp_path / 'stage0' / loop.BEST_WEIGHTS).exists()
  rows = (tmp_path / 'validation.csv').read_text().splitlines()
  assert rows[2] == f'0,10,score {pattern},0.90000'


def _heard(calls, name):
  return lambda number, logs=None: calls.append((name, number, logs))


def test_keras_callbacks_see_stages_epochs_and_batches(tmp_path, pattern):
  calls, models = [], []
  table = tmp_path / 'epochs.csv'
  model = tiny_training.train(
    tiny_training.options(tmp_path / 'run', '16:7:0.02:0.02', '32:2:0.02:0.02'),
    pattern,
    tiny_training.TinyTask(),
    callbacks=[
      heard := keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: models.append(heard.model),
        on_epoch_begin=_heard(calls, 'begin'),
        on_epoch_end=_heard(calls, 'end'),
        on_train_batch_end=_heard(calls, 'batch'),
        on_train_end=_heard(calls, 'train end'),
      ),
      keras.callbacks.CSVLogger(str(table), append=True),
      keras.callbacks.TensorBoard(str(tmp_path / 'board'), write_graph=False),
    ],
  )
  assert [call[:2] for call in calls if call[0] in ('begin', 'end')] == [
    (name, epoch) for epoch in range(3) for name in ('begin', 'end')
  ]
  batches = [call[1:] for call in calls if call[0] == 'batch']
  assert [batch for batch, _ in batches] == [0, 1, 2, 3, 4, 0, 1, 0, 1]
  assert [call[0] for call in calls].count('train end') == 2
  assert [network.input_shape[1] for network in models] == [16, 32]
  assert models[-1] is model
  with open(table, newline='') as log:
    rows = list(csv.DictReader(log))
  assert [row['epoch'] for row in rows] == ['0', '1', '2']
  assert set(rows[0]) == {
    'epoch',
    'loss',
    'learning_rate',
    'val_AUC',
    'val_sensitivity',
    'val_specificity',
  }
  assert float(rows[0]['loss']) == pytest.approx(
    np.mean([logs['loss'] for _, logs in batches[:5]]), abs=1e-6
  )
  assert list((tmp_path / 'board').rglob('events*'))


def test_a_stage_that_a_callback_stopped_stays_ended(tmp_path, pattern):
  plan = tiny_training.options(tmp_path, '16:20:0.02:0.02')
  stopping = keras.callbacks.EarlyStopping(
    monitor='val_AUC', mode='max', baseline=2.0, patience=2
  )
  first = tiny_training.train(
    plan, pattern, tiny_training.TinyTask(), callbacks=[stopping]
  )
  steps = len(_losses(tmp_path))
  again = tiny_training.train(plan, pattern, tiny_training.TinyTask())
  assert steps == len(_losses(tmp_path)) == 2  # Of four: a row a checkpoint.
  for one, two in zip(first.get_weights(), again.get_weights(), strict=True):
    np.testing.assert_array_equal(one, two)


def test_callbacks_that_change_learning_rates_are_refused(tmp_path, pattern):
  with pytest.raises(errors.UsageError, match='of the stages, found ReduceLROnPl'):
    tiny_training.train(
      tiny_training.options(tmp_path, _PLAN),
      pattern,
      tiny_training.TinyTask(),
      callbacks=[keras.callbacks.ReduceLROnPlateau()],
    )
  assert not (tmp_path / weights_lib.CONFIGURATION).exists()


def test_a_trainer_does_nothing_until_it_is_built(tmp_path):
  model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
  trainer = loop.Trainer(model, lambda images, labels: 0.0, tmp_path / 'stage0')
  assert model.layers[0].momentum == 0.99
  trainer.build()
  assert model.layers[0].momentum == 0.95
  assert not (tmp_path / 'stage0').exists()
  assert trainer.restore() == 0


def test_xla_gives_the_same_run(tmp_path, pattern):
  plan = '16:5:0.02:0.02'
  for name, xla in (('plain', False), ('xla', True)):
    tiny_training.train(
      tiny_training.options(tmp_path / name, plan, xla=xla, tensorboard=xla),
      pattern,
      tiny_training.TinyTask(),
    )
  np.testing.assert_allclose(
    _losses(tmp_path / 'plain'), _losses(tmp_path / 'xla'), atol=1e-4
  )
  assert list((tmp_path / 'xla' / 'tensorboard').iterdir())
  assert pathlib.Path(tmp_path / 'plain' / weights_lib.LATEST_WEIGHTS).exists()
