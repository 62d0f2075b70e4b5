"""The weights that come with the package: for demonstration, tests and benchmarks.

They were trained on phantoms and on lesions implanted into a few normal chests;
docs/model_cards.md says what that is worth. Nobody's care may depend on them.
"""

import json
import pathlib

import keras

from covid_tf import errors
from covid_tf import files
from covid_tf.models import cards
from covid_tf.models import weights_file

FOLDER = pathlib.Path(__file__).with_name('weights')
_CARDS = 'training.json'


def training_cards(folder: pathlib.Path = FOLDER) -> dict[str, dict]:
  """What each network ('lungs', 'classifier') was trained on and reached."""
  try:
    return json.loads((folder / _CARDS).read_text())
  except OSError as error:
    raise errors.ModelError(
        f'{_CARDS} of the demo weights is required, found none; install the '
        'package again.') from error


def save(model: keras.Model, name: str, card: dict, folder: pathlib.Path) -> None:
  """Encodes one network's weights as `<name>.weights`, and its entry in the card.

  Args:
    model: the network.
    name: 'lungs' or 'classifier'.
    card: what it was trained on; its SHA-256 is added.
    folder: holds both networks, or will; the other's entry stays.
  """
  found = training_cards(folder) if (folder / _CARDS).exists() else {}
  sha256 = weights_file.save(folder / f'{name}.weights', _named_weights(model))
  found[name] = card | {'weights_sha256': sha256}
  files.write_atomically(folder / _CARDS, cards.to_json(found).encode())


def assign(
    model: keras.Model, name: str, folder: pathlib.Path = FOLDER) -> keras.Model:
  """Puts the demo weights into a network, of any input size; returns it.

  Args:
    model: a network of the architecture.
    name: 'lungs' or 'classifier'.
    folder: where they are.

  Raises:
    errors.ModelError: the weights are absent or damaged.
  """
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
