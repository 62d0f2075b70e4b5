"""The demo from a number of cases to its summary and page."""

from collections.abc import Callable, Sequence
import concurrent.futures

import tqdm

from covid_tf.datasets import phantom
from covid_tf.demo import agreement
from covid_tf.demo import drawing
from covid_tf.demo import figures
from covid_tf.demo import layout
from covid_tf.demo import page
from covid_tf.demo import scoring
from covid_tf.demo import server_process
from covid_tf.demo import summary

FIRST_SEED = phantom.TRAINING_SEED_LIMIT  # Never seen in training.


def demo_cases(count: int) -> list[phantom.PhantomCase]:
  """Held-out cases of every kind, in turns."""
  return phantom.cohort(count, FIRST_SEED)


def run(
    folder: layout.DemoFolder, cases: Sequence[phantom.PhantomCase],
    say: Callable[[str], None]) -> dict[str, float | None]:
  """Exports, draws, serves, scores and summarizes.

  Args:
    folder: the demo's, empty.
    cases: the phantoms.
    say: takes each line for the reader.

  Returns:
    The named figures.

  Raises:
    errors.CovidTFError: a part failed; says which and why.
  """
  say(f'Drawing {len(cases)} phantoms (not patients) and exporting the demo models.')
  prepare(folder, cases)
  with server_process.serving(folder.models) as address:
    say(f'Serving both models on {address}; scoring over gRPC.\n\n{summary.HEADER}')
    found, thumbnails = [], {}
    for case in cases:
      name = drawing.case_name(case)
      scoring.score_case(folder, name, address)
      found.append(agreement.compare(folder, name))
      thumbnails[name] = page.thumbnail(folder, name)
      say(summary.row(found[-1]))
  named = figures.figures(found)
  summary.write_summary(folder, found)
  page.write_page(folder, found, thumbnails)
  say(f'\n{summary.figures_text(named)}')
  return named


def prepare(
    folder: layout.DemoFolder, cases: Sequence[phantom.PhantomCase]) -> None:
  """Draws the studies and exports the models, side by side."""
  with drawing.workers() as pool:
    jobs = [pool.submit(drawing.export_models, folder.models)]
    jobs += [pool.submit(drawing.draw, folder, case) for case in cases]
    done = concurrent.futures.as_completed(jobs)
    # None: a bar on a terminal, silence in a pipe.
    for job in tqdm.tqdm(done, 'preparing', len(jobs), leave=False, disable=None):
      job.result()

