"""Does an export, loaded as a server loads it, give what the Keras model gives?"""

import collections
from collections.abc import Iterator
import contextlib
import dataclasses
import os

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import rewriter_config_pb2

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import preprocessing
from covid_tf.models import signatures
from covid_tf.server import predict
from covid_tf.sessions import refusal
from covid_tf.sessions import servable

# Can two requests that run at once disturb one another in a graph?
#
# TensorFlow's oneDNN kernel of a convolution fused with an addition (`_FusedConv2D`
# and its kin with `Add` among their `fused_ops`; up to 2.21, and in its main branch of
# 2026) writes into the memory of the other summand where that is free. Where another
# op still needs the summand, the kernel copies it, with two objects that are members
# of the op and no lock: two runs of one session in that op at once read and free each
# other's memory. So a graph is safe if the summand of every such convolution has no
# other reader, or only readers that have let go of it before the convolution begins,
# because it depends on them (docs/adr/0101). Fused matrix products copy with objects
# of their own for each run, and are safe.
#
# What is fused depends on processor, flags and shapes; so the graphs judged are those
# that a session has optimized, as it does by default and in mixed precision.

# oneDNN's kernels take filter, bias and summand in this order after the input.
_SUMMAND = 3
_ADDITIONS = frozenset(('Add', 'AddV2', 'AddN'))
_FUSED_ADDITION = 'Add'
_CONVOLUTIONS = frozenset(('Conv2D', 'Conv3D'))
_WITH_BIAS = frozenset(f'{name}WithBias' for name in _CONVOLUTIONS)
# Their outputs are, or may be, the memory of an input.
_SHARING = frozenset(
  (
    'Bitcast',
    'CheckNumerics',
    'EnsureShape',
    'Enter',
    'Exit',
    'ExpandDims',
    'Identity',
    'IdentityN',
    'Merge',
    'NextIteration',
    'PlaceholderWithDefault',
    'PreventGradient',
    'Reshape',
    'Slice',
    'Split',
    'SplitV',
    'Squeeze',
    'StopGradient',
    'StridedSlice',
    'Switch',
    'Transpose',
    'Unpack',
  )
)
# Somebody outside the graph holds their outputs: never free to be overwritten.
_HELD = frozenset(
  (
    'Const',
    'HostConst',
    'ReadVariableOp',
    '_ReadVariablesOp',
    'VarHandleOp',
    'VariableV2',
    'Variable',
    'Placeholder',
    '_Arg',
    '_DeviceArg',
    '_Recv',
    '_HostRecv',
    'ImmutableConst',
  )
)
_FREE_SIZE = 48  # Of a free dimension of the input; the first one is 2.


@dataclasses.dataclass(frozen=True)
class Hazard:
  """A fused convolution that two runs cannot be in at once.

  Attributes:
    node: its name in the optimized graph.
    summand: the name of the node that gives its other summand.
    reader: who else needs that summand, or holds it.
  """

  node: str
  summand: str
  reader: str


def check_concurrency(name: str, folder: str | os.PathLike) -> None:
  """Refuses a SavedModel in which two requests could disturb one another.

  Args:
    name: what messages call the model.
    folder: the SavedModel.

  Raises:
    errors.ModelError: a signature with such an op, as a server would run it.
  """
  v1 = tf.compat.v1
  fuses = fuses_additions()
  for mixed in (False, True):
    with tf.Graph().as_default(), v1.Session(config=_options(mixed)) as session:
      with servable.without_advice():
        loaded = v1.saved_model.load(
          session, [tf.saved_model.SERVING], os.fspath(folder)
        )
      for signature_name, signature in loaded.signature_def.items():
        feeds = {info.name: _zeros(info) for info in signature.inputs.values()}
        fetches = [info.name for info in signature.outputs.values()]
        for graph in optimized_graphs(session, fetches, feeds):
          for hazard in hazards(graph, fuses):
            raise _refusal(f'export of {name}, signature {signature_name}', hazard)


def _refusal(where: str, hazard: Hazard) -> errors.ModelError:
  return errors.ModelError(
    f'{where}, node {_short(hazard.node)}: what a convolution adds '
    f'({_short(hazard.summand)}) must have no other reader when it begins, found '
    f'{_short(hazard.reader)}; with oneDNN, two requests at once would get wrong '
    'answers. Add by keras.layers.Add outside layers of your own, or pass all '
    'summands through covid_tf.models.rewrites.Apart; nothing was exported.'
  )


