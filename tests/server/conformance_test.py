"""What TF Serving answers, question by question; asked of any server.

By default of the local server. To ask another one, fill a folder with the tiny
models (python tests/support/tiny_models.py DIR), let that server serve DIR/lungs and
DIR/classifier under these names, and name both:

  export PYTHONPATH=tests/support
  python tests/server/conformance_test.py --address HOST:PORT --models DIR

`--models-at PATH` is the folder as the server sees it, where that differs.
"""

import argparse
import contextlib
import itertools
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
import serving_stub
import tiny_answers
import tiny_models

from covid_tf import contract
from covid_tf.predictors import answers
from covid_tf.predictors import protocol
from covid_tf.predictors import tensors

_ADDRESS, _MODELS, _MODELS_AT = (
  'COVID_TF_SERVING_ADDRESS',
  'COVID_TF_SERVING_MODELS',
  'COVID_TF_SERVING_MODELS_AT',
)
_HU = np.random.default_rng(0).integers(-1000, 300, (3, 20, 30)).astype(np.int16)


class Asked:
  """A server under question: its stub, its folder, and fresh names for models."""

  def __init__(self, stub, models: pathlib.Path, models_at: pathlib.PurePath):
    self.stub = stub
    self.models = models
    self.models_at = models_at
    self._numbers = itertools.count()
    self._exports: dict[float, pathlib.Path] = {}

  def fresh_name(self) -> str:
    return f'question-{os.getpid()}-{next(self._numbers)}'

  def reload(self, *extra, **policies) -> None:
    """Serves the two contract models and `extra` names, with their policies."""
    request = protocol.ReloadConfigRequest()
    for name in (*contract.SIGNATURES, *extra):
      config = request.config.model_config_list.config.add(
        name=name, base_path=str(self.models_at / name), model_platform='tensorflow'
      )
      if name in policies:
        config.MergeFrom(policies[name])
    self.stub.reload(request, timeout=60)

  @contextlib.contextmanager
  def model(self, *biases: float, **policies):
    """Serves a fresh classifier with versions 1, 2, … of these biases."""
    name = self.fresh_name()
    for version, bias in enumerate(biases, 1):
      self.add(name, version, bias)
    try:
      self.reload(name, **({name: policies['policy']} if policies else {}))
      yield name
    finally:
      self.reload()
      shutil.rmtree(self.models / name, ignore_errors=True)

  def add(self, name: str, version, bias: float) -> None:
    """Adds a version as an operator does: copied beside, then renamed."""
    if bias not in self._exports:
      self._exports[bias] = tiny_models.export(
        self.models / f'.{self.fresh_name()}',
        'classifier',
        bias=bias,
        signature_names=(contract.SERVING_DEFAULT,),
      )
    (self.models / name).mkdir(exist_ok=True)
    copy = self.models / name / f'.{version}.copied'
    shutil.copytree(self._exports[bias], copy)
    copy.rename(self.models / name / str(version))

  def bias(self, name: str, **spec) -> float:
    """Which version answers, found by its bias."""
    probability = self.stub.outputs(name, hu=np.zeros((1, 4, 4), np.int16), **spec)[
      'covid_probability'
    ][0]
    return round(float(np.log(probability / (1 - probability))), 3)


@pytest.fixture(scope='module')
def asked(tmp_path_factory):
  if _ADDRESS in os.environ:
    models = pathlib.Path(os.environ[_MODELS])
    with serving_stub.connected(os.environ[_ADDRESS]) as stub:
      yield Asked(stub, models, pathlib.PurePath(os.environ.get(_MODELS_AT, models)))
    return
  from covid_tf.server import configuration
  from covid_tf.server import serving

  models = tiny_models.export_both(tmp_path_factory.mktemp('models'))
  server = serving.Server(
    configuration.ServerOptions(models=str(models), port=0, poll_s=0.1, load_retries=0)
  )
  with serving_stub.connected(server.addresses[0]) as stub:
    yield Asked(stub, models, models)
  server.stop()


