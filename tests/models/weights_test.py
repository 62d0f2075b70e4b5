"""Weights come from a finished run or a file, and are those of the network."""

import numpy as np
import pytest
import small_networks
import tensorflow as tf

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import export
from covid_tf.models import networks
from covid_tf.models import signatures
from covid_tf.models import weights


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  monkeypatch.setattr(
    weights,
    '_BUILD',
    {'lungs': small_networks.lungs, 'classifier': small_networks.residual},
  )


def test_a_runs_folder_and_its_weights_file_give_the_same_network(tmp_path):
  model = small_networks.lungs(seed=7)
  model.save_weights(tmp_path / weights.FINAL_WEIGHTS)
  (tmp_path / weights.CONFIGURATION).write_text('{"seed": 7, "stage": ["256:9"]}')
  for source in (tmp_path, tmp_path / weights.FINAL_WEIGHTS):
    loaded, training = weights.load_network('lungs', source)
    assert signatures.weights_sha256(loaded) == signatures.weights_sha256(model)
    assert training == ({'seed': 7, 'stage': ['256:9']} if source == tmp_path else {})


def test_an_unfinished_run_is_refused(tmp_path):
  with pytest.raises(errors.UsageError, match='finish the run'):
    weights.load_network('lungs', tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
  path = tmp_path / 'other.weights.h5'
  small_networks.residual().save_weights(path)
  with pytest.raises(errors.UsageError, match='of the lungs network'):
    weights.load_network('lungs', path)


def test_a_file_that_is_no_weights_is_refused(tmp_path):
  path = tmp_path / 'final.weights.h5'
  path.write_text('not HDF5')
  with pytest.raises(errors.UsageError, match='of the classifier network'):
    weights.load_network('classifier', path)


def test_a_shift_moves_every_answer_to_the_logit_and_the_card_says_it():
  card = {'logit_shift': 0.5, 'logit_shift_source': 'the demo', 'data': 'phantoms'}
  rng = np.random.default_rng(3)
  hu = tf.constant(rng.integers(-1000, 200, (3, 60, 70), np.int16))
  found = {}
  for shift in (0.0, 1.25):
    model = small_networks.classifier()
    shifted = weights.shift_logit(model, card, shift, 'left-out chests')
    served = signatures.classify(export.for_serving(model), '')
    found[shift] = {
      name: served[name](hu)
      for name in (contract.SERVING_DEFAULT, contract.GRAD_CAM, contract.FEATURES)
    }
  assert shifted == {
    'data': 'phantoms',
    'logit_shift': 1.75,
    'logit_shift_source': 'the demo; left-out chests',
  }
  for name, before in found[0.0].items():
    after = found[1.25][name]
    p, q = (answer['covid_probability'].numpy() for answer in (before, after))
    np.testing.assert_allclose(
      np.log(q / (1 - q)) - np.log(p / (1 - p)), 1.25, atol=1e-4, err_msg=name
    )
    for output in set(before) - {'covid_probability'}:
      np.testing.assert_array_equal(before[output], after[output], err_msg=output)
  made = signatures.make_card(contract.CLASSIFIER_MODEL, model, shifted)
  assert made['logit_shift'] == 1.75 and made['logit_shift_source'].endswith('chests')
  assert 'logit_shift' not in signatures.make_card(contract.CLASSIFIER_MODEL, model, {})


@pytest.mark.parametrize('shift', [float('nan'), float('inf'), -17.0, 16.5])
def test_what_is_no_shift_is_refused(shift):
  model = small_networks.classifier()
  before = signatures.weights_sha256(model)
  with pytest.raises(errors.UsageError, match='logit_shift: a number of at most 16'):
    weights.shift_logit(model, {}, shift)
  assert signatures.weights_sha256(model) == before


def test_a_shift_is_kept_where_weights_are_encoded(tmp_path):
  model = small_networks.classifier(seed=3)
  before = model.get_layer(networks.LOGIT_LAYER).bias.numpy().item()
  card = weights.shift_logit(model, {}, 0.7)
  weights.save_demo_weights(model, 'classifier', card, tmp_path)
  model.get_layer(networks.LOGIT_LAYER).bias.assign([9.0])
  again = weights.assign_demo_weights(model, 'classifier', tmp_path)
  bias = again.get_layer(networks.LOGIT_LAYER).bias.numpy().item()
  assert bias == np.float32(before + np.float32(0.7))
  stated = weights.training_cards(tmp_path)['classifier']
  assert stated['logit_shift'] == 0.7 and stated['logit_shift_source'] == 'not stated'
