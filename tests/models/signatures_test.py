"""The served signatures, in a TF1 session as TF Serving runs them."""

import contextlib

import keras
import numpy as np
import pytest
import small_networks
import tensorflow as tf

from covid_tf import contract
from covid_tf.models import export_check
from covid_tf.models import preprocessing
from covid_tf.models import signatures
from covid_tf.sessions import refusal
from covid_tf.sessions import servable

_CARD = '{"name": "test"}'
_NETWORKS = {
  contract.LUNGS_MODEL: small_networks.lungs,
  contract.CLASSIFIER_MODEL: small_networks.classifier,
}
_OF_SLICES = [
  (model, name)
  for model, named in contract.SIGNATURES.items()
  for name in named
  if name != contract.CARD
]


@pytest.fixture(scope='module', name='served')
def _served(tmp_path_factory):
  with contextlib.ExitStack() as stack:
    models = {}
    for name, build in _NETWORKS.items():
      folder = tmp_path_factory.mktemp(name)
      archive = keras.export.ExportArchive()
      for key, function in signatures.SIGNATURES[name](build(), _CARD).items():
        archive.add_endpoint(key, function, signatures.input_signature(name, key))
      archive.write_out(str(folder), verbose=False)
      models[name] = stack.enter_context(contextlib.closing(servable.Servable(folder)))
    yield lambda name, key, **inputs: export_check.answer(models[name], key, inputs)


def _hu(count=2, rows=90, columns=120):
  """Noisy patches of HU from air to bone: some of them lungs to any network."""
  random = np.random.default_rng(4)
  patches = random.uniform(-1024, 600, (count, 6, 8))
  row, column = np.arange(rows) * 6 // rows, np.arange(columns) * 8 // columns
  grain = random.normal(0, 40, (count, rows, columns))
  return (patches[:, row][:, :, column] + grain).astype(np.int16)


@pytest.mark.parametrize('count', [0, 1, 3])
@pytest.mark.parametrize('model,name', _OF_SLICES)
def test_outputs_are_those_of_the_contract(served, model, name, count):
  hu = _hu(count)
  outputs = served(model, name, hu=hu)
  specs = contract.SIGNATURES[model][name].outputs
  assert set(outputs) == {spec.name for spec in specs}
  for spec in specs:
    free = (count, *hu.shape[1:])
    shape = tuple(
      free[axis] if size is None else size for axis, size in enumerate(spec.shape)
    )
    assert outputs[spec.name].dtype == spec.dtype
    assert outputs[spec.name].shape == shape


@pytest.mark.parametrize('model', contract.SIGNATURES)
def test_card_needs_no_inputs(served, model):
  (card,) = served(model, contract.CARD)['card']
  assert card.decode() == _CARD


@pytest.mark.parametrize('shape', [(), (5,), (90, 120), (1, 90, 120, 1)])
@pytest.mark.parametrize('model,name', _OF_SLICES)
def test_another_number_of_axes_is_refused_by_name(served, model, name, shape):
  with pytest.raises(refusal.Refusal, match=r'hu must be \[slices, rows, columns\]'):
    served(model, name, hu=np.zeros(shape, np.int16))


@pytest.mark.parametrize('shape', [(2, 0, 120), (2, 90, 0), (0, 0, 0)])
@pytest.mark.parametrize('model,name', _OF_SLICES)
def test_slices_without_pixels_are_refused_by_name(served, model, name, shape):
  with pytest.raises(refusal.Refusal, match='hu must have at least one row'):
    served(model, name, hu=np.zeros(shape, np.int16))


def test_refusals_are_the_callers_fault(served):
  with pytest.raises(refusal.Refusal) as raised:
    served(contract.LUNGS_MODEL, contract.SERVING_DEFAULT, hu=np.int16([1, 2]))
  assert raised.value.code.name == 'INVALID_ARGUMENT'
  assert '[2]' in raised.value.text


@pytest.mark.parametrize('rows,columns', [(90, 120), (512, 512), (256, 256), (1, 700)])
def test_mask_is_the_probability_above_a_half_at_the_slices_size(served, rows, columns):
  hu = _hu(2, rows, columns)
  mask = served(contract.LUNGS_MODEL, contract.SERVING_DEFAULT, hu=hu)['lung_mask']
  probability = served(contract.LUNGS_MODEL, contract.PROBABILITY, hu=hu)[
    'lung_probability'
  ]
  # Bilinear by hand: the value at each pixel's centre, clamped at the border.
  expected = probability.astype(np.float64)
  for axis, size in ((1, rows), (2, columns)):
    centres = np.clip((np.arange(size) + 0.5) * 256 / size - 0.5, 0, 255)
    low = np.minimum(centres.astype(int), 254)
    share = (centres - low).reshape([-1 if i == axis else 1 for i in range(3)])
    expected = (
      np.take(expected, low, axis) * (1 - share)
      + np.take(expected, low + 1, axis) * share
    )
  clear = np.abs(expected - 0.5) > 1e-4
  assert clear.mean() > 0.9
  assert 0.02 < mask.mean() < 0.98 and set(np.unique(mask)) == {0, 1}
  np.testing.assert_array_equal(mask[clear], (expected > 0.5)[clear])


def test_all_classifier_signatures_give_the_networks_probability(served):
  hu = _hu(3)
  model = small_networks.classifier()
  expected = tf.sigmoid(model(preprocessing.classifier_input(hu)))[:, 0]
  assert np.ptp(expected) > 1e-4
  for name in (contract.SERVING_DEFAULT, contract.GRAD_CAM, contract.FEATURES):
    found = served(contract.CLASSIFIER_MODEL, name, hu=hu)['covid_probability']
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_maps_lie_between_0_and_1_and_reach_both(served):
  outputs = served(contract.CLASSIFIER_MODEL, contract.GRAD_CAM, hu=_hu(3))
  for name in ('cam_28', 'cam_14'):
    assert outputs[name].min() >= 0
    np.testing.assert_allclose(outputs[name].max(axis=(1, 2)), 1, atol=1e-6)


def test_features_and_gradients_make_up_the_logit(served):
  outputs = served(contract.CLASSIFIER_MODEL, contract.FEATURES, hu=_hu(3))
  kernel, bias = small_networks.classifier().get_layer('logit').get_weights()
  np.testing.assert_allclose(
    outputs['gradients'], np.repeat(kernel.T, 3, axis=0), atol=1e-6
  )
  logit = (outputs['features'] * outputs['gradients']).sum(axis=1) + bias
  probability = 1 / (1 + np.exp(-logit))
  np.testing.assert_allclose(outputs['covid_probability'], probability, atol=1e-5)


def test_a_slice_gets_in_a_batch_what_it_gets_alone(served):
  hu = _hu(3)
  for model, name in _OF_SLICES:
    together = served(model, name, hu=hu)
    for key, values in together.items():
      alone = np.concatenate(
        [served(model, name, hu=hu[index : index + 1])[key] for index in range(3)]
      )
      np.testing.assert_allclose(alone, values, atol=1e-5)
