"""`covid-tf fetch`: a study from a PACS to a folder."""

import argparse
import sys

import tqdm

from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import fetching
from covid_tf.commands import clinic_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument('study_uid', metavar='STUDY_UID', help='Study Instance UID')
  parser.add_argument(
    '--from',
    dest='source',
    metavar='ADDRESS',
    required=True,
    help='AET@host:port or https://host/dicom-web',
  )
  parser.add_argument(
    '--output',
    metavar='DIR',
    required=True,
    help='a new or empty folder; SERIES_UID/SOP_INSTANCE_UID.dcm appear there, all or '
    'none',
  )
  parser.add_argument('--series', metavar='UID', help='only this series')
  parser.add_argument(
    '--move',
    action='store_true',
    help='by C-MOVE without trying C-GET first; needs --own-port',
  )
  clinic_flags.add_pacs_arguments(parser, listens=True)


def run(arguments: argparse.Namespace) -> int:
  """Fetches the study, prints what has come; returns 0."""
  study_uid = addresses.require_uid(arguments.study_uid, 'STUDY_UID')
  address = addresses.parse(arguments.source, '--from')
  if isinstance(address, addresses.WebAddress) and address.study_uid not in (
    None,
    study_uid,
  ):
    raise errors.UsageError(
      f'--from: the URL leads into another study, {address.study_uid}; give the root '
      f'of the services, {address}.'
    )
  if isinstance(address, addresses.WebAddress) and arguments.move:
    raise errors.UsageError(
      f'--move: AET@host:port is required for C-MOVE, found {address}; leave --move '
      'out, or give the address for DIMSE.'
    )
  archive = clinic_flags.open_archive(arguments, address, use_move=arguments.move)
  with tqdm.tqdm(
    unit='instance', file=sys.stderr, disable=not sys.stderr.isatty(), leave=False
  ) as bar:
    fetched = fetching.fetch(
      archive,
      study_uid,
      arguments.output,
      series_uid=arguments.series,
      on_listed=bar.reset,
      on_instance=bar.update,
    )
  print(
    f'{fetched.instance_count} instances of {len(fetched.series_uids)} series, '
    f'{fetched.size_bytes / 1e6:.1f} MB: {fetched.folder}'
  )
  return 0