# The table of refusals: change of a good request, code, end of the text.


def _good():
  return serving_stub.predict_request('classifier', 'grad_cam', hu=_HU)


def _without_spec(request):
  request.ClearField('model_spec')


def _without_name(request):
  request.model_spec.name = ''


def _with_label(request):
  request.model_spec.version_label = 'nobody'


def _of_unknown_model(request):
  request.model_spec.name = 'missing'


def _of_version(number):
  def change(request):
    request.model_spec.version.value = number

  return change


def _of_unknown_signature(request):
  request.model_spec.signature_name = 's'


def _with_extra_input(request):
  request.inputs['q'].CopyFrom(request.inputs['hu'])


def _with_no_input(request):
  del request.inputs['hu']


def _with_renamed_input(request):
  request.inputs['q'].CopyFrom(request.inputs['hu'])
  del request.inputs['hu']


def _with_filter(*names):
  def change(request):
    request.output_filter.extend(names)

  return change


def _with_dtype(dtype):
  def change(request):
    request.inputs['hu'].Clear()
    tensors.fill(request.inputs['hu'], _HU.astype(dtype))

  return change


_REFUSALS = [
  (_without_spec, 'INVALID_ARGUMENT', 'Missing ModelSpec'),
  (_without_name, 'INVALID_ARGUMENT', 'ModelSpec has no name specified.'),
  (_with_label, 'INVALID_ARGUMENT', 'Unrecognized servable version label: nobody'),
  (_of_unknown_model, 'NOT_FOUND', 'Servable not found for request: Latest(missing)'),
  (
    _of_version(9),
    'NOT_FOUND',
    'Servable not found for request: Specific(classifier, 9)',
  ),
  (
    _of_version(0),
    'NOT_FOUND',
    'Servable not found for request: Specific(classifier, 0)',
  ),
  (
    _of_unknown_signature,
    'FAILED_PRECONDITION',
    'Serving signature key "s" not found.',
  ),
  (
    _with_extra_input,
    'INVALID_ARGUMENT',
    'input size does not match signature: 2!=1 len({hu,q}) != len({hu}). Sent '
    'extra: {q}. Missing but required: {}.',
  ),
  (
    _with_no_input,
    'INVALID_ARGUMENT',
    'input size does not match signature: 0!=1 len({}) != len({hu}). Sent extra: '
    '{}. Missing but required: {hu}.',
  ),
  (
    _with_filter('w'),
    'INVALID_ARGUMENT',
    'output tensor alias not found in signature: w Outputs expected to be in the '
    'set {cam_14,cam_28,covid_probability}.',
  ),
  (
    _with_filter('cam_14', 'cam_14'),
    'INVALID_ARGUMENT',
    'duplicate output tensor alias: cam_14',
  ),
  (
    _with_dtype(np.float32),
    'INVALID_ARGUMENT',
    'Expects arg[0] to be int16 but float is provided',
  ),
  (
    _with_dtype(np.int32),
    'INVALID_ARGUMENT',
    'Expects arg[0] to be int16 but int32 is provided',
  ),
]


@pytest.mark.parametrize(
  'change, code, text', _REFUSALS, ids=[row[2][:40] for row in _REFUSALS]
)
def test_refusals(asked, change, code, text):
  request = _good()
  change(request)
  found_code, found_text = serving_stub.refusal(asked.stub.predict, request)
  assert found_code == code
  assert found_text.endswith(text) if 'Expects' in text else found_text == text


def test_input_of_another_name_is_refused(asked):
  request = _good()
  _with_renamed_input(request)
  assert serving_stub.refusal(asked.stub.predict, request)[0] == 'INVALID_ARGUMENT'


