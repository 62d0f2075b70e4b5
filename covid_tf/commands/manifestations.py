"""`covid-tf manifestations`: slices clustered into kinds of disease."""

import argparse
import logging
import pathlib

from covid_tf import errors
from covid_tf import results
from covid_tf.analysis import slabs
from covid_tf.cohort import labels
from covid_tf.cohort import results as results_lib
from covid_tf.cohort.manifestations import clusters
from covid_tf.cohort.manifestations import features
from covid_tf.cohort.manifestations import kinds as kinds_lib
from covid_tf.cohort.manifestations import report
from covid_tf.cohort.manifestations import table as table_lib
from covid_tf.commands import model_flags
from covid_tf.commands import shared_flags

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    'studies',
    metavar='STUDIES',
    type=pathlib.Path,
    help='folder in which each folder, zip or file of one volume (NIfTI, MetaImage, '
    'NRRD) is one study',
  )
  parser.add_argument(
    '--output',
    required=True,
    type=pathlib.Path,
    metavar='DIR',
    help='also keeps the described slices: the same command goes on',
  )
  model_flags.add_model_arguments(parser)
  shared_flags.add_thickness_arguments(parser)
  parser.add_argument(
    '--results',
    type=pathlib.Path,
    metavar='RESULTS',
    help='results of these studies by covid-tf score, so that they are not scored '
    'again',
  )
  parser.add_argument(
    '--labels',
    type=pathlib.Path,
    metavar='CSV',
    help='labels as of covid-tf cohort: positive slices of positive patients, '
    'negative ones of the others; without it a study with a positive slice counts '
    'as positive',
  )
  parser.add_argument(
    '--kinds',
    type=pathlib.Path,
    metavar='CSV',
    help='known kinds, study_uid,kind[,slice]: agreement with them is reported',
  )
  parser.add_argument(
    '--weighting',
    choices=tuple(features.WEIGHTINGS),
    default=features.DEFAULT,
    help=f'whose clusters are kept (default {features.DEFAULT}; all are compared)',
  )
  parser.add_argument('--clusters', type=int, metavar='K', help='instead of the elbow')
  parser.add_argument(
    '--most-clusters',
    type=int,
    default=10,
    metavar='K',
    help='largest number tried (default 10)',
  )
  parser.add_argument(
    '--negative-slices',
    type=int,
    default=features.NEGATIVE_SLICES,
    metavar='N',
    help=f'of a study without disease, at most (default {features.NEGATIVE_SLICES})',
  )
  parser.add_argument('--seed', type=int, default=0, help='of the starts (default 0)')
  parser.add_argument(
    '--apply',
    type=pathlib.Path,
    metavar='MODEL',
    help='instead of fitting: shares of each kind under a fitted model (.npz)',
  )


def run(arguments: argparse.Namespace) -> int:
  """Describes the studies, then fits or applies; returns 0."""
  _check(arguments)
  studies = features.name_studies(arguments.studies)
  options = _options(arguments)
  kinds = (
    table_lib.read_known_kinds(arguments.kinds)
    if arguments.kinds
    else table_lib.NOTHING
  )
  model = clusters.load_model(arguments.apply) if arguments.apply else None
  with model_flags.open_models(arguments) as models:
    identities = models.identities()
    digests = results.card_digests(identities)
    used = slabs.as_used(options.thresholds, identities)
    if model:
      model.require_models(digests)
      model.require_thickness(used.thickness_mm)
      model.require_smoothing(used.smoothing_mm or 0.0)
    described = features.describe_studies(
      studies, arguments.output / 'features', models, options
    )
  if not described.sources:
    first = next(iter(described.refused.values()))
    raise errors.CTReadError(
      f'{arguments.studies}: at least one study that can be measured is required, '
      f'found {len(described.refused)} that cannot; the first: {first}'
    )
  demo = model_flags.are_demo(arguments, identities)
  for name, reason in described.refused.items():
    _log.warning('%s refused: %s', name, reason)
  if model:
    _apply(model, described, arguments.output, demo)
    return 0
  thresholds = {
    'slice_probability': used.slice_probability,
    'map': used.map,
    'thickness_mm': used.thickness_mm,
    'smoothing_mm': used.smoothing_mm,
  }
  fitted = kinds_lib.fit(
    described.store,
    described.sources,
    models=digests,
    thresholds=thresholds,
    weighting=arguments.weighting,
    k=arguments.clusters,
    most_clusters=arguments.most_clusters,
    seed=arguments.seed,
    kinds=kinds,
  )
  report.write_fitted(fitted, described, arguments.output, demo)
  for warning in report.warnings(fitted, described, demo):
    _log.warning('warning: %s', warning)
  print(summary_text(fitted))
  print(f'Report: {arguments.output / "manifestations.html"}: research use only.')
  return 0


