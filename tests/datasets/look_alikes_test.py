"""Look-alikes change lungs and leave soft tissue; the same seed gives the same."""

import numpy as np

from covid_tf.datasets import look_alikes

_SPACING_MM = (5.0, 1.5, 1.5)


def _chest():
  rows, columns = np.mgrid[:120, :160]
  lungs = np.zeros((12, 120, 160), np.uint8)
  for centre in (45, 115):
    lungs |= ((rows - 60) / 50.0) ** 2 + ((columns - centre) / 28.0) ** 2 < 1
  return np.where(lungs, -850, 40).astype(np.int16), lungs


def test_lungs_change_and_soft_tissue_stays_near_its_hu():
  hu, lungs = _chest()
  changes = []
  for seed in range(12):
    changed = look_alikes.add(hu, lungs, _SPACING_MM, np.random.default_rng(seed))
    assert changed.dtype == np.float32 and np.isfinite(changed).all()
    assert abs(float(np.median(changed[:, :5])) - 40) < 40
    changes.append(np.abs(changed - hu)[lungs > 0].mean())
  assert max(changes) > 50 and min(changes) < 20


def test_the_same_seed_gives_the_same_chest_and_the_given_one_stays():
  hu, lungs = _chest()
  before = hu.copy()
  first, second = (
    look_alikes.add(hu, lungs, _SPACING_MM, np.random.default_rng(4)) for _ in range(2)
  )
  np.testing.assert_array_equal(first, second)
  np.testing.assert_array_equal(hu, before)


def test_a_slice_alone_and_no_lung_are_taken():
  hu, lungs = _chest()
  for seed in range(6):
    random = np.random.default_rng(seed)
    look_alikes.add(hu[:1], lungs[:1], _SPACING_MM, random)
  nothing = look_alikes.add(hu, lungs * 0, _SPACING_MM, np.random.default_rng(0))
  np.testing.assert_array_equal(nothing, hu)
