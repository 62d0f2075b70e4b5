"""Encoded weights: what comes back, how small, and what is refused."""

import numpy as np
import pytest

from covid_tf import errors
from covid_tf.models import weights


def _tensors():
  random = np.random.default_rng(3)
  return {
    'conv/kernel': random.normal(0, 0.02, (3, 3, 32, 48)).astype(np.float32),
    'uniform/kernel': random.uniform(-1, 1, (1, 1, 64, 32)).astype(np.float32),
    'conv/bias': random.normal(size=48).astype(np.float32),
    'dead/kernel': np.zeros((2, 2, 3, 4), np.float32),
  }


def test_round_trip_is_exact_for_vectors_and_close_for_kernels(tmp_path):
  tensors = _tensors()
  digest = weights.save_file(tmp_path / 'a.weights', tensors)
  loaded = weights.load_file(tmp_path / 'a.weights', digest)
  assert list(loaded) == list(tensors)
  np.testing.assert_array_equal(loaded['conv/bias'], tensors['conv/bias'])
  np.testing.assert_array_equal(loaded['dead/kernel'], tensors['dead/kernel'])
  for name in ('conv/kernel', 'uniform/kernel'):
    steps = 0.04 * tensors[name].std(axis=(0, 1, 2))
    assert (np.abs(loaded[name] - tensors[name]) <= steps / 2 * 1.001).all()


def test_an_outlier_still_fits(tmp_path):
  kernel = np.random.default_rng(4).normal(0, 1, (50, 50, 1)).astype(np.float32)
  kernel[0, 0, 0] = 100.0
  digest = weights.save_file(tmp_path / 'a.weights', {'kernel': kernel})
  loaded = weights.load_file(tmp_path / 'a.weights', digest)['kernel']
  assert loaded[0, 0, 0] == pytest.approx(100.0, rel=0.005)


def test_about_seven_bits_a_weight(tmp_path):
  kernel = np.random.default_rng(5).normal(size=(200_000, 1)).astype(np.float32)
  weights.save_file(tmp_path / 'a.weights', {'kernel': kernel})
  bits = (tmp_path / 'a.weights').stat().st_size * 8 / kernel.size
  assert 6 < bits < 7


def test_a_flipped_bit_is_refused(tmp_path):
  path = tmp_path / 'a.weights'
  digest = weights.save_file(path, _tensors())
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
  with pytest.raises(errors.ModelError, match='a.weights.*required, found.*install'):
    weights.load_file(path, digest)


def test_an_absent_file_is_a_model_error(tmp_path):
  with pytest.raises(errors.ModelError, match='none.*install'):
    weights.load_file(tmp_path / 'a.weights', '0' * 64)
