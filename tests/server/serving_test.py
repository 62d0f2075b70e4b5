"""The local server's own side: sockets, TLS, queue, drain, the command."""

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

from google.protobuf import text_format
import grpc
import numpy as np
import pytest
import serving_stub
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
import tiny_answers
import tiny_models
import trustme

from covid_tf import contract
from covid_tf import errors
from covid_tf import predictors
from covid_tf.predictors import protocol
from covid_tf.predictors import tensors
from covid_tf.server import configuration
from covid_tf.server import predict
from covid_tf.server import serving
from covid_tf.sessions import servable

_HU = np.full((1, 8, 8), -700, np.int16)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  folder = tmp_path_factory.mktemp('models')
  for version in (1, 2):
    tiny_models.export(
      folder, 'classifier', version, bias=version, signature_names=('serving_default',)
    )
  return folder


@pytest.fixture
def serve(models):
  """Starts servers, single model by default; stops them at the end."""
  started = []

  def start(**changes):
    values = {
      'model_name': 'classifier',
      'model_base_path': f'{models}/classifier',
      'port': 0,
      'poll_s': 0.1,
      'load_retries': 0,
    } | changes
    started.append(serving.Server(configuration.ServerOptions(**values)))
    return started[-1]

  yield start
  for server in started:
    server.stop()


def _predict(address, credentials=None, **spec):
  with serving_stub.connected(address, credentials) as stub:
    return stub.predict(serving_stub.predict_request('classifier', hu=_HU, **spec))


# Where it listens.


def test_both_loopback_addresses_share_a_port(serve):
  addresses = serve().addresses
  assert re.fullmatch(r'127\.0\.0\.1:[1-9]\d*', addresses[0])
  port = addresses[0].rpartition(':')[2]
  if len(addresses) == 2:  # This machine has IPv6.
    assert addresses[1] == f'[::1]:{port}'
  for address in (*addresses, f'localhost:{port}'):
    assert _predict(address).model_spec.version.value == 2


def test_a_taken_port_is_refused(serve):
  port = int(serve().addresses[0].rpartition(':')[2])
  with pytest.raises(errors.ModelError, match=f'--port {port}: .* taken'):
    serve(port=port)


def test_the_newest_server_takes_over_a_socket(serve, tmp_path):
  path = tmp_path / 's'
  old = serve(socket_path=str(path))
  assert old.addresses[-1] == f'unix:{path}'
  assert _predict(f'unix:{path}').model_spec.version.value == 2
  new = serve(socket_path=str(path), model_name='other')
  assert serving_stub.refusal(_predict, f'unix:{path}')[0] == 'NOT_FOUND'
  old.stop()  # Leaves the name to its new owner.
  assert stat.S_ISSOCK(path.stat().st_mode)
  assert serving_stub.refusal(_predict, f'unix:{path}')[0] == 'NOT_FOUND'
  new.stop()
  assert not path.exists()


# TLS.


@pytest.fixture(scope='module')
def authority():
  return trustme.CA()


def _ssl_config(tmp_path, authority, names, client_verify):
  certificate = authority.issue_cert(*names)
  config = protocol.SSLConfig(
    server_key=certificate.private_key_pem.bytes().decode(),
    server_cert=b''.join(blob.bytes() for blob in certificate.cert_chain_pems).decode(),
    custom_ca=authority.cert_pem.bytes().decode() if client_verify else '',
    client_verify=client_verify,
  )
  path = tmp_path / 'ssl.config'
  path.write_text(text_format.MessageToString(config))
  return str(path)


def test_tls_for_clients_that_trust_the_authority(serve, tmp_path, authority):
  server = serve(
    ssl_config_file=_ssl_config(tmp_path, authority, ['localhost', '127.0.0.1'], False)
  )
  trusting = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
  assert _predict(server.addresses[0], trusting)
  other = grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes())
  assert serving_stub.refusal(_predict, server.addresses[0], other)[0] == 'UNAVAILABLE'
  assert serving_stub.refusal(_predict, server.addresses[0])[0] == 'UNAVAILABLE'


def test_mutual_tls_asks_for_a_certificate(serve, tmp_path, authority):
  server = serve(ssl_config_file=_ssl_config(tmp_path, authority, ['127.0.0.1'], True))
  root = authority.cert_pem.bytes()
  client = authority.issue_cert('scorer.example')
  known = grpc.ssl_channel_credentials(
    root,
    client.private_key_pem.bytes(),
    b''.join(blob.bytes() for blob in client.cert_chain_pems),
  )
  assert _predict(server.addresses[0], known)
  nameless = grpc.ssl_channel_credentials(root)
  assert (
    serving_stub.refusal(_predict, server.addresses[0], nameless)[0] == 'UNAVAILABLE'
  )


