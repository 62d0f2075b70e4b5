"""Does an export, loaded as a server loads it, give what the Keras model gives?"""

import contextlib
import os

import keras
import numpy as np
import tensorflow as tf

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import preprocessing
from covid_tf.models import signatures
from covid_tf.server import refusal
from covid_tf.server import servable
from covid_tf.server import warm_up

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
    name: str, folder: str | os.PathLike, model: keras.Model, functions: dict,
    compute_dtype: str) -> None:
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
        input_signature=signatures.input_signature(name, signature_name))
    required = source(hu) if signature.inputs else source()
    for spec in signature.outputs:
      _compare(f'export of {name}, signature {signature_name}, output {spec.name}',
               found[signature_name][spec.name], np.asarray(required[spec.name]),
               spec.dtype)
  if name == contract.LUNGS_MODEL:
    probability = found[contract.PROBABILITY]['lung_probability']
    logit = model(preprocessing.lung_input(hu), training=False)[..., 0]
  else:
    probability = found[contract.SERVING_DEFAULT]['covid_probability']
    logit = model(preprocessing.classifier_input(hu), training=False)[:, 0]
  difference = np.abs(probability - tf.sigmoid(logit))
  _require(f'export of {name}, probability',
           *((difference.max(), TOLERANCE) if compute_dtype == 'float32' else
             (difference.mean(), _NARROW_TOLERANCE)))


def _served_outputs(name: str, folder: str | os.PathLike, hu: np.ndarray):
  """Signature name -> outputs by name, for every signature of a model."""
  try:
    with contextlib.closing(servable.Servable(folder)) as served:
      warm_up.check(served)
      return {key: answer(served, key, {'hu': hu} if signature.inputs else {})
              for key, signature in contract.SIGNATURES[name].items()}
  except refusal.Refusal as error:
    raise errors.ModelError(
        f'export of {name} must run as a server runs it, found: {error}; nothing '
        'was exported.') from error


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
        f'{list(found.shape)}; nothing was exported.')
  if dtype == 'float32':
    _require(where, np.max(np.abs(found - required)), TOLERANCE)
  else:  # A text, or a mask: its pixels at the very threshold may turn.
    _require(where, np.mean(found != required), TOLERANCE)


def _require(where: str, difference: float, tolerance: float) -> None:
  if not difference <= tolerance:  # Also for NaN.
    raise errors.ModelError(
        f'{where} must equal the Keras model within {tolerance:g}, found a '
        f'difference of {difference:g}; nothing was exported.')
