"""The mean of several runs' weights."""

import numpy as np
import pytest
import small_networks

from covid_tf import errors
from covid_tf.models import weights as weights_lib
from covid_tf.training import first_weights


@pytest.fixture(name='runs')
def _runs(tmp_path, monkeypatch):
  """Three runs of a small classifier; their networks."""
  monkeypatch.setattr(
    weights_lib,
    '_BUILD',
    {'classifier': small_networks.classifier, 'lungs': small_networks.lungs},
  )
  models = [small_networks.classifier(seed) for seed in range(3)]
  folders = [tmp_path / f'run{seed}' for seed in range(3)]
  for model, folder in zip(models, folders, strict=True):
    folder.mkdir()
    model.save_weights(folder / weights_lib.FINAL_WEIGHTS)
  return models, folders


def test_every_weight_is_the_mean_of_its_own_in_all_runs(runs):
  models, folders = runs
  mean = first_weights.mean_weights('classifier', folders)
  given = [model.get_weights() for model in models]
  for found, *each in zip(mean.get_weights(), *given, strict=True):
    assert np.ptp(each, axis=0).max() > 0 or not found.any()
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-6, atol=1e-7)


def test_a_run_counts_as_often_as_it_is_named(runs):
  models, folders = runs
  mean = first_weights.mean_weights('classifier', [folders[0], folders[0], folders[1]])
  for found, first, second in zip(
    mean.get_weights(), models[0].get_weights(), models[1].get_weights(), strict=True
  ):
    np.testing.assert_allclose(found, (2 * first + second) / 3, rtol=1e-6, atol=1e-7)


def test_one_run_is_no_mean(runs):
  with pytest.raises(errors.UsageError, match='at least two runs .* found 1'):
    first_weights.mean_weights('classifier', runs[1][:1])


def test_another_network_among_them_is_refused(runs, tmp_path):
  path = tmp_path / 'lungs.weights.h5'
  small_networks.lungs().save_weights(path)
  with pytest.raises(errors.UsageError, match='of the classifier network'):
    first_weights.mean_weights('classifier', [runs[1][0], path])


def test_weights_that_are_not_finite_are_refused_by_name(runs):
  models, folders = runs
  weights = models[1].get_weights()
  weights[0].flat[0] = np.nan
  models[1].set_weights(weights)
  models[1].save_weights(folders[1] / weights_lib.FINAL_WEIGHTS)
  with pytest.raises(errors.UsageError, match='run1: finite weights'):
    first_weights.mean_weights('classifier', folders)


def test_what_is_written_loads_as_a_finished_run_and_says_what_it_is(runs, tmp_path):
  _, folders = runs
  mean = first_weights.mean_weights('classifier', folders[:2])
  first_weights.write_mean(mean, folders[:2], tmp_path / 'mean')
  loaded, training = weights_lib.load_network('classifier', tmp_path / 'mean')
  for found, expected in zip(loaded.get_weights(), mean.get_weights(), strict=True):
    np.testing.assert_array_equal(found, expected)
  assert training == {'mean_of': [str(folder) for folder in folders[:2]]}


def test_a_folder_in_use_is_refused_and_stays(runs, tmp_path):
  _, folders = runs
  mean = first_weights.mean_weights('classifier', folders[:2])
  before = (folders[2] / weights_lib.FINAL_WEIGHTS).read_bytes()
  with pytest.raises(errors.UsageError, match='a new or empty folder'):
    first_weights.write_mean(mean, folders[:2], folders[2])
  assert (folders[2] / weights_lib.FINAL_WEIGHTS).read_bytes() == before
