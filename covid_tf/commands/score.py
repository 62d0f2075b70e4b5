"""`covid-tf score`: one study to result.json, report, map and mask."""

import argparse
import pathlib
import sys

from covid_tf import case_threshold
from covid_tf import errors
from covid_tf import output_folder
from covid_tf import pipeline
from covid_tf import readers
from covid_tf import results
from covid_tf.commands import model_options
from covid_tf.reports import study_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
      'study', metavar='STUDY', help='folder of DICOM files, or a NIfTI file')
  parser.add_argument(
      '--output', metavar='DIR', required=True,
      help=f'where {", ".join(study_files.NAMES)} appear, all or none')
  model_options.add_arguments(parser)
  parser.add_argument('--series', metavar='UID', help='which series of the study')
  parser.add_argument(
      '--resample-tilt', action='store_true',
      help='straighten a series with gantry tilt instead of refusing it')
  parser.add_argument(
      '--case-threshold', metavar='FILE|CM3',
      help='answer whether the case is detected: above this score, or by the '
      'operating_point.json of covid-tf cohort')
  parser.add_argument(
      '--patient-key-file', metavar='FILE',
      help="the site's secret key: with it, results of one patient can be joined "
      'without naming the patient')


def run(arguments: argparse.Namespace) -> int:
  """Scores the study; returns 0."""
  _print_summary(score_study(arguments), pathlib.Path(arguments.output))
  return 0


def score_study(arguments: argparse.Namespace) -> results.CaseResult:
  """Does what the flags say, without a word about the result.

  Args:
    arguments: the command's, parsed.

  Returns:
    The result whose files are in `--output` now.

  Raises:
    errors.CovidTFError: nothing appeared in `--output`; says why.
  """
  threshold = arguments.case_threshold and case_threshold.parse(
      arguments.case_threshold)
  with output_folder.filling(arguments.output, study_files.NAMES) as folder:
    volume = readers.read_ct(
        arguments.study, series_uid=arguments.series,
        patient_key_file=arguments.patient_key_file,
        resample_tilt=arguments.resample_tilt)
    with model_options.open_models(arguments) as models:
      if threshold:
        threshold.require_same_models(models.identities())
      result = _analyze(arguments.study, volume, models, threshold)
    demo_models = model_options.are_demo(arguments, result.models)
    study_files.write_all(folder, result, volume, demo_models=demo_models)
  return study_files.with_demo_warning(result) if demo_models else result


def _analyze(study, volume, models, threshold) -> results.CaseResult:
  cuts = results.Thresholds(
      case_corona_score_cm3=threshold.corona_score_cm3 if threshold else None)
  try:
    result = pipeline.analyze(volume, models, thresholds=cuts)
  except errors.StudyRefusedError as error:
    raise type(error)(f'{study}: {error}') from error
  if threshold:
    # Again: the server may have changed models since.
    threshold.require_same_models(result.models)
  return result


def _print_summary(result: results.CaseResult, output: pathlib.Path) -> None:
  for warning in result.warnings:
    print(f'covid-tf score: warning: {warning}', file=sys.stderr)
  detected = {None: '', True: ' Case detected.', False: ' Case not detected.'}
  print(
      f'Corona score {result.corona_score_cm3:.1f} cm³; '
      f'{result.involved_lung_fraction:.1%} of {result.lung_volume_cm3:.0f} cm³ of '
      f'lung involved; {len(result.positive_slices)} of {result.shape[0]} slices '
      f'positive.{detected[result.case_detected]}')
  print(f'{output / "report.html"}: research use only.')