def test_checks_come_in_order(asked):
  request = _good()
  for change in (
    _with_dtype(np.float32),
    _with_filter('w'),
    _with_extra_input,
    _of_unknown_signature,
    _of_version(9),
    _without_name,
  ):
    change(request)
  texts = []
  for repair in (
    lambda: setattr(request.model_spec, 'name', 'classifier'),
    lambda: request.model_spec.ClearField('version'),
    lambda: setattr(request.model_spec, 'signature_name', 'grad_cam'),
    lambda: request.inputs.pop('q'),
    lambda: request.ClearField('output_filter'),
    lambda: None,
  ):
    texts.append(serving_stub.refusal(asked.stub.predict, request)[1].split()[0])
    repair()
  assert texts == ['ModelSpec', 'Servable', 'Serving', 'input', 'output', 'Expects']


@pytest.mark.parametrize('shape', [(), (1,), (2, 3), (1, 2, 3, 4)])
def test_shape_errors_come_from_the_graph(asked, shape):
  code, text = serving_stub.refusal(
    asked.stub.predict,
    serving_stub.predict_request('classifier', hu=np.zeros(shape, np.int16)),
  )
  assert code == 'INVALID_ARGUMENT'
  assert 'hu must be [slices, rows, columns]' in text


def test_long_texts_are_cut(asked):
  name = 'm' * 3000
  text = serving_stub.refusal(
    asked.stub.predict, serving_stub.predict_request(name, hu=_HU)
  )[1]
  # TF Serving says that it has cut: "...TRUNCATED" after as many.
  assert text[:1024] == f'Servable not found for request: Latest({name}'[:1024]
  assert text[1024:] in ('', '...TRUNCATED')


# Tensors.


def test_answers_and_echo(asked):
  response = asked.stub.predict(_good())
  assert (
    response.model_spec.name,
    response.model_spec.signature_name,
    response.model_spec.version.value,
  ) == ('classifier', 'grad_cam', 1)
  assert {
    name: tensors.shape_of(proto) for name, proto in response.outputs.items()
  } == {'covid_probability': (3,), 'cam_28': (3, 28, 28), 'cam_14': (3, 14, 14)}
  np.testing.assert_allclose(
    tensors.read(response.outputs['covid_probability']),
    tiny_answers.probability(_HU),
    atol=1e-6,
  )


def test_empty_signature_name_is_serving_default(asked):
  response = asked.stub.predict(serving_stub.predict_request('lungs', hu=_HU))
  assert response.model_spec.signature_name == 'serving_default'
  assert list(response.outputs) == ['lung_mask']


def test_output_filter(asked):
  assert set(
    asked.stub.outputs(
      'classifier', 'grad_cam', outputs=['cam_14', 'covid_probability'], hu=_HU
    )
  ) == {'cam_14', 'covid_probability'}


@pytest.mark.parametrize('model', contract.SIGNATURES)
def test_outputs_have_the_dtypes_of_the_contract(asked, model):
  for name, signature in contract.SIGNATURES[model].items():
    inputs = {'hu': _HU} if signature.inputs else {}
    outputs = asked.stub.outputs(model, name, **inputs)
    for spec in signature.outputs:
      assert outputs[spec.name].dtype == np.dtype(spec.dtype), (name, spec.name)
      assert outputs[spec.name].ndim == len(spec.shape)


@pytest.mark.parametrize('model', contract.SIGNATURES)
def test_reference_answers_need_no_input_and_are_given_again(asked, model):
  reference = asked.stub.outputs(model, contract.SELF_CHECK)
  assert set(reference) == {spec.name for spec in contract.SELF_CHECKS[model].outputs}
  for signature in contract.SIGNATURES[model]:
    if signature in answers.REFERENCED[model]:
      outputs = asked.stub.outputs(model, signature, hu=reference['hu'])
      for name, array in outputs.items():
        np.testing.assert_allclose(array, reference[name], atol=1e-4)


def test_typed_and_raw_inputs_mean_the_same(asked):
  raw = asked.stub.outputs('lungs', hu=_HU)['lung_mask']
  request = serving_stub.predict_request('lungs')
  tensors.fill_typed(request.inputs['hu'], _HU)
  assert request.inputs['hu'].int_val and not request.inputs['hu'].tensor_content
  typed = tensors.read(asked.stub.predict(request).outputs['lung_mask'])
  np.testing.assert_array_equal(typed, raw)
  np.testing.assert_array_equal(raw, tiny_answers.mask(_HU))


