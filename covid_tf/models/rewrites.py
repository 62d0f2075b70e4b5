"""A Keras functional model as the list of its layer calls, nested models opened."""

import collections
from collections.abc import Callable, Mapping
import dataclasses

import keras


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


def rebuild(model: keras.Model, clone: Callable, apply: Callable) -> keras.Model:
  """Builds a functional model by walking another one, call by call.

  Args:
    model: a built functional or Sequential model; left as it is.
    clone: layer -> the layer to use in its place.
    apply: (layer, *args, **kwargs) -> outputs, given the layer `clone` chose.

  Raises:
    ValueError: the model has no graph of layers to walk (it is subclassed).
  """
  try:
    # A plain view: it drops what compile() and subclasses of Model add.
    view = keras.Model(single(model.inputs), single(model.outputs))
  except (AttributeError, TypeError, ValueError) as error:
    raise ValueError(
        f'model must be a built functional Keras model, found {model!r}; build '
        'it with keras.Input and keras.Model.') from error
  return keras.models.clone_model(view, clone_function=clone, call_function=apply)


def copy(
    flat: keras.Model, make: Callable, apply: Callable | None = None,
    weights: Callable | None = None) -> keras.Model:
  """Copies a model without nested ones, layer by layer, weights included.

  Args:
    flat: as `flatten` gives it; left as it is.
    make: layer -> a new layer of the same name; see `remake`.
    apply: (copy, *args, **kwargs) -> outputs; None calls the copy.
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
        f'of this one are {[call.layer.name for call in calls[-8:]]}.')
  if len(found) > 1 or len(found[0].outputs) != 1:
    raise ValueError(
        f'layer {name!r} must be used once and have one output, found '
        f'{len(found)} uses with {len(found[0].outputs)} outputs.')
  return found[0].outputs[0]


def after(tensors, calls: tuple[Call, ...]) -> set[int]:
  """ids of all tensors computed from any of these, directly or not."""
  sources = {id(tensor) for tensor in tensors}
  found = set()
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
      keras.Model(single(nested.inputs), single(marked)), input_tensors=inputs,
      clone_function=_same, call_function=apply_or_catch)
  return single([caught[marker] for marker in markers])


def _same(layer):
  return layer


def _tensors(structure) -> tuple[keras.KerasTensor, ...]:
  return tuple(leaf for leaf in keras.tree.flatten(structure)
               if isinstance(leaf, keras.KerasTensor))
