"""A trained network from a run's folder, a weights file, or the demo weights."""

from collections.abc import Callable, Mapping
import json
import os
import pathlib
import types

import keras

from covid_tf import contract
from covid_tf import errors
from covid_tf import files
from covid_tf.models import classifier
from covid_tf.models import demo_weights
from covid_tf.models import lung_unet

# The weights that come with the package. A folder of this name is './demo'.
DEMO = 'demo'
# As a training leaves them, when it has ended and at every checkpoint; and what it
# was asked to do.
FINAL_WEIGHTS = 'final.weights.h5'
LATEST_WEIGHTS = 'latest.weights.h5'
CONFIGURATION = 'configuration.json'

_BUILD: Mapping[str, Callable] = types.MappingProxyType({
    contract.LUNGS_MODEL: lung_unet.build,
    contract.CLASSIFIER_MODEL: classifier.build,
})


def load(name: str, source: str | os.PathLike) -> tuple[keras.Model, dict]:
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
    demo_weights.assign(model, name)
    return
  source = pathlib.Path(source)
  weights = source / FINAL_WEIGHTS if source.is_dir() else source
  if not weights.is_file():
    raise errors.UsageError(
        f'{weights}: weights of the {name} network are required, found no such '
        'file; finish the run, or name a .weights.h5 file.')
  try:
    model.load_weights(weights)
  except (KeyError, OSError, ValueError) as error:
    raise errors.UsageError(
        f'{weights}: weights of the {name} network ({model.name}, '
        f'{model.count_params():,} parameters) are required, found another file or '
        'another network; give the file that its training wrote.') from error


def save_weights(model: keras.Model, path: pathlib.Path) -> None:
  """Writes weights whole or not at all."""
  with files.replacing(path) as temporary:
    model.save_weights(temporary)


def _training(name: str, source: str | os.PathLike) -> dict:
  if source == DEMO:
    # Said in the card of an export, so that results from it say so too.
    return demo_weights.training_cards()[name] | {'demo_weights': True}
  path = pathlib.Path(source) / CONFIGURATION
  return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
