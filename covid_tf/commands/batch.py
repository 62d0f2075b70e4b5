"""`covid-tf batch`: an archive scored, every study exactly once."""

import argparse
from collections.abc import Callable, Iterable, Iterator
import contextlib
import functools
import itertools
import logging
import pathlib
import signal
import sys
import threading

from covid_tf import errors
from covid_tf import readers
from covid_tf.batch import archive as archive_lib
from covid_tf.batch import archive_run
from covid_tf.batch import engines
from covid_tf.batch import listing
from covid_tf.batch import records
from covid_tf.commands import archive_scorer
from covid_tf.commands import clinic_flags
from covid_tf.commands import model_flags
from covid_tf.commands import shared_flags
from covid_tf.storage.dicom import objects

_SOME = 1  # Exit status: some studies have a score, others have none.
_NONE = 3  # No study has a score.
# Of a few folders each: a small archive is listed before processes would start.
_TASKS_WITHOUT_PROCESSES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    'studies',
    metavar='STUDIES',
    help='a folder to search, a file with a path a line, a table with a column path '
    'and perhaps series_uid, or a DICOMDIR',
  )
  parser.add_argument(
    '--output',
    metavar='DIR',
    required=True,
    help='where studies/UID/ and manifest.csv appear; the same command goes on '
    'where it stopped',
  )
  model_flags.add_model_arguments(parser, several_servers=True)
  archive_scorer.add_arguments(parser)
  parser.add_argument(
    '--scheduler',
    metavar='ADDRESS',
    help='use the workers of a running Dask cluster, for instance tcp://host:8786',
  )
  shared_flags.add_reading_arguments(parser)
  shared_flags.add_analysis_arguments(parser)
  clinic_flags.add_dicom_arguments(parser, on_request=True)


def run(arguments: argparse.Namespace) -> int:
  """Scores the archive; returns 0 for all, 1 for some, 3 for no study scored."""
  archive_scorer.require_processes(arguments.processes)
  # A slip is found before an hour of listing.
  archive_scorer.servers_of(arguments.server)
  readers.require_options(**shared_flags.chosen(arguments))
  shared_flags.thresholds(arguments)
  dicom = clinic_flags.dicom_options_on_request(arguments)
  if dicom is not None:
    objects.require_extra()
  stop = threading.Event()
  with archive_run.exclusive(arguments.output), _signals(stop) as caught:
    workers = _workers(arguments, stop)
    archive = _listed(arguments, stop)
    if caught:
      return _interrupted(caught)
    outcome = archive_run.run(
      archive,
      archive_scorer.make_scorer(arguments, workers, dicom),
      workers,
      stop,
      redo=arguments.redo,
      on_cluster=arguments.scheduler is not None,
    )
  for line in archive_run.summary_lines(outcome, archive):
    print(line)
  print(f'{pathlib.Path(arguments.output) / records.MANIFEST_FILE}: research use only.')
  if outcome.stopped:
    raise outcome.stopped
  if caught:
    return _interrupted(caught)
  scored = outcome.count(records.SCORED)
  if scored == outcome.total and not archive.problems:
    return 0
  return _SOME if scored else _NONE


def _workers(arguments, stop: threading.Event) -> archive_run.MapStudies:
  """What runs the studies, by the flags."""
  if arguments.scheduler:
    # What they log of lost connections, this command reports in one line.
    for name in ('distributed', 'tornado'):
      logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    print(f'Dashboard: {engines.dashboard(arguments.scheduler)}', file=sys.stderr)
  processes = arguments.processes or engines.worker_count(
    models_in_process=arguments.server is None
  )
  return functools.partial(
    engines.map_studies, processes=processes, scheduler=arguments.scheduler, stop=stop
  )


def _listed(arguments, stop: threading.Event) -> listing.Archive:
  """Finds the studies; a large archive is listed by processes of this machine."""
  processes = engines.worker_count(models_in_process=False)

  def mapped(function: Callable, items: Iterable) -> Iterator:
    items = iter(items)
    yield from map(function, itertools.islice(items, _TASKS_WITHOUT_PROCESSES))
    for first in items:
      everything = itertools.chain([first], items)
      for _, value in engines.map_studies(
        function, everything, processes=processes, stop=stop
      ):
        if isinstance(value, records.Lost):
          raise errors.ClusterError(f'listing {arguments.studies}: {value.reason}')
        yield value

  archive = archive_lib.find_studies(
    arguments.studies,
    map_=mapped,
    skip=arguments.output,
    index_path=archive_lib.default_index_path(pathlib.Path(arguments.output)),
  )
  print(
    f'covid-tf batch: {len(archive.studies)} studies in {arguments.studies}',
    file=sys.stderr,
  )
  if not archive.studies:
    raise errors.UsageError(
      f'{arguments.studies}: at least one CT study is required, found none'
      + ''.join(f' ({line})' for line in (*archive.problems, *archive.notes)[:3])
      + '.'
    )
  return archive


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[list[int]]:
  """Lets the first SIGINT or SIGTERM end the run in order, the second at once.

  Yields:
    The signals that came.
  """
  caught: list[int] = []

  def handle(number, frame):
    del frame
    caught.append(number)
    if len(caught) > 1:
      raise KeyboardInterrupt
    print(
      '\ncovid-tf batch: running studies are finished; once more to stop at once',
      file=sys.stderr,
    )
    stop.set()

  before = {
    number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)
  }
  try:
    yield caught
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _interrupted(caught: list[int]) -> int:
  print('covid-tf batch: stopped; the same command goes on.', file=sys.stderr)
  return 128 + caught[0]  # The shell's convention.
