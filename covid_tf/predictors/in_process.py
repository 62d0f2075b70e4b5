"""Both networks in this process, from the SavedModels that a server would load."""

from collections.abc import Iterator
from concurrent import futures
import contextlib
import hashlib
import importlib.abc
import importlib.util
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf.predictors import answers
from covid_tf.predictors import interface
from covid_tf.predictors import self_check as self_check_lib
from covid_tf.storage import files

# The demo models as SavedModels, exported once a user and package version.

_CACHE_TAG = b'Signature: 8a477f597d28d172789f06886806bc55\n'  # bford.info/cachedir
_PREFIX = 'demo-models-'
_KEPT_S = 30 * 24 * 3600  # A month unused; an export takes 180 MB.


_log = logging.getLogger(__name__)


def demo_models() -> pathlib.Path:
  """Finds the exported demo models, or exports them.

  Returns:
    A folder with lungs/1 and classifier/1.

  Raises:
    errors.ModelError: the shipped weights are absent or damaged.
    errors.OutputError: the cache folder cannot be written.
  """
  folder = _cache_folder() / f'{_PREFIX}{_digest()}'
  if folder.is_dir():
    with contextlib.suppress(OSError):  # Maybe not ours to touch; then not to prune.
      os.utime(folder)
    return folder
  with _one_process(folder.parent):
    if not folder.is_dir():
      # Heard where nobody configures logging: a first call takes so much longer.
      _log.warning(
        'The demo models are exported to %s: 180 MB, about a minute, once.', folder
      )
      from covid_tf.models import export

      with files.replacing_directory(folder) as temporary:
        export.export_demo_models(temporary)
      _prune(folder.parent)
  return folder


def _cache_folder() -> pathlib.Path:
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(base) / 'covid-tf'


def _digest() -> str:
  """Names what an export is made of: weights, networks, contract."""
  digest = hashlib.sha256()
  package = pathlib.Path(contract.__file__).parent
  sources = [
    package / 'contract.py',
    package / 'version.py',
    *sorted((package / 'models').rglob('*')),
  ]
  for path in sources:
    if path.is_file() and path.suffix != '.pyc':
      digest.update(str(path.relative_to(package)).encode() + b'\0')
      digest.update(hashlib.sha256(path.read_bytes()).digest())
  return digest.hexdigest()[:16]


def _prune(cache: pathlib.Path) -> None:
  """Removes exports of other package versions that nobody has asked for lately."""
  for folder in cache.glob(f'{_PREFIX}*'):
    if time.time() - folder.stat().st_mtime > _KEPT_S:
      shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _one_process(folder: pathlib.Path):
  """Lets other processes wait instead of exporting the same."""
  # Backup programs leave out a folder with this file; and if it cannot be written,
  # the error is ours.
  files.write_atomically(folder / 'CACHEDIR.TAG', _CACHE_TAG)
  with open(folder / '.lock', 'wb') as lock:
    files.lock(lock, 'exporting the demo models once', wait=True)
    yield


# Settings that TensorFlow reads once, when it is imported, and its silence.
#
# TensorFlow prints startup messages on standard error while it is imported, before it
# has read its log level: that oneDNN is on, which instructions the processor has. A
# filter process reads standard error meanwhile and passes on all but such lines. It is
# a process, not a thread or a file, so that the last messages of an import that ends
# this process (a processor without AVX) are seen too.

_NAME = 'TF_CPP_MIN_LOG_LEVEL'
# Reads standard input, prints all but startup messages. The forms are Abseil's
# (I0000 00:00:1795900251.095852 24637 port.cc:153]) and TensorFlow's own before it
# (2026-11-28 21:00:00.000000: I tensorflow/core/...), of information and warnings,
# with the second lines of two of them; and the errors that every import with a GPU
# build prints, though nothing is wrong.
_FILTER = r"""
import os, re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
startup = re.compile(
    rb'WARNING: All log messages before absl::InitializeLog'
    rb'|[IW]\d{4} [\d:.]+ +\d+ [\w./]+:\d+\]'
    rb'|\d{4}-\d\d-\d\d [\d:.]+: [IW] [\w./]+:\d+\]'
    rb'|To enable the following instructions: '
    rb'|.*Unable to register cu\w+ factory: Attempting to register factory')
for line in sys.stdin.buffer:
  if not startup.match(line):
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
"""


