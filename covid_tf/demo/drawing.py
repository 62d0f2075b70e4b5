"""The demo's phantoms drawn to disk, and where its files lie."""

from collections.abc import Iterator
import concurrent.futures
from concurrent.futures import process
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import threading

from covid_tf import errors
from covid_tf import process_end
from covid_tf.datasets import phantom
from covid_tf.datasets.phantom import written
from covid_tf.storage import files

# Where the demo's files lie, and whose folder may be written over.

_README = """\
Made by `covid-tf demo`: phantoms drawn by a computer, not patients.
Everything here may be deleted; the next demo in this folder writes it anew.
"""
_MARKER = 'README.txt'


@dataclasses.dataclass(frozen=True)
class DemoFolder:
  """The demo's folder.

  Attributes:
    root: `--output`.
  """

  root: pathlib.Path

  @property
  def models(self) -> pathlib.Path:
    return self.root / 'models'

  def study(self, name: str) -> pathlib.Path:
    return self.root / 'studies' / name

  def truth(self, name: str) -> pathlib.Path:
    return self.root / 'truth' / name

  def result(self, name: str) -> pathlib.Path:
    return self.root / 'results' / name

  def timing(self, name: str) -> pathlib.Path:
    return self.root / 'timings' / f'{name}.json'

  @property
  def labels(self) -> pathlib.Path:
    return self.root / 'labels.csv'

  @property
  def summary(self) -> pathlib.Path:
    return self.root / 'summary.json'

  @property
  def page(self) -> pathlib.Path:
    return self.root / 'index.html'

  def clear(self) -> None:
    """Removes what an earlier demo left under these names."""
    for name in ('models', 'studies', 'truth', 'results', 'timings'):
      shutil.rmtree(self.root / name, ignore_errors=True)
    for path in (self.labels, self.summary, self.page):
      path.unlink(missing_ok=True)


def claim_folder(root: str | os.PathLike) -> DemoFolder:
  """Marks a folder as the demo's.

  Args:
    root: an absent or empty folder, or one that an earlier demo left.

  Raises:
    errors.UsageError: it holds something else.
    errors.OutputError: it cannot be written.
  """
  root = pathlib.Path(root)
  if root.is_dir() and any(root.iterdir()) and not (root / _MARKER).is_file():
    raise errors.UsageError(
      f'--output {root}: an empty folder, or one of an earlier demo, is required; '
      'found other files in it. Choose another folder.'
    )
  files.write_atomically(root / _MARKER, _README.encode())
  return DemoFolder(root)


# Draws the demo's phantoms to disk, on every core.

_MOST_PROCESSES = 8  # Each holds one phantom: some hundred MB at 512 x 512.


@contextlib.contextmanager
def workers() -> Iterator[concurrent.futures.Executor]:
  """Processes that start clean, so that TensorFlow's memory ends with them.

  Raises:
    errors.CovidTFError: one of them was killed.
  """
  count = min(os.cpu_count() or 1, _MOST_PROCESSES)
  context = process_end.RememberingContext()
  with concurrent.futures.ProcessPoolExecutor(count, context, _begin_worker) as pool:
    try:
      yield pool
    except process.BrokenProcessPool as error:
      pool.shutdown()  # Then all have ended, each in its own way.
      raise errors.CovidTFError(
        'drawing phantoms and exporting models needs processes that live to their '
        f'end, but one {context.how_one_ended()}.'
      ) from error
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise


def _begin_worker() -> None:
  # Ctrl-C is the parent's business: it cancels what has not begun.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # A parent killed outright cannot end its workers, who would wait for ever.
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  assert parent is not None  # This runs in a worker.
  parent.join()
  os._exit(1)


def case_name(case: phantom.PhantomCase) -> str:
  """The folder of a case."""
  return f'phantom-{case.seed}'


def draw(folder: DemoFolder, case: phantom.PhantomCase) -> str:
  """Writes the truth of a case, then its study; returns its name."""
  name = case_name(case)
  drawn = phantom.generate(case)
  written.write_truth(drawn, folder.truth(name))
  # The study last: where it is, the truth is too.
  written.write_study(drawn, folder.study(name))
  return name


def export_models(models: pathlib.Path) -> None:
  """Exports the shipped demo models, whole or not at all; for a worker."""
  # TensorFlow and Keras print startup messages on standard error at every log level.
  # What fails comes back as an exception, so this worker needs none.
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
  from covid_tf.models import export  # pylint: disable=import-outside-toplevel

  with files.replacing_directory(models) as temporary:
    export.export_demo_models(temporary)