def optimized_graphs(
  session: tf.compat.v1.Session, fetches: list, feeds: dict
) -> list[tf.compat.v1.GraphDef]:
  """The graphs, one a device, that a session makes of its own to run this."""
  metadata = tf.compat.v1.RunMetadata()
  session.run(
    fetches,
    feeds,
    run_metadata=metadata,
    options=tf.compat.v1.RunOptions(output_partition_graphs=True),
  )
  return list(metadata.partition_graphs)


def hazards(graph: tf.compat.v1.GraphDef, fuses: bool = True) -> Iterator[Hazard]:
  """Finds convolutions whose fused summand cannot always be overwritten.

  Args:
    graph: as a session has optimized it, with its outputs (`_Retval`).
    fuses: the optimizer at hand makes additions a part of convolutions. If not
      (oneDNN off), every addition that another one could fuse counts as fused.

  Yields:
    Every such convolution, in the graph and in its functions.
  """
  yield from _hazards(_Graph(graph.node), fuses)
  for function in graph.library.function:
    yield from _hazards(_Graph(function.node_def, function.ret.values()), fuses)


class _Graph:
  """Nodes by name, and who takes which tensor ('node:0', as all tensors here)."""

  def __init__(self, nodes, returned=()):
    self.nodes = {node.name: node for node in nodes}
    self.readers = collections.defaultdict(list)  # Tensor -> names, with repetition.
    for node in nodes:
      for tensor in _inputs(node):
        self.readers[tensor].append(node.name)
    for tensor in returned:
      self.readers[tensor].append('the outputs of its function')

  def maker(self, tensor: str):
    """The node that gives a tensor; None for an argument of a function."""
    return self.nodes.get(tensor.split(':')[0])

  def before(self, node) -> set[str]:
    """Names of the nodes that have ended when this one begins."""
    found, pending = set(), [node]
    while pending:
      for name in pending.pop().input:
        name = name.lstrip('^').split(':')[0]
        source = self.nodes.get(name)
        # What comes round a loop ended in the turn before, and may run in this one.
        if source and name not in found and source.op != 'NextIteration':
          found.add(name)
          pending.append(source)
    return found

  def memory(self, tensor: str) -> tuple[str, set[str], set[str]]:
    """Where a tensor's memory comes from: (tensor, all that share it, by whom).

    The second holds the tensors that may be the same memory, the third the nodes
    that lead from the first to the given one.
    """
    leading, first = set(), tensor
    while (node := self.maker(first)) and _shares(node) and _inputs(node):
      if node.name in leading:
        break
      leading.add(node.name)
      first = _inputs(node)[_shared_input(node, first)]
    shared, pending = {first}, [first]
    while pending:
      for name in self.readers[pending.pop()]:
        node = self.nodes.get(name)
        if node and _shares(node):
          outputs = {t for t in self.readers if t.split(':')[0] == name} - shared
          shared |= outputs
          pending += outputs
    return first, shared, leading


def _hazards(graph: _Graph, fuses: bool) -> Iterator[Hazard]:
  for node in graph.nodes.values():
    if 'Conv' in node.op and _FUSED_ADDITION in _fused_ops(node):
      yield from _readers_left(graph, node, _inputs(node)[_SUMMAND], {node.name})
    elif not fuses and _kind(node) in _ADDITIONS and len(_inputs(node)) == 2:
      for base, summand in (_inputs(node), _inputs(node)[::-1]):
        if (parts := _convolution(graph, base)) and not _is_held(graph, summand):
          yield from _readers_left(graph, node, summand, {node.name} | parts)
          break


def _readers_left(graph: _Graph, node, summand: str, parts: set[str]):
  """The hazard that a node with this summand is, if it is one.

  Args:
    graph: its graph.
    node: the convolution with addition, or the addition.
    summand: the tensor added.
    parts: names of the nodes that are, or may become, one op with it.
  """
  first, shared, leading = graph.memory(summand)
  done = graph.before(node) - parts
  where = summand.split(':')[0]
  readers = [
    name
    for tensor in sorted(shared)
    for name in graph.readers[tensor]
    if name not in leading and name not in done
  ]
  readers.remove(node.name)  # Once: it may not take the same memory as its input too.
  if _is_held(graph, summand):
    yield Hazard(node.name, where, f'{first.split(":")[0]}, which keeps it')
  elif readers:
    yield Hazard(node.name, where, readers[0])