def set_defaults() -> None:
  """Sets what its user has not set; call it before TensorFlow is imported.

  TensorFlow is then imported without its startup messages, unless the user has set
  TF_CPP_MIN_LOG_LEVEL to 0 or 1, which asks for them.
  """
  is_quiet = os.environ.get(_NAME, '2') not in ('0', '1')
  os.environ.setdefault(_NAME, '2')  # Its startup messages report no problem.
  # gRPC's notes about processes that are started while it runs.
  os.environ.setdefault('GRPC_VERBOSITY', 'ERROR')
  # oneDNN's convolutions, which TensorFlow takes by itself only on processors with
  # AVX-512: with AVX2 alone they answer in 3/4 of the time (docs/grad_cam.md).
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
  if (
    is_quiet
    and 'tensorflow' not in sys.modules
    and not any(isinstance(finder, _QuietFinder) for finder in sys.meta_path)
  ):
    sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(importlib.abc.MetaPathFinder):
  """Finds TensorFlow as Python does, and lets it be imported quietly, once."""

  def find_spec(self, name, path, target=None):
    """The usual specification, with a loader that filters; else None."""
    if name != 'tensorflow':
      return None
    others = (finder for finder in sys.meta_path if finder is not self)
    found = (finder.find_spec(name, path, target) for finder in others)
    spec = next(filter(None, found), None)
    if spec is None or spec.loader is None:
      return None
    loader: Any = spec.loader  # Of one module: its method is replaced.
    execute = loader.exec_module

    def execute_quietly(module):
      with contextlib.suppress(ValueError):  # Another thread may have removed it.
        sys.meta_path.remove(self)
      with _without_startup_messages():
        execute(module)

    loader.exec_module = execute_quietly
    return spec


@contextlib.contextmanager
def _without_startup_messages():
  """Within the block, standard error passes through the filter."""
  try:
    before = os.dup(2)
  except OSError:  # Closed: there is nothing to keep silent.
    yield
    return
  try:
    filter_ = subprocess.Popen(
      [sys.executable, '-I', '-S', '-c', _FILTER],
      stdin=subprocess.PIPE,
      stdout=before,
      stderr=subprocess.DEVNULL,
    )
  except (OSError, ValueError):  # No more processes allowed: let the messages pass.
    os.close(before)
    yield
    return
  assert filter_.stdin is not None  # A pipe was asked for.
  os.dup2(filter_.stdin.fileno(), 2)
  filter_.stdin.close()
  try:
    yield
  finally:
    with contextlib.suppress(AttributeError, OSError, ValueError):
      sys.stderr.flush()
    os.dup2(before, 2)
    os.close(before)
    filter_.wait()


# Batches that run side by side, as many as a client keeps in flight: while one
# waits for a step that cannot be spread over the processors, the other works.
_AT_ONCE = 2


def require_tensorflow(what: str, instead: str = '') -> None:
  """Refuses what cannot be done without TensorFlow, before it is imported.

  Args:
    what: begins the message: 'the demo requires'.
    instead: what to do without it; '' for nothing.

  Raises:
    errors.ModelError: there is none; says what to install.
  """
  if importlib.util.find_spec('tensorflow') is None:
    raise errors.ModelError(
      f'{what} TensorFlow, found none; {errors.how_to_install("models-cpu")}'
      + (f', or {instead}.' if instead else '.')
    )


def load_models(
  directory: str | os.PathLike | None = None,
  *,
  batch_bytes: int = interface.BATCH_BYTES,
  self_check: bool = True,
) -> 'LoadedModels':
  """Loads both networks into this process.

    with covid_tf.load_models() as models:  # Or a folder: load_models('exported/').
      results = [covid_tf.analyze(path, models) for path in paths]

  They run as a server runs them, in the same batches: the answers are the same.

  Args:
    directory: holds lungs/VERSION and classifier/VERSION; the highest version of
      each is taken. None: the demo models that come with the package, exported
      once to the user's cache folder.
    batch_bytes: image bytes that a network gets at once.
    self_check: make sure that they compute right: their reference answers and a few
      batches, two to five seconds, once a process and model.

  Returns:
    The models; a context manager that frees them.

  Raises:
    errors.ModelError: TensorFlow is missing, there are no models of ours, or they
      compute wrong on this machine.
  """
  require_tensorflow(
    'models in process require', 'use a server (--server, covid_tf.connect)'
  )
  if not isinstance(directory, (str, os.PathLike, type(None))):
    raise errors.UsageError(
      'directory: a folder of exported models (str or path), or None for the demo '
      f'models, is required, found {type(directory).__name__}.'
    )
  if batch_bytes <= 0:
    raise errors.UsageError(f'batch_bytes: required more than 0, found {batch_bytes}.')
  set_defaults()
  folder = pathlib.Path(demo_models() if directory is None else directory)
  return LoadedModels(folder, batch_bytes, self_check)


