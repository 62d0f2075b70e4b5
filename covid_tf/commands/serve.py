"""`covid-tf serve`: the models of a folder over TF Serving's gRPC protocol."""

import argparse
import dataclasses
import logging
import re
import signal
import threading

from covid_tf import errors
from covid_tf.predictors import in_process
from covid_tf.predictors import protocol
from covid_tf.server import configuration

# Flags as TF Serving reads them: bare, or with =true or =false.


def add_boolean(group, flag: str, help_: str, default: bool = False) -> None:
  """Declares a flag that is `default` unless it is given."""
  group.add_argument(
    flag,
    nargs='?',
    const=True,
    default=default,
    type=_boolean,
    metavar='true|false',
    help=help_,
  )


def _boolean(text: str) -> bool:
  if text.lower() not in ('true', 'false', '1', '0'):
    raise argparse.ArgumentTypeError(f'required true or false, found {text!r}')
  return text.lower() in ('true', '1')


# Flags of TF Serving that have no effect here: warned about, or refused.

_log = logging.getLogger(__name__)
_FLAG = re.compile(r'--([a-z][a-z0-9_]*)(?:=.*)?', re.DOTALL)
# Parts of names whose flags would change who may talk to the server, which model
# answers or what it reports: ignoring one of them would mislead.
_NEVER_IGNORED = re.compile(
  r'ssl|tls|alts|cert|cred|auth|secur|key|token|verify|trust|password|'
  r'batch|model|prefix|platform|tflite|precision|signature|session_config|'
  r'tensor_content'
)
# Change none of that, for all their names.
_HARMLESS = frozenset(('enable_model_warmup', 'num_request_iterations_for_warmup'))


def add_ignored_flags(parser: argparse.ArgumentParser) -> None:
  """Declares the flags that are known and have no effect."""
  ignored = parser.add_argument_group('accepted, without effect here')
  for flag in (
    '--rest_api_port',
    '--rest_api_timeout_in_ms',
    '--monitoring_config_file',
    '--batching_parameters_file',
  ):
    ignored.add_argument(flag, metavar='X', help=argparse.SUPPRESS)
  for flag in ('--enable_batching', '--enable_grpc_healthcheck_service'):
    add_boolean(ignored, flag, argparse.SUPPRESS)


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
        f'{argument!r}: required --name=value, found something else.'
      )
    name = match.group(1)
    if _NEVER_IGNORED.search(name) and name not in _HARMLESS:
      raise errors.UsageError(
        f'--{name}: required a flag that this server honours, found one that would '
        'change security, the choice of the model or the answer; leave it out.'
      )
    _log.warning('--%s has no effect on this server', name)


def warn_ignored(namespace: argparse.Namespace) -> None:
  """Warns about declared flags without effect, and reads the files they name.

  Raises:
    errors.UsageError: such a file cannot be read, or its flag stands alone.
  """
  if namespace.host and not namespace.ssl_config_file:
    _log.warning(
      '--host %s without --ssl_config_file: images travel in plain text', namespace.host
    )
  if namespace.rest_api_port not in (None, '0'):
    _log.warning('--rest_api_port: there is no REST API here, only gRPC')
  if namespace.monitoring_config_file:
    configuration.read_text_file(
      namespace.monitoring_config_file, protocol.MonitoringConfig
    )
    _log.warning('--monitoring_config_file: no metrics are exported here')
  if namespace.batching_parameters_file:
    if not namespace.enable_batching:
      raise errors.UsageError(
        '--batching_parameters_file: required together with --enable_batching, '
        'found alone.'
      )
    configuration.read_text_file(
      namespace.batching_parameters_file, protocol.BatchingParameters
    )
  if namespace.enable_batching:
    _log.warning(
      '--enable_batching: requests are run one by one here, with the '
      'same answers; see serving/README.md before using it elsewhere'
    )


# TF Serving's command line: honoured, warned about or refused, flag by flag.


