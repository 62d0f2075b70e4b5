"""A trained network to a numbered SavedModel that a TF Serving can load.

The export is written under a temporary name, loaded as a server loads it and
compared with the Keras model; only then does it get its version number.
"""

import os
import pathlib

import keras
import tensorflow as tf

from covid_tf import contract
from covid_tf import errors
from covid_tf import files
from covid_tf.models import additions
from covid_tf.models import cards
from covid_tf.models import concurrency
from covid_tf.models import export_check
from covid_tf.models import folding
from covid_tf.models import precision
from covid_tf.models import reference_answers
from covid_tf.models import signatures
from covid_tf.models import warm_up

# TF Serving hands out what lies here no more than the assets; it only reads the
# warm-up requests. Its name and the file's are fixed by the server.
_EXTRA_FOLDER = 'assets.extra'
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
    model: the trained network, as `lung_unet.build` or `classifier.build` makes
      it; left as it is.
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
        'Choose another number, or none for the next one.')
  card = cards.make_card(name, model, training) | {'compute_dtype': compute_dtype}
  functions = signatures.SIGNATURES[name](
      for_serving(model, compute_dtype), cards.to_json(card))
  exact = functions if compute_dtype == 'float32' else signatures.SIGNATURES[name](
      for_serving(model), cards.to_json(card))
  functions[contract.SELF_CHECK] = reference_answers.self_check(name, exact)
  with files.replacing_directory(target) as temporary:
    _write(name, functions, temporary)
    extra = temporary / _EXTRA_FOLDER
    extra.mkdir()
    (extra / CARD_FILE).write_text(cards.to_json(card), encoding='utf-8')
    warm_up.write_requests(extra / warm_up.FILE_NAME, name)
    concurrency.check(name, temporary)
    export_check.check(name, temporary, model, functions, compute_dtype)
  return target


def for_serving(model: keras.Model, compute_dtype: str = 'float32') -> keras.Model:
  """The network as it is exported: the same function, in fewer and faster ops."""
  return additions.apart_from_convolutions(precision.with_compute_dtype(
      folding.fold_batch_norm(model), compute_dtype))


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
        signature_name, function, signatures.input_signature(name, signature_name))
  # No source paths of this machine in the graph's nodes.
  options = tf.saved_model.SaveOptions(experimental_debug_stripper=True)
  archive.write_out(os.fspath(folder), options=options, verbose=False)