class LoadedModels(interface.Networks):
  """Both networks of one folder; made by `load_models`. Safe between threads."""

  def __init__(self, folder: pathlib.Path, batch_bytes: int, self_check: bool = True):
    """Loads the highest version of each network and holds it to the contract."""
    self._batch_bytes = batch_bytes
    self._servables: dict[str, Any] = {}
    self._folders: dict[str, pathlib.Path] = {}
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
    """Frees the networks; a study that another thread scores ends with a ModelError."""
    self._threads.shutdown(cancel_futures=True)
    for servable in self._servables.values():
      servable.close()

  def identities(self) -> tuple[results.ModelIdentity, ...]:
    """Who answers, lungs first."""
    return self._identities

  def study(self) -> contextlib.AbstractContextManager['LoadedModels']:
    """Itself: what is loaded stays the same version."""
    return contextlib.nullcontext(self)

  def _load(self, folder, model) -> results.ModelIdentity:
    # Here, because this is where TensorFlow comes in.
    from covid_tf.sessions import refusal
    from covid_tf.sessions import servable

    try:
      on_disk = servable.versions_on_disk(folder / model)
    except OSError:
      on_disk = {}
    if not on_disk:
      raise errors.ModelError(
        f'{folder / model}: required a numbered folder with saved_model.pb, found '
        'none; export models there, or leave the folder out for the demo models.'
      )
    version = max(on_disk)
    self._folders[model] = on_disk[version]
    try:
      loaded = self._servables[model] = servable.Servable(on_disk[version])
      answers.check_signatures(str(on_disk[version]), model, loaded.signatures)
      (card,) = self._run(model, contract.CARD, {}).values()
    except refusal.Refusal as error:
      raise errors.ModelError(
        f'{on_disk[version]}: cannot be loaded: {_one_line(error)}; export the model '
        'again.'
      ) from error
    return answers.read_card(str(folder), model, version, card)

  def self_check(self, model: str) -> dict[str, np.ndarray] | None:
    """Reference slices and answers of a model; None where it has none.

    Raises:
      errors.ModelError: they are damaged, or the models were closed.
    """
    from covid_tf.sessions import refusal

    if not answers.has_self_check(model, self._servables[model].signatures):
      return None
    try:
      outputs = self._run(model, contract.SELF_CHECK, {})
    except refusal.Refusal as error:
      raise errors.ModelError(f'{_one_line(error)}') from error
    return answers.check_reference(str(self._folders[model]), model, outputs)

  def _check(self, known: results.ModelIdentity) -> None:
    # Here, as in `_load`.
    from covid_tf.sessions import servable

    folder = self._folders[known.name]
    self_check_lib.check_short(
      str(folder),
      self,
      known,
      key=(servable.fingerprint(folder),),
      may_be_narrower=servable.computes_on_gpu(),
    )

  def answers(self, model, signature, hu) -> Iterator:
    """See `networks.Networks.answers`."""
    from covid_tf.sessions import refusal

    source = str(self._folders[model])

    def ask(piece):
      part = np.ascontiguousarray(hu[piece.start : piece.stop])
      try:
        outputs = self._run(model, signature, {'hu': part})
      except refusal.Refusal as error:
        raise errors.ModelError(
          f'{source}: signature {signature}, slices {piece.start} to '
          f'{piece.stop - 1}: {_one_line(error)}.'
        ) from error
      return answers.check_outputs(
        source, model, signature, outputs, part.shape, piece.start
      )

    def start(piece):
      try:
        return self._threads.submit(ask, piece)
      except RuntimeError as error:  # Its pool takes no more.
        raise closed from error

    def finish(_, future):
      try:
        return future.result()
      except futures.CancelledError as error:
        raise closed from error

    closed = errors.ModelError(
      f'{source}: open models are required, found them closed; load them again.'
    )
    yield from interface.in_order(
      interface.ranges(hu.shape, self._batch_bytes),
      _AT_ONCE,
      start,
      finish,
      lambda future: future.cancel(),
    )

  def _run(self, model, name, inputs) -> dict[str, np.ndarray]:
    signature = self._servables[model].signatures[name]
    named = (
      contract.SELF_CHECKS[model]
      if name == contract.SELF_CHECK
      else (contract.SIGNATURES[model][name])
    )
    outputs = [spec.name for spec in named.outputs]
    arrays = self._servables[model].run(
      {signature.inputs[key].name: value for key, value in inputs.items()},
      [signature.outputs[key].name for key in outputs],
    )
    return dict(zip(outputs, arrays, strict=True))


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split())[:300]
