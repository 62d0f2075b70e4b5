"""`covid-tf score`: one study to result.json, report, map and mask."""

import argparse
import functools
import logging
import pathlib

from covid_tf import results
from covid_tf.commands import clinic_flags
from covid_tf.commands import model_flags
from covid_tf.commands import shared_flags
from covid_tf.reports import case_viewer
from covid_tf.reports import scored_study
from covid_tf.statistics import operating_points
from covid_tf.storage.dicom import objects

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    'study',
    metavar='STUDY',
    help='folder of DICOM files, a zip, or a file of NIfTI, MetaImage or NRRD',
  )
  parser.add_argument(
    '--output',
    metavar='DIR',
    required=True,
    help=f'where {", ".join(scored_study.FILE_NAMES)} appear, all or none',
  )
  model_flags.add_model_arguments(parser)
  parser.add_argument('--series', metavar='UID', help='which series of the study')
  shared_flags.add_reading_arguments(parser)
  shared_flags.add_analysis_arguments(parser)
  shared_flags.add_correction_arguments(parser)
  shared_flags.add_region_arguments(parser)
  clinic_flags.add_dicom_arguments(parser, on_request=True)
  parser.add_argument(
    '--viewer',
    action='store_true',
    help='also viewer.html: every slice in three planes, with Hounsfield units',
  )
  parser.add_argument(
    '--case-threshold',
    metavar='FILE|CM3',
    help='answer whether the case is detected: above this score, or by the '
    'operating_point.json of covid-tf cohort',
  )
  parser.add_argument(
    '--patient-key-file',
    metavar='FILE',
    help="the site's secret key: with it, results of one patient can be joined "
    'without naming the patient',
  )


def run(arguments: argparse.Namespace) -> int:
  """Scores the study; returns 0."""
  threshold = arguments.case_threshold and operating_points.parse_case_threshold(
    arguments.case_threshold
  )
  result = scored_study.score_study(
    arguments.study,
    arguments.output,
    functools.partial(model_flags.open_models, arguments),
    series_uid=arguments.series,
    patient_key_file=arguments.patient_key_file,
    reading=shared_flags.chosen(arguments),
    threshold=threshold or None,
    thresholds=shared_flags.thresholds(arguments),
    lung_mask=arguments.lung_mask,
    exclude_slices=shared_flags.excluded_slices(arguments.exclude_slices),
    regions=arguments.regions,
    region_names=arguments.region_names,
    demo_models=model_flags.are_demo(arguments),
    dicom=clinic_flags.dicom_options_on_request(arguments),
    viewer=arguments.viewer,
  )
  output = pathlib.Path(arguments.output)
  print_summary(result, output)
  if arguments.viewer:
    print(f'{output / case_viewer.FILE_NAME}: every slice in three planes.')
  if arguments.dicom:
    print(f'{output / objects.FOLDER}: DICOM objects.')
  return 0


def print_summary(result: results.CaseResult, output: pathlib.Path) -> None:
  """Prints the score and what was edited, and logs the warnings."""
  for warning in result.warnings:
    _log.warning('warning: %s', warning)
  detected = {None: '', True: ' Case detected.', False: ' Case not detected.'}
  print(
    f'Corona score {result.corona_score_cm3:.1f} cm³; '
    f'{result.involved_lung_fraction:.1%} of {result.lung_volume_cm3:.0f} cm³ of '
    f'lung involved; {len(result.positive_slices)} of {result.shape[0]} slices '
    f'positive.{detected[result.case_detected]}'
  )
  for line in result.edits.in_words() if result.edits else ():
    print(f'Edited: {line}')
  print(f'{output / "report.html"}: research use only.')
