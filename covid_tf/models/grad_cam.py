"""Grad-CAM of any Keras classifier, at any layers, in one forward pass.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", ICCV 2017. The paper takes two scales of ResNet-50
(section 2.3). docs/grad_cam.md has the method and what it costs.
"""

from collections.abc import Callable, Mapping, Sequence
import types

import keras
import tensorflow as tf

from covid_tf.models import gradients as gradients_lib
from covid_tf.models import rewrites


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
    evidence is set to 0, then each map is divided by its maximum. A map without
    positive evidence is all zeros.

  Raises:
    ValueError: an unknown method, or layers that cannot be explained.
  """
  if method not in METHODS:
    raise ValueError(f'method must be one of {sorted(METHODS)}, found {method!r}.')
  head = gradients_lib.find_head(model, class_index)
  for name in layer_names:
    _require_image_axes(head, name)
  evidence = METHODS[method](head, layer_names)

  def explain(images):
    logit, maps = evidence(images)
    return logit, tuple(map(normalize, maps))

  return rewrites.accept_empty(explain)


def normalize(maps: tf.Tensor) -> tf.Tensor:
  """ReLU, then each map of [N, ...] by its own maximum: [0, 1], or all zeros."""
  positive = tf.nn.relu(maps)
  axes = list(range(1, maps.shape.rank))
  return tf.math.divide_no_nan(
    positive, tf.reduce_max(positive, axis=axes, keepdims=True)
  )


def weighted_sum(activations: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
  """sum over c of activations[n, ..., c] * weights[n, c], as a matrix product."""
  return tf.einsum('n...c,nc->n...', tf.cast(activations, tf.float32), weights)


def grad_cam_evidence(head: gradients_lib.Head, layer_names: Sequence[str]) -> Callable:
  """Channels weighted by their mean gradient, summed."""
  run = gradients_lib.channel_gradients(head, layer_names)

  def evidence(images):
    logit, activations, weights = run(images)
    return logit, tuple(map(weighted_sum, activations, weights))

  return evidence


def hires_cam_evidence(
  head: gradients_lib.Head, layer_names: Sequence[str]
) -> Callable:
  """Gradient times activation, summed over channels, never averaged over space.

  Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations
  of convolutional neural networks", 2020.
  """
  return _of_pixels(_hires_cam, head, layer_names)


def grad_cam_plus_plus_evidence(
  head: gradients_lib.Head, layer_names: Sequence[str]
) -> Callable:
  """Channels weighted by their positive gradients, each pixel by its alpha.

  Chattopadhay et al., "Grad-CAM++", WACV 2018, equation 19, for the exponential
  of the logit, whose common factor goes with the normalization.
  """
  return _of_pixels(_grad_cam_plus_plus, head, layer_names)


# Name -> (head, layer_names) -> function from images [N, ...], N > 0,
# to (logit, evidence of each layer [N, rows, columns], of either sign).
METHODS: Mapping[str, Callable] = types.MappingProxyType(
  {
    'grad_cam': grad_cam_evidence,
    'grad_cam++': grad_cam_plus_plus_evidence,
    'hires_cam': hires_cam_evidence,
  }
)


def _of_pixels(
  of_layer: Callable, head: gradients_lib.Head, layer_names: Sequence[str]
) -> Callable:
  run = gradients_lib.layer_gradients(head, layer_names)

  def evidence(images):
    logit, activations, gradients = run(images)
    activations = [tf.cast(activation, tf.float32) for activation in activations]
    return logit, tuple(map(of_layer, activations, gradients))

  return evidence


def _hires_cam(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
  return tf.reduce_sum(activations * gradients, axis=-1)


def _grad_cam_plus_plus(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
  # alpha = g^2 / (2 g^2 + g^3 sum(A)) with g^2 taken out: the cubes of small
  # gradients leave float32's range.
  axes = list(range(1, activations.shape.rank - 1))
  total = tf.reduce_sum(activations, axis=axes, keepdims=True)
  weights = tf.math.divide_no_nan(tf.nn.relu(gradients), 2.0 + gradients * total)
  return weighted_sum(activations, tf.reduce_sum(weights, axis=axes))


def _require_image_axes(head: gradients_lib.Head, name: str) -> None:
  shape = rewrites.output_of(name, head.calls).shape
  if len(shape) < 3:
    raise ValueError(
      f'layer {name!r} must keep the image axes, [N, rows, columns, channels], '
      f'found {tuple(shape)}.'
    )
