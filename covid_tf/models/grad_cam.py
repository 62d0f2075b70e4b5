"""Grad-CAM of any Keras classifier, at any layers, in one forward pass.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", ICCV 2017. The paper takes two scales of ResNet-50
(section 2.3). docs/grad_cam.md has the method and what it costs.
"""

from collections.abc import Callable, Mapping, Sequence
import types

import keras
import tensorflow as tf

from covid_tf.models import empty_batch
from covid_tf.models import layer_gradients


def grad_cam(
    model: keras.Model,
    layer_names: Sequence[str],
    method: str = 'grad_cam',
    class_index: int | None = None,
) -> Callable:
  """Makes the function that explains images, one map a layer.

  It runs eagerly, inside tf.function, in an exported SavedModel, under XLA and
  in mixed precision; each image gets what it would get alone.

  Args:
    model: functional classifier, channels last, that ends in logits, a sigmoid
      or a softmax; a final sigmoid or softmax is left out. Its weights are used,
      not copied, so the function follows training.
    layer_names: layers whose output is [N, rows, columns, channels] (or with
      another number of spatial axes), in the order wanted for the maps.
    method: a key of METHODS.
    class_index: which unit of a head with several; None takes, for each image,
      the unit with the highest logit.

  Returns:
    Function from images [N, ...], N >= 0, to (logit, maps): logit float32 [N];
    maps a tuple with a float32 [N, rows, columns] a layer, in [0, 1]: negative
    evidence is cut off, then each map is divided by its maximum. A map without
    positive evidence is all zeros.

  Raises:
    ValueError: an unknown method, or layers that cannot be explained.
  """
  if method not in METHODS:
    raise ValueError(f'method must be one of {sorted(METHODS)}, found {method!r}.')
  evidence = METHODS[method]
  run = layer_gradients.layer_gradients(model, layer_names, class_index)

  def explain(images):
    logit, activations, gradients = run(images)
    for name, activation in zip(layer_names, activations):
      if activation.shape.rank < 3:
        raise ValueError(
            f'layer {name!r} must keep the image axes, [N, rows, columns, '
            f'channels], found shape {activation.shape}.')
    maps = tuple(
        normalize(evidence(tf.cast(activation, tf.float32), gradient))
        for activation, gradient in zip(activations, gradients))
    return logit, maps

  return empty_batch.accept_empty(explain)


def normalize(maps: tf.Tensor) -> tf.Tensor:
  """ReLU, then each map of [N, ...] by its own maximum: [0, 1], or all zeros."""
  positive = tf.nn.relu(maps)
  axes = list(range(1, maps.shape.rank))
  return tf.math.divide_no_nan(
      positive, tf.reduce_max(positive, axis=axes, keepdims=True))


def grad_cam_evidence(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
  """Channels weighted by their mean gradient, summed: [N, rows, columns]."""
  weights = tf.reduce_mean(gradients, axis=_image_axes(activations))
  return _weighted_sum(activations, weights)


def hires_cam_evidence(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
  """Gradient times activation, summed over channels, never averaged over space.

  Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations
  of convolutional neural networks", 2020.
  """
  return tf.reduce_sum(activations * gradients, axis=-1)


def grad_cam_plus_plus_evidence(
    activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
  """Channels weighted by their positive gradients, each pixel by its alpha.

  Chattopadhay et al., "Grad-CAM++", WACV 2018, equation 19, for the exponential
  of the logit: alpha = g^2 / (2 g^2 + g^3 sum(A)), written with g^2 taken out,
  since the cubes of small gradients leave float32's range. The factor exp(logit)
  goes with the normalization.
  """
  axes = _image_axes(activations)
  total = tf.reduce_sum(activations, axis=axes, keepdims=True)
  weights = tf.math.divide_no_nan(
      tf.nn.relu(gradients), 2.0 + gradients * total)
  return _weighted_sum(activations, tf.reduce_sum(weights, axis=axes))


# Name -> (activations, gradients) [N, rows, columns, channels] -> evidence
# [N, rows, columns], before ReLU and normalization.
METHODS: Mapping[str, Callable] = types.MappingProxyType({
    'grad_cam': grad_cam_evidence,
    'grad_cam++': grad_cam_plus_plus_evidence,
    'hires_cam': hires_cam_evidence,
})


def _image_axes(activations: tf.Tensor) -> list[int]:
  return list(range(1, activations.shape.rank - 1))


def _weighted_sum(activations: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
  """sum over c of activations[n, ..., c] * weights[n, c], as a matrix product."""
  return tf.einsum('n...c,nc->n...', activations, weights)
