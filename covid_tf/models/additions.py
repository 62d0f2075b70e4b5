"""Additions that TensorFlow can fuse even where they are differentiated.

The gradient of a broadcasting addition asks for the shapes of its inputs, and with
a free batch size that question keeps convolution, addition and ReLU from being
fused. An addition of tensors of one shape asks nothing.
"""

import collections

import keras
import tensorflow as tf

from covid_tf.models import layer_graph


class SameShapeAdd(keras.layers.Layer):
  """Adds tensors of one shape; unlike keras.layers.Add it does not broadcast."""

  def call(self, tensors: list[tf.Tensor]) -> tf.Tensor:
    """The sum of tensors of the same shape and dtype."""
    return tf.add_n(tensors)

  def compute_output_shape(self, shapes):
    """The shape that all of them have."""
    return shapes[0]


def without_broadcasting(model: keras.Model) -> keras.Model:
  """Copies a model, with every addition of equal shapes told to be one.

  Args:
    model: functional model; left as it is.

  Returns:
    A model with the same outputs and layer names, and weights of its own.
  """
  flat, calls = layer_graph.flatten(model)
  uses = collections.Counter(call.layer.name for call in calls)
  of_one_shape = {
      call.layer.name for call in calls
      if type(call.layer) is keras.layers.Add and uses[call.layer.name] == 1
      and _have_one_shape(call.inputs)}

  def make(layer):
    if layer.name in of_one_shape:
      return SameShapeAdd(name=layer.name, dtype=layer.dtype_policy)
    return layer_graph.remake(layer)

  return layer_graph.copy(flat, make)


def _have_one_shape(tensors: tuple[keras.KerasTensor, ...]) -> bool:
  # A free size other than the batch's may be 1 on one side and not on the other.
  return (len({tuple(tensor.shape) for tensor in tensors}) == 1
          and None not in tensors[0].shape[1:])
