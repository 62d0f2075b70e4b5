"""Exports: numbered, whole, verified, with card and warm-up requests."""

import contextlib
import json
import shutil

import keras
import numpy as np
import pytest
import small_networks
import tensorflow as tf

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import export
from covid_tf.models import export_check
from covid_tf.models import signatures
from covid_tf.server import predict
from covid_tf.sessions import servable

_TRAINING = {'data': 'none: random weights'}
_NETWORKS = {
  contract.LUNGS_MODEL: small_networks.lungs,
  contract.CLASSIFIER_MODEL: small_networks.classifier,
}


class _Unsteady(keras.layers.Layer):
  """Adds noise, at inference too: no export of it can equal it."""

  def call(self, x):
    return x + tf.random.normal(tf.shape(x))


@pytest.fixture(scope='module', name='exports')
def _exports(tmp_path_factory):
  directory = tmp_path_factory.mktemp('models')
  return {
    name: export.export(name, build(), directory, _TRAINING)
    for name, build in _NETWORKS.items()
  }


@pytest.mark.parametrize('name', _NETWORKS)
def test_card_is_the_same_for_people_and_for_clients(exports, name):
  text = (exports[name] / 'assets.extra' / 'card.json').read_text()
  with contextlib.closing(servable.Servable(exports[name])) as served:
    (served_card,) = export_check.answer(served, contract.CARD, {})['card']
  assert served_card.decode() == text
  card = json.loads(text)
  assert card['name'] == name
  assert card['intended_use'] == 'research use only'
  assert card['training'] == _TRAINING
  assert card['weights_sha256'] == signatures.weights_sha256(_NETWORKS[name]())


def test_cards_state_window_size_and_thresholds(exports):
  lungs, classifier = (
    json.loads((exports[name] / 'assets.extra' / 'card.json').read_text())
    for name in (contract.LUNGS_MODEL, contract.CLASSIFIER_MODEL)
  )
  assert lungs['window_hu'] == [-1000, 0] and lungs['input_size'] == 256
  assert lungs['thresholds'] == {'lung_probability': 0.5}
  assert classifier['input_size'] == 224 and classifier['low_pass_sigma'] == 1.5
  assert classifier['thresholds'] == {'slice_probability': 0.5, 'map': 0.6}


@pytest.mark.parametrize('name', _NETWORKS)
def test_an_export_carries_reference_answers_outside_its_card(exports, name):
  with contextlib.closing(servable.Servable(exports[name])) as served:
    reference = export_check.answer(served, contract.SELF_CHECK, {})
    (card,) = export_check.answer(served, contract.CARD, {})['card']
    answers = {}
    for key in (contract.SERVING_DEFAULT, contract.PROBABILITY, contract.GRAD_CAM):
      if key in served.signatures:
        answers |= export_check.answer(served, key, {'hu': reference['hu']})
  assert set(reference) == {spec.name for spec in contract.SELF_CHECKS[name].outputs}
  assert set(answers) == set(reference) - {'hu'}
  assert sum(array.nbytes for array in reference.values()) <= contract.SELF_CHECK_BYTES
  assert reference['hu'].dtype == np.int16 and len(reference['hu']) > 1
  for key, array in answers.items():
    np.testing.assert_allclose(array, reference[key], atol=1e-5)
  assert b'self_check' not in card


def test_the_classifier_is_asked_about_slices_whose_answers_tell(exports):
  with contextlib.closing(servable.Servable(exports['classifier'])) as served:
    reference = export_check.answer(served, contract.SELF_CHECK, {})
  assert (reference['cam_28'].max((1, 2)) > 0).all()
  assert len(set(reference['covid_probability'])) == 4


@pytest.mark.parametrize('name', _NETWORKS)
def test_a_server_finds_changed_weights(exports, tmp_path, name):
  with contextlib.closing(servable.Servable(exports[name])) as served:
    predict.check(served)
  _expect_changed_weights_to_be_found(exports[name], name, tmp_path)


def test_a_server_finds_changed_weights_of_a_bfloat16_export(tmp_path):
  folder = export.export(
    'classifier',
    small_networks.classifier(),
    tmp_path,
    _TRAINING,
    compute_dtype='bfloat16',
  )
  _expect_changed_weights_to_be_found(folder, 'classifier', tmp_path)


def _expect_changed_weights_to_be_found(folder, name, tmp_path):
  changed = tmp_path / '1'
  shutil.copytree(folder, changed)
  _scale_weights(changed / 'variables' / 'variables', 1.5)
  with contextlib.closing(servable.Servable(changed)) as served:
    with pytest.raises(predict.ComputesWrongError, match=f'{name} version 1 computes'):
      predict.check(served)


def _scale_weights(prefix, factor) -> None:
  """Writes the variables of an export anew, each of them multiplied."""
  reader = tf.train.load_checkpoint(str(prefix))
  names = sorted(reader.get_variable_to_shape_map())
  values = [reader.get_tensor(name) for name in names]
  tf.raw_ops.SaveV2(
    prefix=str(prefix),
    tensor_names=names,
    shape_and_slices=[''] * len(names),
    tensors=[
      tf.constant(
        value * factor if getattr(value, 'dtype', None) == np.float32 else value
      )
      for value in values
    ],
  )


def test_digest_changes_with_any_weight_and_only_then():
  digest = signatures.weights_sha256(small_networks.residual(seed=1))
  assert digest == signatures.weights_sha256(small_networks.residual(seed=1))
  changed = small_networks.residual(seed=1)
  weights = changed.get_weights()
  weights[-1] = weights[-1] + 1e-6
  changed.set_weights(weights)
  assert digest != signatures.weights_sha256(changed)


