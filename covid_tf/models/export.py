"""A trained network to a numbered SavedModel that a TF Serving can load.

The export is written under a temporary name, loaded as a server loads it and
compared with the Keras model; only then does it get its version number.
"""

import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import export_check
from covid_tf.models import rewrites
from covid_tf.models import signatures
from covid_tf.models import weights
from covid_tf.predictors import protocol
from covid_tf.predictors import tensors
from covid_tf.storage import files

# Requests that a server replays when it loads a model, before it says it is ready.
#
# TensorFlow plans and tunes a graph at its first runs; with these the first study
# does not wait for that. Format: a TFRecord of PredictionLog under
# assets.extra/tf_serving_warmup_requests.

_AIR_HU = -1000
# A whole slice of the usual matrix, and a lung crop of the usual size.
_SLICE_SHAPE = {
  contract.LUNGS_MODEL: (1, 512, 512),
  contract.CLASSIFIER_MODEL: (1, 256, 352),
}


def write_warm_up_requests(path: str | os.PathLike, model_name: str) -> None:
  """Writes one request for every signature of a model that takes slices."""
  with tf.io.TFRecordWriter(os.fspath(path)) as writer:
    for signature_name, signature in contract.SIGNATURES[model_name].items():
      if signature.inputs:
        writer.write(_log(model_name, signature_name).SerializeToString())


def _log(model_name: str, signature_name: str):
  log = protocol.PredictionLog()
  request = log.predict_log.request
  request.model_spec.name = model_name
  request.model_spec.signature_name = signature_name
  hu = np.full(_SLICE_SHAPE[model_name], _AIR_HU, np.int16)
  tensors.fill(request.inputs['hu'], hu)
  return log


CARD_FILE = 'card.json'


def export(
  name: str,
  model: keras.Model,
  directory: str | os.PathLike,
  training: dict,
  version: int | None = None,
  compute_dtype: str = 'float32',
) -> pathlib.Path:
  """Exports one network as DIRECTORY/NAME/VERSION.

  Batch normalization is folded into the convolutions on the way (exact).

  Args:
    name: a model name of the contract.
    model: the trained network, of `networks.build_lung_unet` or
      `networks.build_classifier`; left as it is.
    directory: where the models live, one folder a name.
    training: the training part of the card.
    version: number of the export; None for the next one.
    compute_dtype: 'float32', or 'bfloat16' for machines that are faster with it;
      weights and outputs stay float32.

  Returns:
    The folder of the export.

  Raises:
    errors.UsageError: the version is there already or no number, or unknown dtype.
    errors.ModelError: the export does not give what the Keras model gives, or two
      requests at once could disturb one another in it. No export is left then.
    errors.OutputError: it cannot be written.
  """
  folder = pathlib.Path(directory) / name
  if version is None:
    version = max(versions(folder), default=0) + 1
  target = folder / str(version)
  if version < 1:
    raise errors.UsageError(f'version must be 1 or more, found {version}.')
  if version in versions(folder):
    raise errors.UsageError(
      f'{target}: this version is there already; versions are never replaced. '
      'Choose another number, or none for the next one.'
    )
  card = signatures.make_card(name, model, training) | {'compute_dtype': compute_dtype}
  served = for_serving(model, compute_dtype)
  functions = signatures.SIGNATURES[name](served, signatures.card_json(card))
  if compute_dtype == 'float32':
    functions[contract.SELF_CHECK] = signatures.self_check(name, functions)
  else:
    reference = signatures.self_check(
      name, signatures.SIGNATURES[name](for_serving(model), signatures.card_json(card))
    )
    card[contract.DIFFERENCES] = signatures.differences(name, functions, reference())
    functions = signatures.SIGNATURES[name](served, signatures.card_json(card))
    functions[contract.SELF_CHECK] = reference
  with files.replacing_directory(target) as temporary:
    _write(name, functions, temporary)
    extra = temporary / contract.EXTRA_FOLDER
    extra.mkdir()
    (extra / CARD_FILE).write_text(signatures.card_json(card), encoding='utf-8')
    write_warm_up_requests(extra / contract.WARM_UP_FILE, name)
    export_check.check_concurrency(name, temporary)
    export_check.check(name, temporary, model, functions, compute_dtype)
  return target


def for_serving(model: keras.Model, compute_dtype: str = 'float32') -> keras.Model:
  """The network as it is exported: the same function, in fewer and faster ops."""
  return rewrites.apart_from_convolutions(
    rewrites.with_compute_dtype(rewrites.fold_batch_norm(model), compute_dtype)
  )


def versions(folder: pathlib.Path) -> list[int]:
  """The version numbers in a model's folder, ascending; 007 is 7, as for servers."""
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def _write(name: str, functions: dict, folder: pathlib.Path) -> None:
  # Not tf.saved_model.save of a module that holds the Keras model: that writes
  # without complaint what no server can load (the variables are not found).
  archive = keras.export.ExportArchive()
  for signature_name, function in functions.items():
    archive.add_endpoint(
      signature_name, function, signatures.input_signature(name, signature_name)
    )
  # No source paths of this machine in the graph's nodes.
  options = tf.saved_model.SaveOptions(experimental_debug_stripper=True)
  archive.write_out(os.fspath(folder), options=options, verbose=False)


# The demo networks as the SavedModels that a server or `load_models` takes.


def export_demo_models(directory: str | os.PathLike) -> pathlib.Path:
  """Exports both networks with the weights that come with the package.

  Args:
    directory: gets `lungs/1` and `classifier/1`; a version that is there
      already, from an earlier call, is kept as it is.

  Returns:
    The directory.

  Raises:
    errors.ModelError: the weights are absent or damaged.
    errors.OutputError: the directory cannot be written.
  """
  directory = pathlib.Path(directory)
  for name in (contract.LUNGS_MODEL, contract.CLASSIFIER_MODEL):
    if not (directory / name / '1').exists():
      model, training = weights.load_network(name, weights.DEMO)
      export(name, model, directory, training, version=1)
  return directory
