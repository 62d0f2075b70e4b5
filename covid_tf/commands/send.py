"""`covid-tf send`: DICOM objects of a result to a PACS."""

import argparse
from collections.abc import Sequence
import sys

import tqdm

from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import pacs
from covid_tf.clinic import sending
from covid_tf.clinic import verifying
from covid_tf.commands import clinic_flags

_MOST_LINES = 20  # Of one kind; a PACS that refuses refuses every slice alike.


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    'result',
    metavar='RESULT',
    help='folder that covid-tf score --dicom wrote, a folder of DICOM files of one '
    'study, or one DICOM file',
  )
  parser.add_argument(
    '--to',
    metavar='ADDRESS',
    required=True,
    help='AET@host:port or https://host/dicom-web',
  )
  parser.add_argument(
    '--verify',
    action='store_true',
    help='ask afterwards whether all is kept: by storage commitment where it is '
    'offered, else fetched back and compared',
  )
  clinic_flags.add_pacs_arguments(parser, listens=True)


def run(arguments: argparse.Namespace) -> int:
  """Sends all instances, prints what became of them; returns 0."""
  address = addresses.parse(arguments.to, '--to')
  instances = sending.read_instances(arguments.result)
  study_uid = instances[0].study_uid
  if isinstance(address, addresses.WebAddress) and address.study_uid not in (
    None,
    study_uid,
  ):
    raise errors.UsageError(
      f'--to: the URL leads into study {address.study_uid}, but the objects are of '
      f'study {study_uid}; give the root of the services, {address}.'
    )
  archive = clinic_flags.open_archive(arguments, address)
  with tqdm.tqdm(
    total=len(instances),
    unit='instance',
    file=sys.stderr,
    disable=not sys.stderr.isatty(),
    leave=False,
  ) as bar:
    sent = sending.send(instances, archive, lambda answer: bar.update() and None)
  _tell(sent.of(pacs.Outcome.WARNING), 'warning: ')
  _tell(sent.of(pacs.Outcome.FAILED), '')
  failed = len(sent.of(pacs.Outcome.FAILED))
  if failed:
    raise errors.PACSError(
      f'{archive.name}: {failed} of {len(instances)} instances are not stored (above).'
    )
  print(f'{len(instances)} of {len(instances)} instances stored at {archive.name}.')
  if arguments.verify:
    _verify(archive, instances)
  return 0


def _tell(answers: Sequence[object], kind: str) -> None:
  for answer in answers[:_MOST_LINES]:
    print(f'covid-tf send: {kind}{answer}', file=sys.stderr)
  if len(answers) > _MOST_LINES:
    print(
      f'covid-tf send: {kind}and {len(answers) - _MOST_LINES} more', file=sys.stderr
    )


def _verify(archive: pacs.Archive, instances: Sequence[pacs.Instance]) -> None:
  found = verifying.verify(archive, instances)
  if found.changed:
    print(
      'covid-tf send: warning: the PACS changed attributes, as it may: '
      f'{", ".join(found.changed)}',
      file=sys.stderr,
    )
  _tell(found.faults, '')
  if not found.is_kept:
    raise errors.PACSError(
      f'{archive.name}: {len(found.faults)} of {len(instances)} instances are not kept '
      f'as they were sent ({found.method}).'
    )
  print(f'Verified: {found.method}.')
