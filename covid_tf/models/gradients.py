"""The logit of a classifier and its gradients at chosen layers."""

from collections.abc import Callable, Sequence
import dataclasses
import math

import keras
import tensorflow as tf

from covid_tf.models import rewrites

# The logit of a classifier: what its final sigmoid or softmax is applied to.
#
# Grad-CAM starts there. The gradient of a probability p carries p (1 - p), which
# fades where the network is sure, and that of a softmax is mixed with the other
# classes'.


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
  calls: tuple[rewrites.Call, ...]
  input: keras.KerasTensor
  logit: Callable


def find_head(model: keras.Model, class_index: int | None = None) -> Head:
  """Finds the logit of a classifier.

  Args:
    model: functional classifier that ends in logits, a sigmoid or a softmax.
    class_index: which unit of a head with several; None takes, for each image,
      the unit with the highest logit.

  Raises:
    ValueError: the head's logit cannot be found, or has no such unit.
  """
  flat, calls = rewrites.flatten(model)
  if len(flat.outputs) != 1 or len(flat.outputs[0].shape) not in (1, 2):
    raise ValueError(
      'model must have one output, [N] or [N, classes], found '
      f'{[tuple(output.shape) for output in flat.outputs]}; make a keras.Model '
      'that ends in the one to explain.'
    )
  (output,) = flat.outputs
  units = output.shape[-1] if len(output.shape) == 2 else 1
  if class_index is not None and not 0 <= class_index < units:
    raise ValueError(
      f'class_index must be in [0, {units}) for this head, found {class_index}.'
    )
  tensor, all_logits = _without_activation(output, calls)
  return Head(
    flat.inputs, calls, tensor, lambda value: _pick(all_logits(value), class_index)
  )


def _without_activation(output: keras.KerasTensor, calls: tuple[rewrites.Call, ...]):
  """(tensor, function from its value to all the logits) of a model's output."""
  last = _maker(output, calls)
  while last and _keeps_values(last.layer):
    output = last.inputs[0]
    last = _maker(output, calls)
  if last is None:
    return output, _identity
  layer = last.layer
  if _is_bare_probability(layer):
    return last.inputs[0], _identity
  activation = getattr(layer, 'activation', None)
  if activation in (None, keras.activations.linear):
    _refuse_hidden_probability(last, calls)
    return output, _identity
  if activation not in (keras.activations.sigmoid, keras.activations.softmax):
    raise ValueError(
      'model must end in logits, a sigmoid or a softmax, found activation '
      f'{getattr(activation, "__name__", activation)} in layer {layer.name!r}.'
    )
  if isinstance(layer, keras.layers.Activation):
    return last.inputs[0], _identity
  if isinstance(layer, keras.layers.Dense):
    return last.inputs[0], lambda features: _linear(layer, features)
  raise ValueError(
    f'layer {layer.name!r} ({type(layer).__name__}) must have its sigmoid or '
    'softmax in a layer of its own, so that the logit can be had.'
  )


def _maker(tensor, calls) -> rewrites.Call | None:
  """The call that gives a tensor; None for an input of the model."""
  return next((call for call in calls if any(t is tensor for t in call.outputs)), None)


def _keeps_values(layer) -> bool:
  """Whether it hands its input on, maybe in another dtype (training is over)."""
  return isinstance(layer, (keras.layers.Identity, keras.layers.Dropout)) or (
    isinstance(layer, keras.layers.Activation)
    and layer.activation is keras.activations.linear
  )


def _is_bare_probability(layer) -> bool:
  """A sigmoid or softmax of its own: the Softmax layer, keras.ops.sigmoid, ..."""
  return isinstance(layer, keras.layers.Softmax) or (
    not isinstance(layer, keras.Layer)
    and type(layer).__name__ in ('Sigmoid', 'Softmax')
  )


def _refuse_hidden_probability(
  last: rewrites.Call, calls: tuple[rewrites.Call, ...]
) -> None:
  """Raises ValueError where a sigmoid or softmax stands before the last layer.

  A reshape, an index or a factor behind it would pass for a logit.
  """
  call: rewrites.Call | None = last
  while call and len(call.inputs) == 1 and not getattr(call.layer, 'weights', ()):
    call = _maker(call.inputs[0], calls)
    if call is None:
      return
    layer = call.layer
    if _is_bare_probability(layer) or getattr(layer, 'activation', None) in (
      keras.activations.sigmoid,
      keras.activations.softmax,
    ):
      raise ValueError(
        'model must end in logits, a sigmoid or a softmax, found layer '
        f'{last.layer.name!r} behind the probability of {layer.name!r}; make a '
        'keras.Model that ends there.'
      )


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


# Activations of chosen layers and the logit's gradients there, in one forward pass.
#
# The model is cut in two. The stem, all that comes before the earliest chosen
# layer, runs outside the tape, so nothing of it is kept for a backward pass; only
# the tail is differentiated, and only down to the chosen layers.

# float16 holds nothing below 6e-8, and gradients of single pixels get there: the
# backward pass runs on a logit this much larger, and is scaled back in float32.
_FLOAT16_GRADIENT_SCALE = 1024.0


