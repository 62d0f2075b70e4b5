"""Additions that TensorFlow never makes a part of the convolution before them.

TensorFlow 2.21's oneDNN kernel of a convolution with bias and addition keeps the
other summand in a member of the op while it copies it. Where that summand cannot be
overwritten, because another op still needs it, two runs of one session that are in
the op at once read and free each other's memory: wrong answers, or the end of the
process (docs/adr/0100). A copy between convolution and addition, which costs nothing
where the convolution's output has no other reader, leaves such a kernel nothing to
add.
"""

import keras
import tensorflow as tf

from covid_tf.models import layer_graph

_ADDING_LAYERS = (keras.layers.Add, keras.layers.Average, keras.layers.Subtract)
_ADDING_OPERATIONS = frozenset(('Add', 'Subtract'))
# Layers whose output is no sum of a convolution and a bias, whatever comes before.
_NOT_LINEAR = (
    keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.PReLU, keras.layers.ELU,
    keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)


class Apart(keras.layers.Layer):
  """Gives what it gets, in memory that no other op reads.

  TensorFlow's Snapshot: it passes its input on where nobody else reads that, and
  copies it otherwise. The graph optimizer uses it for this very purpose, and keeps
  it, unlike tf.identity.
  """

  def call(self, tensor: tf.Tensor) -> tf.Tensor:
    """The same values; their gradient passes unchanged."""
    return _snapshot(tensor)

  def compute_output_shape(self, input_shape):
    """The shape that it gets."""
    return input_shape


@tf.custom_gradient
def _snapshot(tensor):
  return tf.raw_ops.Snapshot(input=tensor), lambda gradient: gradient


def apart_from_convolutions(model: keras.Model) -> keras.Model:
  """Copies a model, with `Apart` between every addition and its summands.

  Args:
    model: functional model; left as it is. Additions inside layers of its own
      classes are not seen.

  Returns:
    A model with the same outputs and layer names, and weights of its own. Only a
    summand that comes from a nonlinearity or a maximum goes in as it is: it is no
    convolution's output, and may have other readers, for which it would be copied.
  """
  flat, _ = layer_graph.flatten(model)
  layer_of = {}  # id of a tensor -> (layer that gave it, the tensor: ids stay unique).

  def apart(value):
    if not isinstance(value, keras.KerasTensor) or _is_not_linear(
        layer_of.get(id(value), (None,))[0]):
      return value
    return Apart(dtype=value.dtype)(value)

  def apply(layer, *args, **kwargs):
    if _is_addition(layer):
      args, kwargs = keras.tree.map_structure(apart, (args, kwargs))
    outputs = layer(*args, **kwargs)
    for tensor in keras.tree.flatten(outputs):
      layer_of[id(tensor)] = (layer, tensor)
    return outputs

  return layer_graph.copy(flat, layer_graph.remake, apply)


def _is_addition(layer) -> bool:
  return isinstance(layer, _ADDING_LAYERS) or (
      not isinstance(layer, keras.Layer) and type(layer).__name__ in _ADDING_OPERATIONS)


def _is_not_linear(layer) -> bool:
  # By type: a subclass may add a bias behind the nonlinearity.
  if type(layer) is keras.layers.Activation:
    return layer.activation is not keras.activations.linear
  return type(layer) in _NOT_LINEAR
