"""What networks were trained on, as a person wrote it down."""

import json

import keras
import pytest

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import signatures
from covid_tf.models import weights


def test_a_file_is_read_by_network(tmp_path):
  said = {'lungs': {'data': 'Köln, 120 patients'}}
  path = tmp_path / 'card.json'
  path.write_text(json.dumps(said, ensure_ascii=False), encoding='utf-8')
  assert signatures.read_training_card(path) == said


@pytest.mark.parametrize(
  'text', [None, '', '{"lungs": ', '[]', '"lungs"', '{"lungs": "120 patients"}', 'null']
)
def test_what_is_no_card_is_refused(tmp_path, text):
  path = tmp_path / 'card.json'
  if text is not None:
    path.write_text(text)
  with pytest.raises(errors.UsageError, match=r'card.json: an? .* is required, found'):
    signatures.read_training_card(path)


@pytest.mark.parametrize('name', ['lungs', 'classifier'])
def test_a_card_says_what_has_to_be_sent(name):
  model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
  card = signatures.make_card(name, model, {})
  assert card['required_input'] == contract.REQUIRED_INPUT[name]
  assert ('lung box' in card['required_input']) == (name == 'classifier')


def test_a_card_says_for_which_thickness_and_smoothing_the_weights_were_made():
  model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
  assert 'thickness_mm' not in signatures.make_card('classifier', model, {})
  card = signatures.make_card('classifier', model, {'thickness_mm': 5})
  assert card['thickness_mm'] == 5.0
  for wrong in (0, 'thick', float('nan'), 100):
    with pytest.raises(errors.UsageError, match=r"card's thickness_mm .* found"):
      signatures.make_card('classifier', model, {'thickness_mm': wrong})
  assert 'smoothing_mm' not in card
  for length in (0, 4):
    card = signatures.make_card('classifier', model, {'smoothing_mm': length})
    assert card['smoothing_mm'] == length
  for wrong in (-1, 'much', float('nan'), 100):
    with pytest.raises(errors.UsageError, match=r"card's smoothing_mm .* found"):
      signatures.make_card('classifier', model, {'smoothing_mm': wrong})


def test_a_card_says_for_which_scans_the_weights_were_made():
  model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
  assert 'scope' not in signatures.make_card('classifier', model, {})
  scope = {'slice_distance_mm': [1, 10], 'kernels': ['B40f']}
  card = signatures.make_card('classifier', model, {'scope': scope})
  assert card['scope'] == scope
  with pytest.raises(errors.UsageError, match="card's scope must say kernels .* found"):
    signatures.make_card('classifier', model, {'scope': {'kernels': 'B40f'}})


def test_the_demo_card_says_which_scans_its_training_saw():
  scope = contract.Scope.of_card(weights.training_cards()['classifier']['scope'])
  assert scope.ranges['slice_distance_mm'] == (1, 10)


def test_a_card_says_how_repeatable_the_score_is():
  model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
  assert 'repeatability' not in signatures.make_card('classifier', model, {})
  stated = {'cm3': 2.0, 'relative': 0.15}
  card = signatures.make_card('classifier', model, {'repeatability': stated})
  assert card['repeatability'] == stated
  for wrong in (
    0.2,
    {'cm3': 1},
    {'cm3': -1, 'relative': 0},
    {'cm3': 1, 'relative': 'x'},
  ):
    with pytest.raises(errors.UsageError, match=r"card's repeatability must .* found"):
      signatures.make_card('classifier', model, {'repeatability': wrong})
