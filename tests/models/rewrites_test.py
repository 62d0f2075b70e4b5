"""Folding batch normalization changes no output, and folds all that can be."""

import keras
import numpy as np
import pytest
import small_networks

from covid_tf.models import rewrites

layers = keras.layers


def _norms(model):
  return [
    layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)
  ]


def _randomize(model, seed=3):
  random = np.random.default_rng(seed)
  for layer in model.layers:
    layer.set_weights(
      [
        random.uniform(0.4, 1.5, weight.shape)
        if weight.ndim == 1
        else random.normal(0, 0.5, weight.shape)
        for weight in layer.get_weights()
      ]
    )
  return model


def _difference(model, folded, count=2):
  images = small_networks.images(model, count)
  expected = np.asarray(model(images))
  assert np.abs(expected).max() > 1e-2
  return np.abs(expected - np.asarray(folded(images))).max()


@pytest.mark.parametrize(
  'shape,layer',
  [
    ((9, 10, 3), layers.Conv2D(4, 3, padding='same', strides=2)),
    ((9, 10, 3), layers.Conv2D(4, 3, use_bias=False, dilation_rate=2)),
    ((9, 10, 4), layers.Conv2D(6, 3, groups=2)),
    ((9, 10, 3), layers.DepthwiseConv2D(3, depth_multiplier=2)),
    ((9, 10, 3), layers.Conv2DTranspose(4, 3, strides=2, use_bias=False)),
    ((12, 3), layers.Conv1D(5, 3)),
    ((5, 6, 7, 2), layers.Conv3D(3, 2)),
    ((6,), layers.Dense(4, use_bias=False)),
  ],
  ids=lambda value: value.name if isinstance(value, keras.layers.Layer) else '',
)
def test_folds_into_every_kind_of_layer(shape, layer):
  inputs = layers.Input(shape)
  outputs = layers.ReLU()(layers.BatchNormalization()(layer(inputs)))
  model = _randomize(keras.Model(inputs, outputs))
  folded = rewrites.fold_batch_norm(model)
  assert not _norms(folded)
  assert _difference(model, folded) < 1e-5


@pytest.mark.parametrize('center,scale', [(True, False), (False, True), (False, False)])
def test_folds_norms_without_shift_or_scale(center, scale):
  inputs = layers.Input((8, 8, 2))
  x = layers.Conv2D(3, 3)(inputs)
  model = _randomize(
    keras.Model(inputs, layers.BatchNormalization(center=center, scale=scale)(x))
  )
  folded = rewrites.fold_batch_norm(model)
  assert not _norms(folded)
  assert _difference(model, folded) < 1e-5


def _activated(x):
  return layers.BatchNormalization()(layers.Conv2D(3, 3, activation='relu')(x))


def _read_twice(x):
  x = layers.Conv2D(3, 3)(x)
  return layers.Add()([x, layers.BatchNormalization()(x)])


def _used_twice(x):
  shared = layers.Conv2D(2, 3, padding='same')
  return shared(layers.BatchNormalization()(shared(x)))


def _other_axis(x):
  return layers.BatchNormalization(axis=1)(layers.Conv2D(3, 3)(x))


def _before(x):
  return layers.Conv2D(3, 3, padding='same')(layers.BatchNormalization()(x))


@pytest.mark.parametrize(
  'body', [_activated, _read_twice, _used_twice, _other_axis, _before]
)
def test_leaves_what_cannot_be_folded(body):
  inputs = layers.Input((8, 8, 2))
  model = _randomize(keras.Model(inputs, body(inputs)))
  folded = rewrites.fold_batch_norm(model)
  assert len(_norms(folded)) == 1
  assert _difference(model, folded) < 1e-5


def test_a_convolution_that_is_an_output_keeps_its_values():
  inputs = layers.Input((8, 8, 2))
  convolved = layers.Conv2D(3, 3)(inputs)
  model = _randomize(
    keras.Model(inputs, [convolved, layers.BatchNormalization()(convolved)])
  )
  images = small_networks.images(model)
  for one, other in zip(model(images), rewrites.fold_batch_norm(model)(images)):
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_nested_models_are_folded_too_and_the_source_stays_as_it_was():
  body = small_networks.residual()
  inputs = layers.Input((12, 12, 2))
  model = keras.Model(inputs, body(inputs))
  before = [weight.copy() for weight in model.get_weights()]
  folded = rewrites.fold_batch_norm(model)
  assert _norms(body) and not _norms(folded)
  assert _difference(model, folded) < 1e-5
  for one, other in zip(before, model.get_weights()):
    np.testing.assert_array_equal(one, other)
  folded.set_weights([np.zeros_like(weight) for weight in folded.get_weights()])
  assert np.abs(model(small_networks.images(model))).max() > 1e-2


def test_a_published_network_folds_whole_and_keeps_its_layer_names():
  model = keras.applications.ResNet50(
    weights=None, include_top=False, pooling='avg', input_shape=(32, 32, 3)
  )
  for layer in _norms(model):
    gamma, beta, mean, variance = layer.get_weights()
    layer.set_weights([gamma * 0.8, beta + 0.1, mean + 0.05, variance * 1.5])
  folded = rewrites.fold_batch_norm(model)
  assert len(_norms(model)) == 53 and not _norms(folded)
  assert folded.get_layer('conv4_block6_out').output.shape == (None, 2, 2, 1024)
  assert _difference(model, folded) < 1e-5