def test_one_typed_value_fills_the_tensor(asked):
  request = serving_stub.predict_request('classifier')
  request.inputs['hu'].dtype = tensors.DTYPE_NUMBERS[np.dtype(np.int16)]
  tensors.set_shape(request.inputs['hu'], (2, 5, 5))
  request.inputs['hu'].int_val.append(-700)
  found = tensors.read(asked.stub.predict(request).outputs['covid_probability'])
  np.testing.assert_allclose(
    found, tiny_answers.probability(np.full((2, 5, 5), -700, np.int16)), atol=1e-6
  )


def test_outputs_come_in_typed_fields(asked):
  response = asked.stub.predict(_good())
  assert not any(proto.tensor_content for proto in response.outputs.values())
  assert len(response.outputs['cam_14'].float_val) == 3 * 14 * 14


def test_cut_off_input_is_refused(asked):
  request = _good()
  request.inputs['hu'].tensor_content = request.inputs['hu'].tensor_content[:-2]
  assert serving_stub.refusal(asked.stub.predict, request) == (
    'INVALID_ARGUMENT',
    'tensor parsing error: hu',
  )


@pytest.mark.parametrize('count', [0, 1, 7])
def test_any_number_of_slices(asked, count):
  hu = np.resize(_HU, (count, 20, 30))
  outputs = asked.stub.outputs('classifier', 'grad_cam', hu=hu)
  assert outputs['covid_probability'].shape == (count,)
  assert outputs['cam_28'].shape == (count, 28, 28)


def test_messages_above_grpc_limits(asked):
  hu = np.zeros((24, 512, 512), np.int16)  # 12 MiB there, 6 MiB back.
  assert asked.stub.outputs('lungs', hu=hu)['lung_mask'].shape == hu.shape


def test_signature_without_inputs(asked):
  card = asked.stub.outputs('lungs', 'card')['card']
  assert card.shape == (1,) and b'lungs' in card[0]


def test_deadline_is_kept(asked):
  request = serving_stub.predict_request('lungs', hu=np.zeros((64, 512, 512), np.int16))
  assert (
    serving_stub.refusal(asked.stub.predict, request, timeout_s=0.001)[0]
    == 'DEADLINE_EXCEEDED'
  )
  assert asked.stub.outputs('lungs', hu=_HU)  # And the server is none the worse.


# Metadata, status, health.


def _metadata_request(*fields, **spec):
  request = protocol.GetModelMetadataRequest(metadata_field=fields)
  if spec:
    request.model_spec.name = spec['name']
  return request


def test_metadata_lists_the_signatures(asked):
  response = asked.stub.metadata(_metadata_request('signature_def', name='classifier'))
  signatures = protocol.SignatureDefMap.FromString(
    response.metadata['signature_def'].value
  ).signature_def
  assert set(contract.SIGNATURES['classifier']) <= set(signatures)
  assert response.model_spec.version.value == 1
  assert signatures['grad_cam'].outputs['cam_28'].dtype == 1
  assert [dim.size for dim in signatures['grad_cam'].inputs['hu'].tensor_shape.dim] == [
    -1,
    -1,
    -1,
  ]


@pytest.mark.parametrize(
  'request_, code',
  [
    (_metadata_request('signature_def'), 'INVALID_ARGUMENT'),
    (_metadata_request(name='lungs'), 'INVALID_ARGUMENT'),
    (_metadata_request('other', name='lungs'), 'INVALID_ARGUMENT'),
    (_metadata_request('signature_def', name='missing'), 'NOT_FOUND'),
  ],
)
def test_metadata_refusals(asked, request_, code):
  assert serving_stub.refusal(asked.stub.metadata, request_)[0] == code