@pytest.mark.parametrize(
  'text, match',
  [
    ('server_key: "k"', 'server_key as PEM'),
    ('nonsense {', 'Error parsing text-format tensorflow.serving.SSLConfig'),
  ],
)
def test_ssl_config_that_cannot_work(serve, tmp_path, text, match):
  path = tmp_path / 'ssl.config'
  path.write_text(text)
  with pytest.raises(errors.UsageError, match=match):
    serve(ssl_config_file=str(path))


# Models and configuration.


def _config_file(tmp_path, models, **labels):
  config = protocol.ModelServerConfig()
  model = config.model_config_list.config.add(
    name='classifier', base_path=f'{models}/classifier', model_platform='tensorflow'
  )
  model.model_version_policy.all.SetInParent()
  model.version_labels.update(labels)
  path = tmp_path / 'models.config'
  path.write_text(text_format.MessageToString(config))
  return str(path)


def test_labels_at_the_start_need_their_flag(serve, tmp_path, models):
  path = _config_file(tmp_path, models, stable=1)
  with pytest.raises(
    errors.ModelError,
    match=(
      'Failed to start server. Error: FAILED_PRECONDITION: Request to assign label to '
      'version 1 of model classifier, which is not currently available'
    ),
  ):
    serve(model_config_file=path)
  server = serve(model_config_file=path, allow_labels_for_unavailable=True)
  with serving_stub.connected(server.addresses[0]) as stub:
    serving_stub.wait_until(lambda: (1, 'AVAILABLE') in stub.versions('classifier'))
  assert _predict(server.addresses[0], label='stable').model_spec.version.value == 1


def test_configuration_file_is_read_again(serve, tmp_path, models):
  server = serve(
    model_config_file=_config_file(tmp_path, models, stable=1),
    allow_labels_for_unavailable=True,
    config_poll_s=0.05,
  )
  with serving_stub.connected(server.addresses[0]) as stub:
    serving_stub.wait_until(
      lambda: (
        [state for _, state in stub.versions('classifier')]
        == ['AVAILABLE', 'AVAILABLE']
      )
    )
  (tmp_path / 'models.config').write_text('nonsense {')  # Keeps what there was.
  _config_file(tmp_path, models, stable=2)
  serving_stub.wait_until(
    lambda: _predict(server.addresses[0], label='stable').model_spec.version.value == 2
  )


def test_a_misspelled_folder_in_a_polled_file_can_be_corrected(serve, tmp_path, models):
  path = tmp_path / 'models.config'
  config = protocol.ModelServerConfig()

  def write(**folders):
    del config.model_config_list.config[:]
    for name, folder in folders.items():
      config.model_config_list.config.add(
        name=name, base_path=str(folder), model_platform='tensorflow'
      )
    path.write_text(text_format.MessageToString(config))

  write(classifier=models / 'classifier')
  server = serve(model_config_file=str(path), config_poll_s=0.05)
  write(classifier=models / 'classifier', other=tmp_path / 'nowhere')
  serving_stub.wait_until(lambda: server._manager.registry.config == config)
  write(classifier=models / 'classifier', other=models / 'classifier')
  with serving_stub.connected(server.addresses[0]) as stub:
    serving_stub.wait_until(
      lambda: stub.outputs('other', hu=_HU) if ('other', 2) in server.models() else None
    )


def test_a_model_that_cannot_be_loaded_ends_the_start(serve, tmp_path):
  (tmp_path / 'm' / '1').mkdir(parents=True)
  (tmp_path / 'm' / '1' / 'saved_model.pb').write_bytes(b'no model')
  with pytest.raises(errors.ModelError, match='1 model.s. did not become available'):
    serve(model_base_path=str(tmp_path / 'm'))


def test_a_failed_load_is_tried_again(serve, tmp_path, models):
  shutil.copytree(models / 'classifier' / '1', tmp_path / 'm' / '1')
  hidden = tmp_path / 'variables'
  (tmp_path / 'm' / '1' / 'variables').rename(hidden)
  threading.Timer(
    0.5, lambda: hidden.rename(tmp_path / 'm' / '1' / 'variables')
  ).start()
  server = serve(
    model_base_path=str(tmp_path / 'm'), load_retries=100, retry_interval_s=0.1
  )
  assert _predict(server.addresses[0]).model_spec.version.value == 1


