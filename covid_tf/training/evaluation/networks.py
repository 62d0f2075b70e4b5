"""Networks to evaluate: demo weights, a training's weights, or an export.

All answer through the functions that are served, so an evaluation says what a server
with these weights would.
"""

from collections.abc import Callable
import os
import pathlib

import numpy as np
import tensorflow as tf

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import signatures
from covid_tf.models import trained

_BATCH = 16


def load(name: str, source: str | os.PathLike) -> Callable[[np.ndarray], np.ndarray]:
  """Loads a network.

  Args:
    name: a model name of the contract.
    source: 'demo'; a run's folder or .weights.h5 file; or an export: the folder
      that holds `<name>/<version>`, `<name>` itself, or a version's folder.

  Returns:
    A function: int16 [N, h, w] in HU to uint8 [N, h, w] masks (lungs) or to float32
    [N] probabilities (classifier).

  Raises:
    errors.UsageError, errors.ModelError: there is no such network.
  """
  output = contract.SIGNATURES[name][contract.SERVING_DEFAULT].outputs[0].name
  if (export := _version_folder(name, pathlib.Path(source))) is not None:
    ask = _exported(export)
  else:
    model, _ = trained.load(name, source)
    # One trace for all sizes: studies differ in theirs.
    ask = tf.function(
        signatures.SIGNATURES[name](model, '')[contract.SERVING_DEFAULT],
        input_signature=[tf.TensorSpec([None, None, None], tf.int16, 'hu')])

  def answer(hu: np.ndarray) -> np.ndarray:
    parts = [ask(hu=tf.constant(np.ascontiguousarray(hu[first:first + _BATCH])))
             for first in range(0, len(hu), _BATCH)]
    return np.concatenate([part[output].numpy() for part in parts])

  return answer


def _exported(folder):
  try:
    loaded = tf.saved_model.load(str(folder))
    ask = loaded.signatures[contract.SERVING_DEFAULT]
  except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
    raise errors.ModelError(
        f'{folder}: an exported model is required, found one that cannot be loaded '
        f'({type(error).__name__}); export it again.') from error
  ask.covid_tf_keeps = loaded  # A signature does not hold its variables.
  return ask


def _version_folder(name, source) -> pathlib.Path | None:
  """The highest version of an export, or None where `source` is none."""
  for folder in (source / name, source):
    versions = [path for path in (folder.iterdir() if folder.is_dir() else ())
                if path.name.isdecimal() and (path / 'saved_model.pb').is_file()]
    if versions:
      return max(versions, key=lambda path: int(path.name))
  return source if (source / 'saved_model.pb').is_file() else None