def add_server_flags(parser: argparse.ArgumentParser) -> None:
  """Declares every flag that is honoured or known and warned about."""
  parser.allow_abbrev = False  # --model is not --models.
  defaults = configuration.ServerOptions()
  source = parser.add_argument_group('models')
  source.add_argument(
    '--models',
    metavar='DIR',
    help='serve every model of DIR (DIR/NAME/VERSION); without --models, '
    '--model_base_path and --model_config_file: the demo models, which show how it '
    'works and nothing more',
  )
  source.add_argument(
    '--model_name',
    default=defaults.model_name,
    help='name of a single model (default: %(default)s)',
  )
  source.add_argument(
    '--model_base_path', metavar='DIR', help='absolute folder of its versions'
  )
  source.add_argument(
    '--model_config_file', metavar='FILE', help='text-format ModelServerConfig'
  )
  source.add_argument(
    '--model_config_file_poll_wait_seconds',
    type=float,
    default=defaults.config_poll_s,
    metavar='S',
    help='read that file again so often; 0: never',
  )
  source.add_argument(
    '--file_system_poll_wait_seconds',
    type=float,
    default=defaults.poll_s,
    metavar='S',
    help='look for versions so often; 0: once (default: 1)',
  )
  source.add_argument(
    '--max_num_load_retries',
    type=int,
    metavar='N',
    help='tries after a failed load (default: 5; with --models 0)',
  )
  source.add_argument(
    '--load_retry_interval_micros',
    type=int,
    default=round(defaults.retry_interval_s * 1e6),
    metavar='US',
    help='time between them (default: a minute)',
  )
  add_boolean(
    source,
    '--allow_version_labels_for_unavailable_models',
    'new labels may name versions that are not loaded yet',
  )
  add_boolean(
    source,
    '--self_check',
    'a version becomes available only if it gives the reference answers that it '
    'carries: a few seconds (default: true)',
    default=True,
  )
  _add_connection_arguments(parser, defaults)


def _add_connection_arguments(parser, defaults) -> None:
  connection = parser.add_argument_group('connection')
  connection.add_argument(
    '--port',
    type=int,
    default=defaults.port,
    help='gRPC port; 0: a free one (default: %(default)s)',
  )
  connection.add_argument(
    '--host',
    metavar='ADDRESS',
    help='listen on ADDRESS, for instance 0.0.0.0 (default: 127.0.0.1 and ::1)',
  )
  connection.add_argument(
    '--grpc_socket_path', metavar='PATH', help='listen on a Unix socket too'
  )
  connection.add_argument(
    '--ssl_config_file',
    metavar='FILE',
    help='text-format SSLConfig: TLS for every connection',
  )
  connection.add_argument(
    '--grpc_channel_arguments',
    default='',
    metavar='K=V,...',
    help="gRPC's own settings",
  )
  add_boolean(
    connection,
    '--enable_serialization_as_tensor_content',
    'answer with raw bytes instead of typed fields',
  )
  load = parser.add_argument_group('load')
  load.add_argument(
    '--running_requests',
    type=int,
    default=defaults.running,
    metavar='N',
    help='that run at once (default: %(default)s)',
  )
  load.add_argument(
    '--waiting_requests',
    type=int,
    default=defaults.waiting,
    metavar='N',
    help='that may wait; more are refused with '
    'RESOURCE_EXHAUSTED (default: %(default)s)',
  )
  load.add_argument(
    '--drain_seconds',
    type=float,
    default=defaults.drain_s,
    metavar='S',
    help='for running requests after SIGTERM (default: %(default)s)',
  )
  add_ignored_flags(parser)


