"""The client: what it asks, what it checks, what it needs to be imported."""

import re
import subprocess
import sys

import fake_serving
import numpy as np
import pytest
import tiny_answers

from covid_tf import contract
from covid_tf import errors
from covid_tf import predictors

_HU = np.random.default_rng(0).integers(-1000, 300, (21, 40, 30)).astype(np.int16)


@pytest.fixture
def fake():
  server = fake_serving.FakeServing()
  yield server
  server.stop()


@pytest.fixture
def models(fake):
  with predictors.connect(fake.address) as connected:
    yield connected


def _connect(fake, **kwargs):
  return predictors.connect(fake.address, connect_patience_s=0.3, **kwargs)


# What it answers.


def test_answers_are_the_models(models):
  np.testing.assert_array_equal(models.segment_lungs(_HU), tiny_answers.mask(_HU))
  explanation = models.grad_cam(_HU)
  np.testing.assert_array_equal(
    explanation.covid_probability, tiny_answers.probability(_HU)
  )
  np.testing.assert_array_equal(explanation.cam_28, tiny_answers.cam(_HU, 28))
  np.testing.assert_array_equal(explanation.cam_14, tiny_answers.cam(_HU, 14))
  features = models.features(_HU)
  assert features.features.shape == (21, contract.FEATURE_COUNT)
  np.testing.assert_array_equal(features.gradients, 2 * features.features)


def test_a_crop_that_is_not_contiguous(models):
  crop = _HU[:, 5:35:2, ::3]
  np.testing.assert_array_equal(models.segment_lungs(crop), tiny_answers.mask(crop))


def test_no_slices_need_no_request(fake, models):
  assert models.segment_lungs(_HU[:0]).shape == (0, 40, 30)
  assert models.grad_cam(_HU[:0]).cam_28.shape == (0, 28, 28)
  assert not fake.predicted


@pytest.mark.parametrize(
  'hu', [_HU.astype(np.float32), _HU[0], _HU[:, :0], _HU.tolist()]
)
def test_wrong_images_are_refused(models, hu):
  with pytest.raises(errors.UsageError, match='required int16'):
    models.grad_cam(hu)


def test_identities_name_version_and_card(fake, models):
  lungs, classifier = models.identities()
  assert (lungs.name, lungs.version) == ('lungs', 1)
  assert classifier.card == {'name': 'classifier', 'bias': 0.0}
  assert re.fullmatch('[0-9a-f]{64}', lungs.card_sha256)
  fake.models['classifier'] = fake_serving.FakeModel('classifier', version=4)
  with models.study() as study:
    assert [identity.version for identity in study.identities()] == [1, 4]


# How it asks.


def test_batches_hold_so_many_bytes(fake):
  with _connect(fake, batch_bytes=5 * _HU[0].nbytes) as models:
    models.grad_cam(_HU)
  assert sorted(slices for *_, slices in fake.predicted) == [1, 5, 5, 5, 5]


def test_metadata_goes_with_every_call(fake):
  tokens = iter(range(100))
  with _connect(fake, metadata=lambda: [('authorization', f't{next(tokens)}')]) as m:
    m.segment_lungs(_HU[:1])
  assert dict(fake.metadata)['authorization'] == 't8'  # 4 to connect, 2 + 1 + 2 after.


def test_version_and_label_are_asked_for(fake):
  asked = []
  find = fake._find
  fake._find = lambda request, context: (
    asked.append(
      (
        request.model_spec.name,
        request.model_spec.version_label,
        request.model_spec.version.value,
      )
    )
    or find(request, context)
  )
  fake.models['lungs'].version = 7
  fake.restart()
  _connect(fake, versions={'lungs': 7, 'classifier': 'canary'}).close()
  assert ('lungs', '', 7) in asked and ('classifier', 'canary', 0) in asked
  with pytest.raises(errors.ModelError, match='lungs: required version 8'):
    _connect(fake, versions={'lungs': 8})
  with pytest.raises(errors.UsageError, match="found .'heart'"):
    _connect(fake, versions={'heart': 1})


@pytest.mark.parametrize(
  'address',
  [
    '',
    'localhost',
    'localhost:',
    ':8500',
    'localhost:http',
    'http://localhost:8500',
    'localhost:0',
    'localhost:70000',
    'unix:',
  ],
)
def test_addresses_that_are_none(address):
  with pytest.raises(errors.UsageError, match="required 'host:port'"):
    predictors.connect(address)


@pytest.mark.parametrize(
  'kwargs',
  [
    {'timeout_s': 0},
    {'timeout_s': float('nan')},
    {'timeout_s': '5'},
    {'batch_bytes': 0},
    {'in_flight': 0},
  ],
)
def test_limits_that_are_none(kwargs):
  with pytest.raises(errors.UsageError, match='required more than 0'):
    predictors.connect('localhost:1', **kwargs)


