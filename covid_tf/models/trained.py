"""A trained network from a run's folder or from a weights file."""

from collections.abc import Callable, Mapping
import os
import pathlib
import types

import keras

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import classifier
from covid_tf.models import lung_unet

FINAL_WEIGHTS = 'final.weights.h5'  # As the training scripts leave them.
_FLAGS = 'flags.txt'

_BUILD: Mapping[str, Callable] = types.MappingProxyType({
    contract.LUNGS_MODEL: lung_unet.build,
    contract.CLASSIFIER_MODEL: classifier.build,
})


def load(name: str, source: str | os.PathLike) -> tuple[keras.Model, dict]:
  """Loads a trained network.

  Args:
    name: a model name of the contract.
    source: the folder of a finished run, or a Keras weights file (.weights.h5).

  Returns:
    (model, training): the network, and what the run's folder says of its
    training; {} for a bare weights file.

  Raises:
    errors.UsageError: no weights there, or those of another network.
  """
  source = pathlib.Path(source)
  weights = source / FINAL_WEIGHTS if source.is_dir() else source
  if not weights.is_file():
    raise errors.UsageError(
        f'{weights}: weights of the {name} network are required, found no such file; '
        'finish the run, or name a .weights.h5 file.')
  model = _BUILD[name]()
  try:
    model.load_weights(weights)
  except (KeyError, OSError, ValueError) as error:
    raise errors.UsageError(
        f'{weights}: weights of the {name} network ({model.name}, '
        f'{model.count_params():,} parameters) are required, found another file or '
        'another network; give the file that its training wrote.') from error
  return model, _training(source)


def _training(source: pathlib.Path) -> dict:
  flags = source / _FLAGS
  if not flags.is_file():
    return {}
  lines = flags.read_text(encoding='utf-8').splitlines()
  # The switches without a value are all absl's own: --nohelp and its like.
  return {'flags': [line for line in lines if '=' in line]}
