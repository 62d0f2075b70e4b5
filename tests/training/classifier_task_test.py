"""The classifier's task, from a stored slice to the picture of a checkpoint."""

import pytest
import tensorflow as tf
import tiny_training

from covid_tf.training import classifier_task
from covid_tf.training import tasks

_SIZE = 32


@pytest.fixture(name='task', scope='module')
def _task():
  return classifier_task.ClassifierTask(positive_weight=2.0)


@pytest.fixture(name='model', scope='module')
def _model(task):
  return task.build(_SIZE)


@pytest.fixture(name='batch', scope='module')
def _batch(task, tmp_path_factory):
  return tiny_training.batch(task, tmp_path_factory.mktemp('shards'), _SIZE)


def test_examples_are_what_the_network_takes(model, batch):
  images, labels = batch
  assert images.shape == (6, *model.input_shape[1:]) and images.dtype == tf.float32
  assert labels['covid'][:, 0].numpy().tolist() == [0, 1, 0, 1, 0, 1]
  assert labels['lesion'].shape == (6, _SIZE, _SIZE)
  assert labels['lesion_known'].numpy().tolist() == [0, 1, 1, 0, 1, 1]


def test_only_the_classifier_is_served(task, model):
  served = task.served(model)
  assert served.output_shape == (None, 1) and len(model.outputs) == 3
  assert served.variables[0] is model.variables[0]


@pytest.mark.parametrize('kind', [tasks.PLAIN, tasks.GUIDED])
def test_the_loss_of_a_stage_knows_lesions(task, model, batch, kind):
  images, labels = batch
  objective = task.objective(model, tasks.Stage(_SIZE, 1, 1e-3, 1e-3, kind))
  loss = objective(images, labels)
  assert loss.shape == () and loss.dtype == tf.float32
  undrawn = labels | {'lesion_known': tf.zeros(6)}
  assert float(objective(images, undrawn)) < float(loss)


def test_figures_of_slices(task, batch):
  images, labels = batch
  # The second of three positives is missed, the rest is right.
  logits = iter([tf.constant([-2.0, 3, -2, -1, -2, 3])[:, tf.newaxis]])
  figures = task.measure(lambda images, training: next(logits), [batch])
  assert figures == {
    'AUC': 1.0,
    'sensitivity': pytest.approx(2 / 3),
    'specificity': 1.0,
  }


def test_pictures_are_slices_beside_their_maps(task, model, batch):
  pictures = task.picture(task.served(model), *batch).numpy()
  assert pictures.shape == (4, _SIZE, 2 * _SIZE, 3)
  assert pictures.min() >= 0 and pictures.max() <= 1


def test_a_frozen_stage_trains_the_logit_and_the_helpers(task):
  model = task.build(_SIZE)
  task.freeze(model)
  assert len(model.trainable_variables) == 6  # Three kernels, three biases.
