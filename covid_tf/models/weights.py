"""Weights of the networks: in files of ours, in runs, and those of the demo."""

from collections.abc import Callable, Mapping
import hashlib
import json
import os
import pathlib
import struct
import types
import zlib

import keras
import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import networks
from covid_tf.models import signatures
from covid_tf.storage import files

# Weights in about a fifth of their size: quantized by channel, then entropy coded.
#
# A file is eight magic bytes, the length of a JSON index (uint32, little endian),
# the index, and one zlib stream for all tensors in the index's order. A tensor of
# one axis is float32. One of more axes is int8 levels, each times the step of its
# last axis's channel; the steps (float32) come before the levels. A step is a fixed
# share of the channel's standard deviation, so each channel gets the same relative
# noise and about the same bits a weight. Levels have no repeats to find: zlib is
# set to use Huffman codes alone, which is fast and comes near their entropy.

_MAGIC = b'CTFWGT01'
# Ours: noise of 0.04 / sqrt(12) = 1.2 % of a weight's deviation, 6.9 bits a
# weight. tools/encode_weights.py prints what it does to the networks' answers.
STEP_PER_DEVIATION = 0.04
_MAX_LEVEL = 127


def save_file(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> str:
  """Writes float tensors by name; returns the file's SHA-256 (hex)."""
  index = [{'name': name, 'shape': tensor.shape} for name, tensor in tensors.items()]
  header = json.dumps(index, separators=(',', ':')).encode()
  coder = zlib.compressobj(level=9, strategy=zlib.Z_HUFFMAN_ONLY)
  body = [coder.compress(_encode(tensor)) for tensor in tensors.values()]
  data = b''.join(
    [_MAGIC, struct.pack('<I', len(header)), header, *body, coder.flush()]
  )
  files.write_atomically(path, data)
  return hashlib.sha256(data).hexdigest()


def load_file(path: pathlib.Path, sha256: str) -> dict[str, np.ndarray]:
  """Reads float32 tensors by name.

  Args:
    path: a file that `save` wrote.
    sha256: the hex digest it must have.

  Raises:
    errors.ModelError: the file is absent, or is not the one the digest names.
  """
  try:
    data = path.read_bytes()
  except OSError as error:
    raise errors.ModelError(
      f'{path.name}: the weights that come with the package are required, found '
      f'none ({error.strerror}); install the package again.'
    ) from error
  found = hashlib.sha256(data).hexdigest()
  if found != sha256:
    raise errors.ModelError(
      f'{path.name}: SHA-256 {sha256} is required, found {found}; the file is '
      'damaged: install the package again.'
    )
  start = len(_MAGIC) + 4
  (length,) = struct.unpack('<I', data[len(_MAGIC) : start])
  index = json.loads(data[start : start + length])
  return _decode_all(index, zlib.decompress(data[start + length :]))


def _encode(tensor: np.ndarray) -> bytes:
  tensor = np.asarray(tensor, np.float32)
  if tensor.ndim < 2:
    return tensor.astype('<f4').tobytes()
  channels = tensor.reshape(-1, tensor.shape[-1])
  # The largest weight must fit the levels, whatever the deviation says.
  steps = np.maximum(
    STEP_PER_DEVIATION * channels.std(axis=0), np.abs(channels).max(axis=0) / _MAX_LEVEL
  )
  steps = np.where(steps > 0, steps, 1).astype('<f4')
  levels = np.rint(channels / steps).astype(np.int8)
  return steps.tobytes() + levels.tobytes()


def _decode_all(index: list[dict], body: bytes) -> dict[str, np.ndarray]:
  tensors, offset = {}, 0
  for entry in index:
    shape = tuple(entry['shape'])
    count = int(np.prod(shape))
    if len(shape) < 2:
      tensor = np.frombuffer(body, '<f4', count, offset)
      offset += tensor.nbytes
    else:
      steps = np.frombuffer(body, '<f4', shape[-1], offset)
      offset += steps.nbytes
      levels = np.frombuffer(body, np.int8, count, offset)
      offset += levels.nbytes
      tensor = levels.reshape(-1, shape[-1]) * steps
    tensors[entry['name']] = tensor.reshape(shape).astype(np.float32)
  return tensors


# The weights that come with the package: for demonstration, tests and benchmarks.
#
# They were trained on phantoms and on lesions implanted into a few normal chests;
# docs/model_cards.md has their metrics. Nobody's care may depend on them.

DEMO_FOLDER = pathlib.Path(__file__).with_name('weights')
_CARDS = 'training.json'


def training_cards(folder: pathlib.Path = DEMO_FOLDER) -> dict[str, dict]:
  """What each network ('lungs', 'classifier') was trained on and reached."""
  try:
    return json.loads((folder / _CARDS).read_text('utf-8'))
  except OSError as error:
    raise errors.ModelError(
      f'{_CARDS} of the demo weights is required, found none; install the '
      'package again.'
    ) from error


def save_demo_weights(
  model: keras.Model, name: str, card: dict, folder: pathlib.Path
) -> None:
  """Encodes one network's weights as `<name>.weights`, and its entry in the card.

  Args:
    model: the network.
    name: 'lungs' or 'classifier'.
    card: what it was trained on; its SHA-256 is added.
    folder: holds both networks, or will; the other's entry stays.
  """
  found = training_cards(folder) if (folder / _CARDS).exists() else {}
  sha256 = save_file(folder / f'{name}.weights', _named_weights(model))
  found[name] = card | {'weights_sha256': sha256}
  files.write_atomically(folder / _CARDS, signatures.card_json(found).encode())


def assign_demo_weights(
  model: keras.Model, name: str, folder: pathlib.Path = DEMO_FOLDER
) -> keras.Model:
  """Puts the demo weights into a network, of any input size; returns it.

  Args:
    model: a network of the architecture.
    name: 'lungs' or 'classifier'.
    folder: where they are.

  Raises:
    errors.ModelError: the weights are absent or damaged.
  """
  sha256 = training_cards(folder)[name]['weights_sha256']
  tensors = load_file(folder / f'{name}.weights', sha256)
  for key, variable in _variables(model):
    variable.assign(tensors[key])
  return model


def _named_weights(model: keras.Model) -> dict:
  return {key: variable.numpy() for key, variable in _variables(model)}


def _variables(model: keras.Model):
  """(key, variable) pairs; layer names are the backbone's own, so they last."""
  for layer in model.layers:
    for variable in layer.weights:
      yield f'{layer.name}/{variable.name}', variable


# A trained network from a run's folder, a weights file, or the demo weights.

# The weights that come with the package. A folder of this name is './demo'.
DEMO = 'demo'
# As a training leaves them, when it has ended and at every checkpoint; and what it
# was asked to do.
FINAL_WEIGHTS = 'final.weights.h5'
LATEST_WEIGHTS = 'latest.weights.h5'
CONFIGURATION = 'configuration.json'

_BUILD: Mapping[str, Callable] = types.MappingProxyType(
  {
    contract.LUNGS_MODEL: networks.build_lung_unet,
    contract.CLASSIFIER_MODEL: networks.build_classifier,
  }
)


def load_network(name: str, source: str | os.PathLike) -> tuple[keras.Model, dict]:
  """Loads a trained network.

  Args:
    name: a model name of the contract.
    source: the folder of a finished run, a Keras weights file (.weights.h5), or
      'demo'.

  Returns:
    (model, training): the network, and what the run's folder, or the demo weights'
    card, says of its training; {} for a bare weights file.

  Raises:
    errors.UsageError: no weights there, or those of another network.
    errors.ModelError: the demo weights are absent or damaged.
  """
  model = _BUILD[name]()
  load_weights(model, source, name)
  return model, _training(name, source)


def load_weights(model: keras.Model, source: str | os.PathLike, name: str) -> None:
  """Puts trained weights into a network of the same architecture.

  Args:
    model: the network; another input size than the weights had is no matter.
    source: as in `load`.
    name: what messages call the network.

  Raises:
    errors.UsageError: no weights there, or those of another network.
    errors.ModelError: the demo weights are absent or damaged.
  """
  if source == DEMO:
    assign_demo_weights(model, name)
    return
  source = pathlib.Path(source)
  weights = source / FINAL_WEIGHTS if source.is_dir() else source
  if not weights.is_file():
    raise errors.UsageError(
      f'{weights}: weights of the {name} network are required, found no such '
      'file; finish the run, or name a .weights.h5 file.'
    )
  try:
    model.load_weights(weights)
  except (KeyError, OSError, ValueError) as error:
    raise errors.UsageError(
      f'{weights}: weights of the {name} network ({model.name}, '
      f'{model.count_params():,} parameters) are required, found another file or '
      'another network; give the file that its training wrote.'
    ) from error


# Ours: a probability further from 0.5 is next to 0 or 1 in float32.
_LARGEST_SHIFT = 16.0


def shift_logit(
  model: keras.Model, training: dict, shift: float, source: str = ''
) -> dict:
  """Moves the operating point of a classifier to 0.5, by the bias of its logit.

  Every signature follows, since none of them knows another logit; Grad-CAM does not
  change, since a constant has no gradient.

  Args:
    model: of `networks.build_classifier`; changed.
    training: what its card says; a shift in it is one that the weights have already.
    shift: added to the logit: that of the threshold that becomes 0.5, negated.
    source: where it was chosen, for people.

  Returns:
    `training` with `logit_shift`, all that was added since training, and
    `logit_shift_source`.

  Raises:
    errors.UsageError: it is no shift.
  """
  total = float(training.get('logit_shift', 0.0)) + shift
  if not abs(total) <= _LARGEST_SHIFT:
    raise errors.UsageError(
      f'logit_shift: a number of at most {_LARGEST_SHIFT:g} on either side of 0 is '
      f'required, found {total:g}.'
    )
  bias = model.get_layer(networks.LOGIT_LAYER).bias
  bias.assign_add([shift])
  sources = (training.get('logit_shift_source'), source)
  return training | {
    'logit_shift': total,
    'logit_shift_source': '; '.join(filter(None, sources)) or 'not stated',
  }


def save_weights(model: keras.Model, path: pathlib.Path) -> None:
  """Writes weights whole or not at all."""
  with files.replacing(path) as temporary:
    model.save_weights(temporary)


def _training(name: str, source: str | os.PathLike) -> dict:
  if source == DEMO:
    # Said in the card of an export, so that results from it say so too.
    return training_cards()[name] | {'demo_weights': True}
  path = pathlib.Path(source) / CONFIGURATION
  return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
