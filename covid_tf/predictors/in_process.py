"""Both networks in this process, from the SavedModels that a server would load."""

from collections.abc import Iterator
from concurrent import futures
import contextlib
import importlib.util
import os
import pathlib

import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf.predictors import answers
from covid_tf.predictors import batches
from covid_tf.predictors import demo_cache
from covid_tf.predictors import identity
from covid_tf.predictors import networks
from covid_tf.predictors import self_check as self_check_lib
from covid_tf.predictors import tensorflow_defaults

# Batches that run side by side, as many as a client keeps in flight: while one
# waits for a step that cannot be spread over the processors, the other works.
_AT_ONCE = 2


def load_models(
    directory: str | os.PathLike | None = None, *,
    batch_bytes: int = batches.BATCH_BYTES,
    self_check: bool = True) -> 'LoadedModels':
  """Loads both networks into this process.

  They run as a server runs them, in the same batches: the answers are the same.

  Args:
    directory: holds lungs/VERSION and classifier/VERSION; the highest version of
      each is taken. None: the demo models that come with the package, exported
      once to the user's cache folder.
    batch_bytes: image bytes that a network gets at once.
    self_check: make sure that they compute right: their reference answers and a few
      batches, a second or two, once a process and model.

  Returns:
    The models; a context manager that frees them.

  Raises:
    errors.ModelError: TensorFlow is missing, there are no models of ours, or they
      compute wrong on this machine.
  """
  if importlib.util.find_spec('tensorflow') is None:
    raise errors.ModelError(
        'models in process require TensorFlow, found none; in a checkout of '
        "covid_tf: pip install '.[models-cpu]', or use a server: "
        'covid_tf.connect(...).')
  if not isinstance(directory, (str, os.PathLike, type(None))):
    raise errors.UsageError(
        'directory: a folder of exported models (str or path), or None for the demo '
        f'models, is required, found {type(directory).__name__}.')
  if batch_bytes <= 0:
    raise errors.UsageError(f'batch_bytes: required more than 0, found {batch_bytes}.')
  tensorflow_defaults.set_defaults()
  folder = pathlib.Path(
      demo_cache.demo_models() if directory is None else directory)
  return LoadedModels(folder, batch_bytes, self_check)


class LoadedModels(networks.Networks):
  """Both networks of one folder; made by `load_models`. Safe between threads."""

  def __init__(self, folder: pathlib.Path, batch_bytes: int, self_check: bool = True):
    """Loads the highest version of each network and holds it to the contract."""
    self._batch_bytes = batch_bytes
    self._servables = {}
    self._folders = {}
    self._threads = futures.ThreadPoolExecutor(_AT_ONCE, 'covid-tf-models')
    identities = []
    try:
      for model in contract.SIGNATURES:
        identities.append(self._load(folder, model))
        if self_check:
          self._check(identities[-1])
    except BaseException:
      self.close()
      raise
    self._identities = tuple(identities)

  def __enter__(self) -> 'LoadedModels':
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def close(self) -> None:
    """Frees the networks."""
    self._threads.shutdown(cancel_futures=True)
    for servable in self._servables.values():
      servable.close()
    self._servables = {}

  def identities(self) -> tuple[results.ModelIdentity, ...]:
    """Who answers, lungs first."""
    return self._identities

  def study(self) -> contextlib.AbstractContextManager['LoadedModels']:
    """Itself: what is loaded stays the same version."""
    return contextlib.nullcontext(self)

  def _load(self, folder, model) -> results.ModelIdentity:
    # Here, because this is where TensorFlow comes in.
    from covid_tf.server import refusal
    from covid_tf.server import servable
    from covid_tf.server import version_folders

    try:
      on_disk = version_folders.versions_on_disk(folder / model)
    except OSError:
      on_disk = {}
    if not on_disk:
      raise errors.ModelError(
          f'{folder / model}: required a numbered folder with saved_model.pb, found '
          'none; export models there, or leave the folder out for the demo models.')
    version = max(on_disk)
    self._folders[model] = on_disk[version]
    try:
      loaded = self._servables[model] = servable.Servable(on_disk[version])
      identity.check_signatures(str(on_disk[version]), model, loaded.signatures)
      (card,) = self._run(model, contract.CARD, {}).values()
    except refusal.Refusal as error:
      raise errors.ModelError(
          f'{on_disk[version]}: cannot be loaded: {_one_line(error)}; export the model '
          'again.') from error
    return identity.read_card(str(folder), model, version, card)

  def self_check(self, model: str) -> dict[str, np.ndarray] | None:
    """Reference slices and answers of a model; None where it has none.

    Raises:
      errors.ModelError: they are damaged.
    """
    if not identity.has_self_check(model, self._servables[model].signatures):
      return None
    return answers.check_reference(
        str(self._folders[model]), model, self._run(model, contract.SELF_CHECK, {}))

  def _check(self, known: results.ModelIdentity) -> None:
    # Here, as in `_load`.
    from covid_tf.server import version_folders
    from covid_tf.server import warm_up

    folder = self._folders[known.name]
    self_check_lib.check_short(
        str(folder), self, known, key=(version_folders.fingerprint(folder),),
        may_be_narrower=warm_up.computes_on_gpu())

  def answers(self, model, signature, hu) -> Iterator:
    """See `networks.Networks.answers`."""
    from covid_tf.server import refusal

    source = str(self._folders[model])

    def ask(piece):
      part = np.ascontiguousarray(hu[piece.start:piece.stop])
      try:
        outputs = self._run(model, signature, {'hu': part})
      except refusal.Refusal as error:
        raise errors.ModelError(
            f'{source}: signature {signature}, slices {piece.start} to '
            f'{piece.stop - 1}: {_one_line(error)}.') from error
      return answers.check(source, model, signature, outputs, part.shape, piece.start)

    yield from batches.in_order(
        batches.ranges(hu.shape, self._batch_bytes), _AT_ONCE,
        lambda piece: self._threads.submit(ask, piece),
        lambda _, future: future.result(), lambda future: future.cancel())

  def _run(self, model, name, inputs) -> dict[str, np.ndarray]:
    signature = self._servables[model].signatures[name]
    named = contract.SELF_CHECKS[model] if name == contract.SELF_CHECK else (
        contract.SIGNATURES[model][name])
    outputs = [spec.name for spec in named.outputs]
    arrays = self._servables[model].run(
        {signature.inputs[key].name: value for key, value in inputs.items()},
        [signature.outputs[key].name for key in outputs])
    return dict(zip(outputs, arrays, strict=True))


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split())[:300]
