"""`covid-tf viewer`: the page to look through a stored result."""

import argparse

from covid_tf.commands import shared_flags
from covid_tf.reports import case_viewer


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    'result', metavar='RESULT', help='folder that covid-tf score or rescore wrote'
  )
  parser.add_argument(
    '--study',
    metavar='STUDY',
    required=True,
    help='the study that was scored: folder of DICOM files, a zip, or a file of NIfTI, '
    'MetaImage or NRRD',
  )
  parser.add_argument(
    '--output',
    metavar='FILE',
    help=f'the page, ends in .html (default: {case_viewer.FILE_NAME} in RESULT, whose '
    'other files stay as they are)',
  )
  parser.add_argument(
    '--series', metavar='UID', help='which series of the study (default: of RESULT)'
  )
  shared_flags.add_reading_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
  """Writes the page; returns 0."""
  reading = shared_flags.chosen(arguments)
  if arguments.series:
    reading['series_uid'] = arguments.series
  written = case_viewer.view_stored(
    arguments.result, arguments.study, arguments.output, reading
  )
  print(f'{written}: open it in a browser. Research use only.')
  return 0
