"""The demo models as SavedModels, exported once a user and package version."""

import contextlib
import fcntl
import hashlib
import logging
import os
import pathlib
import shutil
import time

from covid_tf import contract
from covid_tf import files

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
          'The demo models are exported to %s: 180 MB, about a minute, once.', folder)
      from covid_tf.models import demo

      with files.replacing_directory(folder) as temporary:
        demo.export_demo_models(temporary)
      _prune(folder.parent)
  return folder


def _cache_folder() -> pathlib.Path:
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(base) / 'covid-tf'


def _digest() -> str:
  """Names what an export is made of: weights, networks, contract."""
  digest = hashlib.sha256()
  package = pathlib.Path(contract.__file__).parent
  sources = [package / 'contract.py', package / 'version.py',
             *sorted((package / 'models').rglob('*'))]
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
  # that is said in our words.
  files.write_atomically(folder / 'CACHEDIR.TAG', _CACHE_TAG)
  with open(folder / '.lock', 'wb') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