def layer_gradients(
  head: Head, layer_names: Sequence[str], observed: Sequence[str] = ()
) -> Callable:
  """Makes the function that gives activations and gradients of some layers.

  Args:
    head: the classifier, by `find_head`. Its weights are used, not copied.
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
      values.update(zip(cut.tail_keys, _outputs(cut.tail, rewrites.single(entering))))
      logit = head.logit(values[cut.tail_keys[-1]])
    gradients = tape.gradient(
      logit,
      [values[key] for key in cut.targets],
      output_gradients=tf.fill(tf.shape(logit), cut.gradient_scale),
      unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
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


def _cut(head: Head, layer_names: tuple[str, ...], observed: tuple[str, ...]) -> _Cut:
  calls = head.calls
  if not layer_names:
    raise ValueError('layer_names must name at least one layer, found none.')
  targets = [rewrites.output_of(name, calls) for name in layer_names]
  for name, target in zip(layer_names, targets):
    if id(head.input) not in rewrites.after([target], calls):
      raise ValueError(f'layer {name!r} has no way to the logit of this model.')
  after = rewrites.after(targets, calls)
  in_tail = [call for call in calls if any(id(t) in after for t in call.outputs)]
  entering = _unique(
    t for t in [*targets, *(t for c in in_tail for t in c.inputs)] if id(t) not in after
  )
  seen = [rewrites.output_of(name, calls) for name in observed]
  stem_outputs = _unique([*entering, *(t for t in seen if id(t) not in after)])
  # The head's input stays last, even if it is wanted for itself.
  tail_outputs = [*_unique(t for t in targets + seen if id(t) in after), head.input]
  float16 = any(
    getattr(call.layer, 'compute_dtype', '') == 'float16' for call in in_tail
  )
  return _Cut(
    stem=keras.Model(rewrites.single(head.model_inputs), stem_outputs),
    stem_keys=_keys(stem_outputs),
    entering=_keys(entering),
    tail=keras.Model(rewrites.single(entering), tail_outputs),
    tail_keys=_keys(tail_outputs),
    targets=_keys(targets),
    observed=_keys(seen),
    gradient_scale=_FLOAT16_GRADIENT_SCALE if float16 else 1.0,
  )


def _outputs(model: keras.Model, inputs) -> list[tf.Tensor]:
  outputs = model(inputs, training=False)
  return outputs if isinstance(outputs, list) else [outputs]


def _unique(tensors) -> list[keras.KerasTensor]:
  return list({id(tensor): tensor for tensor in tensors}.values())


def _keys(tensors) -> tuple[int, ...]:
  return tuple(map(id, tensors))


# The mean gradient of each channel, which is all of the gradient Grad-CAM needs.
#
# A mean over space can be had for less than the gradient at every pixel. Where only
# 1x1 convolutions read a layer, as in a residual network at the end of a stage, each
# of their output pixels comes from one input pixel. So the sum over space of the
# gradient at the layer is the sum over space of the gradient at their outputs, times
# their kernel: a vector by a matrix, in place of a convolution's backward pass.


def channel_gradients(
  head: Head, layer_names: Sequence[str], observed: Sequence[str] = ()
) -> Callable:
  """Makes the function that gives activations and mean gradients of some layers.

  Args:
    head: the classifier, by `find_head`. Its weights are used, not copied.
    layer_names: layers with outputs [N, ..., channels], in any order.
    observed: layers whose output is wanted without a gradient.

  Returns:
    Function from images [N, ...], N > 0, to (logit, activations, weights): logit
    float32 [N]; activations the outputs [N, ..., channels] of `layer_names` and
    `observed`; weights, for each of `layer_names` the mean over space of
    d logit / d output, float32 [N, channels].

  Raises:
    ValueError: as `layer_gradients`.
  """
  readers = {
    name: _pointwise_readers(name, layer_names, head.calls) for name in layer_names
  }
  differentiated = [
    name
    for layer in layer_names
    for name in ([call.layer.name for call in readers[layer]] or [layer])
  ]
  run = layer_gradients(head, differentiated, [*layer_names, *observed])

  def weigh(images):
    logit, activations, gradients = run(images)
    activations = activations[len(differentiated) :]
    by_name = dict(zip(differentiated, gradients))
    weights = []
    for name, activation in zip(layer_names, activations):
      if not readers[name]:
        weights.append(_over_space(tf.reduce_mean, by_name[name]))
        continue
      sums = [
        _through(call.layer, _over_space(tf.reduce_sum, by_name[call.layer.name]))
        for call in readers[name]
      ]
      weights.append(tf.add_n(sums) / _pixels(activation))
    return logit, activations, weights

  return weigh


def _pointwise_readers(
  name: str, layer_names: Sequence[str], calls: tuple[rewrites.Call, ...]
) -> list[rewrites.Call]:
  """The 1x1 convolutions that alone read a layer; none where others read it too.

  Also none for a layer that comes after another chosen one: the gradient has to
  pass through it in any case.
  """
  output = rewrites.output_of(name, calls)
  others = [rewrites.output_of(other, calls) for other in layer_names if other != name]
  if id(output) in rewrites.after(others, calls):
    return []
  readers = rewrites.consumers(calls)[id(output)]
  uses = [call.layer.name for call in calls]
  if all(
    _is_pointwise(call.layer) and uses.count(call.layer.name) == 1 for call in readers
  ):
    return readers
  return []


def _is_pointwise(layer) -> bool:
  return (
    type(layer) is keras.layers.Conv2D
    and layer.kernel_size == (1, 1)
    and layer.groups == 1
    and layer.activation is keras.activations.linear
    and layer.data_format == 'channels_last'
  )


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
