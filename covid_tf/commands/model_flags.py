"""Flags that choose the models and the server; for every command that needs them."""

import argparse
from collections.abc import Iterable, Iterator
import contextlib
import os
import pathlib
import sys
from typing import Any

from covid_tf import errors
from covid_tf import predictors
from covid_tf import results
from covid_tf.predictors import interface


def add_model_arguments(
  parser: argparse.ArgumentParser,
  *,
  several_servers: bool = False,
  self_check: bool = True,
) -> None:
  """Adds --server, --models and what belongs to a server.

  Args:
    parser: of the command.
    several_servers: whether the command splits --server at commas.
    self_check: whether models are checked when they are opened, and a flag is
      wanted that leaves it out.
  """
  source = parser.add_mutually_exclusive_group()
  source.add_argument(
    '--server',
    metavar='HOST:PORT[,HOST:PORT...]' if several_servers else 'HOST:PORT',
    help='a TF Serving or covid-tf serve gRPC port',
  )
  source.add_argument(
    '--models',
    type=pathlib.Path,
    metavar='DIR',
    help='exported models (DIR/lungs/1, DIR/classifier/1), run in this process; '
    'without --server and --models: the demo models, which show how it works '
    'and nothing more',
  )
  if self_check:
    parser.add_argument(
      '--no-self-check',
      action='store_true',
      help='do not ask the models first whether they compute right, which takes a '
      'few seconds (covid-tf check asks more)',
    )
  else:
    parser.set_defaults(no_self_check=True)
  server = parser.add_argument_group('how to reach --server')
  server.add_argument(
    '--tls', action='store_true', help='encrypted, by public authorities'
  )
  server.add_argument('--tls-ca', metavar='PEM', help='encrypted, by this authority')
  server.add_argument('--tls-certificate', metavar='PEM', help='our own certificate')
  server.add_argument('--tls-key', metavar='PEM', help='its private key')
  server.add_argument(
    '--token-file', metavar='FILE', help='a bearer token sent with every call'
  )
  server.add_argument(
    '--timeout',
    type=float,
    default=120.0,
    metavar='SECONDS',
    help='deadline of one call (default 120)',
  )


@contextlib.contextmanager
def open_models(
  arguments: argparse.Namespace, announce: bool = True
) -> Iterator[interface.VersionedModels]:
  """Yields the models that the flags name.

  Args:
    arguments: the parsed flags.
    announce: on a terminal, say what takes some seconds before anything moves.

  Raises:
    errors.UsageError: flags contradict each other.
    errors.ModelError: no server, or not our models.
  """
  options: dict[str, Any] = {'self_check': False} if arguments.no_self_check else {}
  if arguments.server is None:
    _refuse_server_flags(arguments)
    if announce and sys.stderr.isatty():
      print(
        'covid-tf: TensorFlow starts and the models are loaded: some seconds.',
        file=sys.stderr,
      )
    with predictors.load_models(arguments.models, **options) as models:
      yield models
    return
  with predictors.connect(
    arguments.server,
    tls=_tls(arguments),
    metadata=_metadata(arguments),
    timeout_s=arguments.timeout,
    **options,
  ) as models:
    yield models


def are_demo(
  arguments: argparse.Namespace, identities: Iterable[results.ModelIdentity] = ()
) -> bool:
  """Whether the demo models answer: by default, or from wherever they are served."""
  by_default = arguments.server is None and arguments.models is None
  return by_default or any(model.is_demo for model in identities)


def _refuse_server_flags(arguments: argparse.Namespace) -> None:
  for name in ('tls', 'tls_ca', 'tls_certificate', 'tls_key', 'token_file'):
    if getattr(arguments, name):
      raise errors.UsageError(
        f'--{name.replace("_", "-")} belongs to a server: give --server HOST:PORT '
        'too, or leave it out.'
      )


def _tls(arguments: argparse.Namespace) -> predictors.TLS | None:
  files = (arguments.tls_ca, arguments.tls_certificate, arguments.tls_key)
  if not arguments.tls and not any(files):
    return None
  return predictors.TLS(*files)


def _metadata(arguments: argparse.Namespace):
  if arguments.token_file is None:
    return ()
  _token(arguments.token_file)  # A missing file is found before the study is read.
  # Read again for each call: tokens expire while a study runs.
  return lambda: (('authorization', f'Bearer {_token(arguments.token_file)}'),)


def _token(path: str | os.PathLike) -> str:
  try:
    return pathlib.Path(path).read_text('utf-8').strip()
  except OSError as error:
    raise errors.UsageError(
      f'--token-file {path}: a readable file is required, found {error.strerror}.'
    ) from error
