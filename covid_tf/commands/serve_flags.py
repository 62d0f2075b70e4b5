"""TF Serving's command line: honoured, warned about or refused, flag by flag."""

import argparse
import re

from covid_tf import errors
from covid_tf.commands import serve_booleans
from covid_tf.commands import serve_ignored_flags
from covid_tf.server import options as options_lib


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares every flag that is honoured or known and warned about."""
  parser.allow_abbrev = False  # --model is not --models.
  defaults = options_lib.ServerOptions()
  source = parser.add_argument_group('models')
  source.add_argument('--models', metavar='DIR',
                      help='serve every model of DIR (DIR/NAME/VERSION)')
  source.add_argument('--model_name', default=defaults.model_name,
                      help='name of a single model (default: %(default)s)')
  source.add_argument('--model_base_path', metavar='DIR',
                      help='absolute folder of its versions')
  source.add_argument('--model_config_file', metavar='FILE',
                      help='text-format ModelServerConfig')
  source.add_argument('--model_config_file_poll_wait_seconds', type=float,
                      default=defaults.config_poll_s, metavar='S',
                      help='read that file again so often; 0: never')
  source.add_argument('--file_system_poll_wait_seconds', type=float,
                      default=defaults.poll_s, metavar='S',
                      help='look for versions so often; 0: once (default: 1)')
  source.add_argument('--max_num_load_retries', type=int, metavar='N',
                      help='tries after a failed load (default: 5; with --models 0)')
  source.add_argument('--load_retry_interval_micros', type=int,
                      default=round(defaults.retry_interval_s * 1e6), metavar='US',
                      help='time between them (default: a minute)')
  serve_booleans.add(
      source, '--allow_version_labels_for_unavailable_models',
      'new labels may name versions that are not loaded yet')
  serve_booleans.add(
      source, '--self_check',
      'a version becomes available only if it gives the reference answers that it '
      'carries: a second or two (default: true)', default=True)
  _add_connection_arguments(parser, defaults)


def _add_connection_arguments(parser, defaults) -> None:
  connection = parser.add_argument_group('connection')
  connection.add_argument('--port', type=int, default=defaults.port,
                          help='gRPC port; 0: a free one (default: %(default)s)')
  connection.add_argument('--host', metavar='ADDRESS',
                          help='listen on ADDRESS, for instance 0.0.0.0 '
                          '(default: 127.0.0.1 and ::1)')
  connection.add_argument('--grpc_socket_path', metavar='PATH',
                          help='listen on a Unix socket too')
  connection.add_argument('--ssl_config_file', metavar='FILE',
                          help='text-format SSLConfig: TLS for every connection')
  connection.add_argument('--grpc_channel_arguments', default='', metavar='K=V,...',
                          help="gRPC's own settings")
  serve_booleans.add(
      connection, '--enable_serialization_as_tensor_content',
      'answer with raw bytes instead of typed fields')
  load = parser.add_argument_group('load')
  load.add_argument('--running_requests', type=int, default=defaults.running,
                    metavar='N', help='that run at once (default: %(default)s)')
  load.add_argument('--waiting_requests', type=int, default=defaults.waiting,
                    metavar='N', help='that may wait; more are refused with '
                    'RESOURCE_EXHAUSTED (default: %(default)s)')
  load.add_argument('--drain_seconds', type=float, default=defaults.drain_s,
                    metavar='S', help='for running requests after SIGTERM '
                    '(default: %(default)s)')
  serve_ignored_flags.add_arguments(parser)


def parse_options(
    namespace: argparse.Namespace, extra: list[str]) -> options_lib.ServerOptions:
  """Turns parsed flags, and what argparse left over, into options.

  Args:
    namespace: of the flags above.
    extra: arguments that none of them took.

  Returns:
    The options; unknown harmless flags are warned about.

  Raises:
    errors.UsageError: an argument is wrong, or cannot be ignored safely.
  """
  serve_ignored_flags.judge_unknown(extra)
  serve_ignored_flags.warn(namespace)
  sources = [flag for flag in ('models', 'model_base_path', 'model_config_file')
             if getattr(namespace, flag)]
  if not sources:
    raise errors.UsageError(
        'required --models DIR, --model_base_path DIR or --model_config_file FILE, '
        'found none of them.')
  if 'models' in sources and len(sources) > 1:
    raise errors.UsageError(
        f'--models: required as the only source of models, found --{sources[1]} '
        'too; keep one of them.')
  for name in ('running_requests', 'waiting_requests', 'drain_seconds'):
    if getattr(namespace, name) < (1 if name == 'running_requests' else 0):
      raise errors.UsageError(
          f'--{name}: required a positive number, found {getattr(namespace, name)}.')
  if not 0 <= namespace.port < 65536:
    raise errors.UsageError(
        f'--port: required a number from 0 to 65535, found {namespace.port}.')
  retries = namespace.max_num_load_retries
  return options_lib.ServerOptions(
      models=namespace.models,
      model_name=namespace.model_name,
      model_base_path=namespace.model_base_path,
      model_config_file=namespace.model_config_file,
      config_poll_s=namespace.model_config_file_poll_wait_seconds,
      poll_s=namespace.file_system_poll_wait_seconds,
      # A person at a terminal wants to be told at once; a server waits for a disk.
      load_retries=(0 if namespace.models else options_lib.ServerOptions.load_retries)
      if retries is None else retries,
      retry_interval_s=namespace.load_retry_interval_micros / 1e6,
      allow_labels_for_unavailable=(
          namespace.allow_version_labels_for_unavailable_models),
      self_check=namespace.self_check,
      host=namespace.host,
      port=namespace.port,
      socket_path=namespace.grpc_socket_path or None,
      ssl_config_file=namespace.ssl_config_file or None,
      channel_arguments=_channel_arguments(namespace.grpc_channel_arguments),
      as_content=namespace.enable_serialization_as_tensor_content,
      running=namespace.running_requests,
      waiting=namespace.waiting_requests,
      drain_s=namespace.drain_seconds)


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
  pairs = []
  for item in filter(None, text.split(',')):
    name, equals, value = item.partition('=')
    if not name or not equals:
      raise errors.UsageError(
          '--grpc_channel_arguments: required name=value pairs with commas between, '
          f'found {item!r}.')
    pairs.append((name, int(value) if re.fullmatch(r'-?\d+', value) else value))
  return tuple(pairs)
