"""`covid-tf review`: a contact sheet of an archive, and a table of decisions."""

import argparse
import logging
import pathlib

from covid_tf import errors
from covid_tf.cohort.review import contact_sheet

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    'results',
    metavar='RESULTS',
    type=pathlib.Path,
    help='folder searched for result.json at any depth',
  )
  parser.add_argument(
    '--output',
    required=True,
    type=pathlib.Path,
    metavar='DIR',
    help=f'where {" and ".join(contact_sheet.FILE_NAMES)} appear; decisions in a '
    'review.csv that is there stay',
  )
  parser.add_argument(
    '--most-pictures',
    type=int,
    default=contact_sheet.MOST_PICTURES,
    metavar='N',
    help='show pictures of so many results, the most doubtful ones (default '
    f'{contact_sheet.MOST_PICTURES})',
  )


def run(arguments: argparse.Namespace) -> int:
  """Looks through the results, writes sheet and table; returns 0."""
  if arguments.most_pictures < 0:
    raise errors.UsageError(
      f'--most-pictures must be 0 or more, found {arguments.most_pictures}.'
    )
  if arguments.output.suffix.casefold() in ('.html', '.csv'):
    raise errors.UsageError(
      f'--output {arguments.output}: a folder is required, in which '
      f'{" and ".join(contact_sheet.FILE_NAMES)} appear, found the name of a file.'
    )
  archive = contact_sheet.look_through(arguments.results)
  review = contact_sheet.write(archive, arguments.output, arguments.most_pictures)
  if archive.failed:
    _log.warning(
      'warning: %d without a result that can be read, listed at the end of the sheet.',
      len(archive.failed),
    )
  counts = ', '.join(f'{count} {name}' for name, count in review.counts().items())
  print(
    f'{len(archive.looked)} results, {archive.doubtful} with a reason to look again; '
    f'{counts}.'
  )
  print(f'{arguments.output / contact_sheet.FILE_NAME}: research use only.')
  return 0