def test_tls_files_that_cannot_be_read(tmp_path):
  with pytest.raises(errors.UsageError, match='go together'):
    predictors.TLS(key_file='k')
  with pytest.raises(errors.UsageError, match='required a readable PEM file'):
    predictors.connect('localhost:1', tls=predictors.TLS(tmp_path / 'absent'))
  (tmp_path / 'ca').write_bytes(b'\x30\x82')
  with pytest.raises(errors.UsageError, match='convert it with openssl'):
    predictors.connect('localhost:1', tls=predictors.TLS(tmp_path / 'ca'))


# Whether it is our model: before the first slice.


def _without(name, kind, key):
  def spoil(signatures):
    if kind is None:
      del signatures.signature_def[name]
    else:
      del getattr(signatures.signature_def[name], kind)[key]

  return spoil


def _with_dtype(signatures):
  signatures.signature_def['grad_cam'].outputs['cam_28'].dtype = 2


def _with_rank(signatures):
  signatures.signature_def['grad_cam'].inputs['hu'].tensor_shape.dim.add(size=1)


def _with_fixed_input(signatures):
  signatures.signature_def['grad_cam'].inputs['hu'].tensor_shape.dim[1].size = 512


def _with_other_size(signatures):
  signatures.signature_def['grad_cam'].outputs['cam_14'].tensor_shape.dim[1].size = 7


def _with_extra_input(signatures):
  signatures.signature_def['grad_cam'].inputs['q'].dtype = 1


@pytest.mark.parametrize(
  'spoil, match',
  [
    (_without('grad_cam', None, None), "found .*export .* to add .'grad_cam'"),
    (_without('grad_cam', 'inputs', 'hu'), 'grad_cam, input hu: required int16'),
    (
      _without('features', 'outputs', 'gradients'),
      r'output gradients: required float32 \[any, 2048\]',
    ),
    (_with_dtype, r'cam_28: required float32 \[any, 28, 28\], found float64'),
    (_with_rank, r'hu: required int16 .*, found int16 \[any, any, any, 1\]'),
    (_with_fixed_input, r'found int16 \[any, 512, any\]'),
    (_with_other_size, r'cam_14: required .*14, 14\], found float32 \[any, 7, 14\]'),
    (_with_extra_input, "required no other inputs .*, found .'q'"),
  ],
)
def test_signatures_are_held_against_the_contract(fake, spoil, match):
  spoil(fake.models['classifier'].signatures)
  with pytest.raises(errors.ModelError, match=f'classifier.*{match}'):
    _connect(fake)
  assert not fake.predicted


def test_unknown_rank_is_left_to_the_graph(fake):
  shape = (
    fake.models['lungs']
    .signatures.signature_def['probability']
    .outputs['lung_probability']
    .tensor_shape
  )
  shape.Clear()
  shape.unknown_rank = True
  with _connect(fake) as models:
    assert [known.name for known in models.identities()] == ['lungs', 'classifier']


@pytest.mark.parametrize('card', [b'\xff', b'{', b'[1]', b'{"x": NaN}', b'[' * 100_000])
def test_cards_that_are_no_json_object(fake, card):
  fake.models['lungs'].card = card
  with pytest.raises(errors.ModelError, match='lungs version 1: card: required'):
    _connect(fake)


def test_a_server_of_other_models(fake):
  del fake.models['classifier']
  with pytest.raises(errors.ModelError, match='NOT_FOUND .*Latest.classifier.*check'):
    _connect(fake)


def test_a_port_that_speaks_another_grpc(fake):
  with predictors.connect(fake.address) as models:
    with pytest.raises(errors.ModelError, match='UNIMPLEMENTED .*8501 is its REST'):
      models.statuses('lungs')


# What it needs.

_IMPORT = """
import resource, sys
class Block:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in ('tensorflow', 'keras', 'tensorflow_serving'):
      raise ImportError(name + ' is blocked')
sys.meta_path.insert(0, Block())
import covid_tf
models = covid_tf.connect(sys.argv[1])
import numpy
print(models.segment_lungs(numpy.full((3, 9, 9), -700, numpy.int16)).sum())
"""


def test_client_works_where_tensorflow_does_not(fake):
  done = subprocess.run(
    [sys.executable, '-c', _IMPORT, fake.address],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == '243\n'


def test_load_models_says_what_to_install():
  code = (
    _IMPORT.split('models =')[0]
    + """
import importlib.util
importlib.util.find_spec = lambda name: None
try:
  covid_tf.load_models('x')
except covid_tf.ModelError as error:
  print(error)
"""
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert "pip install '.[models-cpu]'" in done.stdout
