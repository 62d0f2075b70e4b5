"""The judge's grid: what is even stays even, whatever the chest's spacing."""

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from covid_tf import errors
from covid_tf.datasets import judge_grid

_mm = strategies.floats(0.4, 9.0)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(strategies.tuples(_mm, _mm, _mm), strategies.integers(0, 2**31))
def test_a_voxel_averages_the_points_of_its_own_length(spacing_mm, seed):
  random = np.random.default_rng(seed)
  mask = np.zeros((20, 30, 40), np.uint8)
  low, high = np.sort(random.integers(0, 19, (2, 3)), axis=0)
  mask[tuple(map(slice, low, high + 2))] = 1
  grid = judge_grid.Grid.around(mask, spacing_mm)
  assert (mask[grid.box] == 1).all() and mask[grid.box].sum() == mask.sum()
  for axis, (points, step) in enumerate(zip(grid.shape, spacing_mm)):
    matrix = grid.matrix(axis).toarray()
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)
    # What rises evenly along the grid is read at the middle of each voxel.
    place_mm = matrix @ ((np.arange(points) + 0.5) * judge_grid.STEP_MM)
    middle_mm = (np.arange(len(matrix)) + 0.5) * step
    inner = (middle_mm - step / 2 > judge_grid.STEP_MM / 2) & (
      middle_mm + step / 2 < (points - 0.5) * judge_grid.STEP_MM
    )
    np.testing.assert_allclose(place_mm[inner], middle_mm[inner], atol=0.02)


def test_a_mask_without_lungs_is_refused():
  with pytest.raises(errors.NoLungsError, match='found none'):
    judge_grid.Grid.around(np.zeros((4, 5, 6), np.uint8), (1.0, 1.0, 1.0))


def test_points_where_opacities_begin_are_aerated_and_inside():
  random = np.random.default_rng(0)
  mask = np.zeros((40, 60, 60), np.uint8)
  mask[5:35, 10:50, 5:55] = 1
  hu = np.where(mask, -850, 40).astype(np.int16)
  hu[:, :, 28:32] = 40  # A vessel: nothing would be seen there.
  grid = judge_grid.Grid.around(mask, (2.0, 2.0, 2.0))
  lungs = judge_grid.Lungs.on(grid, hu, mask)
  assert lungs.volume_cm3 == pytest.approx(mask.sum() * 8 / 1000, rel=0.02)
  dense = grid.sampled(hu) > 0
  for _ in range(200):
    point = lungs.draw_point(random)
    assert lungs.inside[point] and not dense[point]
