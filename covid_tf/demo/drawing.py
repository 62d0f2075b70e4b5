"""Draws the demo's phantoms to disk, on every core."""

from collections.abc import Iterator
import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib

from covid_tf import files
from covid_tf.datasets import phantom
from covid_tf.datasets import phantom_dicom
from covid_tf.datasets import phantom_truth
from covid_tf.demo import layout

_MOST_PROCESSES = 8  # Each holds one phantom: some hundred MB at 512 x 512.


@contextlib.contextmanager
def workers() -> Iterator[concurrent.futures.Executor]:
  """Processes that start clean, so that TensorFlow's memory ends with them."""
  count = min(os.cpu_count() or 1, _MOST_PROCESSES)
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(count, context) as pool:
    try:
      yield pool
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise


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
  """Exports the shipped demo models, whole or not at all."""
  # For this process only: its greetings are no news.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  from covid_tf.models import demo  # pylint: disable=import-outside-toplevel

  with files.replacing_directory(models) as temporary:
    demo.export_demo_models(temporary)
