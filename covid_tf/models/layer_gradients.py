"""Activations of chosen layers and the logit's gradients there, in one forward pass.

The model is cut in two. The stem, all that comes before the earliest chosen
layer, runs outside the tape, so nothing of it is kept for a backward pass; only
the tail is differentiated, and only down to the chosen layers.
"""

from collections.abc import Callable, Sequence
import dataclasses

import keras
import tensorflow as tf

from covid_tf.models import layer_graph
from covid_tf.models import logits

# float16 holds nothing below 6e-8, and gradients of single pixels get there: the
# backward pass runs on a logit this much larger, and is scaled back in float32.
_FLOAT16_GRADIENT_SCALE = 1024.0


def layer_gradients(
    head: logits.Head, layer_names: Sequence[str], observed: Sequence[str] = ()
) -> Callable:
  """Makes the function that gives activations and gradients of some layers.

  Args:
    head: the classifier, by `logits.find_head`. Its weights are used, not copied.
    layer_names: the layers, in any order; nested models are searched as well.
    observed: layers whose output is wanted without a gradient.

  Returns:
    Function from images [N, ...], N > 0, to (logit, activations, gradients):
    logit float32 [N]; activations the outputs of `layer_names` and `observed`,
    in the model's own compute type; gradients, d logit / d output of each of
    `layer_names`, in float32. An image's values do not depend on the others of
    its batch.

  Raises:
    ValueError: a layer that is not there, is used more than once or has no way
      to the logit.
  """
  cut = _cut(head, tuple(layer_names), tuple(observed))

  def run(images):
    values = dict(zip(cut.stem_keys, _outputs(cut.stem, images)))
    entering = [values[key] for key in cut.entering]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch([values[key] for key in cut.targets if key in values])
      values.update(zip(
          cut.tail_keys, _outputs(cut.tail, layer_graph.single(entering))))
      logit = head.logit(values[cut.tail_keys[-1]])
    gradients = tape.gradient(
        logit, [values[key] for key in cut.targets],
        output_gradients=tf.fill(tf.shape(logit), cut.gradient_scale),
        unconnected_gradients=tf.UnconnectedGradients.ZERO)
    gradients = [tf.cast(gradient, tf.float32) for gradient in gradients]
    if cut.gradient_scale != 1:
      gradients = [gradient / cut.gradient_scale for gradient in gradients]
    return logit, [values[key] for key in cut.targets + cut.observed], gradients

  # A graph even in eager mode, where the tape would compute the gradients of the
  # kernels as well: nobody asks for them, and they cost as much again.
  return tf.function(run, autograph=False, reduce_retracing=True)


@dataclasses.dataclass(frozen=True)
class _Cut:
  """A model cut before its tail; a key stands for one tensor of the model.

  Attributes:
    stem: images -> the tensors `stem_keys`.
    entering: keys of those that the tail takes.
    tail: the entering tensors -> the tensors `tail_keys`, the head's input last.
    targets: keys of the chosen layers' outputs.
    observed: keys of the outputs wanted without a gradient.
    gradient_scale: factor of the logit during the backward pass.
  """

  stem: keras.Model
  stem_keys: tuple[int, ...]
  entering: tuple[int, ...]
  tail: keras.Model
  tail_keys: tuple[int, ...]
  targets: tuple[int, ...]
  observed: tuple[int, ...]
  gradient_scale: float


def _cut(
    head: logits.Head, layer_names: tuple[str, ...], observed: tuple[str, ...]
) -> _Cut:
  calls = head.calls
  if not layer_names:
    raise ValueError('layer_names must name at least one layer, found none.')
  targets = [layer_graph.output_of(name, calls) for name in layer_names]
  for name, target in zip(layer_names, targets):
    if id(head.input) not in layer_graph.after([target], calls):
      raise ValueError(f'layer {name!r} has no way to the logit of this model.')
  after = layer_graph.after(targets, calls)
  in_tail = [call for call in calls if any(id(t) in after for t in call.outputs)]
  entering = _unique(t for t in [*targets, *(t for c in in_tail for t in c.inputs)]
                     if id(t) not in after)
  seen = [layer_graph.output_of(name, calls) for name in observed]
  stem_outputs = _unique([*entering, *(t for t in seen if id(t) not in after)])
  # The head's input stays last, even if it is wanted for itself.
  tail_outputs = [*_unique(t for t in targets + seen if id(t) in after), head.input]
  float16 = any(getattr(call.layer, 'compute_dtype', '') == 'float16'
                for call in in_tail)
  return _Cut(
      stem=keras.Model(layer_graph.single(head.model_inputs), stem_outputs),
      stem_keys=_keys(stem_outputs),
      entering=_keys(entering),
      tail=keras.Model(layer_graph.single(entering), tail_outputs),
      tail_keys=_keys(tail_outputs),
      targets=_keys(targets),
      observed=_keys(seen),
      gradient_scale=_FLOAT16_GRADIENT_SCALE if float16 else 1.0)


def _outputs(model: keras.Model, inputs) -> list[tf.Tensor]:
  outputs = model(inputs, training=False)
  return outputs if isinstance(outputs, list) else [outputs]


def _unique(tensors) -> list[keras.KerasTensor]:
  return list({id(tensor): tensor for tensor in tensors}.values())


def _keys(tensors) -> tuple[int, ...]:
  return tuple(map(id, tensors))
