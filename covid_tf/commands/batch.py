"""`covid-tf batch`: an archive scored, every study exactly once."""

import argparse
from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import functools
import itertools
import logging
import os
import pathlib
import signal
import sys
import threading

from covid_tf import errors
from covid_tf import readers
from covid_tf import results
from covid_tf.analysis import slabs
from covid_tf.batch import archive as archive_lib
from covid_tf.batch import archive_run
from covid_tf.batch import engines
from covid_tf.batch import listing
from covid_tf.batch import records
from covid_tf.batch import scoring
from covid_tf.commands import clinic_flags
from covid_tf.commands import model_flags
from covid_tf.commands import shared_flags
from covid_tf.statistics import operating_points
from covid_tf.storage.dicom import objects

_SOME = 1  # Exit status: some studies have a score, others have none.
_NONE = 3  # No study has a score.
_PATH_FLAGS = (
  'output',
  'patient_key_file',
  'tls_ca',
  'tls_certificate',
  'tls_key',
  'token_file',
)
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
  parser.add_argument(
    '--processes',
    type=int,
    metavar='N',
    help='workers of this machine (default: by its cores and memory)',
  )
  parser.add_argument(
    '--scheduler',
    metavar='ADDRESS',
    help='use the workers of a running Dask cluster, for instance tcp://host:8786',
  )
  parser.add_argument(
    '--redo',
    action='store_true',
    help='score again what other models, thresholds or software have scored',
  )
  parser.add_argument(
    '--no-reports',
    action='store_true',
    help='leave report.html out, which costs more time than reading a study',
  )
  parser.add_argument(
    '--case-threshold',
    metavar='FILE|CM3',
    help='answer for each case whether it is detected, as covid-tf score does',
  )
  parser.add_argument(
    '--patient-key-file',
    metavar='FILE',
    help="the site's secret key, as for covid-tf score",
  )
  shared_flags.add_reading_arguments(parser)
  shared_flags.add_analysis_arguments(parser)
  clinic_flags.add_dicom_arguments(parser, on_request=True)


def run(arguments: argparse.Namespace) -> int:
  """Scores the archive; returns 0 for all, 1 for some, 3 for no study scored."""
  if arguments.processes is not None and arguments.processes < 1:
    raise errors.UsageError(
      f'--processes: at least 1 is required, found {arguments.processes}.'
    )
  # A slip is found before an hour of listing.
  _servers(arguments.server)
  readers.require_options(**shared_flags.chosen(arguments))
  shared_flags.thresholds(arguments)
  if clinic_flags.dicom_options_on_request(arguments) is not None:
    objects.require_extra()
  stop = threading.Event()
  with archive_run.exclusive(arguments.output), _signals(stop) as caught:
    workers = _workers(arguments, stop)
    archive = _listed(arguments, stop)
    if caught:
      return _interrupted(caught)
    outcome = archive_run.run(
      archive,
      _scorer(arguments, workers),
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


@dataclasses.dataclass(frozen=True)
class _OpenModels:
  """Opens models in whichever process it is called; hashable.

  Attributes:
    flags: names and values of the command's flags.
  """

  flags: tuple[tuple[str, object], ...]

  def __call__(self, server: str) -> contextlib.AbstractContextManager:
    return model_flags.open_models(
      argparse.Namespace(**dict(self.flags) | {'server': server or None}),
      announce=False,
    )  # Beside the bar of the archive.


@dataclasses.dataclass(frozen=True)
class _Identify:
  """Asks models who they are; errors are values, since they come from a worker."""

  open_models: _OpenModels

  def __call__(self, server: str):
    try:
      with self.open_models(server) as models:
        return models.identities()
    except errors.CovidTFError as error:
      return error


def _scorer(arguments, workers: archive_run.MapStudies) -> scoring.Scorer:
  """What workers apply to each study; asks a worker which models answer."""
  # Workers, above all those of a cluster, have working directories of their own.
  arguments = _with_whole_paths(arguments)
  open_models = _OpenModels(tuple(sorted(vars(arguments).items())))
  servers = _servers(arguments.server)
  threshold = arguments.case_threshold and operating_points.parse_case_threshold(
    arguments.case_threshold
  )
  key_digest = scoring.key_digest(arguments.patient_key_file)
  identities = _identities(workers, open_models, servers)
  thresholds = dataclasses.replace(
    shared_flags.thresholds(arguments),
    case_corona_score_cm3=threshold.corona_score_cm3 if threshold else None,
  )
  used = slabs.as_used(thresholds, identities)
  if threshold:
    threshold.require_same_models(identities)
    threshold.require_same_analysis(used)
  return scoring.Scorer(
    arguments.output,
    open_models,
    servers,
    scoring.Configuration(
      scoring.model_triples(identities),
      thresholds,
      key_digest,
      thickness_mm=used.thickness_mm,
      smoothing_mm=used.smoothing_mm or 0.0,
      dicom=clinic_flags.dicom_options_on_request(arguments),
      **shared_flags.chosen(arguments),
    ),
    model_flags.are_demo(arguments, identities),
    arguments.patient_key_file,
    not arguments.no_reports,
  )


def _with_whole_paths(arguments: argparse.Namespace) -> argparse.Namespace:
  """Flags whose paths mean the same in every process."""
  paths = {
    name: os.path.abspath(path)
    for name in _PATH_FLAGS
    if (path := getattr(arguments, name)) is not None
  }
  if arguments.models is not None:
    paths['models'] = arguments.models.absolute()
  return argparse.Namespace(**vars(arguments) | paths)


def _servers(text: str | None) -> tuple[str, ...]:
  """Addresses of --server; ('',) for models in the workers themselves."""
  if text is None:
    return ('',)
  servers = tuple(part.strip() for part in text.split(','))
  if not all(servers) or len(set(servers)) < len(servers):
    # '' would be the demo models; one named twice would get twice the studies.
    raise errors.UsageError(
      f'--server {text}: addresses separated by commas, each once, are required, '
      'found '
      f'{"an empty one" if not all(servers) else "one twice"}; correct the list.'
    )
  return servers


def _identities(workers, open_models, servers) -> tuple[results.ModelIdentity, ...]:
  first = None
  for server, found in workers(_Identify(open_models), iter(servers)):
    if isinstance(found, records.Lost):
      raise errors.ClusterError(f'asking for the models: {found.reason}')
    if isinstance(found, errors.CovidTFError):
      raise found
    first = first or (server, found)
    if found != first[1]:
      raise errors.UsageError(
        f'--server: the same models are required of all, but {server} and '
        f'{first[0]} serve different ones.'
      )
  if first is None:
    raise KeyboardInterrupt  # Asked to stop before anybody answered.
  return first[1]


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
