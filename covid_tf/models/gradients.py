"""The logit of a classifier: what its final sigmoid or softmax is applied to.

Grad-CAM starts there. The gradient of a probability p carries p (1 - p), which
fades where the network is sure, and that of a softmax is mixed with the other
classes'.
"""

from collections.abc import Callable
import dataclasses

import keras
import tensorflow as tf

from covid_tf.models import layer_graph


@dataclasses.dataclass(frozen=True)
class Head:
  """Where a flattened classifier's logit comes from.

  Attributes:
    model_inputs: the symbolic inputs of the flattened model.
    calls: its layer calls.
    input: symbolic tensor that the logit is computed from.
    logit: function from that tensor's value to the logit, float32 [N].
  """

  model_inputs: list[keras.KerasTensor]
  calls: tuple[layer_graph.Call, ...]
  input: keras.KerasTensor
  logit: Callable


def find_head(model: keras.Model, class_index: int | None = None) -> Head:
  """Finds the logit of a classifier.

  Args:
    model: functional classifier that ends in logits, a sigmoid or a softmax.
    class_index: which unit of a head with several; None takes, for each image,
      the unit with the highest logit.

  Raises:
    ValueError: the head's logit cannot be told, or has no such unit.
  """
  flat, calls = layer_graph.flatten(model)
  if len(flat.outputs) != 1 or len(flat.outputs[0].shape) not in (1, 2):
    raise ValueError(
        'model must have one output, [N] or [N, classes], found '
        f'{[tuple(output.shape) for output in flat.outputs]}; make a keras.Model '
        'that ends in the one to explain.')
  (output,) = flat.outputs
  units = output.shape[-1] if len(output.shape) == 2 else 1
  if class_index is not None and not 0 <= class_index < units:
    raise ValueError(
        f'class_index must be in [0, {units}) for this head, found {class_index}.')
  tensor, all_logits = _without_activation(output, calls)
  return Head(flat.inputs, calls, tensor,
              lambda value: _pick(all_logits(value), class_index))


def _without_activation(
    output: keras.KerasTensor, calls: tuple[layer_graph.Call, ...]):
  """(tensor, function from its value to all the logits) of a model's output."""
  last = _maker(output, calls)
  while last and _keeps_values(last.layer):
    output = last.inputs[0]
    last = _maker(output, calls)
  layer = last and last.layer
  if _is_bare_probability(layer):
    return last.inputs[0], _identity
  activation = getattr(layer, 'activation', None)
  if activation in (None, keras.activations.linear):
    _refuse_hidden_probability(last, calls)
    return output, _identity
  if activation not in (keras.activations.sigmoid, keras.activations.softmax):
    raise ValueError(
        'model must end in logits, a sigmoid or a softmax, found activation '
        f'{getattr(activation, "__name__", activation)} in layer {layer.name!r}.')
  if isinstance(layer, keras.layers.Activation):
    return last.inputs[0], _identity
  if isinstance(layer, keras.layers.Dense):
    return last.inputs[0], lambda features: _linear(layer, features)
  raise ValueError(
      f'layer {layer.name!r} ({type(layer).__name__}) must have its sigmoid or '
      'softmax in a layer of its own, so that the logit can be had.')


def _maker(tensor, calls) -> layer_graph.Call | None:
  """The call that gives a tensor; None for an input of the model."""
  return next(
      (call for call in calls if any(t is tensor for t in call.outputs)), None)


def _keeps_values(layer) -> bool:
  """Whether it hands its input on, maybe in another dtype (training is over)."""
  return isinstance(layer, (keras.layers.Identity, keras.layers.Dropout)) or (
      isinstance(layer, keras.layers.Activation)
      and layer.activation is keras.activations.linear)


def _is_bare_probability(layer) -> bool:
  """A sigmoid or softmax of its own: the Softmax layer, keras.ops.sigmoid, ..."""
  return isinstance(layer, keras.layers.Softmax) or (
      not isinstance(layer, keras.Layer)
      and type(layer).__name__ in ('Sigmoid', 'Softmax'))


def _refuse_hidden_probability(last: layer_graph.Call | None, calls) -> None:
  """Raises ValueError where a sigmoid or softmax stands before the last layer.

  A reshape, an index or a factor behind it would pass for a logit.
  """
  call = last
  while call and len(call.inputs) == 1 and not getattr(call.layer, 'weights', ()):
    call = _maker(call.inputs[0], calls)
    layer = call and call.layer
    if _is_bare_probability(layer) or getattr(layer, 'activation', None) in (
        keras.activations.sigmoid, keras.activations.softmax):
      raise ValueError(
          'model must end in logits, a sigmoid or a softmax, found layer '
          f'{last.layer.name!r} behind the probability of {layer.name!r}; make a '
          'keras.Model that ends there.')


def _linear(layer: keras.layers.Dense, features: tf.Tensor) -> tf.Tensor:
  dtype = layer.compute_dtype
  products = tf.matmul(tf.cast(features, dtype), tf.cast(layer.kernel, dtype))
  return products + tf.cast(layer.bias, dtype) if layer.use_bias else products


def _pick(all_logits: tf.Tensor, class_index: int | None) -> tf.Tensor:
  """One logit an image, float32 [N]."""
  all_logits = tf.cast(all_logits, tf.float32)
  if all_logits.shape.rank == 1:
    return all_logits
  if all_logits.shape[-1] == 1:
    return all_logits[:, 0]
  if class_index is None:
    return tf.reduce_max(all_logits, axis=-1)
  return all_logits[:, class_index]


def _identity(value):
  return value
