"""`covid-tf cohort`: detection and severity over many results."""

import argparse
import logging
import math
import pathlib

from covid_tf import errors
from covid_tf.cohort import paper
from covid_tf.cohort import results
from covid_tf.cohort.accuracy import analysis
from covid_tf.cohort.accuracy import experiments
from covid_tf.cohort.accuracy import report as report_lib
from covid_tf.commands import shared_flags
from covid_tf.statistics import roc

_log = logging.getLogger(__name__)

_POINTS = ('youden', 'sensitivity', 'threshold')
_FEWEST_DRAWS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    'results',
    metavar='RESULTS',
    type=pathlib.Path,
    help='folder searched for result.json at any depth',
  )
  parser.add_argument(
    'labels',
    metavar='LABELS',
    type=pathlib.Path,
    help='CSV: study_uid,patient_id,covid (0/1)[,severity][,time_point]',
  )
  parser.add_argument('--output', required=True, type=pathlib.Path, metavar='DIR')
  parser.add_argument(
    '--severity-order',
    default='',
    metavar='MILD,…,SEVERE',
    help='grades from mild to severe; a trend over three or more needs it',
  )
  parser.add_argument(
    '--sensitivity',
    type=float,
    default=0.9,
    help='sensitivity that an operating point must reach (default 0.9)',
  )
  parser.add_argument(
    '--threshold', type=float, metavar='CM3', help='a stated threshold to report on'
  )
  parser.add_argument(
    '--prevalence',
    type=float,
    help='share of disease where the score is to be used, for PPV and NPV',
  )
  parser.add_argument(
    '--operating-point',
    choices=_POINTS,
    default='youden',
    help='the one written to operating_point.json (default youden)',
  )
  parser.add_argument(
    '--second-score',
    choices=results.SECOND_SCORES,
    default='involved_lung_fraction',
    help='number of the same results that the Corona score is compared with',
  )
  parser.add_argument(
    '--second-results',
    type=pathlib.Path,
    metavar='RESULTS',
    help='other results of the same studies whose Corona score is compared instead',
  )
  parser.add_argument(
    '--draws',
    type=int,
    default=roc.BOOTSTRAP_DRAWS,
    help=f'bootstrap draws (default {roc.BOOTSTRAP_DRAWS})',
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='of the bootstrap (default 0)'
  )
  parser.add_argument(
    '--review',
    type=pathlib.Path,
    metavar='FILE',
    help='review.csv of covid-tf review, filled in: rejected results are left out and '
    'counted',
  )
  shared_flags.add_allow_mixed(parser)
  parser.add_argument(
    '--require-all',
    action='store_true',
    help='refuse failed studies, results without a label and labels without a result',
  )


def run(arguments: argparse.Namespace) -> int:
  """Analyzes the cohort, writes everything, prints the findings."""
  options = analysis.CohortOptions(
    _detection_options(arguments),
    _order(arguments.severity_order),
    arguments.second_score,
    arguments.second_results,
    arguments.allow_mixed,
    arguments.require_all,
    arguments.review,
  )
  report = analysis.analyze_cohort(arguments.results, arguments.labels, options)
  analysis.write_report(report, arguments.output, arguments.operating_point)
  for message in (
    *report.warnings,
    *report.detection.messages,
    *report.severity.messages,
  ):
    _log.warning('%s', message)
  print(summary_text(report))
  print(f'Report: {arguments.output / "cohort.html"}')
  return 0


def summary_text(report: report_lib.CohortReport) -> str:
  """The findings as a few lines for a terminal, the paper's beside them."""
  found, severity = report.detection, report.severity
  lines = [
    f'Patients analyzed: {len(report.cohort.patients)}; failed studies: '
    f'{len(report.failed)}'
  ]
  if found.auc is not None:
    lines += [
      f'Detection: AUC {found.auc:.3f} ({found.n_positive} with, '
      f'{found.n_negative} without disease)',
      f'  95 % CI {paper.interval(found.auc_ci95_delong)} DeLong, '
      f'{paper.interval(found.auc_ci95_bootstrap)} bootstrap',
      f'  paper: {paper.AUC} ({paper.interval(paper.AUC_CI95)})',
    ]
  for grade, group in severity.summaries.items():
    lines.append(
      f'Severity: {grade} median '
      f'{paper.cubic_centimetres(group.median_cm3)} (n = {group.n})'
    )
  if severity.two:
    lines += [
      f'  rank-sum {paper.p_value(severity.two.rank_sum.p_value)} '
      f'({severity.two.rank_sum.method})',
      f'  paper: {paper.p_value(paper.RANK_SUM_P_VALUE)}',
    ]
  if severity.many:
    lines.append(
      f'  Kruskal-Wallis {paper.p_value(severity.many.kruskal_wallis_p_value)}'
    )
    if severity.many.trend:
      lines.append(f'  trend {paper.p_value(severity.many.trend.p_value)}')
  return '\n'.join(lines)


def _order(text: str) -> tuple[str, ...]:
  grades = tuple(grade.strip() for grade in text.split(',')) if text.strip() else ()
  if '' in grades or len(set(grades)) < len(grades) or len(grades) == 1:
    raise errors.UsageError(
      '--severity-order must name two or more different grades with commas '
      f'between them, found {text!r}.'
    )
  return grades


def _detection_options(arguments: argparse.Namespace) -> experiments.DetectionOptions:
  sensitivity, prevalence = arguments.sensitivity, arguments.prevalence
  if not 0 < sensitivity <= 1:
    raise errors.UsageError(f'--sensitivity must be in (0, 1], found {sensitivity:g}.')
  if prevalence is not None and not 0 < prevalence < 1:
    raise errors.UsageError(f'--prevalence must be in (0, 1), found {prevalence:g}.')
  threshold = arguments.threshold
  if threshold is not None and not 0 <= threshold < math.inf:
    raise errors.UsageError(
      f'--threshold must be a volume in cm³, 0 or more, found {threshold:g}.'
    )
  if threshold is None and arguments.operating_point == 'threshold':
    raise errors.UsageError('--operating-point threshold needs --threshold CM3.')
  if arguments.draws < _FEWEST_DRAWS:
    raise errors.UsageError(
      f'--draws must be at least {_FEWEST_DRAWS} for a 95 % interval, found '
      f'{arguments.draws}.'
    )
  if arguments.seed < 0:
    raise errors.UsageError(f'--seed must be 0 or more, found {arguments.seed}.')
  return experiments.DetectionOptions(
    sensitivity, threshold, prevalence, arguments.draws, arguments.seed
  )
