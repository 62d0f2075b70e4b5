"""The operator's files: each parsed, and compared with what reads it."""

import argparse
import os
import pathlib
import subprocess
import sys

import dockerfile_parse
import fake_serving
from google.protobuf import text_format
import grpc
import kubernetes_validate
import pytest
import trustme
import yaml

from covid_tf import contract
from covid_tf import predictors
from covid_tf.commands import serve
from covid_tf.predictors import protocol
from covid_tf.server import configuration

_SERVING = pathlib.Path(__file__).parents[2] / 'serving'
_COMPOSE = sorted(_SERVING.rglob('docker-compose.yaml'))
_KUBERNETES = sorted((_SERVING / 'kubernetes').glob('*.yaml'))
_KUBERNETES_VERSION = '1.34'  # A release that clusters run.


def _parse(name, message_type):
  return text_format.Parse((_SERVING / name).read_text(), message_type())


def _manifest(name):
  return yaml.safe_load((_SERVING / 'kubernetes' / name).read_text())


def _pods():
  return {
    name: _manifest(name)['spec']['template']['spec']
    for name in ('deployment.yaml', 'score-job.yaml')
  }


# Text protos.


@pytest.mark.parametrize('name', ['models.config', 'models.canary.config'])
def test_model_configurations_serve_both_models(name):
  config = _parse(name, protocol.ModelServerConfig)
  configuration.check_configuration(config)
  assert {model.name for model in config.model_config_list.config} == set(
    contract.SIGNATURES
  )
  for model in config.model_config_list.config:
    wanted = set(model.model_version_policy.specific.versions) or {1}
    assert set(model.version_labels.values()) <= wanted


def test_monitoring_and_batching_configurations():
  assert _parse('monitoring.config', protocol.MonitoringConfig).prometheus_config.enable
  batching = _parse('batching.config', protocol.BatchingParameters)
  assert not batching.pad_variable_length_inputs


def test_ssl_config_script_makes_what_a_server_reads(tmp_path):
  authority = trustme.CA()
  certificate = authority.issue_cert('127.0.0.1')
  certificate.private_key_pem.write_to_path(str(tmp_path / 'key'))
  certificate.cert_chain_pems[0].write_to_path(str(tmp_path / 'cert'))
  authority.cert_pem.write_to_path(str(tmp_path / 'ca'))
  script = [_SERVING / 'ssl_config.sh', 'key', 'cert']
  one_way, mutual = (
    text_format.Parse(
      subprocess.run(
        command, cwd=tmp_path, check=True, capture_output=True, text=True
      ).stdout,
      protocol.SSLConfig(),
    )
    for command in (script, [*script, 'ca'])
  )
  assert (tmp_path / 'key').read_text() == mutual.server_key == one_way.server_key
  assert (tmp_path / 'cert').read_text() == mutual.server_cert
  assert (tmp_path / 'ca').read_text() == mutual.custom_ca
  assert (one_way.client_verify, mutual.client_verify) == (False, True)
  fake = fake_serving.FakeServing(
    credentials=grpc.ssl_server_credentials(
      [(one_way.server_key.encode(), one_way.server_cert.encode())]
    )
  )
  predictors.connect(fake.address, tls=predictors.TLS(tmp_path / 'ca')).close()
  fake.stop()


def test_ssl_config_script_shows_the_key_to_nobody_else(tmp_path):
  certificate = trustme.CA().issue_cert('127.0.0.1')
  certificate.private_key_pem.write_to_path(str(tmp_path / 'key'))
  certificate.cert_chain_pems[0].write_to_path(str(tmp_path / 'cert'))
  # In place of every program that the script could hand the key to.
  spy = tmp_path / 'spy'
  spy.mkdir()
  for name in ('sed', 'awk', 'grep', 'chmod', 'cat'):
    (spy / name).write_text(
      f'#!/bin/bash\nprintf "%s\\n" "$@" >> {tmp_path}/seen\n'
      f'PATH=${{PATH#*:}} exec {name} "$@"\n'
    )
    (spy / name).chmod(0o755)
  with open(tmp_path / 'ssl.config', 'w') as output:
    (tmp_path / 'ssl.config').chmod(0o644)
    subprocess.run(
      [_SERVING / 'ssl_config.sh', 'key', 'cert'],
      cwd=tmp_path,
      check=True,
      stdout=output,
      env=os.environ | {'PATH': f'{spy}:{os.environ["PATH"]}'},
    )
  key_line = (tmp_path / 'key').read_text().splitlines()[1]
  assert key_line in (tmp_path / 'ssl.config').read_text()
  assert key_line not in (tmp_path / 'seen').read_text()
  assert (tmp_path / 'ssl.config').stat().st_mode & 0o777 == 0o600


