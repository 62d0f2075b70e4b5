"""A node's compose file, manifests and Orthanc: parsed, compared, and Orthanc run."""

import argparse
import contextlib
import dataclasses
import importlib
import json
import pathlib
import re
import subprocess
import time
import urllib.error

import dimse_faults
import kubernetes_validate
import orthanc
import pydicom
import pytest
import yaml

from covid_tf import clinic
from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import sending
from covid_tf.commands import messages

_SERVING = pathlib.Path(__file__).parents[2] / 'serving'
_NODE = _SERVING / 'node'
_MANIFESTS = ('stateful-set.yaml', 'service.yaml', 'network-policy.yaml')
_PASSWORD = 'words, and: colons?'


def _yaml(name, folder=_NODE):
  return yaml.safe_load((folder / name).read_text('utf-8'))


def _container():
  (container,) = _yaml('stateful-set.yaml')['spec']['template']['spec']['containers']
  return container


def _commands():
  return {
    'docker-compose.yaml': _yaml('docker-compose.yaml')['services']['node']['command'],
    'stateful-set.yaml': _container()['args'],
  }


def _orthanc_settings() -> dict:
  """Of orthanc.json, whose comments stand on lines of their own."""
  lines = (_NODE / 'orthanc.json').read_text('utf-8').splitlines()
  return json.loads('\n'.join(line for line in lines if line.strip()[:2] != '//'))


# Flags.


def _parsed(words):
  command = importlib.import_module(f'covid_tf.commands.{words[0]}')
  parser = argparse.ArgumentParser(exit_on_error=False)
  command.add_arguments(parser)
  messages.add_arguments(parser)
  return parser.parse_args(words[1:])


@pytest.mark.parametrize('name', ['docker-compose.yaml', 'stateful-set.yaml'])
def test_the_node_is_given_flags_that_it_has(name):
  arguments = _parsed(_commands()[name])
  assert (arguments.aet, arguments.port, arguments.output) == (
    'COVIDTF',
    11112,
    '/data',
  )
  assert addresses.parse(arguments.to, '--to').port


def test_compose_file_names_what_is_there_and_exposes_loopback_alone():
  compose = _yaml('docker-compose.yaml')
  models = compose['services']['models']['extends']
  base = (_NODE / models['file']).resolve()
  assert models['service'] in _yaml(base.name, base.parent)['services']
  node, pacs = compose['services']['node'], compose['services']['orthanc']
  build = node['build']
  assert (_NODE / build['context'] / build['dockerfile']).exists()
  assert node['depends_on']['models']['condition'] == 'service_healthy'
  assert compose['networks']['models']['internal'] and 'ports' not in node
  assert all(port.startswith('127.0.0.1:') for port in pacs['ports'])
  for service in (node, pacs):
    assert service['read_only'] and service['cap_drop'] == ['ALL']
    for volume in service['volumes']:
      known = compose['volumes'] if volume['type'] == 'volume' else _names(_NODE)
      assert pathlib.Path(volume['source']).name in known
  port = next(word for word in node['command'] if word.startswith('--health-port='))
  assert f':{port.partition("=")[2]}/healthz' in node['healthcheck']['test'][-1]


def _names(folder):
  return {path.name for path in folder.iterdir()}


def test_compose_file_and_orthanc_know_each_other():
  settings = _orthanc_settings()
  arguments = _parsed(_commands()['docker-compose.yaml'])
  assert arguments.callers == settings['DicomAet']
  for text in (arguments.to, arguments.source_pacs):
    address = addresses.parse(text, '--to')
    assert address.ae_title == settings['DicomAet']
    assert (address.host, address.port) == ('orthanc', settings['DicomPort'])
  node = settings['DicomModalities']['node']
  assert (node['AET'], node['Host'], node['Port']) == ('COVIDTF', 'node', 11112)
  assert node['AllowStore'] and node['AllowFind']
  assert f"'{node['Host']}'" in (_NODE / 'route.lua').read_text('utf-8')
  volumes = _yaml('docker-compose.yaml')['services']['orthanc']['volumes']
  targets = [volume['target'] for volume in volumes]
  assert {*settings['LuaScripts'], settings['StorageDirectory']} <= set(targets)


# Kubernetes.


@pytest.mark.parametrize('name', _MANIFESTS)
def test_manifests_keep_their_schema(name):
  kubernetes_validate.validate(_yaml(name), '1.34', strict=True)
  assert name in _yaml('kustomization.yaml')['resources']


