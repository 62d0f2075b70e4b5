"""The lungs' task, from a stored slice to the picture of a checkpoint."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_training

from covid_tf.training import lung_task
from covid_tf.training import tasks

_SIZE = 32


@pytest.fixture(name='task', scope='module')
def _task():
  return lung_task.LungTask()


@pytest.fixture(name='model', scope='module')
def _model(task):
  return task.build(_SIZE)


@pytest.fixture(name='batch', scope='module')
def _batch(task, tmp_path_factory):
  return tiny_training.batch(task, tmp_path_factory.mktemp('shards'), _SIZE)


def test_examples_are_what_the_network_takes(model, batch):
  images, lungs = batch
  assert images.shape == (6, _SIZE, _SIZE, 3) and images.dtype == tf.float32
  assert lungs.shape == (6, *model.output_shape[1:])
  # 32 x 40 of 48 x 60 pixels are lung.
  assert float(tf.reduce_mean(lungs)) == pytest.approx(32 * 40 / (48 * 60), abs=0.02)


def test_the_loss_is_dice_and_cross_entropy_of_the_network(task, model, batch):
  images, lungs = batch
  stage = tasks.Stage(_SIZE, 1, 1e-3, 1e-3)
  loss = task.objective(model, stage)(images, lungs)
  assert loss.shape == () and loss.dtype == tf.float32
  assert task.served(model) is model


def test_the_figure_is_the_dice_of_all_voxels(task, batch):
  images, lungs = batch
  truth = lungs.numpy() > 0.5
  share = truth.mean()

  def network(images, training):
    assert not training
    return tf.ones(images.shape[:-1] + (1,))  # Lung everywhere.

  figures = task.measure(network, [batch, batch])
  assert figures == {'Dice': pytest.approx(2 * share / (1 + share))}
  assert task.measure(lambda *_, **__: tf.where(truth, 1.0, -1.0), [batch]) == {
    'Dice': 1.0
  }


def test_pictures_show_the_truth_in_green(task, batch):
  pictures = task.picture(
    lambda images, training: tf.fill(images.shape[:-1] + (1,), -30.0), *batch
  ).numpy()
  assert pictures.shape == (4, _SIZE, _SIZE, 3)
  assert pictures.min() >= 0 and pictures.max() <= 1
  truth = batch[1].numpy()[:4, ..., 0]
  green_over_red = pictures[..., 1] - pictures[..., 0]
  assert (green_over_red[truth == 1] > 0.1).all()
  np.testing.assert_allclose(green_over_red[truth == 0], 0, atol=1e-6)


def test_a_frozen_stage_keeps_the_encoder(task):
  model = task.build(_SIZE)
  task.freeze(model)
  fixed = {layer.name for layer in model.layers if not layer.trainable}
  assert len(fixed) == 13  # The convolutions of VGG-16.
  assert model.trainable_variables
