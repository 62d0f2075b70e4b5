"""Flags of `covid-tf serve`: TF Serving's names, honoured, warned about or refused."""

import argparse

import pytest

from covid_tf import errors
from covid_tf.commands import serve
from covid_tf.server import configuration


def _parse(*argv):
  parser = argparse.ArgumentParser()
  serve.add_server_flags(parser)
  return serve.parse_options(*parser.parse_known_args(argv))


def test_tf_serving_flags_are_honoured():
  assert _parse(
    '--port=8501',
    '--model_name=m',
    '--model_base_path=/m',
    '--rest_api_port=0',
    '--rest_api_timeout_in_ms=5000',
    '--grpc_socket_path=/tmp/s',
    '--grpc_channel_arguments=grpc.so_reuseaddr=1,a=b',
    '--file_system_poll_wait_seconds=0',
    '--max_num_load_retries=2',
    '--allow_version_labels_for_unavailable_models=true',
    '--model_config_file_poll_wait_seconds=3',
  ) == configuration.ServerOptions(
    port=8501,
    model_name='m',
    model_base_path='/m',
    socket_path='/tmp/s',
    channel_arguments=(('grpc.so_reuseaddr', 1), ('a', 'b')),
    poll_s=0,
    load_retries=2,
    allow_labels_for_unavailable=True,
    config_poll_s=3,
  )


@pytest.mark.parametrize(
  'flag',
  [
    '--rest_api_port=8501',
    '--tensorflow_session_parallelism=2',
    '--enable_batching',
    '--flush_filesystem_caches=false',
    '--enable_cors_support',
  ],
)
def test_flags_without_effect_warn(flag, caplog):
  assert _parse('--models', 'm', flag) == configuration.ServerOptions(
    models='m', load_retries=0
  )
  assert flag.partition('=')[0] in caplog.text


@pytest.mark.parametrize(
  'flag',
  [
    '--saved_model_tags=other',
    '--ssl_client_verify=true',
    '--client_verify=true',
    '--use_alts_credentials=true',
    '--auth_token=x',
    '--prefer_tflite_model',
    '--mixed_precision=bfloat16',
    '--max_batch_size=4',
    '--platform_config_file=f',
    'stray',
    '-x',
    '--Model=3',
    '--batching_parameters_file=f',
    '--port=70000',
    '--running_requests=0',
    '--grpc_channel_arguments=a',
  ],
)
def test_flags_that_cannot_be_ignored_are_refused(flag):
  with pytest.raises(errors.UsageError, match='required'):
    _parse('--models', 'm', flag)


def test_batching_parameters_are_read(tmp_path, caplog):
  path = tmp_path / 'batching.config'
  path.write_text('max_batch_size { value: 8 } allowed_batch_sizes: 8')
  _parse('--models', 'm', '--enable_batching', f'--batching_parameters_file={path}')
  assert '--enable_batching' in caplog.text
  path.write_text('max_size: 8')
  with pytest.raises(errors.UsageError, match='Error parsing text-format'):
    _parse('--models', 'm', '--enable_batching', f'--batching_parameters_file={path}')


def test_without_a_source_of_models_the_demo_models_are_meant():
  options = _parse('--port=0')
  assert not (options.models or options.model_base_path or options.model_config_file)
  assert options.load_retries == 0
  with pytest.raises(errors.UsageError, match='together with --model_base_path'):
    _parse('--model_name=m')


def test_sources_of_models_exclude_each_other():
  with pytest.raises(errors.UsageError, match='only source'):
    _parse('--models=m', '--model_base_path=/m')
