"""Grad-CAM against float64 references that share none of its code."""

import keras
import numpy as np
import pytest
import small_networks
import tensorflow as tf

from covid_tf.models import grad_cam

LAYERS = ('fine', 'coarse')


def _cut(model, name):
  """float64 functions: images -> the layer's output, and that -> the output."""
  wide = small_networks.as_float64(model)
  layer = wide.get_layer(name)
  return (
    lambda images: keras.Model(wide.input, layer.output)(images).numpy(),
    keras.Model(layer.output, wide.output),
  )


def _normalized(evidence):
  positive = np.maximum(evidence, 0)
  tops = positive.max(axis=(1, 2), keepdims=True)
  return np.divide(positive, tops, out=np.zeros_like(positive), where=tops > 0)


def _by_finite_differences(model, name, images, step=1e-6):
  """Grad-CAM without any gradient: each channel is lifted a little, as a whole."""
  activations, rest = _cut(model, name)
  a = activations(images)
  weights = []
  for channel in np.eye(a.shape[-1]):
    up, down = (np.asarray(rest(a + sign * step * channel)) for sign in (1, -1))
    # All pixels at once: the sum of their gradients, so the mean times their count.
    weights.append((up - down)[:, 0] / (2 * step) / (a.shape[1] * a.shape[2]))
  return _normalized(np.einsum('nhwc,cn->nhw', a, np.stack(weights)))


def _activations_and_gradients(model, name, images):
  activations, rest = _cut(model, name)
  a = tf.constant(activations(images))
  with tf.GradientTape() as tape:
    tape.watch(a)
    logit = rest(a)
  return a.numpy(), tape.gradient(logit, a).numpy()


@pytest.mark.parametrize('readers', ['1x1', '3x3', 'skipped'])
def test_equals_finite_differences_in_float64(readers):
  model = small_networks.residual(readers=readers)
  images = small_networks.images(model)
  logit, maps = grad_cam.grad_cam(model, LAYERS)(images)
  np.testing.assert_allclose(logit, model(images)[:, 0], atol=1e-6)
  for name, found in zip(LAYERS, maps):
    assert found.dtype == tf.float32 and np.mean(found) > 0.05
    np.testing.assert_allclose(
      found, _by_finite_differences(model, name, images), atol=1e-5
    )


def test_hires_cam_equals_its_definition():
  model = small_networks.residual()
  images = small_networks.images(model)
  _, maps = grad_cam.grad_cam(model, LAYERS, method='hires_cam')(images)
  for name, found in zip(LAYERS, maps):
    a, g = _activations_and_gradients(model, name, images)
    assert np.mean(found) > 0.02
    np.testing.assert_allclose(found, _normalized((a * g).sum(axis=-1)), atol=1e-5)


def test_grad_cam_plus_plus_equals_equation_19():
  model = small_networks.residual()
  images = small_networks.images(model)
  _, maps = grad_cam.grad_cam(model, LAYERS, method='grad_cam++')(images)
  for name, found in zip(LAYERS, maps):
    a, g = _activations_and_gradients(model, name, images)
    denominator = 2 * g**2 + a.sum(axis=(1, 2), keepdims=True) * g**3
    alpha = np.divide(g**2, denominator, out=np.zeros_like(g), where=denominator != 0)
    weights = (alpha * np.maximum(g, 0)).sum(axis=(1, 2))
    assert np.mean(found) > 0.05
    np.testing.assert_allclose(
      found, _normalized(np.einsum('nhwc,nc->nhw', a, weights)), atol=1e-5
    )


@pytest.mark.parametrize('method', sorted(grad_cam.METHODS))
def test_an_image_gets_in_a_batch_what_it_gets_alone(method):
  model = small_networks.residual()
  images = small_networks.images(model, count=4)
  explain = grad_cam.grad_cam(model, LAYERS, method)
  logit, maps = explain(images)
  for index in range(4):
    alone, alone_maps = explain(images[index : index + 1])
    np.testing.assert_allclose(alone[0], logit[index], atol=1e-6)
    for one, many in zip(alone_maps, maps):
      np.testing.assert_allclose(one[0], many[index], atol=1e-5)


def test_maps_come_in_the_order_asked_for():
  model = small_networks.residual()
  images = small_networks.images(model)
  _, (fine, coarse) = grad_cam.grad_cam(model, LAYERS)(images)
  _, (coarse_first, fine_last) = grad_cam.grad_cam(model, LAYERS[::-1])(images)
  assert fine.shape == (3, 12, 12) and coarse.shape == (3, 6, 6)
  np.testing.assert_array_equal(fine, fine_last)
  np.testing.assert_array_equal(coarse, coarse_first)


def test_a_layer_alone_gives_what_it_gives_beside_others():
  model = small_networks.residual()
  images = small_networks.images(model)
  _, both = grad_cam.grad_cam(model, LAYERS)(images)
  for name, found in zip(LAYERS, both):
    _, (alone,) = grad_cam.grad_cam(model, [name])(images)
    np.testing.assert_allclose(alone, found, atol=1e-6)