def test_ssl_config_script_refuses_what_is_no_pem(tmp_path):
  (tmp_path / 'der').write_bytes(b'\x30\x82')
  done = subprocess.run(
    [_SERVING / 'ssl_config.sh', 'der', 'der'],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1 and 'der: not a PEM file' in done.stderr
  assert not done.stdout


# Containers.


def _container_flags():
  image = dockerfile_parse.DockerfileParser(str(_SERVING / 'Dockerfile'))
  command = next(line for line in image.structure if line['instruction'] == 'CMD')[
    'value'
  ]
  container = _pods()['deployment.yaml']['containers'][0]
  return {'Dockerfile': yaml.safe_load(command), 'deployment.yaml': container['args']}


@pytest.mark.parametrize('name', ['Dockerfile', 'deployment.yaml'])
def test_server_flags_are_known_and_do_not_batch(name):
  arguments = _container_flags()[name]
  parser = argparse.ArgumentParser()
  serve.add_server_flags(parser)
  namespace, extra = parser.parse_known_args(
    [argument for argument in arguments if 'monitoring' not in argument]
  )
  options = serve.parse_options(namespace, extra)
  assert options.port == 8500
  assert options.model_config_file == '/etc/covid-tf/models.config'
  assert not namespace.enable_batching
  assert '--enable_grpc_healthcheck_service=true' in arguments  # The probes ask it.


@pytest.mark.parametrize('name', ['Dockerfile', 'scorer.Dockerfile'])
def test_images_pin_their_base_and_run_as_nobody(tmp_path, name):
  image = dockerfile_parse.DockerfileParser(
    str(tmp_path / 'Dockerfile')
  )  # It writes where it reads: a copy.
  image.content = (_SERVING / name).read_text()
  assert ':' in image.baseimage and not image.baseimage.endswith(':latest')
  users = [line['value'] for line in image.structure if line['instruction'] == 'USER']
  assert users == ['65532:65532']
  root = _SERVING.parent
  for line in image.structure:
    if line['instruction'] == 'COPY':
      for source in line['value'].split()[:-1]:
        assert source.startswith('${') or (root / source).exists(), source


def test_the_scorer_image_is_built_of_the_package_alone():
  lines = [
    line
    for line in (_SERVING / 'scorer.Dockerfile.dockerignore').read_text().splitlines()
    if not line.startswith('#')
  ]
  assert lines[0] == '*'  # Everything is left out but what follows.
  let_in = {line[1:] for line in lines if line.startswith('!')}
  assert let_in == {'pyproject.toml', 'setup.cfg', 'README.md', 'LICENSE', 'covid_tf'}
  assert all((_SERVING.parent / name).exists() for name in let_in)


@pytest.mark.parametrize('path', _COMPOSE, ids=lambda path: path.parent.name)
def test_compose_files_keep_their_schema(path):
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'check_jsonschema',
      '--builtin-schema',
      'vendor.compose-spec',
      str(path),
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr


def test_compose_file_waits_for_the_models_and_exposes_nothing():
  compose = yaml.safe_load((_SERVING / 'docker-compose.yaml').read_text())
  score = compose['services']['score']
  assert score['depends_on']['models']['condition'] == 'service_healthy'
  assert score['command'][-1] == 'models:8500'
  assert compose['networks']['models']['internal']
  for service in compose['services'].values():
    assert 'ports' not in service
    assert service['read_only'] and service['cap_drop'] == ['ALL']
    build = service['build']
    assert (_SERVING / build['context'] / build['dockerfile']).exists()


# Kubernetes.


@pytest.mark.parametrize('path', _KUBERNETES, ids=lambda path: path.name)
def test_manifests_keep_their_schema(path):
  kubernetes_validate.validate(
    yaml.safe_load(path.read_text()), _KUBERNETES_VERSION, strict=True
  )


def test_kustomization_lists_what_is_there():
  kustomization = yaml.safe_load((_SERVING / 'kustomization.yaml').read_text())
  listed = {_SERVING / name for name in kustomization['resources']}
  assert listed == set(_KUBERNETES) - {_SERVING / 'kubernetes' / 'score-job.yaml'}
  (generated,) = kustomization['configMapGenerator']
  assert all((_SERVING / name).exists() for name in generated['files'])
  (volume,) = (
    volume for volume in _pods()['deployment.yaml']['volumes'] if 'configMap' in volume
  )
  assert volume['configMap']['name'] == generated['name']


def test_manifests_fit_each_other():
  deployment, service = _manifest('deployment.yaml'), _manifest('service.yaml')
  labels = deployment['spec']['template']['metadata']['labels']
  for selector in (
    deployment['spec']['selector']['matchLabels'],
    service['spec']['selector'],
    _manifest('pod-disruption-budget.yaml')['spec']['selector']['matchLabels'],
    _manifest('network-policy.yaml')['spec']['podSelector']['matchLabels'],
  ):
    assert selector.items() <= labels.items()
  ports = {
    port['name']
    for port in deployment['spec']['template']['spec']['containers'][0]['ports']
  }
  assert {port['targetPort'] for port in service['spec']['ports']} == ports
  scaler = _manifest('horizontal-pod-autoscaler.yaml')['spec']
  assert scaler['scaleTargetRef']['name'] == deployment['metadata']['name']
  assert (
    scaler['minReplicas']
    > _manifest('pod-disruption-budget.yaml')['spec']['minAvailable']
  )
  job = _pods()['score-job.yaml']['containers'][0]
  assert job['args'][-1] == f'{service["metadata"]["name"]}:8500'


@pytest.mark.parametrize('name', ['deployment.yaml', 'score-job.yaml'])
def test_pods_are_locked_down(name):
  pod = _pods()[name]
  assert pod['securityContext']['runAsNonRoot']
  assert pod['automountServiceAccountToken'] is False
  for container in pod['containers']:
    assert container['securityContext']['readOnlyRootFilesystem']
    assert container['securityContext']['capabilities'] == {'drop': ['ALL']}
    assert {'requests', 'limits'} <= set(container['resources'])


def test_probes_ask_grpc_health():
  container = _pods()['deployment.yaml']['containers'][0]
  for probe in ('startupProbe', 'readinessProbe', 'livenessProbe'):
    # Without a service: the server as a whole, which every health service knows.
    assert container[probe]['grpc'] == {'port': 8500}
