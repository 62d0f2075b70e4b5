"""`covid-tf dicom`: the DICOM objects of a stored result."""

import argparse

from covid_tf.commands import clinic_flags
from covid_tf.commands import shared_flags
from covid_tf.reports import dicom_export


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    'result', metavar='RESULT', help='folder that covid-tf score or rescore wrote'
  )
  parser.add_argument(
    '--study',
    metavar='STUDY',
    required=True,
    help='the DICOM series that was scored; of a result of NIfTI, MetaImage or '
    'NRRD, the series with the same voxels',
  )
  parser.add_argument(
    '--output',
    metavar='DIR',
    required=True,
    help='where the folder dicom appears, all of it or nothing; may be RESULT',
  )
  clinic_flags.add_dicom_arguments(parser)
  parser.add_argument(
    '--series', metavar='UID', help='which series of the study, of a result without one'
  )
  shared_flags.add_reading_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
  """Writes the objects; returns 0."""
  written = dicom_export.export_result(
    arguments.result,
    arguments.study,
    arguments.output,
    options=clinic_flags.dicom_options(arguments),
    series_uid=arguments.series,
    reading=shared_flags.chosen(arguments),
  )
  for path in written:
    print(path)
  print('Research use only.')
  return 0
