"""Gradients at layers against a tape over the whole model, and the mean of them."""

import keras
import numpy as np
import pytest
import small_networks
import tensorflow as tf

from covid_tf.models import gradients

_LAYERS = ['fine', 'coarse', 'last']


def _model(**options):
  """A small network in float64, so that two ways of computing agree closely."""
  return small_networks.as_float64(small_networks.residual(**options))


def _reference(model, names, images):
  """(logit, activations, gradients) by one tape over a model with more outputs."""
  outputs = [model.get_layer(name).output for name in names]
  everything = keras.Model(model.input, [*outputs, model.output])
  with tf.GradientTape() as tape:
    inputs = tf.convert_to_tensor(images)
    tape.watch(inputs)
    *activations, logits = everything(inputs, training=False)
    logit = logits[:, 0]
  return logit, activations, tape.gradient(logit, activations)


@pytest.mark.parametrize('readers', ['1x1', '3x3', 'skipped'])
def test_gradients_equal_those_of_a_tape_over_the_whole_model(readers):
  model = _model(readers=readers)
  images = small_networks.images(model).astype(np.float64)
  head = gradients.find_head(model)
  logit, activations, found = gradients.layer_gradients(head, _LAYERS)(images)
  expected_logit, values, expected = _reference(model, _LAYERS, images)
  np.testing.assert_allclose(logit, expected_logit, rtol=1e-6)
  for name, value, activation, one, other in zip(
    _LAYERS, values, activations, found, expected, strict=True
  ):
    np.testing.assert_allclose(activation, value, rtol=1e-6, err_msg=name)
    assert np.abs(other).max() > 0
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-9, err_msg=name)


@pytest.mark.parametrize('readers', ['1x1', '3x3', 'skipped'])
@pytest.mark.parametrize('names', [['coarse', 'fine'], _LAYERS])
def test_weights_of_channels_are_means_of_the_gradients(readers, names):
  model = _model(readers=readers)
  images = small_networks.images(model).astype(np.float64)
  head = gradients.find_head(model)
  logit, activations, weights = gradients.channel_gradients(head, names)(images)
  _, expected, whole = gradients.layer_gradients(head, names)(images)
  assert logit.dtype == tf.float32
  for activation, value, weight, gradient in zip(
    activations, expected, weights, whole, strict=True
  ):
    np.testing.assert_allclose(activation, value, rtol=1e-6)
    assert weight.dtype == tf.float32
    np.testing.assert_allclose(
      weight, np.mean(gradient, axis=(1, 2)), rtol=1e-4, atol=1e-8
    )


def test_observed_layers_come_last_and_without_a_gradient():
  model = _model()
  images = small_networks.images(model).astype(np.float64)
  head = gradients.find_head(model)
  run = gradients.layer_gradients(head, ['coarse'], observed=['stem', 'pooled'])
  _, (coarse, stem, pooled), found = run(images)
  assert len(found) == 1 and coarse.shape == found[0].shape
  for name, value in (('stem', stem), ('pooled', pooled)):
    reference = keras.Model(model.input, model.get_layer(name).output)
    np.testing.assert_allclose(value, reference(images), rtol=1e-6)


def test_small_gradients_survive_float16():
  model = small_networks.residual()
  config = model.get_config()
  for layer in config['layers']:
    if layer['class_name'] != 'InputLayer':
      layer['config']['dtype'] = 'mixed_float16'
  half = keras.Model.from_config(config)
  half.set_weights(model.get_weights())
  for one in (model, half):
    kernel, bias = one.get_layer('head').get_weights()
    one.get_layer('head').set_weights([kernel * 1e-6, bias])
  images = small_networks.images(model)
  found = [
    gradients.layer_gradients(gradients.find_head(one), ['last'])(images)[2][0]
    for one in (model, half)
  ]
  largest = np.abs(found[0]).max()
  assert 0 < largest < 6e-8  # float16 rounds this to 0, or to 6e-8.
  assert found[1].dtype == tf.float32
  np.testing.assert_allclose(found[1], found[0], atol=0.2 * largest)


def test_a_head_gives_one_logit_an_image():
  model = _model(units=3, activation='softmax')
  images = small_networks.images(model).astype(np.float64)
  probabilities = model(images).numpy()

  def logit(class_index):
    head = gradients.find_head(model, class_index)
    return head.logit(keras.Model(head.model_inputs[0], head.input)(images)).numpy()

  by_class = np.stack([logit(index) for index in range(3)], axis=1)
  powers = np.exp(by_class - by_class.max(axis=1, keepdims=True))
  np.testing.assert_allclose(
    powers / powers.sum(axis=1, keepdims=True), probabilities, atol=1e-5
  )
  np.testing.assert_array_equal(logit(None), by_class.max(axis=1))
  for index in (-1, 3):
    with pytest.raises(ValueError, match=r'class_index must be in \[0, 3\)'):
      gradients.find_head(model, index)


@pytest.mark.parametrize(
  'names, observed, words',
  (
    ([], [], 'at least one layer, found none'),
    (['absent'], [], "found 'absent'"),
    (['fine'], ['absent'], "found 'absent'"),
  ),
)
def test_layers_that_are_none_are_refused(names, observed, words):
  head = gradients.find_head(small_networks.residual())
  with pytest.raises(ValueError, match=words):
    gradients.layer_gradients(head, names, observed)


def test_heads_that_give_no_logit_are_refused():
  base = small_networks.residual()
  two = keras.Model(base.input, [base.output, base.get_layer('pooled').output])
  with pytest.raises(ValueError, match='must have one output'):
    gradients.find_head(two)
  image = keras.Model(base.input, base.get_layer('last').output)
  with pytest.raises(ValueError, match='must have one output'):
    gradients.find_head(image)
  convolution = keras.layers.Conv1D(1, 1, activation='sigmoid')
  flat = keras.layers.Flatten()
  inputs = keras.Input((1, 4))
  hidden = keras.Model(inputs, flat(convolution(inputs)))
  with pytest.raises(ValueError, match='behind the probability of'):
    gradients.find_head(hidden)