def parse_options(
  namespace: argparse.Namespace, extra: list[str]
) -> configuration.ServerOptions:
  """Turns parsed flags, and what argparse left over, into options.

  Args:
    namespace: of the flags above.
    extra: arguments that none of them took.

  Returns:
    The options, whose source of models is None where no flag names one; unknown
    harmless flags are warned about.

  Raises:
    errors.UsageError: an argument is wrong, or cannot be ignored safely.
  """
  judge_unknown(extra)
  warn_ignored(namespace)
  sources = [
    flag
    for flag in ('models', 'model_base_path', 'model_config_file')
    if getattr(namespace, flag)
  ]
  if not sources and namespace.model_name != configuration.ServerOptions.model_name:
    raise errors.UsageError(
      f'--model_name {namespace.model_name}: required together with --model_base_path, '
      'found alone.'
    )
  if 'models' in sources and len(sources) > 1:
    raise errors.UsageError(
      f'--models: required as the only source of models, found --{sources[1]} '
      'too; keep one of them.'
    )
  for name in ('running_requests', 'waiting_requests', 'drain_seconds'):
    if getattr(namespace, name) < (1 if name == 'running_requests' else 0):
      raise errors.UsageError(
        f'--{name}: required a positive number, found {getattr(namespace, name)}.'
      )
  if not 0 <= namespace.port < 65536:
    raise errors.UsageError(
      f'--port: required a number from 0 to 65535, found {namespace.port}.'
    )
  retries = namespace.max_num_load_retries
  return configuration.ServerOptions(
    models=namespace.models,
    model_name=namespace.model_name,
    model_base_path=namespace.model_base_path,
    model_config_file=namespace.model_config_file,
    config_poll_s=namespace.model_config_file_poll_wait_seconds,
    poll_s=namespace.file_system_poll_wait_seconds,
    # At a terminal a failure is reported at once; a server waits for a disk.
    load_retries=(
      configuration.ServerOptions.load_retries
      if namespace.model_base_path or namespace.model_config_file
      else 0
    )
    if retries is None
    else retries,
    retry_interval_s=namespace.load_retry_interval_micros / 1e6,
    allow_labels_for_unavailable=(
      namespace.allow_version_labels_for_unavailable_models
    ),
    self_check=namespace.self_check,
    host=namespace.host,
    port=namespace.port,
    socket_path=namespace.grpc_socket_path or None,
    ssl_config_file=namespace.ssl_config_file or None,
    channel_arguments=_channel_arguments(namespace.grpc_channel_arguments),
    as_content=namespace.enable_serialization_as_tensor_content,
    running=namespace.running_requests,
    waiting=namespace.waiting_requests,
    drain_s=namespace.drain_seconds,
  )


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
  pairs = []
  for item in filter(None, text.split(',')):
    name, equals, value = item.partition('=')
    if not name or not equals:
      raise errors.UsageError(
        '--grpc_channel_arguments: required name=value pairs with commas between, '
        f'found {item!r}.'
      )
    pairs.append((name, int(value) if re.fullmatch(r'-?\d+', value) else value))
  return tuple(pairs)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares TF Serving's flags and ours."""
  add_server_flags(parser)


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
  """Parses `argv`; flags of TF Serving that are unknown here are judged later."""
  namespace, extra = parser.parse_known_args(argv)
  namespace.extra = extra
  return namespace


def run(args: argparse.Namespace) -> int:
  """Serves until SIGINT or SIGTERM; returns 0."""
  options = parse_options(args, args.extra)
  in_process.require_tensorflow('serving models requires')
  in_process.set_defaults()
  if not (options.models or options.model_base_path or options.model_config_file):
    options = dataclasses.replace(options, models=str(in_process.demo_models()))
    _log.warning('warning: the demo models, which show how it works and nothing more')
  configuration.model_configuration(options)  # Before TensorFlow loads.
  # While models load there is nothing to drain: a stop ends the wait for them.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  from covid_tf.server import serving

  server = serving.Server(options)
  stop = threading.Event()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stop.set())
  models = ', '.join(f'{name} {version}' for name, version in server.models())
  print(
    f'covid-tf serve: ready on {", ".join(server.addresses)} ({models})', flush=True
  )
  stop.wait()
  server.stop()
  return 0