def _convolution(graph: _Graph, tensor: str) -> set[str]:
  """Nodes of a convolution with bias that only one other node takes; else none."""
  node = graph.maker(tensor)
  if node is None or len(graph.readers[tensor]) != 1:
    return set()
  if _kind(node) in _WITH_BIAS or (
    'Conv' in node.op and _fused_ops(node) == ['BiasAdd']
  ):
    return {node.name}
  if _kind(node) == 'BiasAdd' or _kind(node) in _ADDITIONS:
    source = graph.maker(_inputs(node)[0])
    if source is not None and _kind(source) in _CONVOLUTIONS:
      return {node.name, source.name}
  return set()


def _is_held(graph: _Graph, tensor: str) -> bool:
  node = graph.maker(graph.memory(tensor)[0])
  return node is None or node.op in _HELD


def _inputs(node) -> list[str]:
  """The tensors that a node takes, without control inputs."""
  return [
    name if ':' in name else f'{name}:0'
    for name in node.input
    if not name.startswith('^')
  ]


def _kind(node) -> str:
  """The op, without the prefix that it has where oneDNN computes it."""
  return node.op.removeprefix('_Mkl').removeprefix('Native')


def _fused_ops(node) -> list[str]:
  return (
    [op.decode() for op in node.attr['fused_ops'].list.s]
    if 'fused_ops' in node.attr
    else []
  )


def _shares(node) -> bool:
  if node.op == 'Cast':
    return node.attr['SrcT'].type == node.attr['DstT'].type
  if node.op in ('Pack', 'Concat', 'ConcatV2'):
    return node.attr['N'].i == 1
  return node.op in _SHARING


def _shared_input(node, output: str) -> int:
  # IdentityN passes each input to the output of its number.
  if node.op == 'IdentityN':
    return int(output.rsplit(':', 1)[1])
  return 1 if node.op == 'Split' else 0


def fuses_additions() -> bool:
  """Does this process make an addition a part of the convolution before it?"""
  v1 = tf.compat.v1
  with tf.Graph().as_default(), v1.Session() as session:
    # Two convolutions: what is fed counts as of unknown shape, and is not added to.
    images = v1.placeholder(tf.float32, (None, 8, 8, 16))
    convolve = lambda x: tf.nn.bias_add(
      tf.nn.conv2d(x, tf.ones((3, 3, 16, 16)), 1, 'SAME'), tf.ones(16)
    )
    first = tf.nn.relu(convolve(images))
    graphs = optimized_graphs(
      session,
      [tf.nn.relu(convolve(first) + first)],
      {images: np.zeros((1, 8, 8, 16), np.float32)},
    )
  return any(
    _FUSED_ADDITION in _fused_ops(node) for graph in graphs for node in graph.node
  )


def _short(node: str) -> str:
  """A node's name without the functions that it was inlined from."""
  return '/'.join(
    part
    for part in node.split('/')
    if not part.startswith(('StatefulPartitionedCall', 'PartitionedCall'))
  )


def _zeros(info) -> np.ndarray:
  shape = [dim.size if dim.size >= 0 else _FREE_SIZE for dim in info.tensor_shape.dim]
  if shape and info.tensor_shape.dim[0].size < 0:
    shape[0] = 2
  return np.zeros(shape, tf.as_dtype(info.dtype).as_numpy_dtype)


def _options(mixed: bool) -> tf.compat.v1.ConfigProto:
  """A session's options; `mixed` as TF Serving's --mixed_precision=bfloat16."""
  config = tf.compat.v1.ConfigProto()
  if mixed:
    config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = (
      rewriter_config_pb2.RewriterConfig.ON
    )
  return config


# The design's bound for another process or server.
TOLERANCE = 1e-5
# Ours: a mean difference of the probability that a narrower type may make; more
# is another network, not rounding.
_NARROW_TOLERANCE = 0.05
_BATCH_SHAPE = (2, 150, 180)  # No side is a multiple or a power of anything near.


