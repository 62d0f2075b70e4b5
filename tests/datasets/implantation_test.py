"""Implanted lesions: inside the lung, denser, irregular, and reproducible."""

import numpy as np
import pytest

from covid_tf.datasets import implantation

_PIXEL_MM = 1.3


@pytest.fixture(name='chest')
def _chest():
  rows, columns = np.mgrid[:160, :200]
  lungs = np.zeros((160, 200), np.uint8)
  for centre in (60, 140):
    lungs |= ((rows - 80) / 60.0) ** 2 + ((columns - centre) / 32.0) ** 2 < 1
  hu = np.where(lungs, -850, 40).astype(np.int16)
  return hu, lungs


def test_lesions_raise_density_inside_the_lung_only(chest):
  hu, lungs = chest
  for seed in range(12):
    implanted = implantation.implant_lesions(
      hu, lungs, _PIXEL_MM, np.random.default_rng(seed)
    )
    assert implanted.hu.dtype == np.int16
    assert not implanted.lesion_mask[lungs == 0].any()
    np.testing.assert_array_equal(implanted.hu[lungs == 0], hu[lungs == 0])
    lesion = implanted.lesion_mask > 0
    if lesion.any():
      assert implanted.hu[lesion].mean() > -800
    assert (implanted.hu >= hu).all()


def test_sizes_and_densities_vary(chest):
  hu, lungs = chest
  drawn = [
    implantation.implant_lesions(hu, lungs, _PIXEL_MM, np.random.default_rng(s))
    for s in range(40)
  ]
  areas = [d.lesion_mask.sum() for d in drawn if d.lesion_mask.any()]
  means = [d.hu[d.lesion_mask > 0].mean() for d in drawn if d.lesion_mask.any()]
  assert max(areas) > 20 * min(areas)
  assert min(means) < -450 and max(means) > -250  # Ground glass and consolidation.


def test_the_same_seed_draws_the_same_slice(chest):
  hu, lungs = chest
  first, second = (
    implantation.implant_lesions(
      implantation.add_look_alikes(hu, lungs, _PIXEL_MM, random),
      lungs,
      _PIXEL_MM,
      random,
    )
    for random in (np.random.default_rng(7), np.random.default_rng(7))
  )
  np.testing.assert_array_equal(first.hu, second.hu)


def test_look_alikes_leave_soft_tissue_near_its_hu(chest):
  hu, lungs = chest
  changed = implantation.add_look_alikes(hu, lungs, _PIXEL_MM, np.random.default_rng(1))
  assert abs(float(np.median(changed[:10])) - 40) < 20
  assert (changed != hu).any()


def test_no_lung_is_refused(chest):
  hu, _ = chest
  with pytest.raises(ValueError, match='no lung'):
    implantation.implant_lesions(
      hu, np.zeros_like(hu), _PIXEL_MM, np.random.default_rng(0)
    )
