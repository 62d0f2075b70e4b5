from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import synthetic_case

from covid_tf.analysis import lungs

_SHAPE = (18, 42, 64)
_SPACING = (15.0, 6.0, 6.0)


def _patient(affine):
  volume = synthetic_case.make_volume(affine, _SHAPE, lesions=())
  return synthetic_case.make_result(volume, lesions=()).lung_mask


def _regions_of_all(mask, affine):
  """Region and LPS point of every lung voxel."""
  regions = lungs.find_regions(mask, affine)
  index = np.argwhere(mask)
  found = np.concatenate(
    [
      regions.index(
        slice_, index[index[:, 0] == slice_, 1], index[index[:, 0] == slice_, 2]
      )
      for slice_ in np.unique(index[:, 0])
    ]
  )
  return found, index @ affine[:3, :3].T + affine[:3, 3]


@settings(max_examples=8)
@given(reverse=st.sets(st.integers(0, 2)))
def test_sides_and_thirds_follow_the_patient_not_the_index(reverse):
  affine = synthetic_case.axial_affine(_SPACING, _SHAPE, tuple(reverse))
  found, points = _regions_of_all(_patient(affine), affine)
  side, level = np.divmod(found, len(lungs.LEVELS))
  np.testing.assert_array_equal(side, points[:, 0] > 0)
  height = points[:, 2].max() - points[:, 2].min() + _SPACING[0]
  third = np.floor((points[:, 2] - points[:, 2].min() + _SPACING[0] / 2) / height * 3)
  np.testing.assert_array_equal(level, third)


def test_an_oblique_grid_parts_the_same_patient():
  straight = synthetic_case.axial_affine(_SPACING, _SHAPE)
  angle = np.deg2rad(20)
  turn = np.eye(4)
  turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
  affine = turn @ straight
  found, points = _regions_of_all(_patient(affine), affine)
  side = found // len(lungs.LEVELS)
  assert np.mean(side == (points[:, 0] > 0)) > 0.99


def test_lungs_that_touch_are_separated_where_least_lung_is():
  affine = synthetic_case.axial_affine(_SPACING, _SHAPE)
  mask = np.zeros(_SHAPE, np.uint8)
  mask[4:14, 10:30, 8:30] = 1
  mask[4:14, 10:30, 34:48] = 1
  mask[4:14, 10:12, 30:34] = 1  # In front of the heart.
  regions = lungs.find_regions(mask, affine)
  columns = np.arange(64)
  side = regions.index(8, np.full(64, 10), columns) // len(lungs.LEVELS)
  # The narrow place, not the middle of the width (column 27.5).
  assert 30 <= np.flatnonzero(side)[0] <= 34


def test_a_single_voxel_has_a_region():
  mask = np.zeros((2, 2, 2), np.uint8)
  mask[1, 1, 1] = 1
  regions = lungs.find_regions(mask, np.eye(4)[[2, 1, 0, 3]])
  index = regions.index(1, np.array([1]), np.array([1]))
  assert index[0] % len(lungs.LEVELS) == lungs.LEVELS.index('middle')
  assert regions.level_z_mm == pytest.approx((0.5 + 1 / 3, 0.5 + 2 / 3))


def test_many_rows_from_side_to_side_are_separated_where_least_lung_is():
  shape = (6, 512, 40)
  affine = synthetic_case.axial_affine((15.0, 0.7, 6.0), shape)[:, [0, 2, 1, 3]]
  affine = affine @ np.diag((1, 0.7 / 6, 6 / 0.7, 1))  # Rows along x, 0.7 mm.
  mask = np.zeros(shape, np.uint8)
  mask[1:5, 60:300, 5:35] = 1
  mask[1:5, 310:450, 5:35] = 1
  regions = lungs.find_regions(mask, affine)
  side = regions.index(2, np.arange(512), np.full(512, 10)) // len(lungs.LEVELS)
  assert 300 <= np.flatnonzero(side)[0] <= 310
