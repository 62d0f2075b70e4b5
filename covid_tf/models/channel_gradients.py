"""The mean gradient of each channel, which is all of the gradient Grad-CAM needs.

A mean over space can be had for less than the gradient at every pixel. Where only
1x1 convolutions read a layer, as in a residual network at the end of a stage, each
of their output pixels comes from one input pixel. So the sum over space of the
gradient at the layer is the sum over space of the gradient at their outputs, times
their kernel: a vector by a matrix, in place of a convolution's backward pass.
"""

from collections.abc import Callable, Sequence
import math

import keras
import tensorflow as tf

from covid_tf.models import layer_gradients
from covid_tf.models import layer_graph
from covid_tf.models import logits


def channel_gradients(
    head: logits.Head, layer_names: Sequence[str], observed: Sequence[str] = ()
) -> Callable:
  """Makes the function that gives activations and mean gradients of some layers.

  Args:
    head: the classifier, by `logits.find_head`. Its weights are used, not copied.
    layer_names: layers with outputs [N, ..., channels], in any order.
    observed: layers whose output is wanted without a gradient.

  Returns:
    Function from images [N, ...], N > 0, to (logit, activations, weights): logit
    float32 [N]; activations the outputs [N, ..., channels] of `layer_names` and
    `observed`; weights, for each of `layer_names` the mean over space of
    d logit / d output, float32 [N, channels].

  Raises:
    ValueError: as `layer_gradients.layer_gradients`.
  """
  readers = {name: _pointwise_readers(name, layer_names, head.calls)
             for name in layer_names}
  differentiated = [
      name for layer in layer_names
      for name in ([call.layer.name for call in readers[layer]] or [layer])]
  run = layer_gradients.layer_gradients(
      head, differentiated, [*layer_names, *observed])

  def weigh(images):
    logit, activations, gradients = run(images)
    activations = activations[len(differentiated):]
    by_name = dict(zip(differentiated, gradients))
    weights = []
    for name, activation in zip(layer_names, activations):
      if not readers[name]:
        weights.append(_over_space(tf.reduce_mean, by_name[name]))
        continue
      sums = [_through(call.layer, _over_space(tf.reduce_sum, by_name[call.layer.name]))
              for call in readers[name]]
      weights.append(tf.add_n(sums) / _pixels(activation))
    return logit, activations, weights

  return weigh


def _pointwise_readers(
    name: str, layer_names: Sequence[str], calls: tuple[layer_graph.Call, ...]
) -> list[layer_graph.Call]:
  """The 1x1 convolutions that alone read a layer; none where others read it too.

  Also none for a layer that comes after another chosen one: the gradient has to
  pass through it in any case.
  """
  output = layer_graph.output_of(name, calls)
  others = [layer_graph.output_of(other, calls) for other in layer_names
            if other != name]
  if id(output) in layer_graph.after(others, calls):
    return []
  readers = layer_graph.consumers(calls)[id(output)]
  uses = [call.layer.name for call in calls]
  if all(_is_pointwise(call.layer) and uses.count(call.layer.name) == 1
         for call in readers):
    return readers
  return []


def _is_pointwise(layer) -> bool:
  return (type(layer) is keras.layers.Conv2D
          and layer.kernel_size == (1, 1) and layer.groups == 1
          and layer.activation is keras.activations.linear
          and layer.data_format == 'channels_last')


def _through(layer: keras.layers.Conv2D, sums: tf.Tensor) -> tf.Tensor:
  """Sums [N, out] of the gradient at a 1x1 convolution's output, at its input."""
  return tf.matmul(sums, tf.cast(layer.kernel[0, 0], tf.float32), transpose_b=True)


def _over_space(reduce: Callable, gradient: tf.Tensor) -> tf.Tensor:
  return reduce(gradient, axis=list(range(1, gradient.shape.rank - 1)))


def _pixels(activation: tf.Tensor) -> tf.Tensor | float:
  shape = activation.shape[1:-1]
  if shape.is_fully_defined():
    return float(math.prod(shape))
  return tf.cast(tf.reduce_prod(tf.shape(activation)[1:-1]), tf.float32)
