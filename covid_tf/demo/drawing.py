"""Draws the demo's phantoms to disk, on every core."""

from collections.abc import Iterator
import concurrent.futures
from concurrent.futures import process
import contextlib
import multiprocessing
import os
import pathlib
import signal
import sys
import threading

from covid_tf import errors
from covid_tf import files
from covid_tf import process_end
from covid_tf.datasets import phantom
from covid_tf.datasets import phantom_dicom
from covid_tf.datasets import phantom_truth
from covid_tf.demo import layout

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
          f'end, but one {context.how_one_ended()}.') from error
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise


def _begin_worker() -> None:
  # Ctrl-C is the parent's business: it cancels what has not begun.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # A parent killed outright cannot end its workers, who would wait for ever.
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  multiprocessing.parent_process().join()
  os._exit(1)


def case_name(case: phantom.PhantomCase) -> str:
  """The folder of a case."""
  return f'phantom-{case.seed}'


def draw(folder: layout.DemoFolder, case: phantom.PhantomCase) -> str:
  """Writes the truth of a case, then its study; returns its name."""
  name = case_name(case)
  drawn = phantom.generate(case)
  phantom_truth.write_truth(drawn, folder.truth(name))
  # The study last: where it is, the truth is too.
  phantom_dicom.write_study(drawn, folder.study(name))
  return name


def export_models(models: pathlib.Path) -> None:
  """Exports the shipped demo models, whole or not at all; for a worker."""
  # TensorFlow and Keras greet on standard error, whatever level they are set to.
  # What fails comes back as an exception, so this worker needs none.
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
  from covid_tf.models import demo  # pylint: disable=import-outside-toplevel

  with files.replacing_directory(models) as temporary:
    demo.export_demo_models(temporary)
