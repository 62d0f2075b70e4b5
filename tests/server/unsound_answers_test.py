"""Answers that no sound model gives: refused, whatever is wrong with them."""

import fake_serving
import numpy as np
import pytest
import real_ct

from covid_tf import cli
from covid_tf import errors
from covid_tf.predictors import tensors

_HU = fake_serving.HU


@pytest.fixture
def fake():
  server = fake_serving.FakeServing()
  yield server
  server.stop()


def test_unpinned_answers_of_another_version_are_refused(fake):
  def another(request, response):
    response.model_spec.version.value = 5
    return response

  fake.after = another
  with (
    fake_serving.connect(fake.address) as models,
    pytest.raises(
      errors.ModelVersionChangedError, match='version 1 was asked, version 5 answered'
    ),
  ):
    with models.study() as study:
      study.grad_cam(_HU)


def _named(field, value):
  def after(request, response):
    setattr(response.model_spec, field, value)
    return response

  return after


def _without_version(request, response):
  response.model_spec.ClearField('version')
  return response


def _without_output(request, response):
  del response.outputs['cam_14']
  return response


def _replaced(name, array):
  def after(request, response):
    response.outputs[name].Clear()
    tensors.fill_typed(
      response.outputs[name], array(request.inputs['hu'].tensor_shape.dim[0].size)
    )
    return response

  return after


def _nan_in_third(count):
  values = np.full(count, 0.5, np.float32)
  values[2:3] = np.nan
  return values


def _cut_content(request, response):
  proto = response.outputs['cam_28']
  array = tensors.read(proto)
  proto.Clear()
  tensors.fill(proto, array)
  proto.tensor_content = proto.tensor_content[:-1]
  return response


def _too_many_axes(request, response):
  for _ in range(65):
    response.outputs['cam_28'].tensor_shape.dim.add(size=1)
  return response


def _cut_field(request, response):
  del response.outputs['cam_28'].float_val[-1:]
  return response


_UNSOUND = [
  (_named('name', 'lungs'), "answered by 'lungs'"),
  (_named('signature_name', 'features'), "signature 'features'"),
  (_without_version, 'version not stated'),
  (_without_output, 'output cam_14: required by the contract'),
  (
    _replaced('cam_14', lambda n: np.zeros((n, 7, 7), np.float32)),
    r'cam_14: required float32 \[4, 14, 14\], found float32 \[4, 7, 7\]',
  ),
  (
    _replaced('covid_probability', lambda n: np.zeros(n, np.float64)),
    r'required float32 \[4\], found float64',
  ),
  (
    _replaced('covid_probability', lambda n: np.zeros(n - 1, np.float32)),
    r'found float32 \[3\]',
  ),
  (
    _replaced('covid_probability', _nan_in_third),
    r'covid_probability, slice 2: required a number in \[0, 1\], found nan',
  ),
  (
    _replaced('covid_probability', lambda n: np.full(n, 1.5, np.float32)),
    'slice 0: .* found 1.5',
  ),
  (
    _replaced('cam_28', lambda n: np.full((n, 28, 28), -0.1, np.float32)),
    'cam_28, slice 0: .* found -0.1',
  ),
  (
    _replaced('cam_28', lambda n: np.full((n, 28, 28), np.inf, np.float32)),
    'found inf',
  ),
  (_cut_content, 'required a whole PredictResponse'),
  (_cut_field, 'required a whole PredictResponse'),
  (_too_many_axes, 'required a whole PredictResponse'),
  (
    lambda request, response: response.SerializeToString()[:-20],
    'required a whole PredictResponse',
  ),
  (lambda request, response: b'\xff\xff\xff', 'required a whole PredictResponse'),
  (lambda request, response: b'', 'answered by'),
]


@pytest.mark.parametrize('after, match', _UNSOUND, ids=[m[:30] for _, m in _UNSOUND])
def test_unsound_answers(fake, after, match):
  fake.after = after
  with fake_serving.connect(fake.address) as models:
    with pytest.raises(errors.ModelError, match=f'{fake.address}: classifier.*{match}'):
      models.grad_cam(_HU)


def test_a_mask_that_is_no_mask(fake):
  fake.after = lambda request, response: _replaced(
    'lung_mask', lambda n: np.full((n, 40, 30), 255, np.uint8)
  )(request, response)
  with (
    fake_serving.connect(fake.address) as models,
    pytest.raises(errors.ModelError, match='lung_mask, slice 0: .* found 255'),
  ):
    models.segment_lungs(_HU)


def test_rounding_above_one_is_cut(fake):
  above = np.nextafter(np.float32(1), np.float32(2))
  fake.after = _replaced('covid_probability', lambda n: np.full(n, above, np.float32))
  with fake_serving.connect(fake.address) as models:
    assert models.grad_cam(_HU).covid_probability.max() == 1


@pytest.mark.parametrize(
  'after',
  [
    lambda request, response: response.SerializeToString()[:-9],
    _replaced('lung_probability', lambda n: np.full((n, 256, 256), 9, np.float32)),
  ],
)
def test_command_fails_with_status_4_and_no_result(fake, tmp_path, after, capsys):
  fake.after = after
  output = tmp_path / 'result'
  assert (
    cli.main(
      [
        'score',
        str(real_ct.folder('cip-ct64', 'series')),
        '--output',
        str(output),
        '--server',
        fake.address,
      ]
    )
    == 4
  )
  assert fake.address in capsys.readouterr().err
  assert not [path for path in output.rglob('*') if path.is_file()]