def test_status_of_unknown_model_and_version(asked):
  request = protocol.GetModelStatusRequest()
  assert serving_stub.refusal(asked.stub.status, request) == (
    'INVALID_ARGUMENT',
    'Missing ModelSpec',
  )
  request.model_spec.name = 'missing'
  assert serving_stub.refusal(asked.stub.status, request) == (
    'NOT_FOUND',
    'Could not find any versions of model missing',
  )
  request.model_spec.name = 'lungs'
  request.model_spec.version.value = 9
  assert serving_stub.refusal(asked.stub.status, request) == (
    'NOT_FOUND',
    'Could not find version 9 of model lungs',
  )


def test_health(asked):
  answer = asked.stub.health(protocol.HealthCheckRequest())
  assert answer.status == protocol.HealthCheckResponse.SERVING
  assert (
    serving_stub.refusal(
      asked.stub.health, protocol.HealthCheckRequest(service='missing')
    )[0]
    == 'NOT_FOUND'
  )
  watch = asked.stub.health_watch(protocol.HealthCheckRequest(), timeout=10)
  assert next(iter(watch)).status == protocol.HealthCheckResponse.SERVING
  watch.cancel()


# The life of versions.


def test_new_version_takes_over_and_its_removal_rolls_back(asked):
  with asked.model(0.0) as name:
    assert asked.bias(name) == 0.0
    asked.add(name, 2, 1.0)
    serving_stub.wait_until(
      lambda: asked.stub.versions(name) == [(2, 'AVAILABLE'), (1, 'END')]
    )
    assert asked.bias(name) == 1.0
    assert serving_stub.refusal(asked.bias, name, version=1)[0] == 'NOT_FOUND'
    shutil.rmtree(asked.models / name / '2')
    serving_stub.wait_until(
      lambda: asked.stub.versions(name) == [(2, 'END'), (1, 'AVAILABLE')]
    )
    assert asked.bias(name) == 0.0


def test_swap_under_load_fails_no_request(asked):
  with asked.model(0.0) as name:
    answered = []

    def ask():
      answered.append(asked.bias(name))
      return answered[-1] == 1.0

    ask()
    asked.add(name, 2, 1.0)
    serving_stub.wait_until(ask)
    assert sorted(answered) == answered  # Never back to the old one.


def test_bad_new_version_leaves_the_old_one_serving(asked):
  with asked.model(1.0) as name:
    bad = asked.models / name / '2'
    bad.mkdir()
    (bad / 'saved_model.pb').write_bytes(b'no model')
    serving_stub.wait_until(
      lambda: asked.stub.versions(name)[0] in ((2, 'END'), (2, 'LOADING'))
    )
    assert (1, 'AVAILABLE') in asked.stub.versions(name)
    assert asked.bias(name) == 1.0


def test_version_that_is_copied_in_place_serves_in_the_end(asked):
  with asked.model(0.0) as name:
    asked.add(name, '.2', 1.0)
    whole, partial = asked.models / name / '.2', asked.models / name / '2'
    (whole / 'variables').rename(asked.models / name / '.variables')
    shutil.copytree(whole, partial)  # saved_model.pb is there, its variables are not.
    serving_stub.wait_until(
      lambda: asked.stub.versions(name)[0] in ((2, 'END'), (2, 'LOADING'))
    )
    assert asked.bias(name) == 0.0
    shutil.copytree(asked.models / name / '.variables', partial / 'variables')
    serving_stub.wait_until(lambda: asked.bias(name) == 1.0, timeout_s=90)


def test_version_that_is_still_being_copied_waits(asked):
  with asked.model(0.0) as name:
    asked.add(name, '.2', 1.0)
    whole, partial = asked.models / name / '.2', asked.models / name / '2'
    partial.mkdir()
    shutil.copytree(whole / 'variables', partial / 'variables')
    serving_stub.wait_until(lambda: asked.bias(name) == 0.0)
    assert (1, 'AVAILABLE') in asked.stub.versions(name)
    shutil.copy(whole / 'saved_model.pb', partial / 'saved_model.pb.part')
    (partial / 'saved_model.pb.part').rename(partial / 'saved_model.pb')
    serving_stub.wait_until(lambda: asked.bias(name) == 1.0)


