"""A Keras model as a graph of layers, and the same network in other operations."""

import collections
from collections.abc import Callable, Mapping
import dataclasses
import functools

import keras
import numpy as np
import tensorflow as tf

from covid_tf import errors

# A Keras functional model as the list of its layer calls, nested models opened.


@dataclasses.dataclass(frozen=True)
class Call:
  """One layer applied once.

  Attributes:
    layer: the layer (or bare operation) applied.
    inputs: symbolic tensors it took, in any argument.
    outputs: symbolic tensors it gave.
  """

  layer: keras.Operation
  inputs: tuple[keras.KerasTensor, ...]
  outputs: tuple[keras.KerasTensor, ...]


def rebuild(model: keras.Model, clone: Callable, apply: Callable | None) -> keras.Model:
  """Builds a functional model by walking another one, call by call.

  Args:
    model: a built functional or Sequential model; left as it is.
    clone: layer -> the layer to use in its place.
    apply: `(layer, *args, **kwargs) -> outputs`, given the layer `clone` chose.

  Raises:
    ValueError: the model has no graph of layers to walk (it is subclassed).
  """
  try:
    # A plain view: it drops what compile() and subclasses of Model add.
    view = keras.Model(single(model.inputs), single(model.outputs))
  except (AttributeError, TypeError, ValueError) as error:
    raise ValueError(
      f'model must be a built functional Keras model, found {model!r}; build '
      'it with keras.Input and keras.Model.'
    ) from error
  return keras.models.clone_model(view, clone_function=clone, call_function=apply)


def copy(
  flat: keras.Model,
  make: Callable,
  apply: Callable | None = None,
  weights: Callable | None = None,
) -> keras.Model:
  """Copies a model without nested ones, layer by layer, weights included.

  Args:
    flat: as `flatten` gives it; left as it is.
    make: layer -> a new layer of the same name; see `remake`.
    apply: `(copy, *args, **kwargs) -> outputs`; None calls the copy.
    weights: layer -> the weights of its copy; None takes the layer's own.
  """
  copies = {}

  def clone(layer):
    if layer.name not in copies:
      copies[layer.name] = make(layer)
    return copies[layer.name]

  model = rebuild(flat, clone, apply)
  for layer in model.layers:
    if layer.weights:
      source = flat.get_layer(layer.name)
      layer.set_weights(weights(source) if weights else source.get_weights())
  return model


def remake(layer: keras.Layer, **changes) -> keras.Layer:
  """A new layer of the same configuration but for `changes`; its weights are new."""
  return type(layer).from_config(layer.get_config() | changes)


def flatten(model: keras.Model) -> tuple[keras.Model, tuple[Call, ...]]:
  """Opens nested models, so that every layer is a call of one graph.

  Args:
    model: a built functional or Sequential model.

  Returns:
    (flat, calls): a functional model that shares the given model's layers, and
    its calls in an order in which they can be run.
  """
  calls = []

  def apply(layer, *args, **kwargs):
    if isinstance(layer, keras.Sequential):
      outputs = args[0]
      for inner in layer.layers:
        outputs = apply(inner, outputs)
      return outputs
    if isinstance(layer, keras.Model):
      return _open(layer, args[0], apply)
    outputs = layer(*args, **kwargs)
    calls.append(Call(layer, _tensors((args, kwargs)), _tensors(outputs)))
    return outputs

  return rebuild(model, _same, apply), tuple(calls)


def consumers(calls: tuple[Call, ...]) -> Mapping[int, list[Call]]:
  """id of a tensor -> the calls that take it."""
  taken_by = collections.defaultdict(list)
  for call in calls:
    for tensor in call.inputs:
      taken_by[id(tensor)].append(call)
  return taken_by


