"""Flags of the way into a clinic: DICOM objects, and the PACS they go to."""

import argparse
from typing import Any

from covid_tf import errors
from covid_tf.storage.dicom import objects


def add_dicom_arguments(
  parser: argparse.ArgumentParser, *, on_request: bool = False
) -> None:
  """Adds --dicom-map and --dicom-pictures.

  Args:
    parser: of the command.
    on_request: whether the command makes objects with --dicom only, which is added.
  """
  group = parser.add_argument_group('DICOM objects (docs/dicom_objects.md)')
  if on_request:
    group.add_argument(
      '--dicom',
      action='store_true',
      help='leave segmentation, parametric map and structured report in DIR/dicom, on '
      "the CT's own slices",
    )
  group.add_argument(
    '--dicom-map',
    metavar='|'.join(objects.MAP_FORMS),
    help='how values of the parametric map are stored: uint16, packed, 1e-5 off at '
    'most (default), or float32, exact, of 1 MB a slice',
  )
  group.add_argument(
    '--dicom-pictures',
    action='store_true',
    help='key pictures of the report too, as secondary captures',
  )


def dicom_options(arguments: argparse.Namespace) -> objects.Options:
  """What --dicom-map and --dicom-pictures ask for.

  Raises:
    errors.UsageError: --dicom-map is another form.
  """
  return objects.Options(
    arguments.dicom_map or objects.MAP_FORMS[0], arguments.dicom_pictures
  )


def dicom_options_on_request(arguments: argparse.Namespace) -> objects.Options | None:
  """The same of a command with --dicom; None without it.

  Raises:
    errors.UsageError: flags of objects are given without --dicom.
  """
  if arguments.dicom:
    return dicom_options(arguments)
  for name in ('dicom_map', 'dicom_pictures'):
    if getattr(arguments, name):
      raise errors.UsageError(
        f'--{name.replace("_", "-")} belongs to --dicom: give both, or leave it out.'
      )
  return None


# Flags of a PACS: how it is reached, and what it knows us by.


def add_pacs_arguments(parser: argparse.ArgumentParser, *, listens: bool) -> None:
  """Adds the flags of `open_archive`.

  Args:
    parser: of the command.
    listens: whether the PACS may have to open an association to us.
  """
  own = parser.add_argument_group('who we are to a PACS by DIMSE')
  own.add_argument(
    '--aet', metavar='TITLE', default='COVIDTF', help='our AE title (default COVIDTF)'
  )
  if listens:
    own.add_argument(
      '--own-port',
      type=int,
      metavar='PORT',
      help='port at which the PACS reaches us, on every address of this machine, while '
      'the command runs: C-MOVE and storage commitment need it',
    )
  else:
    parser.set_defaults(own_port=None)
  safe = parser.add_argument_group('security of the connection')
  safe.add_argument(
    '--tls',
    action='store_true',
    help='DIMSE over TLS' + (', at --own-port too' if listens else ''),
  )
  safe.add_argument(
    '--tls-ca', metavar='PEM', help='authority that signed the certificate of the PACS'
  )
  safe.add_argument(
    '--tls-certificate',
    metavar='PEM',
    help='our own certificate'
    + ('; --own-port with --tls needs it and --tls-ca' if listens else ''),
  )
  safe.add_argument('--tls-key', metavar='PEM', help='its private key')
  safe.add_argument(
    '--token-file',
    metavar='FILE',
    help='a bearer token for a URL; only its owner may be able to read the file',
  )
  safe.add_argument(
    '--password-file',
    metavar='FILE',
    help='user:password for a URL; only its owner may be able to read the file',
  )
  times = parser.add_argument_group('how long a PACS may take, in seconds')
  for name, seconds, help_ in (
    ('connect', 10.0, 'to be reached'),
    ('answer', 60.0, 'for its next answer'),
    ('total', 3600.0, 'for the whole, with repetitions'),
  ):
    times.add_argument(
      f'--{name}-timeout',
      type=float,
      default=seconds,
      metavar='SECONDS',
      help=f'{help_} (default {seconds:g})',
    )


def open_archive(
  arguments: argparse.Namespace, address: Any, *, attempts: int = 3, use_move=False
) -> Any:
  """The PACS that the flags name, a `covid_tf.clinic.pacs.Archive`.

  Args:
    arguments: the parsed flags.
    address: of `covid_tf.clinic.addresses.parse`.
    attempts: how often it is tried where that may help.
    use_move: retrieve by C-MOVE without trying C-GET first.

  Raises:
    errors.UsageError: flags do not fit the address, or files are not in order.
  """
  # Other commands need none of it.
  from covid_tf import clinic
  from covid_tf.clinic import addresses
  from covid_tf.clinic import pacs

  return clinic.connect(
    address,
    own=addresses.OwnNode(arguments.aet, arguments.own_port),
    security=addresses.Security(
      tls=arguments.tls,
      ca_file=arguments.tls_ca,
      certificate_file=arguments.tls_certificate,
      key_file=arguments.tls_key,
      token_file=arguments.token_file,
      password_file=arguments.password_file,
    ),
    limits=pacs.Limits(
      arguments.connect_timeout,
      arguments.answer_timeout,
      arguments.total_timeout,
      attempts,
    ),
    use_move=use_move,
  )
