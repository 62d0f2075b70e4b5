"""`covid-tf node`: scores the studies that it is sent, and sends the objects on."""

import argparse
from collections.abc import Iterator
import contextlib
import functools
import os
import pathlib
import signal
import sys
import threading
from typing import Any

from covid_tf import errors
from covid_tf import readers
from covid_tf.batch import engines
from covid_tf.clinic import addresses
from covid_tf.clinic import pacs
from covid_tf.commands import archive_scorer
from covid_tf.commands import clinic_flags
from covid_tf.commands import model_flags
from covid_tf.commands import shared_flags
from covid_tf.node import completeness
from covid_tf.node import listener
from covid_tf.node import retention
from covid_tf.node import service
from covid_tf.node import spool
from covid_tf.node import studies
from covid_tf.storage.dicom import objects

_LISTENER = listener.Settings()
_RULES = completeness.Rules()
_KEEP = retention.Keep()
_MOST_WAITING = 200
_END_WITHIN_S = 60.0
# Of a question about one study, which is asked again: (connect, answer, total).
_SOURCE_LIMITS = pacs.Limits(5.0, 30.0, 60.0, attempts=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  parser.add_argument(
    '--output',
    metavar='DIR',
    required=True,
    help='where studies/UID/, manifest.csv and what has come are; the same command '
    'goes on where it stopped',
  )
  _add_listener_arguments(parser)
  _add_rule_arguments(parser)
  _add_destination_arguments(parser)
  _add_keeping_arguments(parser)
  model_flags.add_model_arguments(parser, several_servers=True)
  archive_scorer.add_arguments(parser)
  shared_flags.add_reading_arguments(parser)
  shared_flags.add_analysis_arguments(parser)
  clinic_flags.add_dicom_arguments(parser)


def _add_listener_arguments(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group('where it listens, for whom')
  group.add_argument(
    '--aet',
    metavar='TITLE',
    default=_LISTENER.ae_title,
    help=f'our AE title (default {_LISTENER.ae_title})',
  )
  group.add_argument(
    '--port',
    type=int,
    default=_LISTENER.port,
    metavar='PORT',
    help=f'TCP port; 0: any that is free (default {_LISTENER.port})',
  )
  group.add_argument(
    '--host',
    metavar='ADDRESS',
    default=_LISTENER.host,
    help='of the interface to listen at; 0.0.0.0 for all (default '
    f'{_LISTENER.host}: this machine alone)',
  )
  group.add_argument(
    '--callers',
    metavar='TITLE,…',
    help='AE titles that may send (default: any, which only this machine may)',
  )
  group.add_argument(
    '--any-caller',
    action='store_true',
    help='anybody may send, also from other machines',
  )
  _add_number(group, '--most-associations', _LISTENER.most_associations, 'at one time')
  _add_number(group, '--request-timeout', _LISTENER.request_s, 'seconds for a request')
  _add_number(
    group, '--idle-timeout', _LISTENER.idle_s, 'seconds without a word of a sender'
  )
  _add_number(
    group,
    '--longest-association',
    _LISTENER.longest_association_s,
    'seconds, after which it is cut',
  )
  _add_number(
    group,
    '--largest-instance',
    _LISTENER.largest_instance_bytes >> 20,
    'MB; a larger one ends its association',
  )
  group.add_argument(
    '--listen-tls', action='store_true', help='encrypted connections only'
  )
  for name, help_ in (
    ('ca', 'authority that signed the certificates of senders'),
    ('certificate', 'our own certificate'),
    ('key', 'its private key'),
  ):
    group.add_argument(f'--listen-tls-{name}', metavar='PEM', help=help_)


def _add_rule_arguments(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group('when a study is whole (docs/node.md)')
  _add_number(group, '--settle', _RULES.settle_s, 'seconds without news of a study')
  group.add_argument(
    '--source-pacs',
    metavar='ADDRESS',
    help='AET@host:port or https://host/dicom-web of the PACS that sends: it is asked '
    'what it has of a study, and what has not come is waited for',
  )
  clinic_flags.add_security_arguments(group, 'source')
  _add_number(
    group,
    '--incomplete-after',
    _RULES.incomplete_after_s,
    'seconds without news, after which a study that is not whole is reported',
  )
  group.add_argument(
    '--accept',
    metavar='STUDY_UID',
    help='say that a study is whole as it is, to the node of --output, and end',
  )
  _add_number(
    group,
    '--most-waiting',
    _MOST_WAITING,
    'studies that wait; then senders are put off',
  )


def _add_destination_arguments(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group('where the DICOM objects go')
  group.add_argument(
    '--to',
    metavar='ADDRESS',
    help='AET@host:port or https://host/dicom-web (default: they stay here)',
  )
  group.add_argument(
    '--retry-rejected',
    action='store_true',
    help='send once more what it has rejected',
  )
  clinic_flags.add_security_arguments(group, 'pacs')
  limits = pacs.Limits()
  for name, seconds, help_ in (
    ('connect', limits.connect_s, 'seconds to reach it'),
    ('answer', limits.answer_s, 'seconds to its next answer'),
    ('total', limits.total_s, 'seconds for all objects of a study'),
  ):
    _add_number(group, f'--{name}-timeout', seconds, help_)


def _add_keeping_arguments(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group('what is kept, and who watches')
  group.add_argument(
    '--spool', metavar='DIR', help='where what comes is kept (default OUTPUT/spool)'
  )
  _add_number(
    group,
    '--reserve',
    spool.RESERVE_BYTES >> 20,
    'MB of the disk of --spool to leave free; with less, senders are put off',
  )
  _add_number(
    group, '--keep-studies', _KEEP.studies_days, 'days, images that are scored and sent'
  )
  _add_number(
    group,
    '--keep-refused',
    _KEEP.refused_days,
    'days, images without a score, or of which an object was rejected',
  )
  group.add_argument(
    '--keep-results',
    type=float,
    metavar='N',
    help='days, results (default: for ever)',
  )
  group.add_argument(
    '--health-port',
    type=int,
    metavar='PORT',
    help='HTTP: /healthz, /readyz, /metrics, /studies (default: none)',
  )
  group.add_argument(
    '--health-host',
    metavar='ADDRESS',
    default='127.0.0.1',
    help='where it listens (default 127.0.0.1: this machine alone)',
  )
  _add_number(
    group, '--end-within', _END_WITHIN_S, 'seconds for senders, when it is to end'
  )


def _add_number(group: Any, flag: str, default: float, help_: str) -> None:
  group.add_argument(
    flag,
    type=type(default),
    default=default,
    metavar='N',
    help=f'{help_} (default {default:g})',
  )


def run(arguments: argparse.Namespace) -> int:
  """Runs until SIGTERM or Ctrl-C; returns 0."""
  if arguments.accept is not None:
    return _accept(arguments)
  archive_scorer.require_processes(arguments.processes)
  # A slip is found before anything is opened.
  archive_scorer.servers_of(arguments.server)
  readers.require_options(**shared_flags.chosen(arguments))
  shared_flags.thresholds(arguments)
  dicom = clinic_flags.dicom_options(arguments)
  objects.require_extra()
  ask = functools.partial(engines.map_studies, processes=1)
  node = service.Node(
    _settings(arguments),
    lambda: archive_scorer.make_scorer(arguments, ask, dicom),
    destination=clinic_flags.archive_opener(
      arguments, '--to', 'pacs', _limits(arguments)
    ),
    source=clinic_flags.archive_opener(
      arguments, '--source-pacs', 'source', _SOURCE_LIMITS
    ),
  )
  with _ending(node):
    node.run(lambda port: _say_open(arguments, port))
  return 0


def _say_open(arguments: argparse.Namespace, port: int) -> None:
  print(
    f'covid-tf node: {arguments.aet} listens at {arguments.host}:{port}; '
    'research use only.',
    file=sys.stderr,
    flush=True,
  )


def _settings(arguments: argparse.Namespace) -> service.Settings:
  output = pathlib.Path(os.path.abspath(arguments.output))
  return service.Settings(
    output,
    spool=_spool_folder(arguments, output),
    listener=listener.Settings(
      arguments.aet,
      arguments.port,
      arguments.host,
      frozenset(_callers(arguments.callers)),
      arguments.any_caller,
      arguments.most_associations,
      arguments.request_timeout,
      arguments.idle_timeout,
      arguments.longest_association,
      arguments.largest_instance << 20,
      _listener_security(arguments),
    ),
    rules=completeness.Rules(
      arguments.settle, arguments.incomplete_after, arguments.source_pacs is not None
    ),
    keep=retention.Keep(
      arguments.keep_studies, arguments.keep_refused, arguments.keep_results
    ),
    processes=arguments.processes
    or engines.worker_count(models_in_process=arguments.server is None),
    most_waiting=arguments.most_waiting,
    reserve_bytes=arguments.reserve << 20,
    health=None
    if arguments.health_port is None
    else (arguments.health_host, arguments.health_port),
    end_within_s=arguments.end_within,
    redo=arguments.redo,
    retry_rejected=arguments.retry_rejected,
  )


def _spool_folder(arguments: argparse.Namespace, output: pathlib.Path) -> pathlib.Path:
  return (
    output / 'spool'
    if arguments.spool is None
    else pathlib.Path(os.path.abspath(arguments.spool))
  )


def _callers(text: str | None) -> Iterator[str]:
  for title in text.split(',') if text is not None else ():
    addresses.require_ae_title(title.strip(), '--callers')
    yield title.strip()


def _listener_security(arguments: argparse.Namespace) -> addresses.Security | None:
  names = ('ca', 'certificate', 'key')
  files = {name: getattr(arguments, f'listen_tls_{name}') for name in names}
  if not arguments.listen_tls:
    for name in names:
      if files[name]:
        raise errors.UsageError(
          f'--listen-tls-{name} belongs to --listen-tls: give both, or leave it out.'
        )
    return None
  if not (files['certificate'] and files['ca']):
    raise errors.UsageError(
      '--listen-tls: our own certificate and the authority of those of senders are '
      'required; give --listen-tls-certificate, --listen-tls-key and --listen-tls-ca.'
    )
  with clinic_flags.named('listen'):
    found = addresses.Security(True, files['ca'], files['certificate'], files['key'])
    found.server_ssl_context()  # Files that do not fit are found here.
  return found


def _limits(arguments: argparse.Namespace) -> pacs.Limits:
  return pacs.Limits(
    arguments.connect_timeout,
    arguments.answer_timeout,
    arguments.total_timeout,
    attempts=1,
  )


def _accept(arguments: argparse.Namespace) -> int:
  """Tells the node of a folder that a study is whole."""
  uid = addresses.require_uid(arguments.accept, '--accept')
  output = pathlib.Path(os.path.abspath(arguments.output))
  if not studies.accept(output, _spool_folder(arguments, output), uid):
    raise errors.UsageError(
      f'--accept {uid}: a study of which instances have come is required, found none '
      f'in {arguments.spool or arguments.output}; /studies of --health-port lists them.'
    )
  print(f'{uid}: accepted as whole; the node scores it as soon as nobody sends it.')
  return 0


@contextlib.contextmanager
def _ending(node: service.Node) -> Iterator[None]:
  """Lets the first SIGINT or SIGTERM end the node in order, the second at once."""
  reading, writing = os.pipe()

  def wait() -> None:
    if os.read(reading, 1):
      node.end()

  def handle(number: int, frame: object) -> None:
    del frame
    if caught:
      raise KeyboardInterrupt
    caught.append(number)
    # Nothing here may wait for a lock that the interrupted code holds.
    os.write(writing, b'.')

  caught: list[int] = []
  waiter = threading.Thread(target=wait, name='signals', daemon=True)
  waiter.start()
  before = {
    number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)
  }
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
    os.close(writing)
    waiter.join()
    os.close(reading)