def output_of(name: str, calls: tuple[Call, ...]) -> keras.KerasTensor:
  """The one output of the layer of that name; ValueError where it is not one."""
  found = [call for call in calls if call.layer.name == name]
  if not found:
    raise ValueError(
      f'layers must be named as in the model, found {name!r}; the last layers '
      f'of this one are {[call.layer.name for call in calls[-8:]]}.'
    )
  if len(found) > 1 or len(found[0].outputs) != 1:
    raise ValueError(
      f'layer {name!r} must be used once and have one output, found '
      f'{len(found)} uses with {len(found[0].outputs)} outputs.'
    )
  return found[0].outputs[0]


def after(tensors, calls: tuple[Call, ...]) -> set[int]:
  """ids of all tensors computed from any of these, directly or not."""
  sources = {id(tensor) for tensor in tensors}
  found: set[int] = set()
  for call in calls:
    if any(id(tensor) in found or id(tensor) in sources for tensor in call.inputs):
      found.update(id(tensor) for tensor in call.outputs)
  return found


def single(tensors: list):
  """The one tensor of a list of one, as Keras wants it; else the list."""
  return tensors[0] if len(tensors) == 1 else tensors


def _open(nested: keras.Model, inputs, apply: Callable):
  """Runs a nested model's layers on the tensors that it is called with."""
  # The clone's own outputs are copies, not connected to these tensors: markers
  # behind the outputs catch the tensors themselves.
  markers = [keras.layers.Identity() for _ in nested.outputs]
  caught = {}

  def apply_or_catch(layer, *args, **kwargs):
    if any(layer is marker for marker in markers):
      caught[layer] = args[0]
      return args[0]
    return apply(layer, *args, **kwargs)

  marked = [marker(output) for marker, output in zip(markers, nested.outputs)]
  keras.models.clone_model(
    keras.Model(single(nested.inputs), single(marked)),
    input_tensors=inputs,
    clone_function=_same,
    call_function=apply_or_catch,
  )
  return single([caught[marker] for marker in markers])


def _same(layer):
  return layer


def _tensors(structure) -> tuple[keras.KerasTensor, ...]:
  return tuple(
    leaf
    for leaf in keras.tree.flatten(structure)
    if isinstance(leaf, keras.KerasTensor)
  )


# Batch normalization folded into the convolution before it: exact, and faster.
#
# With frozen statistics a batch normalization is a scale and a shift of each
# channel, and so is part of what a convolution's kernel and bias can say.

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
  flat, calls = flatten(model)
  folded = _foldable(flat, calls)  # Name of the convolution -> its normalization.
  removed = {norm.name for norm in folded.values()}

  def make(layer):
    changes = {'use_bias': True} if layer.name in folded else {}
    return remake(layer, **changes)

  def apply(layer, *args, **kwargs):
    return args[0] if layer.name in removed else layer(*args, **kwargs)

  def weights(layer):
    if layer.name in folded:
      return _folded_weights(layer, folded[layer.name])
    return layer.get_weights()

  return copy(flat, make, apply, weights)


def _foldable(flat: keras.Model, calls: tuple[Call, ...]):
  taken_by = consumers(calls)
  uses = [call.layer.name for call in calls]
  results = {id(tensor) for tensor in flat.outputs}
  folded = {}
  for call in calls:
    layer = call.layer
    if (
      type(layer) not in _OUTPUT_AXES
      or uses.count(layer.name) != 1
      or layer.activation is not keras.activations.linear
      or getattr(layer, 'data_format', 'channels_last') != 'channels_last'
    ):
      continue
    takers = taken_by[id(call.outputs[0])]
    if len(takers) != 1 or id(call.outputs[0]) in results:
      continue
    norm = takers[0].layer
    if (
      isinstance(norm, keras.layers.BatchNormalization)
      and uses.count(norm.name) == 1
      and norm.axis in (-1, len(call.outputs[0].shape) - 1)
    ):
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


# Additions that TensorFlow never makes a part of the convolution before them.
#
# TensorFlow 2.21's oneDNN kernel of a convolution with bias and addition keeps the
# other summand in a member of the op while it copies it. Where that summand cannot be
# overwritten, because another op still needs it, two runs of one session that are in
# the op at once read and free each other's memory: wrong answers, or the end of the
# process (docs/adr/0100). A copy between convolution and addition, which costs nothing
# where the convolution's output has no other reader, leaves such a kernel nothing to
# add.

