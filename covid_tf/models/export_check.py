"""Does an export, loaded as a server loads it, give what the Keras model gives?"""

from collections.abc import Callable, Iterator
import contextlib
import os

import keras
import numpy as np
import tensorflow as tf

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import preprocessing
from covid_tf.models import signatures

# The design's bound for another process or server.
TOLERANCE = 1e-5
# What the last bits of a narrower type may do to a probability or a map.
_NARROW_TOLERANCE = {'float32': TOLERANCE, 'bfloat16': 0.1, 'float16': 0.02}
_BATCH_SHAPE = (2, 150, 180)  # No side is a multiple or a power of anything near.


@contextlib.contextmanager
def served(folder: str | os.PathLike) -> Iterator[Callable]:
  """Loads a SavedModel in a TF1 session, as TF Serving does.

  Args:
    folder: the SavedModel.

  Yields:
    Function from a signature's name and its input tensors by name to its outputs.
  """
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    loaded = tf.compat.v1.saved_model.load(
        session, [tf.saved_model.SERVING], os.fspath(folder))

    def run(signature_name, inputs):
      signature = loaded.signature_def[signature_name]
      outputs = {name: info.name for name, info in signature.outputs.items()}
      return session.run(outputs, {
          signature.inputs[name].name: value for name, value in inputs.items()})

    yield run


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
               spec.dtype, TOLERANCE)
  if name == contract.LUNGS_MODEL:
    probability = found[contract.PROBABILITY]['lung_probability']
    logits = model(preprocessing.lung_input(hu), training=False)[..., 0]
  else:
    probability = found[contract.SERVING_DEFAULT]['covid_probability']
    logits = model(preprocessing.classifier_input(hu), training=False)[:, 0]
  _compare(f'export of {name}, probability', probability,
           np.asarray(tf.sigmoid(logits)), 'float32',
           _NARROW_TOLERANCE[compute_dtype])


def _served_outputs(name: str, folder: str | os.PathLike, hu: np.ndarray):
  """Signature name -> outputs by name, for every signature of a model."""
  with served(folder) as run:
    return {signature_name: run(signature_name, {'hu': hu} if spec.inputs else {})
            for signature_name, spec in contract.SIGNATURES[name].items()}


def fixed_batch() -> np.ndarray:
  """int16 [2, 150, 180]: noisy blobs of HU from air to bone, the same each time."""
  random = np.random.default_rng(0)
  coarse = random.uniform(-1024, 600, (_BATCH_SHAPE[0], 10, 12))
  blobs = preprocessing.resize(tf.constant(coarse, tf.float32), *_BATCH_SHAPE[1:])
  return (np.asarray(blobs) + random.normal(0, 40, _BATCH_SHAPE)).astype(np.int16)


def _compare(where: str, found, required, dtype: str, tolerance: float) -> None:
  if found.dtype != np.dtype(dtype) or found.shape != required.shape:
    raise errors.ModelError(
        f'{where} must be {dtype} {list(required.shape)}, found {found.dtype} '
        f'{list(found.shape)}.')
  if dtype == 'object':
    same = found.tolist() == required.tolist()
    difference = 'another text'
  elif dtype == 'uint8':  # A mask: pixels at the very threshold may turn.
    difference = float(np.mean(found != required))
    same = difference <= tolerance
  else:
    difference = float(np.max(np.abs(found - required)))
    same = difference <= tolerance  # Also false for NaN.
  if not same:
    raise errors.ModelError(
        f'{where} must equal the Keras model within {tolerance:g}, found a '
        f'difference of {difference}; nothing was exported.')