def test_a_version_that_failed_is_tried_again_when_its_files_change(
  serve, tmp_path, models
):
  shutil.copytree(models / 'classifier' / '1', tmp_path / 'm' / '1')
  server = serve(model_base_path=str(tmp_path / 'm'), load_retries=0)
  shutil.copytree(models / 'classifier' / '2', tmp_path / 'whole')
  (tmp_path / 'whole' / 'variables').rename(tmp_path / 'variables')
  (tmp_path / 'whole').rename(tmp_path / 'm' / '2')
  with serving_stub.connected(server.addresses[0]) as stub:
    serving_stub.wait_until(lambda: stub.versions('classifier')[0] == (2, 'END'))
    assert _predict(server.addresses[0]).model_spec.version.value == 1
    (tmp_path / 'variables').rename(tmp_path / 'm' / '2' / 'variables')
    serving_stub.wait_until(
      lambda: stub.versions('classifier') == [(2, 'AVAILABLE'), (1, 'END')]
    )


def test_health_names_the_services_with_and_without_their_package(serve):
  with serving_stub.connected(serve().addresses[0]) as stub:
    for service in (
      '',
      protocol.PREDICTION_SERVICE,
      protocol.MODEL_SERVICE,
      'PredictionService',
      'ModelService',
    ):
      answer = stub.health(protocol.HealthCheckRequest(service=service))
      assert answer.status == protocol.HealthCheckResponse.SERVING


def test_relative_path_is_refused(serve):
  with pytest.raises(errors.ModelError, match='to have an absolute path or URI'):
    serve(model_base_path='models/classifier')


def test_every_model_of_a_folder(serve, models, tmp_path):
  server = serve(models=str(models), model_base_path=None)
  assert server.models() == [('classifier', 2)]
  with pytest.raises(errors.UsageError, match='NAME/VERSION/saved_model.pb'):
    serve(models=str(tmp_path), model_base_path=None)


def test_outputs_as_raw_bytes(serve, tmp_path):
  models = tiny_models.export_both(tmp_path)
  server = serve(as_content=True, models=str(models), model_base_path=None)
  proto = _predict(server.addresses[0]).outputs['covid_probability']
  assert proto.tensor_content and not proto.float_val
  with serving_stub.connected(server.addresses[0]) as stub:
    card = stub.predict(serving_stub.predict_request('lungs', 'card')).outputs['card']
  assert card.tensor_content and not card.string_val
  with predictors.connect(server.addresses[0]) as client:
    assert client.identities()[0].card['name'] == 'lungs'
    assert client.segment_lungs(_HU).all()


def test_inputs_may_have_defaults(serve, tmp_path):
  tiny_models.export(tmp_path, 'classifier', signature_names=('serving_default',))
  path = tmp_path / 'classifier' / '1' / 'saved_model.pb'
  saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
  signature = saved.meta_graphs[0].signature_def['serving_default']
  signature.defaults['hu'].CopyFrom(tf.make_tensor_proto(_HU))
  path.write_bytes(saved.SerializeToString())
  server = serve(model_base_path=str(tmp_path / 'classifier'))
  with serving_stub.connected(server.addresses[0]) as stub:
    stated = stub.outputs('classifier', hu=_HU)['covid_probability']
    assert stub.outputs('classifier')['covid_probability'] == stated
    assert serving_stub.refusal(
      stub.predict, serving_stub.predict_request('classifier', q=_HU)
    ) == (
      'INVALID_ARGUMENT',
      ('Inputs contains invalid name. Used request inputs: , request input: q'),
    )


def test_an_input_of_another_name_is_told(serve):
  with serving_stub.connected(serve().addresses[0]) as stub:
    code, text = serving_stub.refusal(
      stub.predict, serving_stub.predict_request('classifier', q=_HU)
    )
  assert code == 'INVALID_ARGUMENT'
  assert re.fullmatch(
    r'Signature input alias: hu\(feed name: \w+:0\) not found in request and no '
    r'default value provided. Inputs expected to be in the request \{q\}, or default '
    'input alias set: ',
    text,
  )


@pytest.mark.parametrize('shape', [(1,) * 65, (2**40, 2**40, 1), (2**45, 1, 1)])
def test_shapes_that_no_memory_holds_are_refused(serve, shape):
  request = serving_stub.predict_request('classifier')
  request.inputs['hu'].dtype = 5
  request.inputs['hu'].int_val.append(1)
  tensors.set_shape(request.inputs['hu'], shape)
  with serving_stub.connected(serve().addresses[0]) as stub:
    assert serving_stub.refusal(stub.predict, request) == (
      'INVALID_ARGUMENT',
      'tensor parsing error: hu',
    )


