"""Other kernels and doses: by millimetres, and as strong as they say."""

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from covid_tf.datasets import stress


def _edge(pixel_mm):
  """An edge of 800 HU in a slice of 120 mm."""
  side = round(120 / pixel_mm)
  hu = np.full((1, side, side), -800, np.int16)
  hu[:, :, side // 2 :] = 0
  return hu


def _width_mm(hu, pixel_mm):
  """From a tenth to nine tenths of the edge, in mm."""
  profile = hu[0, hu.shape[1] // 2].astype(float)
  at = [np.interp(level, profile, np.arange(len(profile))) for level in (-720, -80)]
  return (at[1] - at[0]) * pixel_mm


@hypothesis.settings(max_examples=10)
@hypothesis.given(pixel_mm=strategies.floats(0.5, 0.9))
def test_a_softer_kernel_is_as_wide_whatever_the_pixels(pixel_mm):
  soft = stress.soften(_edge(pixel_mm), (pixel_mm, pixel_mm), 3.0)
  # An integral of a Gaussian: 2.563 deviations, of which 3 mm are 2.355.
  assert _width_mm(soft, pixel_mm) == pytest.approx(2.563 * 3 / 2.355, rel=0.12)


def test_a_sharper_kernel_overshoots_and_keeps_the_mean():
  hu = _edge(0.7)
  sharp = stress.sharpen(hu, (0.7, 0.7))
  assert sharp.max() > 60 and sharp.min() < -860
  assert sharp.mean() == pytest.approx(hu.mean(), abs=1)
  np.testing.assert_array_equal(stress.sharpen(hu, (0.7, 0.7), amount=0), hu)
  assert sharp.dtype == np.int16


def test_noise_is_as_strong_and_as_fine_as_stated():
  hu = np.full((4, 200, 200), -850, np.int16)
  for pixel_mm in (0.5, 1.0):
    noisy = stress.lower_dose(
      hu, (pixel_mm, pixel_mm), np.random.default_rng(0), noise_hu=30
    )
    noise = noisy.astype(float) + 850
    assert noise.std() == pytest.approx(30, rel=0.03)
    assert abs(noise.mean()) < 0.5
    power = np.abs(np.fft.rfft(noise, axis=2)).mean((0, 1))
    peak = np.fft.rfftfreq(200, pixel_mm)[
      np.argmax(np.convolve(power, np.ones(9), 'same'))
    ]
    assert 0.08 < peak < 0.4
  assert not np.array_equal(noisy[0], noisy[1])


def test_air_stays_air():
  hu = np.full((1, 40, 40), -1024, np.int16)
  for change in stress.CONDITIONS.values():
    assert change(hu, (0.7, 0.7), np.random.default_rng(0)).min() >= -1024


def test_conditions_take_what_a_judge_gives():
  hu = _edge(1.0)
  for change in stress.CONDITIONS.values():
    changed = change(hu, (1.0, 1.0), np.random.default_rng(0))
    assert changed.shape == hu.shape and not np.array_equal(changed, hu)
