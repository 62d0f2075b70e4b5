"""`covid-tf echo`: whether a PACS is there and speaks with us."""

import argparse

from covid_tf.clinic import addresses
from covid_tf.commands import clinic_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    'address',
    metavar='ADDRESS',
    help='AET@host:port (asked by C-ECHO) or https://host/dicom-web (by a search)',
  )
  clinic_flags.add_pacs_arguments(parser, listens=False)


def run(arguments: argparse.Namespace) -> int:
  """Asks, prints how long the answer took; returns 0."""
  address = addresses.parse(arguments.address, 'ADDRESS')
  # Once: whoever asks wants to know how it is now.
  archive = clinic_flags.open_archive(arguments, address, attempts=1)
  seconds = archive.echo()
  print(f'{archive.name} answers: {seconds:.2f} s.')
  return 0
