"""Additions that TensorFlow can fuse even where they are differentiated.

The gradient of a broadcasting addition asks for the shapes of its inputs, and with
a free batch size that question keeps convolution, addition and ReLU from being
fused. An addition of tensors of one shape asks nothing.
"""

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
  """Rebuilds a model with every addition of equal shapes told to be one.

  Args:
    model: functional model; left as it is.

  Returns:
    A model with the same outputs that shares all other layers with the given one.
  """
  flat, calls = layer_graph.flatten(model)
  replaced = {
      call.layer.name: SameShapeAdd(name=call.layer.name, dtype=call.layer.dtype_policy)
      for call in calls
      if type(call.layer) is keras.layers.Add and _have_one_shape(call.inputs)}
  return layer_graph.rebuild(
      flat, lambda layer: replaced.get(layer.name, layer), None)


def _have_one_shape(tensors: tuple[keras.KerasTensor, ...]) -> bool:
  # A free size other than the batch's may be 1 on one side and not on the other.
  return (len({tuple(tensor.shape) for tensor in tensors}) == 1
          and None not in tensors[0].shape[1:])
