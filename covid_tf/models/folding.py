"""Batch normalization folded into the convolution before it: exact, and faster.

With frozen statistics a batch normalization is a scale and a shift of each
channel, and so is part of what a convolution's kernel and bias can say.
"""

import keras
import numpy as np

from covid_tf.models import layer_graph

# Layer class -> axes of its kernel that make up the output channels, in order.
_OUTPUT_AXES = {
    keras.layers.Conv1D: (-1,),
    keras.layers.Conv2D: (-1,),
    keras.layers.Conv3D: (-1,),
    keras.layers.Conv2DTranspose: (-2,),
    keras.layers.DepthwiseConv2D: (-2, -1),
    keras.layers.Dense: (-1,),
}


def fold_batch_norm(model: keras.Model) -> keras.Model:
  """Copies a model, with every foldable batch normalization in its convolution.

  Folded are those on the channel axis that alone take the output of a layer of
  the kinds above, used once, with no activation of its own. The others stay.

  Args:
    model: functional model, channels last; left as it is.

  Returns:
    A model with the same inputs, outputs and other layers (same names), and
    weights of its own, for inference only: the statistics are constants now.
  """
  flat, calls = layer_graph.flatten(model)
  folded = _foldable(flat, calls)  # Name of the convolution -> its normalization.
  removed = {norm.name for norm in folded.values()}

  def make(layer):
    changes = {'use_bias': True} if layer.name in folded else {}
    return layer_graph.remake(layer, **changes)

  def apply(layer, *args, **kwargs):
    return args[0] if layer.name in removed else layer(*args, **kwargs)

  def weights(layer):
    if layer.name in folded:
      return _folded_weights(layer, folded[layer.name])
    return layer.get_weights()

  return layer_graph.copy(flat, make, apply, weights)


def _foldable(flat: keras.Model, calls: tuple[layer_graph.Call, ...]):
  taken_by = layer_graph.consumers(calls)
  uses = [call.layer.name for call in calls]
  results = {id(tensor) for tensor in flat.outputs}
  folded = {}
  for call in calls:
    layer = call.layer
    if (type(layer) not in _OUTPUT_AXES or uses.count(layer.name) != 1
        or layer.activation is not keras.activations.linear
        or getattr(layer, 'data_format', 'channels_last') != 'channels_last'):
      continue
    takers = taken_by[id(call.outputs[0])]
    if len(takers) != 1 or id(call.outputs[0]) in results:
      continue
    norm = takers[0].layer
    if (isinstance(norm, keras.layers.BatchNormalization)
        and uses.count(norm.name) == 1
        and norm.axis in (-1, len(call.outputs[0].shape) - 1)):
      folded[layer.name] = norm
  return folded


def _folded_weights(layer, norm: keras.layers.BatchNormalization) -> list:
  """[kernel, bias] of the folded layer, computed in float64."""
  mean = _array(norm.moving_mean)
  scale = 1.0 / np.sqrt(_array(norm.moving_variance) + norm.epsilon)
  if norm.scale:
    scale *= _array(norm.gamma)
  kernel = _array(layer.kernel)
  bias = _array(layer.bias) if layer.use_bias else np.zeros_like(mean)
  bias = (bias - mean) * scale
  if norm.center:
    bias += _array(norm.beta)
  axes = _OUTPUT_AXES[type(layer)]
  shape = [1] * kernel.ndim
  for axis in axes:
    shape[axis] = kernel.shape[axis]
  return [kernel * scale.reshape(shape), bias]


def _array(variable) -> np.ndarray:
  return np.asarray(variable, np.float64)
