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

FOLDER = pathlib.Path(__file__).with_name('weights')
_LUNGS = 'lungs'
_CLASSIFIER = 'classifier'


def load_lung_unet(folder: pathlib.Path = FOLDER) -> keras.Model:
  """The lung U-Net with demo weights.

  Raises:
    errors.ModelError: the weights are absent or damaged.
  """
  return _with_weights(lung_unet.build(), _LUNGS, folder)


def load_classifier(folder: pathlib.Path = FOLDER) -> keras.Model:
  """The slice classifier with demo weights.

  Raises:
    errors.ModelError: the weights are absent or damaged.
  """
  return _with_weights(classifier.build(), _CLASSIFIER, folder)


def training_cards(folder: pathlib.Path = FOLDER) -> dict[str, dict]:
  """What each network ('lungs', 'classifier') was trained on and reached."""
  try:
    return json.loads((folder / 'training.json').read_text())
  except OSError as error:
    raise errors.ModelError(
        'training.json of the demo weights is required, found none; install the '
        'package again.') from error


def save(model: keras.Model, name: str, folder: pathlib.Path = FOLDER) -> str:
  """Encodes a network's weights as `<name>.weights`; returns the SHA-256."""
  return weights_file.save(folder / f'{name}.weights', _named_weights(model))


def _with_weights(
    model: keras.Model, name: str, folder: pathlib.Path) -> keras.Model:
  sha256 = training_cards(folder)[name]['weights_sha256']
  tensors = weights_file.load(folder / f'{name}.weights', sha256)
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
