"""The demo from a number of cases to its summary and page."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import concurrent.futures
import contextlib
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from covid_tf import errors
from covid_tf import predictors
from covid_tf import process_end
from covid_tf import results
from covid_tf.analysis import pipeline
from covid_tf.datasets import phantom
from covid_tf.datasets.phantom import written
from covid_tf.demo import drawing
from covid_tf.demo import summary
from covid_tf.reports import scored_study
from covid_tf.storage import files
from covid_tf.storage import result_json

# Scores the demo's studies over gRPC, with the code of `covid-tf score`.

_CALL_S = 600  # A demo has time; a busy laptop may need it.
_PATIENCE_S = 5  # Its own server, once gone, does not come back.


def score_case(folder: drawing.DemoFolder, name: str, address: str) -> None:
  """Scores one study as `covid-tf score` does, and notes the time it took.

  Args:
    folder: the demo's.
    name: of the case.
    address: 'HOST:PORT' of a server.

  Raises:
    errors.CovidTFError: see `covid-tf score`.
  """
  begin = time.perf_counter()
  scored_study.score_study(
    folder.study(name),
    folder.result(name),
    functools.partial(
      predictors.connect, address, timeout_s=_CALL_S, patience_s=_PATIENCE_S
    ),
  )
  seconds = time.perf_counter() - begin
  files.write_atomically(folder.timing(name), json.dumps({'seconds': seconds}).encode())


def is_scored(
  folder: drawing.DemoFolder,
  case: phantom.PhantomCase,
  models: Iterable[results.ModelIdentity],
) -> bool:
  """Whether this very phantom was scored here before, by these models."""
  name = drawing.case_name(case)
  try:
    truth = written.read_truth(folder.truth(name))
    result = result_json.read_result(folder.result(name))
  except errors.UsageError:
    return False
  wanted = written.series_uid(case)
  return (
    truth.series_uid == result.series_uid == wanted
    and folder.timing(name).is_file()
    and _digests(result.models) == _digests(models)
  )


def _digests(models):
  return [(model.name, model.card_sha256) for model in models]


# A real `covid-tf serve` beside the demo, ended with it.

_READY = 'ready on '
_STOP_S = 40  # The server drains for 30 seconds at most.
_DIES_WITHIN_S = 2.0


@contextlib.contextmanager
def serving(models: pathlib.Path) -> Iterator[str]:
  """Starts `covid-tf serve` on a free loopback port and stops it afterwards.

  Args:
    models: folder with lungs/1 and classifier/1.

  Yields:
    'HOST:PORT'.

  Raises:
    errors.ModelError: the server ended by itself, before it was ready or while it was
      used; says by which signal or status, its last lines and what to do.
  """
  with (
    tempfile.TemporaryFile('w+', encoding='utf-8', errors='replace') as complaints,
    subprocess.Popen(
      _command(models),
      stdout=subprocess.PIPE,
      stderr=complaints,
      encoding='utf-8',
      errors='replace',
      env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '2'},
    ) as process,
  ):
    try:
      address = _address(process, complaints)
      try:
        yield address
      except errors.ModelError as error:
        # Its client saw no more than that nobody answers: the connection of a process
        # that is killed closes some time before the process has ended.
        try:
          process.wait(_DIES_WITHIN_S)
        except subprocess.TimeoutExpired:
          raise error from None
        raise _ended(process, complaints, 'while it was used') from error
    finally:
      process.terminate()
      try:
        process.wait(_STOP_S)
      except subprocess.TimeoutExpired:
        process.kill()


def _address(process, complaints) -> str:
  for line in process.stdout:
    if _READY in line:
      return line.partition(_READY)[2].split(',')[0].split()[0]
  process.wait()  # Its output has ended, and so does it.
  raise _ended(process, complaints, 'before it was ready')


def _command(models: pathlib.Path) -> tuple[str, ...]:
  return (
    sys.executable,
    '-m',
    'covid_tf.cli',
    'serve',
    '--models',
    str(models),
    '--host',
    '127.0.0.1',
    '--port',
    '0',
  )


def _ended(process, complaints, when: str) -> errors.ModelError:
  complaints.seek(0)
  code = process.returncode
  return errors.ModelError(
    f'covid-tf serve, which the demo started, {process_end.how(code)} {when} and '
    f'said: {process_end.last_lines(complaints.read())}: {process_end.remedy(code)}.'
  )


FIRST_SEED = phantom.TRAINING_SEED_LIMIT  # Never seen in training.


def demo_cases(count: int) -> list[phantom.PhantomCase]:
  """Held-out cases of every kind, in turns."""
  return phantom.cohort(count, FIRST_SEED)


def run(
  folder: drawing.DemoFolder,
  cases: Sequence[phantom.PhantomCase],
  say: Callable[[str], None],
) -> dict[str, float | None]:
  """Exports, draws, serves, scores and summarizes.

  Args:
    folder: the demo's, empty.
    cases: the phantoms.
    say: takes each line for the reader.

  Returns:
    The metrics by name.

  Raises:
    errors.CovidTFError: a part failed; says which and why.
  """
  say(f'Drawing {len(cases)} phantoms (not patients) and exporting the demo models.')
  prepare(folder, cases)
  with serving(folder.models) as address:
    say(f'Serving both models on {address}; scoring over gRPC.\n\n{summary.HEADER}')
    found, thumbnails = [], {}
    for case in cases:
      name = drawing.case_name(case)
      score_case(folder, name, address)
      found.append(summary.compare_case(folder, name))
      thumbnails[name] = summary.thumbnail(folder, name)
      say(summary.row(found[-1]))
  named = summary.cohort_metrics(found)
  summary.write_summary(folder, found)
  summary.write_page(folder, found, thumbnails)
  say(f'\n{summary.metrics_text(named)}')
  return named


def prepare(folder: drawing.DemoFolder, cases: Sequence[phantom.PhantomCase]) -> None:
  """Draws the studies and exports the models, side by side."""
  with drawing.workers() as pool:
    jobs: list[concurrent.futures.Future] = [
      pool.submit(drawing.export_models, folder.models)
    ]
    jobs += [pool.submit(drawing.draw, folder, case) for case in cases]
    done = concurrent.futures.as_completed(jobs)
    with pipeline.progress_bar(
      True, total=len(jobs), desc='preparing', unit='job'
    ) as bar:
      for job in done:
        job.result()
        bar.update()