def summary_text(fitted: kinds_lib.Fitted) -> str:
  """The clusters as a few lines for a terminal."""
  outcome, table = fitted.outcome, fitted.table
  counts = ', '.join(
    f'{name} {int((outcome.clustering.labels == i).sum())}'
    for i, name in enumerate(fitted.model.names)
  )
  lines = [
    f'{int(table.positive.sum())} positive and {int((~table.positive).sum())} '
    f'negative slices of {len(table.study_uids)} studies',
    f'Clusters: {outcome.k} (elbow: {outcome.scan.elbow_k}): {counts}',
    'weighting     k  elbow  restarts ARI  known kinds ARI',
  ]
  for row in (outcome, *fitted.others):
    truth = '–' if row.agreement is None else f'{row.agreement.rand_index:.2f}'
    lines.append(
      f'{row.weighting:12} {row.k:2} {row.scan.elbow_k:6} '
      f'{row.clustering.stability:13.2f} {truth:>16}'
    )
  return '\n'.join(lines)


def _apply(model, described, output: pathlib.Path, demo: bool) -> None:
  shares = []
  for source in described.sources:
    slices = described.store.get(source)
    shares.append(
      report.StudyShares(
        slices.study_uid,
        int(slices.positive.sum()),
        kinds_lib.apply(model, described.store, source),
      )
    )
    words = (
      'no positive slice'
      if shares[-1].shares is None
      else ', '.join(f'{name} {share:.0%}' for name, share in shares[-1].shares.items())
    )
    print(f'{slices.study_uid}: {words}')
  report.write_json(
    output / 'manifestations.json',
    shares,
    described.refused,
    {
      'demo_models': demo,
      'models': model.models,
      'thresholds': model.thresholds,
      'weighting': model.weighting,
    },
  )


def _options(arguments: argparse.Namespace) -> features.DescribeOptions:
  covid: dict[str, bool] = {}
  found: tuple[results_lib.StudyResult, ...] = ()
  if arguments.labels:
    covid = {
      label.study_uid: label.covid for label in labels.read_labels(arguments.labels)
    }
  if arguments.results:
    found, _ = results_lib.load_results(arguments.results)
    for warning in results_lib.edit_warnings([one.provenance for one in found]):
      _log.warning('warning: %s', warning)
  return features.DescribeOptions(
    arguments.negative_slices,
    covid,
    {result.study_uid: result.path for result in found},
    shared_flags.thresholds(arguments),
  )


def _check(arguments: argparse.Namespace) -> None:
  for flag, value, lowest in (
    ('--clusters', arguments.clusters, 2),
    ('--most-clusters', arguments.most_clusters, 3),
    ('--negative-slices', arguments.negative_slices, 0),
    ('--seed', arguments.seed, 0),
  ):
    if value is not None and value < lowest:
      raise errors.UsageError(f'{flag} must be at least {lowest}, found {value}.')
  if arguments.apply and arguments.kinds:
    raise errors.UsageError('--kinds belongs to fitting: leave it out with --apply.')