def test_leading_zeros(asked):
  name = asked.fresh_name()
  asked.add(name, '00000123', 1.0)
  try:
    asked.reload(name)
    assert asked.stub.versions(name) == [(123, 'AVAILABLE')]
    assert asked.bias(name, version=123) == 1.0
  finally:
    asked.reload()
    shutil.rmtree(asked.models / name)


def test_version_zero_can_be_served(asked):
  name = asked.fresh_name()
  asked.add(name, 0, 1.0)
  try:
    asked.reload(name)
    assert asked.bias(name, version=0) == 1.0
    assert asked.stub.versions(name) == [(0, 'AVAILABLE')]
  finally:
    asked.reload()
    shutil.rmtree(asked.models / name)


def _policy(versions=(), labels=None):
  config = protocol.ReloadConfigRequest().config.model_config_list.config.add()
  config.model_version_policy.specific.versions.extend(versions)
  config.version_labels.update(labels or {})
  return config


def test_labels_name_available_versions_only(asked):
  with asked.model(0.0, 1.0, policy=_policy((1, 2))) as name:
    serving_stub.wait_until(
      lambda: asked.stub.versions(name) == [(2, 'AVAILABLE'), (1, 'AVAILABLE')]
    )
    asked.reload(name, **{name: _policy((1, 2), {'stable': 1, 'canary': 2})})
    assert asked.bias(name, label='stable') == 0.0
    assert asked.bias(name, label='canary') == 1.0
    asked.reload(name, **{name: _policy((1, 2), {'stable': 2})})
    assert asked.bias(name, label='stable') == 1.0
    code, text = serving_stub.refusal(
      asked.reload, name, **{name: _policy((1, 2), {'stable': 7})}
    )
    assert code == 'FAILED_PRECONDITION'
    assert text == (
      f'Request to assign label to version 7 of model {name}, which is '
      'not currently available for inference'
    )
    assert asked.bias(name, label='stable') == 1.0  # As before the refusal.


def test_reload_replaces_the_whole_list(asked):
  with asked.model(0.0) as name:
    asked.reload()
    serving_stub.wait_until(lambda: asked.stub.versions(name) == [(1, 'END')])
    assert serving_stub.refusal(asked.bias, name) == (
      'NOT_FOUND',
      f'Servable not found for request: Latest({name})',
    )


def test_reload_of_nothing_is_refused(asked):
  assert (
    serving_stub.refusal(asked.stub.reload, protocol.ReloadConfigRequest())[0]
    == 'INVALID_ARGUMENT'
  )
  assert asked.stub.versions('lungs') == [(1, 'AVAILABLE')]


@pytest.mark.parametrize('count, state', [(3, 'AVAILABLE'), (1001, 'END')])
def test_warm_up_is_replayed_before_a_version_serves(asked, count, state):
  with asked.model(0.0) as name:
    asked.add(name, '.2', 1.0)
    tiny_models.write_warm_up(asked.models / name / '.2', 'classifier', count)
    (asked.models / name / '.2').rename(asked.models / name / '2')
    serving_stub.wait_until(lambda: asked.stub.versions(name)[0] == (2, state))
    assert asked.bias(name) == (1.0 if state == 'AVAILABLE' else 0.0)


def main() -> int:
  """Asks the server of --address."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--address', help='HOST:PORT of a running server')
  parser.add_argument('--models', help='its models, writable here')
  parser.add_argument('--models-at', help='the same folder as the server sees it')
  args = parser.parse_args()
  if (args.address is None) != (args.models is None):
    parser.error('--address and --models go together')
  for name, value in (
    (_ADDRESS, args.address),
    (_MODELS, args.models),
    (_MODELS_AT, args.models_at),
  ):
    if value:
      os.environ[name] = value
  return pytest.main([__file__, '-q'])


if __name__ == '__main__':
  sys.exit(main())
