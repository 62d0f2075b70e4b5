"""The model card: what a network is, wherever it goes.

It travels in the export (`assets.extra/card.json`) for people, and as a constant
of the graph (signature `card`) for clients, byte by byte the same.
"""

import hashlib
import json
import os
import pathlib

import keras
import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf.models import preprocessing
from covid_tf.models import signatures
from covid_tf.version import __version__

INTENDED_USE = 'research use only'

_PREPROCESSING = {
    contract.LUNGS_MODEL: preprocessing.LUNGS,
    contract.CLASSIFIER_MODEL: preprocessing.CLASSIFIER,
}


def make_card(name: str, model: keras.Model, training: dict) -> dict:
  """Describes a trained network.

  Args:
    name: a model name of the contract.
    model: the network, as trained.
    training: what it was trained on and how it did, in JSON's types.

  Returns:
    The card, in JSON's types.
  """
  inputs = _PREPROCESSING[name]
  return {
      'name': name,
      'intended_use': INTENDED_USE,
      'required_input': contract.REQUIRED_INPUT[name],
      'architecture': model.name,
      'parameters': model.count_params(),
      'weights_sha256': weights_sha256(model),
      'compute_dtype': 'float32',
      'window_hu': list(inputs.window_hu),
      'input_size': inputs.size,
      'low_pass_sigma': inputs.low_pass_sigma,
      'thresholds': _thresholds(name),
      'training': training,
      'package': f'covid_tf {__version__}',
  }


def to_json(card: dict) -> str:
  """The card as text: the same bytes for the same card."""
  return json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False) + '\n'


def read_training(path: str | os.PathLike) -> dict[str, dict]:
  """Reads what networks were trained on, as a person wrote it down.

  Args:
    path: JSON: an object, by the contract's names of models.

  Returns:
    An object for each network that the file names.

  Raises:
    errors.UsageError: there is no such file, or it holds something else.
  """
  try:
    found = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise errors.UsageError(
        f'{path}: a JSON file is required, found {error}.') from error
  entries = found.values() if isinstance(found, dict) else [found]
  if not isinstance(found, dict) or not all(isinstance(e, dict) for e in entries):
    raise errors.UsageError(
        f"{path}: an object with objects 'lungs' and 'classifier' in it is required, "
        'found other JSON; say in each what the network was trained on.')
  return found


def weights_sha256(model: keras.Model) -> str:
  """Hex SHA-256 over all weights in the model's order, as little-endian float32.

  Each array is preceded by its shape, so that no two different sets of arrays
  run together to the same bytes.
  """
  digest = hashlib.sha256()
  for array in model.get_weights():
    digest.update(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array, '<f4').tobytes())
  return digest.hexdigest()


def _thresholds(name: str) -> dict[str, float]:
  if name == contract.LUNGS_MODEL:
    return {'lung_probability': signatures.LUNG_PROBABILITY_THRESHOLD}
  return {'slice_probability': results.Thresholds.slice_probability,
          'map': results.Thresholds.map}