def test_no_evidence_is_zeros_and_never_nan():
  model = small_networks.residual()
  images = small_networks.images(model)
  head = model.get_layer('head')
  kernel, bias = head.get_weights()
  head.set_weights([-np.abs(kernel), bias])  # Every last feature speaks against.
  explain = grad_cam.grad_cam(model, ['last'])
  assert not np.any(explain(images)[1][0])
  head.set_weights([np.abs(kernel), bias])
  assert np.mean(explain(images)[1][0]) > 0.05
  head.set_weights([np.zeros_like(kernel), bias])
  for method in grad_cam.METHODS:
    _, maps = grad_cam.grad_cam(model, LAYERS, method)(images)
    assert not any(np.any(found) for found in maps)


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
def test_starts_from_the_logit_whatever_the_head_ends_in(activation):
  units = 3 if activation == 'softmax' else 1
  plain = small_networks.residual(units=units)
  images = small_networks.images(plain)
  logit, maps = grad_cam.grad_cam(plain, LAYERS, class_index=0)(images)
  inside = small_networks.residual(units=units, activation=activation)
  behind = keras.Model(plain.input, keras.layers.Activation(activation)(plain.output))
  for model in (inside, behind):
    found_logit, found = grad_cam.grad_cam(model, LAYERS, class_index=0)(images)
    np.testing.assert_allclose(found_logit, logit, atol=1e-6)
    for one, other in zip(found, maps):
      np.testing.assert_allclose(one, other, atol=1e-6)


_PROBABILITIES = {
  'operation': keras.ops.sigmoid,
  'dtype behind': lambda z: keras.layers.Activation('linear', dtype='float32')(
    keras.layers.Activation('sigmoid')(z)
  ),
  'identity behind': lambda z: keras.layers.Identity()(keras.ops.sigmoid(z)),
}


@pytest.mark.parametrize('name', _PROBABILITIES)
def test_starts_from_the_logit_however_the_probability_is_made(name):
  plain = small_networks.residual(units=1)
  images = small_networks.images(plain)
  model = keras.Model(plain.input, _PROBABILITIES[name](plain.output))
  logit, maps = grad_cam.grad_cam(plain, LAYERS)(images)
  found_logit, found = grad_cam.grad_cam(model, LAYERS)(images)
  np.testing.assert_allclose(found_logit, logit, atol=1e-6)
  for one, other in zip(found, maps):
    assert np.mean(other) > 0.05
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
  'behind',
  [
    lambda p: keras.layers.Reshape(())(p),
    lambda p: p[:, 0],
    lambda p: 1 - p,
    keras.layers.Rescaling(2.0),
  ],
)
def test_a_probability_is_not_taken_for_a_logit(behind):
  inside = small_networks.residual(units=1, activation='sigmoid')
  with pytest.raises(ValueError, match='behind the probability of'):
    grad_cam.grad_cam(keras.Model(inside.input, behind(inside.output)), LAYERS)
  plain = small_networks.residual(units=1)
  model = keras.Model(plain.input, behind(plain.output))
  np.testing.assert_allclose(
    grad_cam.grad_cam(model, LAYERS)(small_networks.images(plain))[0],
    np.ravel(model(small_networks.images(plain))),
    atol=1e-6,
  )


def test_a_head_with_classes_explains_the_one_asked_for_or_the_highest():
  model = small_networks.residual(units=3)
  images = small_networks.images(model, count=6)
  logits = model(images).numpy()
  top_logit, top = grad_cam.grad_cam(model, ['coarse'])(images)
  np.testing.assert_allclose(top_logit, logits.max(axis=1), atol=1e-6)
  of_class = [
    grad_cam.grad_cam(model, ['coarse'], class_index=index)(images)[1][0]
    for index in range(3)
  ]
  assert np.abs(of_class[0] - of_class[1]).max() > 0.1
  for row, winner in enumerate(logits.argmax(axis=1)):
    np.testing.assert_allclose(top[0][row], of_class[winner][row], atol=1e-5)


def test_finds_layers_inside_nested_models():
  inner = small_networks.residual()
  body = keras.Model(inner.input, inner.get_layer('pooled').output)
  inputs = keras.layers.Input((12, 12, 2))
  nested = keras.Sequential([keras.layers.Rescaling(1.0), body])
  model = keras.Model(inputs, inner.get_layer('head')(nested(inputs)))
  images = small_networks.images(inner)
  for one, other in zip(
    grad_cam.grad_cam(model, LAYERS)(images)[1],
    grad_cam.grad_cam(inner, LAYERS)(images)[1],
  ):
    assert np.mean(one) > 0.05
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_follows_the_models_weights():
  model = small_networks.residual()
  images = small_networks.images(model)
  explain = grad_cam.grad_cam(model, LAYERS)
  _, before = explain(images)
  model.get_layer('head').set_weights(
    [-weight for weight in model.get_layer('head').get_weights()]
  )
  _, after = explain(images)
  assert np.abs(before[0] - after[0]).max() > 0.1


@pytest.mark.parametrize(
  'arguments,text',
  [
    ((['nowhere'],), "found 'nowhere'"),
    (([],), 'at least one layer'),
    ((['pooled'],), 'must keep the image axes'),
    ((LAYERS, 'saliency'), "found 'saliency'"),
    ((LAYERS, 'grad_cam', 1), 'class_index'),
  ],
)
def test_refuses_what_cannot_be_explained(arguments, text):
  with pytest.raises(ValueError, match=text):
    grad_cam.grad_cam(small_networks.residual(), *arguments)


def test_refuses_models_without_a_graph_or_a_logit():
  class Subclassed(keras.Model):
    def call(self, x):
      return x

  model = small_networks.residual(activation='tanh')
  with pytest.raises(ValueError, match='must end in logits.*tanh'):
    grad_cam.grad_cam(model, LAYERS)
  with pytest.raises(ValueError, match='functional'):
    grad_cam.grad_cam(Subclassed(), LAYERS)
  base = small_networks.residual()
  dead_end = keras.Model(
    base.input,
    keras.layers.Dense(1)(keras.layers.Flatten()(base.get_layer('fine').output)),
  )
  with pytest.raises(ValueError, match="'coarse'"):
    grad_cam.grad_cam(dead_end, ['coarse'])