@pytest.mark.parametrize('name', _NETWORKS)
def test_a_server_replays_a_request_for_every_signature_of_slices(exports, name):
  with contextlib.closing(servable.Servable(exports[name])) as served:
    count = predict.replay_warm_up(served, 1)
  assert count == len(contract.SIGNATURES[name]) - 1  # All but the card.


def test_warm_up_requests_are_tensorflow_servings_own(exports):
  from tensorflow_serving.apis import prediction_log_pb2

  path = exports['classifier'] / 'assets.extra' / 'tf_serving_warmup_requests'
  asked = set()
  for record in tf.data.TFRecordDataset(str(path)):
    log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
    request = log.predict_log.request
    assert request.model_spec.name == 'classifier'
    assert tf.make_ndarray(request.inputs['hu']).dtype == np.int16
    asked.add(request.model_spec.signature_name)
  assert asked == {'serving_default', 'grad_cam', 'features'}


def test_exports_use_no_op_or_compiler_that_a_stock_server_lacks(exports):
  for folder in exports.values():
    graph = (folder / 'saved_model.pb').read_bytes()
    assert b'Xla' not in graph and b'PyFunc' not in graph
    assert b'/models/' not in graph  # Source paths of the exporting machine.


def test_versions_count_up_and_are_never_replaced(tmp_path):
  model = small_networks.lungs()
  (tmp_path / 'lungs' / '00000007').mkdir(parents=True)
  (tmp_path / 'lungs' / 'notes').mkdir()
  folder = export.export('lungs', model, tmp_path, _TRAINING)
  assert folder == tmp_path / 'lungs' / '8'
  before = (folder / 'saved_model.pb').stat().st_mtime_ns
  for version in (8, 7):
    with pytest.raises(errors.UsageError, match='there already'):
      export.export('lungs', model, tmp_path, _TRAINING, version=version)
  assert (folder / 'saved_model.pb').stat().st_mtime_ns == before
  with pytest.raises(errors.UsageError, match='1 or more'):
    export.export('lungs', model, tmp_path, _TRAINING, version=0)


def test_an_export_that_differs_from_its_model_is_not_left(tmp_path):
  steady = small_networks.lungs()
  unsteady = keras.Model(steady.input, _Unsteady()(steady.output))
  with pytest.raises(errors.ModelError, match='nothing was exported'):
    export.export('lungs', unsteady, tmp_path, _TRAINING)
  assert not list((tmp_path / 'lungs').iterdir())


def _saturated() -> keras.Model:
  model = small_networks.classifier()
  kernel, bias = model.layers[-1].get_weights()
  model.layers[-1].set_weights([100 * kernel, bias + 40])
  return model


def _cancelling() -> keras.Model:
  """Its evidence cancels out but for what bfloat16 cannot hold: maps near zero."""
  model = small_networks.classifier()
  last, head = model.layers[-4], model.layers[-1]
  kernel, bias = last.get_weights()
  noise = 1 + 1e-4 * np.random.default_rng(0).normal(size=kernel[..., ::2].shape)
  kernel[..., 1::2] = kernel[..., ::2] * noise
  bias[1::2] = bias[::2]
  last.set_weights([kernel, bias])
  weight = head.get_weights()[0]
  weight[1::2] = -weight[::2]
  head.set_weights([weight, head.get_weights()[1]])
  return model


@pytest.mark.parametrize(
  'build',
  [
    small_networks.classifier,
    lambda: small_networks.classifier(seed=2),
    _saturated,
    _cancelling,
  ],
)
def test_bfloat16_exports_of_ordinary_networks_compute_right(tmp_path, build):
  folder = export.export(
    'classifier', build(), tmp_path, _TRAINING, compute_dtype='bfloat16'
  )
  with contextlib.closing(servable.Servable(folder)) as served:
    predict.check(served)


def test_a_bfloat16_export_keeps_float32_outputs_and_says_what_it_is(tmp_path):
  model = small_networks.classifier()
  hu = export_check.fixed_batch()
  answers, references = {}, {}
  for dtype in ('float32', 'bfloat16'):
    folder = export.export(
      'classifier', model, tmp_path, _TRAINING, compute_dtype=dtype
    )
    card = json.loads((folder / 'assets.extra' / 'card.json').read_text())
    assert card['compute_dtype'] == dtype
    measured = card.get(contract.DIFFERENCES, {})
    assert set(measured) == (
      set()
      if dtype == 'float32'
      else {'covid_probability', 'cam_28', 'sum of cam_28', 'cam_14', 'sum of cam_14'}
    )
    assert all(0 < average < most < 1 for most, average in measured.values())
    with contextlib.closing(servable.Servable(folder)) as served:
      answers[dtype] = export_check.answer(served, contract.GRAD_CAM, {'hu': hu})
      references[dtype] = export_check.answer(served, contract.SELF_CHECK, {})
      predict.check(served)  # Of its own type, which its card names.
  for name, values in answers['float32'].items():
    assert answers['bfloat16'][name].dtype == np.float32
    difference = np.abs(answers['bfloat16'][name] - values)
    assert 0 < difference.mean() < 0.05
  for name, values in references['float32'].items():
    np.testing.assert_array_equal(references['bfloat16'][name], values)


def test_an_unknown_compute_type_is_refused(tmp_path):
  with pytest.raises(errors.UsageError, match="'float8'"):
    export.export(
      'lungs', small_networks.lungs(), tmp_path, _TRAINING, compute_dtype='float8'
    )
  assert not (tmp_path / 'lungs').exists()
