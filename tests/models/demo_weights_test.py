"""The demo weights: one network is replaced without the other."""

import keras
import numpy as np
import pytest

from covid_tf import errors
from covid_tf.models import networks
from covid_tf.models import signatures
from covid_tf.models import weights


def _small():
  return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name='logit')])


def _save(name, folder, value):
  model = _small()
  # A vector is kept exactly; see weights_file.
  model.layers[0].bias.assign([value])
  weights.save_demo_weights(model, name, {'data': f'{name} {value}'}, folder)


def _bias(name, folder):
  model = weights.assign_demo_weights(_small(), name, folder)
  return float(np.squeeze(model.layers[0].bias.numpy()))


def test_one_network_is_replaced_and_the_other_stays(tmp_path):
  _save('lungs', tmp_path, 1.0)
  _save('classifier', tmp_path, 2.0)
  _save('classifier', tmp_path, 3.0)
  assert _bias('lungs', tmp_path) == 1.0
  assert _bias('classifier', tmp_path) == 3.0
  said = weights.training_cards(tmp_path)
  assert said['lungs']['data'] == 'lungs 1.0'
  assert said['classifier']['data'] == 'classifier 3.0'


def test_weights_under_the_card_of_others_are_refused(tmp_path):
  _save('lungs', tmp_path, 1.0)
  old = (tmp_path / 'training.json').read_bytes()
  _save('lungs', tmp_path, 2.0)
  (tmp_path / 'training.json').write_bytes(old)
  with pytest.raises(errors.ModelError, match='lungs.weights: SHA-256'):
    _bias('lungs', tmp_path)


def test_a_folder_without_its_card_is_refused(tmp_path):
  with pytest.raises(errors.ModelError, match='training.json'):
    _bias('classifier', tmp_path)


@pytest.mark.parametrize(
  'name, build',
  [('classifier', networks.build_classifier), ('lungs', networks.build_lung_unet)],
)
def test_training_begins_with_the_demo_weights_at_any_size(name, build):
  smaller = build(size=64)
  fresh = signatures.weights_sha256(smaller)
  weights.load_weights(smaller, 'demo', name)
  whole, _ = weights.load_network(name, 'demo')
  assert fresh != signatures.weights_sha256(smaller) == signatures.weights_sha256(whole)


def test_an_export_of_the_demo_weights_says_what_they_are():
  _, card = weights.load_network('classifier', 'demo')
  assert card['demo_weights'] is True
  assert card['task'] == weights.training_cards()['classifier']['task']