def test_manifests_fit_each_other():
  spec = _yaml('stateful-set.yaml')['spec']
  labels = spec['template']['metadata']['labels']
  service, policy = _yaml('service.yaml'), _yaml('network-policy.yaml')
  assert spec['serviceName'] == service['metadata']['name']
  for selector in (
    spec['selector']['matchLabels'],
    service['spec']['selector'],
    policy['spec']['podSelector']['matchLabels'],
  ):
    assert selector.items() <= labels.items()
  ports = {port['name']: port['containerPort'] for port in _container()['ports']}
  arguments = _parsed(_container()['args'])
  assert ports == {'dicom': arguments.port, 'health': arguments.health_port}
  assert {port['targetPort'] for port in service['spec']['ports']} <= set(ports)
  (models,) = (
    rule['from']
    for rule in _yaml('network-policy.yaml', _SERVING / 'kubernetes')['spec']['ingress']
    if 'podSelector' in rule['from'][0]
  )
  assert any(
    peer['podSelector']['matchLabels'].items() <= labels.items() for peer in models
  )


def test_the_node_is_one_keeps_its_volume_and_is_locked_down():
  spec = _yaml('stateful-set.yaml')['spec']
  (claim,) = spec['volumeClaimTemplates']
  assert spec['replicas'] == 1
  assert set(spec['persistentVolumeClaimRetentionPolicy'].values()) == {'Retain'}
  container, pod = _container(), spec['template']['spec']
  mounts = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
  assert mounts[claim['metadata']['name']] == '/data'
  assert pod['securityContext']['runAsNonRoot']
  assert pod['automountServiceAccountToken'] is False
  assert container['securityContext']['readOnlyRootFilesystem']
  assert container['securityContext']['capabilities'] == {'drop': ['ALL']}
  assert {'requests', 'limits'} <= set(container['resources'])
  for probe, path in (
    ('startupProbe', '/healthz'),
    ('readinessProbe', '/readyz'),
    ('livenessProbe', '/healthz'),
  ):
    assert container[probe]['httpGet'] == {'path': path, 'port': 'health'}


# Orthanc with the shipped configuration.


@contextlib.contextmanager
def _shipped(folder):
  """It runs as in its container, but for folders, and for a node on this machine."""
  settings = _orthanc_settings()
  settings['DicomModalities']['node']['Host'] = '127.0.0.1'
  storage = str(folder / 'storage')
  with orthanc.started(
    folder,
    user=('operator', _PASSWORD),
    environment={'ORTHANC_PASSWORD': _PASSWORD},
    **settings
    | {
      'StorageDirectory': storage,
      'IndexDirectory': storage,
      'LuaScripts': [str(_NODE / 'route.lua')],
      'StableAge': 1,
    },
  ) as server:
    yield server


def test_orthanc_knows_every_setting(tmp_path):
  if orthanc.program() is None:
    pytest.skip(str(orthanc.why_missing()))
  path = tmp_path / 'defaults.json'
  subprocess.run(
    [orthanc.program(), f'--config={path}'], check=True, capture_output=True
  )
  known = set(re.findall(r'^\s*(?://\s*)?"(\w+)"\s*:', path.read_text(), re.MULTILINE))
  unknown = set(_orthanc_settings()) - known
  # Not in the file that it writes, but read: on, where REST answers other machines.
  assert unknown <= {'AuthenticationEnabled'}


def test_a_series_is_routed_and_one_that_was_refused_goes_with_the_next(tmp_path):
  node = dimse_faults.FakePacs()
  node.port = 11112
  with _shipped(tmp_path / 'orthanc') as server:
    server_address = f'ORTHANC@localhost:{server.dicom_port}'
    scanner = clinic.connect(server_address, own=addresses.OwnNode('STORESCU'))
    first = dimse_faults.write_study(tmp_path / 'first')
    assert sending.send(sending.read_instances(first), scanner).is_complete
    _until(lambda: [job['State'] for job in _jobs(server)] == ['Failure'])
    with node.running(ae_title='COVIDTF'):
      assert not node.kept
      second = _other_series(first, tmp_path / 'second')
      assert sending.send(sending.read_instances(second), scanner).is_complete
      _until(lambda: len(node.kept) == 16)
      _until(lambda: {job['State'] for job in _jobs(server)} == {'Success'})


def test_orthanc_takes_nothing_from_strangers(tmp_path):
  with _shipped(tmp_path / 'orthanc') as server:
    stranger = clinic.connect(
      f'ORTHANC@localhost:{server.dicom_port}', own=addresses.OwnNode('STRANGER')
    )
    study = dimse_faults.write_study(tmp_path / 'study')
    with pytest.raises(errors.PACSError):
      sending.send(sending.read_instances(study), stranger)
    assert server.ask('/statistics')['CountInstances'] == 0
    nobody = dataclasses.replace(server, user=None)
    with pytest.raises(urllib.error.HTTPError, match='401'):
      nobody.ask('/statistics')


def _jobs(server):
  return server.ask('/jobs?expand')


def _other_series(study, folder):
  folder.mkdir()
  for path in study.glob('*.dcm'):
    dataset = pydicom.dcmread(path)
    dataset.SeriesInstanceUID += '.7'
    dataset.SOPInstanceUID += '.7'
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(folder / path.name)
  return folder


def _until(condition, seconds: float = 180.0):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.2)