def answer(
  served: servable.Servable, signature_name: str, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Runs one signature of a loaded SavedModel.

  Args:
    served: the model, loaded as TF Serving loads it.
    signature_name: the signature.
    inputs: its tensors by name.

  Returns:
    Its outputs by name.

  Raises:
    refusal.Refusal: the graph refuses the inputs.
  """
  signature = served.signatures[signature_name]
  feeds = {signature.inputs[name].name: value for name, value in inputs.items()}
  values = served.run(feeds, [info.name for info in signature.outputs.values()])
  return dict(zip(signature.outputs, values))


def check(
  name: str,
  folder: str | os.PathLike,
  model: keras.Model,
  functions: dict,
  compute_dtype: str,
) -> None:
  """Compares every signature of an export with its source on a fixed batch.

  Args:
    name: a model name of the contract.
    folder: the SavedModel.
    model: the network as trained, before folding: the probabilities must be its.
    functions: the signatures that were exported, as functions.
    compute_dtype: type the export computes in.

  Raises:
    errors.ModelError: an output is missing, of another type, or differs.
  """
  hu = fixed_batch()
  found = _served_outputs(name, folder, hu)
  for signature_name, signature in contract.SIGNATURES[name].items():
    source = tf.function(
      functions[signature_name],
      input_signature=signatures.input_signature(name, signature_name),
    )
    required = source(hu) if signature.inputs else source()
    for spec in signature.outputs:
      _compare(
        f'export of {name}, signature {signature_name}, output {spec.name}',
        found[signature_name][spec.name],
        np.asarray(required[spec.name]),
        spec.dtype,
      )
  if name == contract.LUNGS_MODEL:
    probability = found[contract.PROBABILITY]['lung_probability']
    logit = model(preprocessing.lung_input(hu), training=False)[..., 0]
  else:
    probability = found[contract.SERVING_DEFAULT]['covid_probability']
    logit = model(preprocessing.classifier_input(hu), training=False)[:, 0]
  difference = np.abs(probability - tf.sigmoid(logit))
  _require(
    f'export of {name}, probability',
    *(
      (difference.max(), TOLERANCE)
      if compute_dtype == 'float32'
      else (difference.mean(), _NARROW_TOLERANCE)
    ),
  )


def _served_outputs(name: str, folder: str | os.PathLike, hu: np.ndarray):
  """Signature name -> outputs by name, for every signature of a model."""
  try:
    with contextlib.closing(servable.Servable(folder)) as served:
      predict.check(served)
      return {
        key: answer(served, key, {'hu': hu} if signature.inputs else {})
        for key, signature in contract.SIGNATURES[name].items()
      }
  except refusal.Refusal as error:
    raise errors.ModelError(
      f'export of {name} must run as a server runs it, found: {error}; nothing '
      'was exported.'
    ) from error


def fixed_batch() -> np.ndarray:
  """int16 [2, 150, 180]: noisy blobs of HU from air to bone, the same each time."""
  random = np.random.default_rng(0)
  coarse = random.uniform(-1024, 600, (_BATCH_SHAPE[0], 10, 12))
  blobs = preprocessing.resize(tf.constant(coarse, tf.float32), *_BATCH_SHAPE[1:])
  return (np.asarray(blobs) + random.normal(0, 40, _BATCH_SHAPE)).astype(np.int16)


def _compare(where: str, found, required, dtype: str) -> None:
  if found.dtype != np.dtype(dtype) or found.shape != required.shape:
    raise errors.ModelError(
      f'{where} must be {dtype} {list(required.shape)}, found {found.dtype} '
      f'{list(found.shape)}; nothing was exported.'
    )
  if dtype == 'float32':
    _require(where, np.max(np.abs(found - required)), TOLERANCE)
  else:  # A text, or a mask: its pixels at the very threshold may turn.
    _require(where, np.mean(found != required), TOLERANCE)


def _require(where: str, difference: float, tolerance: float) -> None:
  if not difference <= tolerance:  # Also for NaN.
    raise errors.ModelError(
      f'{where} must equal the Keras model within {tolerance:g}, found a '
      f'difference of {difference:g}; nothing was exported.'
    )
