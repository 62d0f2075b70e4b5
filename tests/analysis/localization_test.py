from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.ndimage

from covid_tf import results
from covid_tf.analysis import localization
from covid_tf.analysis import slabs as slabs_lib

_SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


def _cams(seed, count=1):
  rng = np.random.default_rng(seed)
  cams = [rng.random((count, side, side), np.float32) for side in (28, 14)]
  return [cam / cam.max(axis=(1, 2), keepdims=True) for cam in cams]


@given(st.integers(1, 30), st.integers(1, 200))
def test_weights_are_a_mean_of_at_most_two_neighbours(source, size):
  matrix = localization.interpolation_matrix(source, size)
  assert matrix.shape == (size, source) and matrix.dtype == np.float32
  assert matrix.min() >= 0
  np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
  assert (np.count_nonzero(matrix, axis=1) <= 2).all()


@given(st.integers(1, 30), st.integers(1, 200))
def test_pixel_centres_stay_where_they_are(source, size):
  """Enlarging the coordinate itself gives the coordinate, but for the rims."""
  matrix = localization.interpolation_matrix(source, size).astype(float)
  centres = (np.arange(source) + 0.5) / source
  wanted = np.clip((np.arange(size) + 0.5) / size, centres[0], centres[-1])
  np.testing.assert_allclose(matrix @ centres, wanted, atol=1e-6)


@settings(max_examples=40)
@given(_SIZES, st.integers(0, 9))
def test_fused_is_in_unit_range_and_turns_with_its_input(size, seed):
  fine, coarse = _cams(seed)
  fused = localization.fuse_scales(fine[0], coarse[0], size)
  assert fused.shape == size and fused.dtype == np.float32
  assert fused.min() >= 0 and fused.max() <= 1
  flipped = localization.fuse_scales(fine[0, :, ::-1], coarse[0, :, ::-1], size)
  np.testing.assert_allclose(flipped[:, ::-1], fused, atol=1e-6)
  turned = localization.fuse_scales(fine[0].T, coarse[0].T, size[::-1])
  np.testing.assert_allclose(turned.T, fused, atol=1e-6)


def test_the_same_as_scipys_zoom_of_both_scales():
  fine, coarse = _cams(3)
  size = (112, 140)
  enlarged = [
    scipy.ndimage.zoom(
      cam[0], np.divide(size, cam.shape[1:]), order=1, mode='nearest', grid_mode=True
    )
    for cam in (fine, coarse)
  ]
  fused = localization.fuse_scales(fine[0], coarse[0], size)
  assert fused.max() > 0.5
  np.testing.assert_allclose(fused, enlarged[0] * enlarged[1], atol=1e-6)


def test_ones_stay_one_and_either_zero_wins():
  ones = [np.ones((side, side), np.float32) for side in (28, 14)]
  assert (localization.fuse_scales(*ones, (513, 31)) == 1).all()
  assert not localization.fuse_scales(ones[0], 0 * ones[1], (40, 40)).any()
  assert not localization.fuse_scales(0 * ones[0], ones[1], (40, 40)).any()


def test_maps_are_the_same_one_by_one_and_all_at_once():
  fine, coarse = _cams(5, count=4)
  maps = localization.FusedMaps(fine, coarse, (300, 200))
  whole = np.asarray(maps)
  assert whole.shape == maps.shape == (4, 300, 200) and whole.max() > 0.5
  for index, fused in enumerate(maps):
    np.testing.assert_array_equal(
      fused, localization.fuse_scales(fine[index], coarse[index], (300, 200))
    )
    np.testing.assert_array_equal(fused, whole[index])


def _explanation(probability):
  fine, coarse = _cams(1, count=len(probability))
  return results.SliceExplanation(np.array(probability, np.float32), fine, coarse)


def test_only_positive_slices_glow_and_only_inside_the_box():
  explanation = _explanation([0.1, 0.7, 0.5, 0.500001])
  box = results.LungBox(3, 5, 33, 45)
  map_ = localization.localize(explanation, box, (4, 40, 60), slice_threshold=0.5)
  assert map_.slices == (1, 3)  # 0.5 is not above 0.5.
  volume = map_.to_volume()
  assert volume.shape == (4, 40, 60) and volume.dtype == np.float32
  for index in (1, 3):
    np.testing.assert_array_equal(
      volume[index, 3:33, 5:45],
      localization.fuse_scales(
        explanation.cam_28[index], explanation.cam_14[index], (30, 40)
      ),
    )
    np.testing.assert_array_equal(map_.slice_map(index), volume[index])
  assert not volume[[0, 2]].any() and not map_.slice_map(0).any()
  volume[:, 3:33, 5:45] = 0
  assert not volume.any()


@pytest.mark.parametrize('threshold', [0.3, np.float32(0.3), np.float64(0.3)])
def test_a_probability_equal_to_the_threshold_is_not_above_it(threshold):
  map_ = localization.localize(
    _explanation([0.3, 0.30001]), results.LungBox(0, 0, 4, 4), (2, 4, 4), threshold
  )
  assert map_.slices == (1,)


def test_a_case_without_a_positive_slice_has_an_empty_map():
  map_ = localization.localize(
    _explanation([0.2, 0.1]), results.LungBox(0, 0, 4, 4), (2, 6, 6), 0.5
  )
  assert map_.slices == () and len(map_.maps) == 0
  assert not map_.to_volume().any()


def test_a_slice_has_the_maps_of_its_slabs_weighted_by_overlap():
  slabs = slabs_lib.Slabs(slices=7, count=3, thickness_mm=2.3)
  random = np.random.default_rng(5)
  explanation = results.SliceExplanation(
    np.array([0.9, 0.2, 0.8], np.float32),
    random.random((3, 28, 28), np.float32),
    random.random((3, 14, 14), np.float32),
  )
  box = results.LungBox(2, 3, 42, 53)
  map_ = localization.localize(explanation, box, (7, 60, 60), 0.5, slabs)
  fused = [
    localization.fuse_scales(fine, coarse, box.shape)
    for fine, coarse in zip(explanation.cam_28, explanation.cam_14, strict=True)
  ]
  fused[1] = np.zeros_like(fused[1])  # A slab below the threshold has no map.
  probability = slabs.to_slices(explanation.covid_probability)
  assert map_.slices == tuple(np.flatnonzero(probability > 0.5)) == (0, 1, 5, 6)
  for _ in range(2):  # In whatever order they are asked for.
    for index, found in reversed(list(zip(map_.slices, map_.maps, strict=True))):
      wanted = sum(share * fused[slab] for slab, share in slabs.shares(index))
      np.testing.assert_allclose(found, wanted, atol=1e-6)
  np.testing.assert_array_equal(map_.maps[0], fused[0])


def test_maps_of_one_slab_are_one_array_that_nobody_writes_to():
  slabs = slabs_lib.Slabs(slices=10, count=2, thickness_mm=5.0)
  ones = np.ones((2, 28, 28), np.float32)
  maps = localization.localize(
    results.SliceExplanation(ones[:, 0, 0], ones, ones[:, ::2, ::2]),
    results.LungBox(0, 0, 30, 30),
    (10, 30, 30),
    0.5,
    slabs,
  ).maps
  assert maps[0] is maps[4] and maps[0] is not maps[5]
  with pytest.raises(ValueError, match='read-only'):
    maps[0][0, 0] = 0