# Load and end.


@pytest.fixture
def held(monkeypatch):
  """Predict waits until `held.release` is set; `held.entered` counts who waits."""

  class Held:
    release = threading.Event()
    entered = threading.Semaphore(0)

  def wait_then_predict(*args, **kwargs):
    Held.entered.release()
    assert Held.release.wait(60)
    return answer(*args, **kwargs)

  answer = predict.predict
  monkeypatch.setattr(predict, 'predict', wait_then_predict)
  yield Held
  Held.release.set()


def _futures(stub, count):
  request = serving_stub.predict_request('classifier', hu=_HU)
  return [stub.predict_raw.future(request, timeout=60) for _ in range(count)]


def test_a_full_queue_refuses_and_recovers(serve, held):
  server = serve(running=1, waiting=2)
  with serving_stub.connected(server.addresses[0]) as stub:
    calls = _futures(stub, 1)
    assert held.entered.acquire(timeout=60)
    calls += _futures(stub, 4)  # Two may wait, two are too many.
    serving_stub.wait_until(lambda: sum(call.done() for call in calls) == 2)
    refused = [call for call in calls if call.done()]
    assert [(call.code().name, call.details()) for call in refused] == [
      ('RESOURCE_EXHAUSTED', 'The request queue is full, try again later')
    ] * 2
    # Health is answered beside a full queue: a probe must not kill a busy server.
    assert stub.health(protocol.HealthCheckRequest(), timeout=60).status == 1
    held.release.set()
    assert all(call.result() for call in calls if call not in refused)
    assert stub.predict(serving_stub.predict_request('classifier', hu=_HU))


def test_a_third_version_waits_until_the_first_is_let_go(serve, held, tmp_path, models):
  def add(source, version):
    shutil.copytree(models / 'classifier' / source, tmp_path / f'.{version}')
    (tmp_path / f'.{version}').rename(tmp_path / 'm' / version)

  (tmp_path / 'm').mkdir()
  add('1', '1')
  server = serve(model_base_path=str(tmp_path / 'm'))
  with serving_stub.connected(server.addresses[0]) as stub:
    (call,) = _futures(stub, 1)
    assert held.entered.acquire(timeout=60)
    add('2', '2')
    serving_stub.wait_until(
      lambda: stub.versions('classifier') == [(2, 'AVAILABLE'), (1, 'UNLOADING')]
    )
    add('2', '3')
    serving_stub.wait_until(lambda: (3, 'START') in stub.versions('classifier'))
    time.sleep(0.5)  # Several looks at the disk.
    assert stub.versions('classifier') == [
      (3, 'START'),
      (2, 'AVAILABLE'),
      (1, 'UNLOADING'),
    ]
    held.release.set()
    assert call.result().model_spec.version.value == 1
    serving_stub.wait_until(
      lambda: stub.versions('classifier') == [(3, 'AVAILABLE'), (2, 'END'), (1, 'END')]
    )


def test_a_model_asked_for_again_while_it_is_let_go_comes_back(serve, held, models):
  server = serve(poll_s=0)
  request = protocol.ReloadConfigRequest()
  request.config.model_config_list.SetInParent()
  with serving_stub.connected(server.addresses[0]) as stub:
    (call,) = _futures(stub, 1)
    assert held.entered.acquire(timeout=60)
    stub.reload(request, timeout=60)
    serving_stub.wait_until(lambda: stub.versions('classifier') == [(2, 'UNLOADING')])
    request.config.model_config_list.config.add(
      name='classifier', base_path=f'{models}/classifier', model_platform='tensorflow'
    )
    reloaded = stub.reload.future(request, timeout=60)
    time.sleep(0.5)  # It is looked for, and still there.
    held.release.set()
    assert call.result() and reloaded.result()
    assert stub.predict(serving_stub.predict_request('classifier', hu=_HU))


def test_stopping_lets_running_requests_end(serve, held):
  server = serve()
  with serving_stub.connected(server.addresses[0]) as stub:
    watch = iter(stub.health_watch(protocol.HealthCheckRequest(), timeout=60))
    assert next(watch).status == protocol.HealthCheckResponse.SERVING
    (call,) = _futures(stub, 1)
    assert held.entered.acquire(timeout=60)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert next(watch).status == protocol.HealthCheckResponse.NOT_SERVING
    assert serving_stub.refusal(_predict, server.addresses[0])[0] == 'UNAVAILABLE'
    held.release.set()
    assert call.result().model_spec.version.value == 2
    stopping.join(60)
    assert not stopping.is_alive()


