"""`covid-tf compare`: one patient over time."""

import argparse
import logging
import pathlib

from covid_tf.cohort.follow_up import course
from covid_tf.cohort.follow_up import ct_files
from covid_tf.cohort.follow_up import ct_pictures
from covid_tf.cohort.follow_up import report
from covid_tf.commands import shared_flags
from covid_tf.reports import pages
from covid_tf.storage import files

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    'results',
    metavar='RESULT',
    nargs='+',
    type=pathlib.Path,
    help='folders that covid-tf score wrote, two or more, of one patient',
  )
  parser.add_argument(
    '--output',
    required=True,
    metavar='DIR',
    help=f'where {", ".join(report.FILE_NAMES)} appear, all or none',
  )
  parser.add_argument(
    '--same-patient',
    action='store_true',
    help="states that results without patient_key are one patient's",
  )
  parser.add_argument(
    '--studies',
    metavar='DIR',
    type=pathlib.Path,
    help='a folder that holds the studies that were scored, at any depth: their CT is '
    'shown under the maps, aligned by the lungs; without it the maps alone',
  )
  shared_flags.add_allow_mixed(parser, '--allow-mixed-models')
  shared_flags.add_reading_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
  """Compares the studies, writes everything, prints the change; returns 0."""
  follow_up = course.follow_up(
    arguments.results,
    same_patient=arguments.same_patient,
    allow_mixed=arguments.allow_mixed,
  )
  with files.filling_folder(arguments.output, report.FILE_NAMES) as folder:
    ct = _ct(arguments, follow_up)
    follow_up = report.write_all(folder, follow_up, ct)
  for warning in follow_up.warnings:
    _log.warning('warning: %s', warning)
  print(summary_text(follow_up))
  print(f'Report: {pathlib.Path(arguments.output) / "compare.html"}')
  return 0


def _ct(
  arguments: argparse.Namespace, follow_up: course.FollowUp
) -> ct_pictures.Comparison | None:
  if arguments.studies is None:
    return None
  studies = ct_files.find(arguments.studies, shared_flags.chosen(arguments))
  ct = ct_pictures.compare(follow_up, studies)
  for number, study in enumerate(ct.studies):
    if study.alignment:
      print(
        f'Study {number + 1} to study 1: surfaces of the lungs '
        f'{study.alignment.mean_mm:.1f} mm apart, 95 % within '
        f'{study.alignment.p95_mm:.1f} mm'
      )
  return ct


def summary_text(follow_up: course.FollowUp) -> str:
  """A line a measure, first study to last."""
  first, last = follow_up.points[0], follow_up.points[-1]
  lines = [f'{len(follow_up.points)} studies, {first.label} to {last.label}']
  for measure in follow_up.measures:
    change = follow_up.overall(measure)
    values = ' to '.join(
      pages.measured(measure.of(point.result), measure.unit) for point in (first, last)
    )
    lines.append(
      f'{measure.title}: {values} {measure.unit}, {change.direction}, '
      f'{pages.change(change.difference, change.relative, measure.unit)}'
    )
  return '\n'.join([*lines, follow_up.repeatability_in_words])
