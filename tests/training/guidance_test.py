"""Guided stages: the served map is what learns, and only from drawn lesions."""

import dataclasses

import keras
import numpy as np
import pytest
import small_networks
import tensorflow as tf

from covid_tf.models import grad_cam
from covid_tf.training import classifier_task
from covid_tf.training import tasks

_LAYERS = ('fine', 'coarse')


def _network():
  return classifier_task.with_helpers(
    small_networks.residual(size=12), ('coarse', 'last')
  )


def _objective(model):
  return classifier_task.guided_objective(model, _LAYERS, ('coarse', 'last'))


def _batch(model):
  """Four slices, the last two with a lesion that the pixels show."""
  images = 0.3 * small_networks.images(model, 4)
  lesion = np.zeros((4, 12, 12), np.float32)
  lesion[2, 1:5, 1:5] = 1
  lesion[3, 7:11, 4:9] = 1
  images += 2 * lesion[..., np.newaxis]
  labels = {
    'covid': tf.constant([[0.0], [0], [1], [1]]),
    'lesion': tf.constant(lesion),
    'lesion_known': tf.ones(4),
  }
  return tf.constant(images), labels


def test_the_map_that_learns_is_the_map_that_is_served(monkeypatch):
  model = _network()
  images, labels = _batch(model)
  seen = []
  monkeypatch.setattr(tasks, 'map_dice', lambda labels, maps: seen.extend(maps) or 0.0)
  _objective(model)(images, labels)
  _, maps = grad_cam.grad_cam(classifier_task.classifier_of(model), _LAYERS)(images)
  for trained, served in zip(seen, maps, strict=True):
    assert float(tf.reduce_max(served)) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(trained, served, atol=1e-6)


def test_guided_training_draws_the_maps_to_the_lesions():
  model = _network()
  images, labels = _batch(model)
  objective = _objective(model)
  explain = grad_cam.grad_cam(classifier_task.classifier_of(model), _LAYERS)
  statistics = [np.copy(w) for w in _moving_statistics(model)]
  optimizer = keras.optimizers.Adam(0.01)

  @tf.function
  def step():
    with tf.GradientTape() as tape:
      loss = objective(images, labels)
    optimizer.apply_gradients(
      zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    )

  before = float(tasks.map_dice(labels, explain(images)[1]))
  for _ in range(60):
    step()
  assert float(tasks.map_dice(labels, explain(images)[1])) < 0.6 * before
  for one, two in zip(statistics, _moving_statistics(model), strict=True):
    np.testing.assert_array_equal(one, two)


def _moving_statistics(model):
  return [
    w.numpy()
    for layer in model.layers
    for w in layer.non_trainable_weights
    if 'moving' in w.name
  ]


def test_slices_without_disease_or_drawing_have_no_part_in_the_map_loss():
  model = _network()
  images, labels = _batch(model)
  maps = grad_cam.grad_cam(classifier_task.classifier_of(model), _LAYERS)(images)[1]
  whole = float(tasks.map_dice(labels, maps))
  assert whole > 0.05
  noise = [
    tf.concat([tf.random.stateless_uniform(grid[:2].shape, (1, 2)), grid[2:]], 0)
    for grid in maps
  ]
  assert float(tasks.map_dice(labels, noise)) == pytest.approx(whole)
  undrawn = labels | {'lesion_known': tf.constant([1.0, 1, 0, 0])}
  assert float(tasks.map_dice(undrawn, maps)) == 0
  third = labels | {'lesion_known': tf.constant([1.0, 1, 1, 0])}
  alone = {key: value[2:3] for key, value in labels.items()}
  assert float(tasks.map_dice(third, maps)) == pytest.approx(
    float(tasks.map_dice(alone, [grid[2:3] for grid in maps]))
  )


def test_a_map_on_its_lesion_costs_nothing_and_one_beside_it_all():
  lesion = np.zeros((1, 16, 16), np.float32)
  lesion[0, :8, :8] = 1
  labels = {
    'covid': tf.ones((1, 1)),
    'lesion': tf.constant(lesion),
    'lesion_known': tf.ones(1),
  }
  coarse = tf.constant(lesion[:, ::4, ::4])
  fine = tf.constant(lesion[:, ::2, ::2])
  # The product is blurred by the coarse map's interpolation: not quite nothing.
  assert float(tasks.map_dice(labels, [fine, coarse])) < 0.05
  assert float(tasks.map_dice(labels, [1 - fine, 1 - coarse])) > 0.95


def test_a_stage_says_that_it_is_guided():
  stage = tasks.Stage.parse('224:560:3e-4:1e-5:guided')
  assert stage == dataclasses.replace(
    tasks.Stage.parse('224:560:3e-4:1e-5'), kind=tasks.GUIDED
  )
  assert tasks.Stage.parse(str(stage)) == stage
