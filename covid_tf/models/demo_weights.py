"""The weights that come with the package: for demonstration, tests and benchmarks.

They were trained on phantoms and on lesions implanted into a few normal chests;
docs/model_cards.md says what that is worth. Nobody's care may depend on them.
"""

import json
import pathlib

import keras

from covid_tf import errors
from covid_tf.models import classifier
from covid_tf.models import lung_unet
from covid_tf.models import weights_file

_FOLDER = pathlib.Path(__file__).with_name('weights')
_LUNGS = 'lungs'
_CLASSIFIER = 'classifier'


def load_lung_unet() -> keras.Model:
  """The lung U-Net with demo weights.

  Raises:
    errors.ModelError: the weights are absent or damaged.
  """
  return _with_weights(lung_unet.build(), _LUNGS)


def load_classifier() -> keras.Model:
  """The slice classifier with demo weights.

  Raises:
    errors.ModelError: the weights are absent or damaged.
  """
  return _with_weights(classifier.build(), _CLASSIFIER)


def training_cards() -> dict[str, dict]:
  """What each network ('lungs', 'classifier') was trained on and reached."""
  try:
    return json.loads((_FOLDER / 'training.json').read_text())
  except OSError as error:
    raise errors.ModelError(
        'training.json of the demo weights is required, found none; install the '
        'package again.') from error


def save(model: keras.Model, name: str, folder: pathlib.Path = _FOLDER) -> str:
  """Encodes a network's weights as `<name>.weights`; returns the SHA-256."""
  return weights_file.save(folder / f'{name}.weights', _named_weights(model))


def _with_weights(model: keras.Model, name: str) -> keras.Model:
  sha256 = training_cards()[name]['weights_sha256']
  tensors = weights_file.load(_FOLDER / f'{name}.weights', sha256)
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
