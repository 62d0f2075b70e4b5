"""Painted opacities: bodies in millimetres, inside the lung, with the chest's noise."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import ndimage

from covid_tf.datasets import opacities

_SPACING_MM = (2.5, 1.5, 1.5)
_VESSEL_HU = 40


@pytest.fixture(name='chest', scope='module')
def _chest():
  """Two noisy lungs, through which a vessel of 6 mm runs to the head."""
  slices, rows, columns = np.mgrid[:60, :120, :160]
  lungs = np.zeros((60, 120, 160), bool)
  for centre in (45, 115):
    lungs |= (
      ((slices - 30) / 28.0) ** 2
      + ((rows - 60) / 50.0) ** 2
      + ((columns - centre) / 28.0) ** 2
    ) < 1
  hu = np.where(lungs, -850, 40).astype(np.float32)
  vessel = lungs & (np.hypot(rows - 60, columns - 45) < 2.2)
  hu[vessel] = _VESSEL_HU
  hu += np.random.default_rng(0).normal(0, 20, hu.shape)
  return np.rint(hu).astype(np.int16), lungs, vessel


def _painted(chest, seed, **options):
  hu, lungs, _ = chest
  return opacities.paint(hu, lungs, _SPACING_MM, np.random.default_rng(seed), **options)


@pytest.mark.parametrize('seed', range(8))
def test_opacities_raise_density_inside_the_lungs(chest, seed):
  hu, lungs, _ = chest
  painted = _painted(chest, seed)
  lesion = painted.lesion_mask > 0
  assert painted.hu.dtype == np.int16 and painted.kinds
  assert lesion.any() and not lesion[~lungs].any()
  rise = painted.hu.astype(int) - hu
  assert (rise[lesion] >= 49).all() and (rise >= -1).all()
  # The point spread reaches a few millimetres over the lung's edge, into little air.
  assert np.abs(rise[~lungs]).mean() < 1


def test_an_opacity_is_one_body_through_the_slices(chest):
  for seed in range(30):
    painted = _painted(chest, seed)
    if len(painted.kinds) > 1 or painted.kinds == ('diffuse',):
      continue
    areas = painted.lesion_mask.sum(axis=(1, 2))
    inside = np.flatnonzero(areas)
    if len(inside) < 4:
      continue
    overlap = [
      (painted.lesion_mask[i] & painted.lesion_mask[i + 1]).sum()
      for i in inside[:-1][np.argsort(areas[inside[:-1]])[-3:]]
    ]
    assert min(overlap) > 0


@pytest.mark.parametrize('share', [0.1, 0.4, 1.0])
def test_the_chests_noise_stays_and_none_is_added(chest, share):
  hu, lungs, vessel = chest
  replaced = np.where(lungs, share, 0).astype(np.float32)
  painted = hu + opacities.air_change(hu, replaced, _SPACING_MM)
  deep = ndimage.binary_erosion(lungs & ~vessel, iterations=5)
  before, after = hu[deep] + 850.0, painted[deep] - (-850 + share * 890)
  assert np.corrcoef(before, after)[0, 1] > 0.9
  assert 0.6 < after.std() / before.std() < 1.02


def test_vessels_show_through_ground_glass_and_hide_in_consolidation(chest):
  hu, lungs, vessel = chest
  for share, least, most in ((0.3, 400, 700), (1.0, -60, 150)):
    rise = opacities.air_change(
      hu, np.where(lungs, share, 0).astype(np.float32), _SPACING_MM
    )
    painted = hu + rise
    inner = np.zeros_like(vessel)
    inner[25:35] = vessel[25:35]
    beside = np.zeros_like(vessel)
    beside[25:35, 75:85, 40:50] = True
    contrast = painted[inner].mean() - painted[beside & lungs].mean()
    assert least < contrast < most


@hypothesis.given(share=st.floats(0, 1), hu=st.integers(-1000, 30))
def test_replaced_air_mixes_air_and_fluid(share, hu):
  plane = np.full((3, 8, 8), hu, np.int16)
  rise = opacities.air_change(plane, np.full(plane.shape, share, np.float32), (1, 1, 1))
  np.testing.assert_allclose(rise, share * (40 - hu), atol=0.02)


def test_sizes_and_densities_vary(chest):
  volumes, means = [], []
  for seed in range(24):
    painted = _painted(chest, seed)
    lesion = painted.lesion_mask > 0
    if lesion.any():
      volumes.append(lesion.sum())
      means.append(painted.hu[lesion].mean())
  assert max(volumes) > 20 * min(volumes)
  assert min(means) < -600 and max(means) > -450


def test_real_lesions_give_their_density(chest):
  hu, lungs, _ = chest
  crop = np.full((40, 40), -800, np.int16)
  crop[10:, :] = -200
  texture = opacities.texture_of(crop, 1.0)
  assert texture.air_replaced[30:, 5:35].mean() == pytest.approx(600 / 840, abs=0.03)
  assert texture.air_replaced[:5].mean() < 0.05
  kinds = [
    kind
    for seed in range(12)
    for kind in _painted(chest, seed, textures=[texture]).kinds
  ]
  assert 0.15 < kinds.count('transplanted') / len(kinds) < 0.6


def test_the_same_seed_paints_the_same(chest):
  np.testing.assert_array_equal(_painted(chest, 7).hu, _painted(chest, 7).hu)


def test_a_slice_alone_is_painted(chest):
  hu, lungs, _ = chest
  painted = [
    opacities.paint(
      hu[30:31], lungs[30:31], (5.0, 1.5, 1.5), np.random.default_rng(seed)
    )
    for seed in range(8)
  ]
  assert sum(p.lesion_mask.any() for p in painted) >= 6


def test_no_lung_and_no_distance_are_refused(chest):
  hu, lungs, _ = chest
  random = np.random.default_rng(0)
  with pytest.raises(ValueError, match='no lung'):
    opacities.paint(hu, np.zeros_like(lungs), _SPACING_MM, random)
  with pytest.raises(ValueError, match='above 0'):
    opacities.paint(hu, lungs, (0.0, 1.5, 1.5), random)
