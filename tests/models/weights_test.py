"""Weights come from a finished run or a file, and are those of the network."""

import pytest
import small_networks

from covid_tf import errors
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
