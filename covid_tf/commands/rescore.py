"""`covid-tf rescore`: a stored result scored again, without any network."""

import argparse
import pathlib

from covid_tf.commands import score
from covid_tf.commands import shared_flags
from covid_tf.reports import scored_study
from covid_tf.statistics import operating_points


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    'result', metavar='RESULT', help='folder that covid-tf score wrote; never changed'
  )
  parser.add_argument(
    '--study',
    metavar='STUDY',
    required=True,
    help='the study that was scored: folder of DICOM files, or a file of NIfTI, '
    'MetaImage or NRRD',
  )
  parser.add_argument(
    '--output',
    metavar='DIR',
    required=True,
    help=f'where {", ".join(scored_study.FILE_NAMES)} appear, all or none; not RESULT',
  )
  shared_flags.add_correction_arguments(parser)
  shared_flags.add_region_arguments(parser)
  thresholds = parser.add_argument_group('other thresholds than those of RESULT')
  thresholds.add_argument(
    '--slice-threshold',
    metavar='P',
    help='a slice is positive above this probability; not below that of RESULT',
  )
  thresholds.add_argument(
    '--map-threshold', metavar='M', help='a voxel counts where the map is above this'
  )
  thresholds.add_argument(
    '--case-threshold',
    metavar='FILE|CM3',
    help='answer whether the case is detected: above this score, or by the '
    'operating_point.json of covid-tf cohort',
  )
  parser.add_argument(
    '--viewer', action='store_true', help='also viewer.html, as covid-tf score does'
  )
  parser.add_argument(
    '--series', metavar='UID', help='which series of the study (default: of RESULT)'
  )
  shared_flags.add_reading_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
  """Scores the result again; returns 0."""
  threshold = arguments.case_threshold and operating_points.parse_case_threshold(
    arguments.case_threshold
  )
  reading = shared_flags.chosen(arguments)
  if arguments.series or arguments.select:  # Else the series of the result.
    reading['series_uid'] = arguments.series
  result = scored_study.rescore_study(
    arguments.result,
    arguments.study,
    arguments.output,
    lung_mask=arguments.lung_mask,
    exclude_slices=shared_flags.excluded_slices(arguments.exclude_slices),
    regions=arguments.regions,
    region_names=arguments.region_names,
    slice_threshold=shared_flags.share('--slice-threshold', arguments.slice_threshold),
    map_threshold=shared_flags.share('--map-threshold', arguments.map_threshold),
    threshold=threshold or None,
    reading=reading,
    viewer=arguments.viewer,
  )
  score.print_summary(result, pathlib.Path(arguments.output))
  return 0
