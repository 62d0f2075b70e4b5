"""Preprocessing: the resize against TensorFlow's own, the window, the low-pass."""

import numpy as np
import pytest
import tensorflow as tf

from covid_tf.models import preprocessing


def _slices(shape, seed=0):
  return np.random.default_rng(seed).integers(-1024, 400, shape).astype(np.int16)


@pytest.mark.parametrize('rows,columns', [(300, 401), (97, 64), (224, 224), (8, 500)])
def test_resize_agrees_with_tensorflows_antialiased_bilinear(rows, columns):
  images = tf.cast(_slices((2, rows, columns)), tf.float32)
  ours = preprocessing.resize(images, 224, 224)
  theirs = tf.image.resize(images[..., tf.newaxis], (224, 224), antialias=True)
  # White noise over 1,400 HU, and pixel centres in float32.
  np.testing.assert_allclose(ours, theirs[..., 0], atol=0.05)


@pytest.mark.parametrize('source,target,sigma', [(17, 224, 1.5), (512, 28, 0.0)])
def test_rows_of_the_matrix_sum_to_one(source, target, sigma):
  matrix = preprocessing.resize_matrix(source, target, sigma)
  assert matrix.shape == (target, source)
  np.testing.assert_allclose(tf.reduce_sum(matrix, axis=1), 1.0, atol=1e-5)


def test_low_pass_takes_away_grain_and_keeps_the_mean():
  noise = tf.random.stateless_normal((1, 224, 224), seed=(1, 2))
  smooth = preprocessing.resize(noise, 224, 224, low_pass_sigma=1.5)
  # White noise through a 2D Gaussian keeps 1 / (2 sqrt(pi) sigma) of its deviation.
  expected = 1 / (2 * np.pi**0.5 * 1.5)
  assert float(tf.math.reduce_std(smooth)) == pytest.approx(expected, rel=0.05)
  assert float(tf.reduce_mean(smooth)) == pytest.approx(
    float(tf.reduce_mean(noise)), abs=5e-3
  )


def test_window_ends_become_black_and_white():
  means = np.array([103.939, 116.779, 123.68])  # Blue, green, red of ImageNet.
  for network_input, low, high in (
    (preprocessing.lung_input, -1000, 0),
    (preprocessing.classifier_input, -1350, 150),
  ):
    black, white = network_input(
      np.stack([np.full((32, 40), low - 100), np.full((32, 40), high + 100)])
    )
    np.testing.assert_allclose(black, np.broadcast_to(-means, black.shape), atol=1e-3)
    np.testing.assert_allclose(
      white, np.broadcast_to(255 - means, white.shape), atol=1e-3
    )


def test_left_stays_left_and_top_stays_top():
  hu = np.full((1, 100, 100), -1000, np.int16)
  hu[0, :20, :50] = 0
  grey = preprocessing.lung_input(hu)[0, ..., 0]
  assert grey[10, 10] > grey[10, 200] and grey[10, 10] > grey[200, 10]
