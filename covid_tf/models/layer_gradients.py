"""Activations of chosen layers and the logit's gradients there, in one forward pass.

The model is cut in two. The stem, all that comes before the earliest chosen
layer, runs outside the tape, so nothing of it is kept for a backward pass; only
the tail is differentiated, and only down to the chosen layers.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from covid_tf.models import layer_graph

# float16 holds nothing below 6e-8, and gradients of single pixels get there: the
# backward pass runs on a logit this much larger, and is scaled back in float32.
_FLOAT16_GRADIENT_SCALE = 1024.0


@dataclasses.dataclass(frozen=True)
class _Cut:
  """A model cut before its tail.

  Attributes:
    stem: images -> the tensors that the tail takes from it.
    tail: those tensors -> [outputs of the chosen layers that lie in the tail...,
      input of the head].
    in_stem: for each chosen layer, its place among the stem's outputs, or None.
    head: input of the head -> logits [N, K].
    gradient_scale: factor of the logit during the backward pass.
  """

  stem: keras.Model
  tail: keras.Model
  in_stem: tuple[int | None, ...]
  head: Callable
  gradient_scale: float


def layer_gradients(
    model: keras.Model, layer_names: Sequence[str], class_index: int | None = None
) -> Callable:
  """Makes the function that gives activations and gradients of some layers.

  Args:
    model: functional classifier that ends in logits, a sigmoid or a softmax; a
      final sigmoid or softmax is left out. Its weights are used, not copied.
    layer_names: the layers, in any order; nested models are searched as well.
    class_index: which unit of a head with several; None takes, for each image,
      the unit with the highest logit.

  Returns:
    Function from images [N, ...], N > 0, to (logit, activations, gradients):
    logit float32 [N]; for each layer its output, and d logit / d output in
    float32, both [N, ..., channels]. An image's values do not depend on the
    others of its batch.

  Raises:
    ValueError: a layer that is not there, is used more than once or has no way
      to the logit, or a head whose logit cannot be told.
  """
  cut = _cut(model, tuple(layer_names))
  units = model.outputs[0].shape[-1] if len(model.outputs[0].shape) > 1 else 1
  if class_index is not None and not 0 <= class_index < units:
    raise ValueError(
        f'class_index must be in [0, {units}) for this head, found {class_index}.')

  def run(images):
    entering = _as_list(cut.stem(images, training=False))
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch([entering[i] for i in cut.in_stem if i is not None])
      *inside, features = _as_list(
          cut.tail(layer_graph.single(entering), training=False))
      logit = _pick(cut.head(features), class_index)
    inside = iter(inside)
    activations = [next(inside) if i is None else entering[i] for i in cut.in_stem]
    gradients = tape.gradient(
        logit, activations,
        output_gradients=tf.fill(tf.shape(logit), cut.gradient_scale),
        unconnected_gradients=tf.UnconnectedGradients.ZERO)
    gradients = [
        tf.cast(gradient, tf.float32) / cut.gradient_scale
        if cut.gradient_scale != 1 else gradient for gradient in gradients]
    return logit, activations, gradients

  return run


def _cut(model: keras.Model, layer_names: tuple[str, ...]) -> _Cut:
  flat, calls = layer_graph.flatten(model)
  if not layer_names:
    raise ValueError('layer_names must name at least one layer, found none.')
  if len(flat.outputs) != 1:
    raise ValueError(
        f'model must have one output, found {len(flat.outputs)}; make a '
        'keras.Model that ends in the one to explain.')
  targets = [_output_of(name, calls) for name in layer_names]
  head_input, head = _head(flat.outputs[0], calls)
  after = _after(targets, calls)
  for name, target in zip(layer_names, targets):
    if id(head_input) not in _after([target], calls):
      raise ValueError(f'layer {name!r} has no way to the logit of this model.')
  in_tail = [call for call in calls if any(id(t) in after for t in call.outputs)]
  entering = {id(t): t for t in targets if id(t) not in after}
  for call in in_tail:
    entering.update((id(t), t) for t in call.inputs if id(t) not in after)
  order = list(entering)
  float16 = any(getattr(call.layer, 'compute_dtype', '') == 'float16'
                for call in in_tail)
  return _Cut(
      stem=keras.Model(flat.input, list(entering.values())),
      tail=keras.Model(layer_graph.single(list(entering.values())),
                       [t for t in targets if id(t) in after] + [head_input]),
      in_stem=tuple(order.index(id(t)) if id(t) in entering else None
                    for t in targets),
      head=head,
      gradient_scale=_FLOAT16_GRADIENT_SCALE if float16 else 1.0)


def _output_of(name: str, calls: tuple[layer_graph.Call, ...]) -> keras.KerasTensor:
  found = [call for call in calls if call.layer.name == name]
  if not found:
    raise ValueError(
        f'layer_names must name layers of the model, found {name!r}; its last '
        f'layers are {[call.layer.name for call in calls[-8:]]}.')
  if len(found) > 1 or len(found[0].outputs) != 1:
    raise ValueError(
        f'layer {name!r} must be used once and have one output, found '
        f'{len(found)} uses with {len(found[0].outputs)} outputs.')
  return found[0].outputs[0]


def _after(targets, calls: tuple[layer_graph.Call, ...]) -> set[int]:
  """ids of the tensors that depend on a target, targets themselves only if so."""
  sources = {id(target) for target in targets}
  after = set()
  for call in calls:
    if any(id(tensor) in after or id(tensor) in sources for tensor in call.inputs):
      after.update(id(tensor) for tensor in call.outputs)
  return after


def _head(output: keras.KerasTensor, calls: tuple[layer_graph.Call, ...]):
  """(tensor, function of it that gives the logits): no final sigmoid or softmax."""
  last = next(call for call in calls if any(t is output for t in call.outputs))
  layer = last.layer
  activation = getattr(layer, 'activation', None)
  if isinstance(layer, keras.layers.Softmax):
    return last.inputs[0], _identity
  if activation in (None, keras.activations.linear):
    return output, _identity
  if activation not in (keras.activations.sigmoid, keras.activations.softmax):
    raise ValueError(
        'model must end in logits, a sigmoid or a softmax, found activation '
        f'{activation} in layer {layer.name!r}.')
  if isinstance(layer, keras.layers.Activation):
    return last.inputs[0], _identity
  if isinstance(layer, keras.layers.Dense):
    return last.inputs[0], lambda features: _dense_without_activation(
        layer, features)
  raise ValueError(
      f'layer {layer.name!r} ({type(layer).__name__}) must have its sigmoid or '
      'softmax in a layer of its own, so that the logit can be had.')


def _dense_without_activation(layer: keras.layers.Dense, features):
  logits = tf.matmul(tf.cast(features, layer.compute_dtype),
                     tf.cast(layer.kernel, layer.compute_dtype))
  if layer.use_bias:
    logits += tf.cast(layer.bias, layer.compute_dtype)
  return logits


def _pick(logits: tf.Tensor, class_index: int | None) -> tf.Tensor:
  """One logit an image, float32 [N]."""
  logits = tf.cast(logits, tf.float32)
  if logits.shape.rank == 1:
    return logits
  if logits.shape[-1] == 1:
    return logits[:, 0]
  if class_index is None:
    return tf.reduce_max(logits, axis=-1)
  return logits[:, class_index]


def _identity(features):
  return features


def _as_list(outputs) -> list:
  return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
