"""Geometry as one object: index to millimetres and back, for any orientation."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import odd_series
import pytest
from scipy.spatial import transform

from covid_tf import errors
from covid_tf import readers
from covid_tf import volume
from covid_tf.readers import geometry
from covid_tf.readers import images

_steps = st.floats(0.06, 4.9)
_angles = st.tuples(*[st.floats(-180, 180)] * 3)
_origins = st.tuples(*[st.floats(-900, 900)] * 3)


def _directions(angles):
  """(row direction, column direction, normal, not to the feet) of any orientation."""
  row, column, normal = (
    transform.Rotation.from_euler('zyx', angles, degrees=True).as_matrix().T
  )
  return row, column, -normal if normal[2] < -0.5 else normal


def _planes(count, angles, origin, spacing):
  row, column, normal = _directions(angles)
  return [
    images.Plane(
      tuple(np.add(origin, normal * spacing[0] * index)),
      tuple(row),
      tuple(column),
      spacing[1:],
    )
    for index in range(count)
  ]


@hypothesis.given(
  _angles, _origins, st.tuples(_steps, _steps, _steps), st.integers(2, 300)
)
def test_the_grid_of_even_slices_is_exact(angles, origin, spacing, count):
  planes = _planes(count, angles, origin, spacing)
  grid = geometry.even_grid(planes)
  ct = volume.CTVolume(np.zeros((count, 2, 2), np.int16), grid.affine)
  assert grid.warnings == ()
  np.testing.assert_allclose(ct.spacing_mm, spacing, rtol=1e-7)
  assert ct.voxel_volume_mm3 == pytest.approx(np.prod(spacing), rel=1e-6)
  for index, plane in enumerate(planes):
    np.testing.assert_allclose(
      ct.index_to_lps_mm((index, 0, 0)), plane.position, atol=1e-6
    )


@hypothesis.given(
  _angles,
  _origins,
  st.tuples(_steps, _steps, _steps),
  st.lists(st.tuples(*[st.floats(-600, 600)] * 3), min_size=1, max_size=5),
)
def test_index_and_millimetres_round_trip(angles, origin, spacing, points):
  affine = geometry.even_grid(_planes(5, angles, origin, spacing)).affine
  ct = volume.CTVolume(np.zeros((5, 2, 2), np.int16), affine)
  np.testing.assert_allclose(
    ct.index_to_lps_mm(ct.lps_mm_to_index(points)), points, atol=1e-6
  )
  np.testing.assert_allclose(
    ct.lps_mm_to_index(ct.index_to_lps_mm(points)), points, atol=1e-6
  )


@hypothesis.given(_angles, st.permutations(range(7)))
def test_order_along_the_normal_is_canonical(angles, order):
  planes = _planes(7, angles, (1.0, 2.0, 3.0), (2.0, 0.7, 0.7))
  heights = geometry.heights_mm([planes[index] for index in order])
  assert [order[place] for place in np.argsort(heights)] == list(range(7))


@hypothesis.given(st.integers(3, 60), st.floats(0.6, 10), st.data())
def test_jitter_below_one_percent_is_rounding(count, step, data):
  jitter = data.draw(
    st.lists(st.floats(-0.0049, 0.0049), min_size=count, max_size=count)
  )
  planes = _planes(count, (0, 0, 0), (0, 0, 0), (step, 0.7, 0.7))
  moved = [
    images.Plane(
      (0, 0, plane.position[2] + step * off),
      plane.row_direction,
      plane.column_direction,
      plane.spacing_mm,
    )
    for plane, off in zip(planes, jitter)
  ]
  grid = geometry.even_grid(moved)
  assert grid.warnings == ()
  assert grid.affine[2, 0] == pytest.approx(step, rel=0.01)


@hypothesis.given(st.integers(4, 40), st.floats(0.6, 10), st.data())
def test_a_lost_slice_is_never_accepted(count, step, data):
  lost = data.draw(st.integers(1, count - 2))
  planes = _planes(count, (0, 0, 0), (0, 0, 0), (step, 0.7, 0.7))
  with pytest.raises(errors.CTReadError, match='missing|varying'):
    geometry.even_grid(planes[:lost] + planes[lost + 1 :])


def _at(heights):
  return [
    images.Plane((-180.5, -170.25, float(height)), (1, 0, 0), (0, 1, 0), (0.7, 0.7))
    for height in heights
  ]


@hypothesis.given(
  st.sampled_from((1.25, 1.5, 2.5, 3.3, 3.75)),
  st.sampled_from((np.rint, np.floor, np.ceil)),
  st.floats(-400, 400),
  st.integers(30, 300),
)
def test_rounding_to_millimetres_is_named_as_that(step, rounding, start, count):
  with pytest.raises(errors.CTReadError) as caught:
    geometry.even_grid(_at(rounding(start + step * np.arange(count))))
  text = str(caught.value)
  assert 'rounded to 1 mm' in text and 'all decimals' in text
  assert 'copy the series' not in text
  low, high = (float(word) for word in text.split('even steps of ')[1].split()[:3:2])
  assert low - 1e-3 <= step <= high + 1e-3


@pytest.mark.parametrize(
  'heights',
  (
    [0, 5, 10, 20, 25, 30],  # Whole millimetres, but a step is lost.
    [0, 2.5, 5, 10, 12.5, 15],
    [0, 1.25, 2.5, 5, 6.25, 7.5, 10, 11.25, 12.5, 15],
    [0, 1, 2, 4, 5, 6],  # May be either.
  ),
)
def test_lost_slices_are_not_called_rounding(heights):
  with pytest.raises(errors.CTReadError, match='missing') as caught:
    geometry.even_grid(_at(heights))
  assert 'copy the series again' in str(caught.value)


def test_two_spacings_are_not_called_rounding():
  heights = [*range(0, 50, 5), *range(50, 100, 2)]
  with pytest.raises(errors.CTReadError, match='two series were joined'):
    geometry.even_grid(_at(heights))


@hypothesis.given(st.floats(1, 24), st.floats(0.8, 6), st.integers(8, 40))
def test_tilt_is_measured(angle, step, count):
  shear = np.tan(np.radians(angle)) * step
  planes = [
    images.Plane((0.0, shear * index, step * index), (1, 0, 0), (0, 1, 0), (0.7, 0.7))
    for index in range(count)
  ]
  assert geometry.even_grid(planes).tilt_deg == pytest.approx(angle, abs=1e-6)


@hypothesis.settings(max_examples=15)
@hypothesis.given(
  st.tuples(st.floats(-179, 179), st.floats(-15, 15), st.floats(-15, 15)),
  _origins,
  st.permutations(range(8)),
)
def test_files_of_any_orientation_give_back_their_positions(
  tmp_path_factory, angles, origin, order
):
  row, column, _ = _directions(angles)
  slices = odd_series.series(
    orientation=np.round(np.concatenate((row, column)), 8), origin=origin
  )
  folder = odd_series.save(
    [slices[index] for index in order], tmp_path_factory.mktemp('study')
  )
  ct = readers.read_ct(folder)
  np.testing.assert_array_equal(ct.hu, odd_series.chest_hu())
  for index, ds in enumerate(slices):
    np.testing.assert_allclose(
      ct.index_to_lps_mm((index, 0, 0)),
      np.array(ds.ImagePositionPatient, float),
      atol=2e-6,
    )
