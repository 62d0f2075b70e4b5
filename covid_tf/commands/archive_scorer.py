"""What workers apply to each of many studies: of `batch` and `node`, by their flags."""

import argparse
import contextlib
import dataclasses
import os

from covid_tf import errors
from covid_tf import results
from covid_tf.analysis import slabs
from covid_tf.batch import archive_run
from covid_tf.batch import records
from covid_tf.batch import run_configuration
from covid_tf.batch import scoring
from covid_tf.commands import model_flags
from covid_tf.commands import shared_flags
from covid_tf.statistics import operating_points
from covid_tf.storage.dicom import objects

_PATH_FLAGS = (
  'output',
  'patient_key_file',
  'tls_ca',
  'tls_certificate',
  'tls_key',
  'token_file',
)
_MODEL_FLAGS = (
  'server',
  'models',
  'no_self_check',
  'tls',
  'tls_ca',
  'tls_certificate',
  'tls_key',
  'token_file',
  'timeout',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds what stands beside the flags of models, reading and analysis."""
  parser.add_argument(
    '--processes',
    type=int,
    metavar='N',
    help='workers of this machine (default: by its cores and memory)',
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


def require_processes(count: int | None) -> None:
  """Raises errors.UsageError for --processes below 1."""
  if count is not None and count < 1:
    raise errors.UsageError(f'--processes: at least 1 is required, found {count}.')


@dataclasses.dataclass(frozen=True)
class OpenModels:
  """Opens models in whichever process it is called; hashable.

  Attributes:
    flags: names and values of the flags that choose the models.
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

  open_models: OpenModels

  def __call__(self, server: str):
    try:
      with self.open_models(server) as models:
        return models.identities()
    except errors.CovidTFError as error:
      return error


def make_scorer(
  arguments: argparse.Namespace,
  workers: archive_run.MapStudies,
  dicom: objects.Options | None,
) -> scoring.Scorer:
  """What workers apply to each study; asks a worker which models answer.

  Args:
    arguments: the parsed flags of `add_arguments`, of models, reading and analysis.
    workers: runs a function in processes.
    dicom: which DICOM objects are beside each result; None: none.

  Raises:
    errors.UsageError: flags contradict each other, or do not fit the models.
    errors.ModelError, errors.ClusterError: no models answer.
  """
  # Workers, above all those of a cluster, have working directories of their own.
  arguments = _with_whole_paths(arguments)
  open_models = OpenModels(
    tuple((name, getattr(arguments, name)) for name in _MODEL_FLAGS)
  )
  servers = servers_of(arguments.server)
  threshold = arguments.case_threshold and operating_points.parse_case_threshold(
    arguments.case_threshold
  )
  key_digest = run_configuration.key_digest(arguments.patient_key_file)
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
    run_configuration.Configuration(
      run_configuration.model_triples(identities),
      thresholds,
      key_digest,
      thickness_mm=used.thickness_mm,
      smoothing_mm=used.smoothing_mm or 0.0,
      dicom=dicom,
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


def servers_of(text: str | None) -> tuple[str, ...]:
  """Addresses of --server; ('',) for models in the workers themselves.

  Raises:
    errors.UsageError: one is empty, or named twice.
  """
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
