"""Flags of TF Serving that have no effect here: warned about, or refused."""

import argparse
import logging
import re

from covid_tf import errors
from covid_tf.commands import serve_booleans
from covid_tf.predictors import protocol
from covid_tf.server import model_config

_log = logging.getLogger(__name__)
_FLAG = re.compile(r'--([a-z][a-z0-9_]*)(?:=.*)?', re.DOTALL)
# Parts of names whose flags would change who may talk to the server, which model
# answers or what it says: ignoring one of them would be a lie.
_NEVER_IGNORED = re.compile(
    r'ssl|tls|alts|cert|cred|auth|secur|key|token|verify|trust|password|'
    r'batch|model|prefix|platform|tflite|precision|signature|session_config|'
    r'tensor_content')
# Change none of that, for all their names.
_HARMLESS = frozenset(('enable_model_warmup', 'num_request_iterations_for_warmup'))


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the flags that are known and have no effect."""
  ignored = parser.add_argument_group('accepted, without effect here')
  for flag in ('--rest_api_port', '--rest_api_timeout_in_ms',
               '--monitoring_config_file', '--batching_parameters_file'):
    ignored.add_argument(flag, metavar='X', help=argparse.SUPPRESS)
  for flag in ('--enable_batching', '--enable_grpc_healthcheck_service'):
    serve_booleans.add(ignored, flag, argparse.SUPPRESS)


def judge_unknown(extra: list[str]) -> None:
  """Warns about flags that nothing declares, or refuses them.

  Raises:
    errors.UsageError: one is no flag, or would change security, the choice of the
      model or the answer.
  """
  for argument in extra:
    match = _FLAG.fullmatch(argument)
    if match is None:
      raise errors.UsageError(
          f'{argument!r}: required --name=value, found something else.')
    name = match.group(1)
    if _NEVER_IGNORED.search(name) and name not in _HARMLESS:
      raise errors.UsageError(
          f'--{name}: required a flag that this server honours, found one that would '
          'change security, the choice of the model or the answer; leave it out.')
    _log.warning('--%s has no effect on this server', name)


def warn(namespace: argparse.Namespace) -> None:
  """Warns about declared flags without effect, and reads the files they name.

  Raises:
    errors.UsageError: such a file cannot be read, or its flag stands alone.
  """
  if namespace.host and not namespace.ssl_config_file:
    _log.warning('--host %s without --ssl_config_file: images travel in plain text',
                 namespace.host)
  if namespace.rest_api_port not in (None, '0'):
    _log.warning('--rest_api_port: there is no REST API here, only gRPC')
  if namespace.monitoring_config_file:
    model_config.read_text_file(
        namespace.monitoring_config_file, protocol.MonitoringConfig)
    _log.warning('--monitoring_config_file: no metrics are exported here')
  if namespace.batching_parameters_file:
    if not namespace.enable_batching:
      raise errors.UsageError(
          '--batching_parameters_file: required together with --enable_batching, '
          'found alone.')
    model_config.read_text_file(
        namespace.batching_parameters_file, protocol.BatchingParameters)
  if namespace.enable_batching:
    _log.warning('--enable_batching: requests are run one by one here, with the '
                 'same answers; see serving/README.md before using it elsewhere')
