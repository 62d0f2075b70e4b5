"""Flags of the way into a clinic: DICOM objects, and the PACS they go to."""

import argparse
from collections.abc import Callable, Iterator
import contextlib
import functools
import re
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


# Of a command that has several peers: the flags of each begin with a word for it.

_SECURITY = (
  'tls',
  'tls_ca',
  'tls_certificate',
  'tls_key',
  'token_file',
  'password_file',
)


def add_security_arguments(group: Any, prefix: str) -> None:
  """Adds how a PACS knows us; what is for one must not be sent to another."""
  group.add_argument(f'--{prefix}-tls', action='store_true', help='DIMSE over TLS')
  for name, metavar, help_ in (
    ('tls-ca', 'PEM', 'authority that signed its certificate'),
    ('tls-certificate', 'PEM', 'our own certificate'),
    ('tls-key', 'PEM', 'its private key'),
    ('token-file', 'FILE', 'a bearer token for a URL; only its owner may read it'),
    ('password-file', 'FILE', 'user:password for a URL; only its owner may read it'),
  ):
    group.add_argument(f'--{prefix}-{name}', metavar=metavar, help=help_)


@contextlib.contextmanager
def named(prefix: str) -> Iterator[None]:
  """Errors of a connection name its flags with the prefix that they have here."""
  try:
    yield
  except errors.UsageError as error:
    pattern = r'--(tls|token-file|password-file)'
    raise errors.UsageError(re.sub(pattern, rf'--{prefix}-\1', str(error))) from error


def archive_opener(
  arguments: argparse.Namespace, flag: str, prefix: str, limits: Any
) -> Callable[[], Any] | None:
  """What opens a PACS, whenever it is called; None where none is named.

  Args:
    arguments: the parsed flags.
    flag: that names its address.
    prefix: of the flags of its security.
    limits: `covid_tf.clinic.pacs.Limits`, how long it may take.

  Raises:
    errors.UsageError: flags do not fit the address, or there is none for them.
  """
  from covid_tf.clinic import addresses  # As in `open_archive`.

  security = {name: getattr(arguments, f'{prefix}_{name}') for name in _SECURITY}
  text = getattr(arguments, flag.removeprefix('--').replace('-', '_'))
  if text is None:
    for name, value in security.items():
      if value:
        raise errors.UsageError(
          f'--{prefix}-{name.replace("_", "-")} belongs to {flag}: give both, or leave '
          'it out.'
        )
    return None
  flags = argparse.Namespace(
    **security,
    aet=arguments.aet,
    own_port=None,
    connect_timeout=limits.connect_s,
    answer_timeout=limits.answer_s,
    total_timeout=limits.total_s,
  )
  connect = functools.partial(
    open_archive,
    flags,
    addresses.parse(text, flag),
    attempts=limits.attempts,
  )
  with named(prefix):
    connect()  # Flags that do not fit are found before anything is opened.
  return connect