_ADDING_LAYERS = (keras.layers.Add, keras.layers.Average, keras.layers.Subtract)
_ADDING_OPERATIONS = frozenset(('Add', 'Subtract'))
# Layers whose output is no sum of a convolution and a bias, whatever comes before.
_NOT_LINEAR = (
  keras.layers.ReLU,
  keras.layers.LeakyReLU,
  keras.layers.PReLU,
  keras.layers.ELU,
  keras.layers.MaxPooling1D,
  keras.layers.MaxPooling2D,
  keras.layers.MaxPooling3D,
)


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
  flat, _ = flatten(model)
  # id of a tensor -> (layer that gave it, the tensor: ids stay unique).
  layer_of: dict = {}

  def apart(value):
    if not isinstance(value, keras.KerasTensor) or _is_not_linear(
      layer_of.get(id(value), (None,))[0]
    ):
      return value
    return Apart(dtype=value.dtype)(value)

  def apply(layer, *args, **kwargs):
    if _is_addition(layer):
      args, kwargs = keras.tree.map_structure(apart, (args, kwargs))
    outputs = layer(*args, **kwargs)
    for tensor in keras.tree.flatten(outputs):
      layer_of[id(tensor)] = (layer, tensor)
    return outputs

  return copy(flat, remake, apply)


def _is_addition(layer) -> bool:
  return isinstance(layer, _ADDING_LAYERS) or (
    not isinstance(layer, keras.Layer) and type(layer).__name__ in _ADDING_OPERATIONS
  )


def _is_not_linear(layer) -> bool:
  # By type: a subclass may add a bias behind the nonlinearity.
  if type(layer) is keras.layers.Activation:
    return layer.activation is not keras.activations.linear
  return type(layer) in _NOT_LINEAR


# The same network computing in a narrower type.

_POLICIES = {
  'float32': 'float32',
  'bfloat16': 'mixed_bfloat16',
  'float16': 'mixed_float16',
}


def with_compute_dtype(model: keras.Model, compute_dtype: str) -> keras.Model:
  """Copies a network with another compute type.

  Weights stay float32, and so does the last layer, which gives the logit.

  Args:
    model: functional model; left as it is.
    compute_dtype: 'float32' (gives the model itself), 'bfloat16' or 'float16'.

  Raises:
    errors.UsageError: another type.
  """
  if compute_dtype not in _POLICIES:
    raise errors.UsageError(
      f'compute_dtype must be one of {sorted(_POLICIES)}, found {compute_dtype!r}.'
    )
  if compute_dtype == 'float32':
    return model
  flat, calls = flatten(model)
  last = calls[-1].layer.name

  def make(layer):
    changes = {} if layer.name == last else {'dtype': _POLICIES[compute_dtype]}
    return remake(layer, **changes)

  return copy(flat, make)


# Batches of no slices at all, which TensorFlow's CPU convolutions refuse.


def accept_empty(function: Callable) -> Callable:
  """Makes a function of a batch work for a batch of size 0 too.

  An empty batch gets one slice of zeros, and every output loses it again, all in
  the graph: the batch size need not be known when the function is traced.

  Args:
    function: tensor [N, ...] -> any structure of tensors [N, ...], for N > 0.

  Returns:
    The same function for N >= 0.
  """

  @functools.wraps(function)
  def wrapped(batch):
    batch = tf.convert_to_tensor(batch)
    if batch.shape[0]:  # Known, and not 0: nothing to pad.
      return function(batch)
    size = tf.shape(batch)[0]
    missing = tf.cast(tf.equal(size, 0), tf.int32)
    filling = tf.zeros(tf.concat([[missing], tf.shape(batch)[1:]], 0), batch.dtype)
    # Not tf.pad: it hides the other sizes from TensorFlow's optimizer, which fuses
    # less then.
    outputs = function(tf.concat([batch, filling], 0))
    return tf.nest.map_structure(lambda output: output[:size], outputs)

  return wrapped
