"""What the tutorials share, and the tutorials themselves, run two at a time.

  python docs/tutorials/prepare.py FOLDER CACHE

writes a phantom's study, a small archive and the exported models to FOLDER, where the
tutorials run, and leaves what they show in CACHE, where Sphinx finds it. `bash
tools/docs.sh` runs it before Sphinx, which runs one page after the other.
"""

from concurrent import futures
import csv
import pathlib
import shutil
import sys
import threading

import jupyter_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors import utils as executors

from covid_tf.datasets import phantom
from covid_tf.datasets.phantom import written
from covid_tf.predictors import in_process

_FIRST_SEED = phantom.TRAINING_SEED_LIMIT + 40
# Kind, share of the lungs that opacities take, and grade of the archive's patients.
_ARCHIVE = (
  ('none', 0.0, ''),
  ('none', 0.0, ''),
  ('none', 0.0, ''),
  ('focal', 0.03, 'non-severe'),
  ('focal', 0.06, 'non-severe'),
  ('diffuse', 0.2, 'severe'),
  ('diffuse', 0.3, 'severe'),
)


_HERE = pathlib.Path(__file__).resolve().parent
_WITHOUT_INPUTS = (_HERE / 'training.md',)  # It draws its own; and takes longest.
_PAGES = (
  _HERE / 'cohort.md',
  _HERE / 'serving.md',
  _HERE.parent / 'how_it_works.md',
  _HERE / 'own_arrays.md',
  _HERE / 'first_study.md',
)
_JOBS = 2
_TIMEOUT_S = 600  # Of a cell, as in docs/conf.py.


def main(folder: pathlib.Path, cache: pathlib.Path) -> None:
  """Writes the inputs and runs all pages; one that fails is left for Sphinx to say."""
  folder.mkdir(parents=True, exist_ok=True)
  notebooks = _Notebooks(cache)
  with futures.ThreadPoolExecutor(_JOBS) as pool:
    running = [pool.submit(notebooks.run, page) for page in _WITHOUT_INPUTS]
    write_inputs(folder)
    running += [pool.submit(notebooks.run, page) for page in _PAGES]
    for one in running:
      one.result()


class _Notebooks:
  """Runs notebooks into a cache, which is one database for all threads."""

  def __init__(self, cache: pathlib.Path):
    self._cache = jupyter_cache.get_cache(str(cache))
    self._turn = threading.Lock()

  def run(self, page: pathlib.Path) -> None:
    """Runs a page in its folder and keeps what it shows, unless a cell raises."""
    with self._turn:
      record = self._cache.add_nb_to_project(
        str(page), read_data={'name': 'myst_nb_md', 'type': 'plugin'}
      )
      notebook = self._cache.get_project_notebook(record.pk).nb
    ended = executors.single_nb_execution(
      notebook, cwd=str(page.parent), timeout=_TIMEOUT_S, allow_errors=False
    )
    if ended.err is not None:
      return
    bundle = CacheBundleIn(notebook, str(page), data={'execution_seconds': ended.time})
    with self._turn:
      self._cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def write_inputs(folder: pathlib.Path) -> None:
  """Writes `study/`, `exported/`, `archive/` and `labels.csv`."""
  case = phantom.draw_case(1_000_007, 'focal', matrix=256, slice_spacing_mm=15.0)
  written.write_study(phantom.generate(case), folder / 'study')
  shutil.copytree(in_process.demo_models(), folder / 'exported')
  rows = [('study_uid', 'patient_id', 'covid', 'severity')]
  for index, (kind, share, grade) in enumerate(_ARCHIVE):
    case = phantom.draw_case(
      _FIRST_SEED + index,
      kind,
      lesion_fraction=share,
      matrix=128,
      slice_spacing_mm=25.0,
      slice_thickness_mm=10.0,
    )
    written.write_study(phantom.generate(case), folder / 'archive' / f'patient_{index}')
    covid = '0' if kind == 'none' else '1'
    rows.append((written.study_uid(case), f'P{index}', covid, grade))
  with (folder / 'labels.csv').open('w', newline='', encoding='utf-8') as file:
    csv.writer(file, lineterminator='\n').writerows(rows)


if __name__ == '__main__':
  main(*map(pathlib.Path, sys.argv[1:]))
