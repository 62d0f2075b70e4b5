"""The layers of an exported network, read from its graph: what a figure is drawn from.

Not from the Keras model: what is served is what is drawn. An upsampling is not one op
in a graph (Keras repeats rows, then columns), so that it is known by what it does:
more rows and columns of as many channels.
"""

import os
import pathlib

import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from covid_tf import contract
from covid_tf import errors
from covid_tf.reports import network_figure

_POOLING = ('MaxPool', 'AvgPool')
_ACTIVATIONS = {'Relu': 'relu', 'Sigmoid': 'sigmoid'}
# What stands between a convolution and its activation, and takes nothing else.
_BETWEEN = ('BiasAdd', 'AddV2', 'Add', 'Identity', 'Snapshot')


def read_layers(
  folder: str | os.PathLike, signature: str = contract.PROBABILITY
) -> tuple[network_figure.Layer, ...]:
  """Reads the layers of a network from its SavedModel.

  Args:
    folder: the export, MODELS/NAME/VERSION.
    signature: which of its functions.

  Returns:
    The layers in the order of computation, the input first.

  Raises:
    errors.ModelError: no SavedModel is there, it has no such signature, or no
      convolution.
  """
  if not (pathlib.Path(folder) / 'saved_model.pb').is_file():
    raise errors.ModelError(
      f'{folder}: an exported network is required (MODELS/NAME/VERSION), found no '
      'saved_model.pb; give the folder of one version.'
    )
  loaded = tf.saved_model.load(os.fspath(folder))
  if signature not in loaded.signatures:
    raise errors.ModelError(
      f'{folder}: the signature {signature} is required, found '
      f'{", ".join(sorted(loaded.signatures)) or "none"}; export the network anew.'
    )
  # Its functions in one graph, in which every tensor has its shape.
  flat = convert_to_constants.convert_variables_to_constants_v2(
    loaded.signatures[signature]
  )
  layers = _Reader(flat.graph).layers()
  if not layers:
    raise errors.ModelError(
      f'{folder}: a network with convolutions is required, found none in {signature}; '
      'give the folder of the lung network.'
    )
  return layers


class _Reader:
  """Makes layers of the ops that are one, each with the layers it takes."""

  def __init__(self, graph: tf.Graph):
    self._operations = graph.get_operations()
    self._found: list[network_figure.Layer] = []
    self._index: dict[str, int] = {}  # Name of an op -> of its layer.

  def layers(self) -> tuple[network_figure.Layer, ...]:
    for operation in self._operations:
      if _is_layer(operation):
        self._add(operation)
    return tuple(self._found)

  def _add(self, operation) -> None:
    tensors = [
      tensor for tensor in operation.inputs if _is_image(tensor) and not _fixed(tensor)
    ]
    inputs = tuple(self._layer_of(tensor) for tensor in tensors)
    if operation.type == 'Conv2D':
      kernel = operation.inputs[1].shape
      layer = _layer(
        network_figure.CONVOLUTION,
        operation.outputs[0],
        inputs,
        (int(kernel[0]), int(kernel[1])),
        _activation(operation),
      )
    elif operation.type in _POOLING:
      layer = _layer(network_figure.POOLING, operation.outputs[0], inputs)
    else:
      layer = _layer(network_figure.CONCATENATION, operation.outputs[0], inputs)
    self._append(operation.name, layer)

  def _append(self, name, layer) -> int:
    self._found.append(layer)
    self._index[name] = len(self._found) - 1
    return self._index[name]

  def _layer_of(self, tensor) -> int:
    """The layer that gives a tensor: known, or an input, or an upsampling of one."""
    source = _source(tensor)
    if source is None:
      known = self._index.get('')
      if known is not None:
        return known
      return self._append('', _layer(network_figure.INPUT, tensor, ()))
    index = self._index[source.name]
    before = self._found[index]
    if (before.rows, before.columns) == tuple(tensor.shape[1:3]):
      return index
    if tensor.name in self._index:
      return self._index[tensor.name]
    layer = _layer(network_figure.UPSAMPLING, tensor, (index,))
    return self._append(tensor.name, layer)


def _is_layer(operation) -> bool:
  if operation.type not in ('Conv2D', 'ConcatV2', *_POOLING):
    return False
  return _is_image(operation.outputs[0])


def _is_image(tensor) -> bool:
  """Whether a tensor is [N, rows, columns, channels] of known size."""
  shape = tensor.shape
  return (
    tensor.dtype.is_floating
    and shape.rank == 4
    and all(size is not None for size in shape[1:])
  )


def _fixed(tensor) -> bool:
  """Whether a tensor is a weight: made of constants alone."""
  operation = tensor.op
  return operation.type == 'Const' or (
    bool(operation.inputs) and all(_fixed(taken) for taken in operation.inputs)
  )


def _source(tensor):
  """The op of the layer from which a tensor comes; None: from the input."""
  operation = tensor.op
  while not _is_layer(operation):
    taken = [
      one
      for one in operation.inputs
      if one.dtype.is_floating and (one.shape.rank or 0) >= 4 and not _fixed(one)
    ]
    if not taken:
      return None
    operation = taken[0].op
  return operation


def _activation(operation) -> str:
  """What follows a convolution: the name of its activation, '' for none."""
  while True:
    readers = operation.outputs[0].consumers()
    if len(readers) != 1:
      return ''
    (operation,) = readers
    if operation.type in _ACTIVATIONS:
      return _ACTIVATIONS[operation.type]
    if operation.type not in _BETWEEN:
      return ''


def _layer(kind, tensor, inputs, kernel=None, activation='') -> network_figure.Layer:
  _, rows, columns, channels = tensor.shape
  return network_figure.Layer(
    kind, int(rows), int(columns), int(channels), inputs, kernel, activation
  )