# Versions that compute wrong.


@pytest.fixture(scope='module')
def references(tmp_path_factory):
  """What the tiny classifier without bias answers, as `self_check` has it."""
  folder = tiny_models.export(tmp_path_factory.mktemp('right'), 'classifier')
  hu = tiny_answers.reference('classifier')['hu']
  with contextlib.closing(servable.Servable(folder)) as served:
    signature = served.signatures['grad_cam']
    values = served.run(
      {signature.inputs['hu'].name: hu},
      [info.name for info in signature.outputs.values()],
    )
    return {'hu': hu} | dict(zip(signature.outputs, values, strict=True))


def test_a_version_that_computes_wrong_leaves_the_old_one_serving(
  serve, tmp_path, references
):
  tiny_models.export(tmp_path, 'classifier', 1, self_check=references)
  server = serve(
    model_base_path=f'{tmp_path}/classifier', load_retries=5, retry_interval_s=0.1
  )
  tiny_models.export(tmp_path, 'classifier', 2, bias=1.0, self_check=references)
  with serving_stub.connected(server.addresses[0]) as stub:
    serving_stub.wait_until(lambda: (2, 'END') in stub.versions('classifier'))
    request = protocol.GetModelStatusRequest()
    request.model_spec.name = 'classifier'
    failed = stub.status(request).model_version_status[0].status
    assert failed.error_code == grpc.StatusCode.DATA_LOSS.value[0]
    assert 'classifier version 2 computes wrong: signature grad_cam' in (
      failed.error_message
    )
    time.sleep(0.5)  # Not tried again, in which it might be right by luck.
    assert stub.versions('classifier') == [(2, 'END'), (1, 'AVAILABLE')]
  assert _predict(server.addresses[0]).model_spec.version.value == 1


def test_a_server_whose_only_version_computes_wrong_does_not_start(
  serve, tmp_path, references
):
  tiny_models.export(tmp_path, 'classifier', 1, bias=1.0, self_check=references)
  values = {'model_base_path': f'{tmp_path}/classifier', 'load_retries': 5}
  with pytest.raises(errors.ModelError, match='computes wrong.*export the model again'):
    serve(**values)
  server = serve(**values, self_check=False)
  assert _predict(server.addresses[0]).model_spec.version.value == 1


def test_a_version_without_references_is_served_and_said_to_be_unchecked(
  serve, tmp_path, caplog
):
  tiny_models.export(tmp_path, 'classifier', 1)
  server = serve(model_base_path=f'{tmp_path}/classifier')
  assert _predict(server.addresses[0]).model_spec.version.value == 1
  assert 'has no self_check' in caplog.text


# The command.


def _start(*argv):
  return subprocess.Popen(
    [sys.executable, '-m', 'covid_tf.cli', 'serve', *argv],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {'CUDA_VISIBLE_DEVICES': '-1'},
  )


def test_command_says_when_it_is_ready_and_ends_on_a_signal(models):
  with _start('--models', str(models), '--port', '0') as process:
    line = process.stdout.readline()
    found = re.fullmatch(
      r'covid-tf serve: ready on (127\.0\.0\.1:\d+).* \(classifier 2\)\n', line
    )
    assert found, line + process.stderr.read()
    assert _predict(found.group(1)).model_spec.version.value == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_a_start_prints_nothing_but_that_it_is_ready(tmp_path):
  tiny_models.export_both(tmp_path)
  for name in contract.SIGNATURES:
    tiny_models.write_warm_up(tmp_path / name / '1', name)
  with _start('--models', str(tmp_path), '--port', '0') as process:
    assert process.stdout.readline().startswith('covid-tf serve: ready on ')
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert process.stderr.read() == ''


def test_a_port_that_is_taken_is_one_line(tmp_path):
  tiny_models.export_both(tmp_path)
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1]
    with _start('--models', str(tmp_path), '--port', str(port)) as process:
      assert process.wait(60) == 4
      (line,) = process.stderr.read().splitlines()  # None of gRPC's own.
  assert line.startswith(f'covid-tf serve: --port {port}: required a free port on ')


def test_command_refuses_a_configuration_that_does_not_parse(tmp_path):
  path = tmp_path / 'bad.config'
  path.write_text('model_config_list { config { nam: "x" } }')
  with _start(f'--model_config_file={path}', '--port=0') as process:
    assert process.wait(60) == 2
    assert (
      'Error parsing text-format tensorflow.serving.ModelServerConfig'
      in process.stderr.read()
    )
