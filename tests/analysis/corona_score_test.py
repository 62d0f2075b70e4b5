from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import synthetic_case

from covid_tf import results
from covid_tf.analysis import corona_score
from covid_tf.analysis import lungs as lungs_lib

_SHAPE = (6, 20, 30)
_BOX = results.LungBox(2, 3, 18, 27)


def _case(seed=0, slices=(1, 4)):
  """Random maps in a box, lungs in part of it."""
  rng = np.random.default_rng(seed)
  maps = rng.random((len(slices), *_BOX.shape), np.float32)
  mask = np.zeros(_SHAPE, np.uint8)
  mask[:, 4:16, 5:13] = mask[:, 4:16, 17:25] = 1
  lungs = lungs_lib.Lungs(mask, _BOX, int(mask.sum()), 1.0, 0.0)
  affine = synthetic_case.axial_affine((8, 2, 2), _SHAPE)
  return (
    results.LocalizationMap(_SHAPE, _BOX, slices, maps),
    lungs,
    lungs_lib.find_regions(mask, affine),
  )


def _score(case, voxel_volume_mm3=32.0, threshold=0.6):
  return corona_score.corona_score(*case, voxel_volume_mm3, threshold)


@settings(max_examples=30)
@given(st.integers(0, 99), st.floats(0, 0.95), st.floats(0.01, 100))
def test_equation_1_term_by_term(seed, threshold, voxel_volume_mm3):
  case = _case(seed)
  volume = case[0].to_volume().astype(np.float64)
  counted = np.where(volume > np.float32(threshold), volume, 0) * voxel_volume_mm3 / 1e3
  score = _score(case, voxel_volume_mm3, threshold)
  assert counted.sum() > 0
  assert score.total_cm3 == pytest.approx(counted.sum(), rel=1e-12)
  np.testing.assert_allclose(score.by_slice_cm3, counted.sum(axis=(1, 2)), rtol=1e-12)
  inside = counted * case[1].mask
  assert score.in_lung_cm3 == pytest.approx(inside.sum(), rel=1e-12)
  assert score.involved_lung_fraction == pytest.approx(
    np.count_nonzero(inside) / case[1].mask.sum(), rel=1e-12
  )


def test_regions_add_up_to_the_score_inside_the_lungs():
  score = _score(_case())
  regions = score.by_region_cm3
  assert set(regions) == {'left', 'right', 'apical', 'middle', 'basal'}
  assert min(regions.values()) >= 0 and regions['left'] > 0 and regions['right'] > 0
  assert regions['left'] + regions['right'] == pytest.approx(score.in_lung_cm3)
  assert regions['apical'] + regions['middle'] + regions['basal'] == pytest.approx(
    score.in_lung_cm3
  )


@pytest.mark.parametrize(
  'slice_, columns, side, level',
  [
    (0, slice(2, 10), 'right', 'basal'),
    (5, slice(14, 22), 'left', 'apical'),
    (3, slice(2, 10), 'right', 'middle'),
  ],
)
def test_an_opacity_is_told_where_it_lies(slice_, columns, side, level):
  _, lungs, regions = _case()
  maps = np.zeros((1, *_BOX.shape), np.float32)
  maps[0, 2:14, columns] = 1
  map_ = results.LocalizationMap(_SHAPE, _BOX, (slice_,), maps)
  score = corona_score.corona_score(map_, lungs, regions, 1000.0, 0.6)
  assert score.total_cm3 == 12 * 8
  assert {name for name, value in score.by_region_cm3.items() if value} == {side, level}
  assert score.by_region_cm3[side] == score.by_region_cm3[level] == 12 * 8


def test_a_voxel_at_the_threshold_does_not_count():
  _, lungs, regions = _case()
  maps = np.full((1, *_BOX.shape), 0.6, np.float32)
  maps[0, 0, 0] = np.nextafter(np.float32(0.6), np.float32(1))
  map_ = results.LocalizationMap(_SHAPE, _BOX, (2,), maps)
  score = corona_score.corona_score(map_, lungs, regions, 1000.0, 0.6)
  assert score.total_cm3 == pytest.approx(0.6)
  assert score.in_lung_cm3 == 0  # The one voxel lies outside the lungs.


def test_millions_of_terms_keep_their_digits():
  shape = (3, 1024, 1024)
  box = results.LungBox(0, 0, 1024, 1024)
  mask = np.ones(shape, np.uint8)
  regions = lungs_lib.find_regions(mask, synthetic_case.axial_affine(shape=shape))
  maps = np.full((3, 1024, 1024), 0.7, np.float32)
  score = corona_score.corona_score(
    results.LocalizationMap(shape, box, (0, 1, 2), maps),
    lungs_lib.Lungs(mask, box, mask.size, 1.0, 0.0),
    regions,
    1.0,
    0.6,
  )
  assert score.total_cm3 == pytest.approx(
    float(np.float32(0.7)) * mask.size / 1e3, rel=1e-12
  )
  assert score.involved_lung_fraction == 1


def test_no_positive_slice_is_a_score_of_zero():
  score = _score(_case(slices=()))
  assert score.total_cm3 == score.in_lung_cm3 == score.involved_lung_fraction == 0
  assert score.by_slice_cm3.tolist() == [0] * 6
  assert set(score.by_region_cm3.values()) == {0}
