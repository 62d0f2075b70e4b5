"""Pictures in millimetres: what counts is seen however thick or thin its slice."""

import dataclasses

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import report_page
import synthetic_case

from covid_tf import results
from covid_tf.reports import case_pictures
from covid_tf.reports import pictures
from covid_tf.reports import rendering

_HEIGHT_MM = 280
_PEAK = 0.84
_THICKNESS_MM = (1.0, 2.5, 5.0, 8.0, 10.0)


def _one_positive_slice(slice_mm, in_plane=(4.0, 4.0), peak=_PEAK, reverse=()):
  """A case with one positive slice, in which a disc of the left lung counts."""
  shape = (round(_HEIGHT_MM / slice_mm), *(round(340 / step) for step in in_plane))
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine((slice_mm, *in_plane), shape, reverse), shape, ()
  )
  result = synthetic_case.make_result(volume, ())
  index, box = shape[0] // 2, result.lung_box
  rows, columns = np.indices(box.shape)
  distance_mm = np.hypot(
    (rows - box.shape[0] // 2) * in_plane[0],
    (columns - box.shape[1] * 3 // 4) * in_plane[1],
  )
  maps = (peak * np.clip(1.3 - distance_mm / 60, 0, 1)).astype(np.float32)
  return volume, dataclasses.replace(
    result,
    positive_slices=(index,),
    corona_score_by_slice_cm3=np.eye(1, shape[0], index)[0],
    localization=results.LocalizationMap(volume.shape, box, (index,), maps[np.newaxis]),
  )


def _points_mm(path):
  """float [N, 2]: (x, y) of all lines of a path."""
  parts = path.split('z')[:-1]
  return np.concatenate([report_page.points_mm(part) for part in parts])


def _size_mm(path):
  """(height, width) of all that a path goes around."""
  return np.ptp(_points_mm(path), axis=0)[::-1]


def _strongest(uri):
  """The largest map value that an image shows, by its opacity."""
  opacity = pictures.heat_colours(np.linspace(0, 1, 512))[:, 3] / 255.0
  shown = report_page.pixels(uri)[..., 3].max()
  return float(np.interp(shown, opacity, np.linspace(0, 1, 512)))


@pytest.mark.parametrize('slice_mm', _THICKNESS_MM)
@pytest.mark.parametrize('in_plane', [(4.0, 4.0), (2.0, 5.0)])
def test_one_positive_slice_keeps_its_colour_and_outline(slice_mm, in_plane):
  """Old: at 8 mm no outline, and 0.29 shown for 0.84."""
  volume, result = _one_positive_slice(slice_mm, in_plane)
  maker = case_pictures.CasePictures(volume, result)
  row = maker.place.row
  assert maker.place.shows == 'score'
  coronal = maker.coronal_picture(720)
  assert _strongest(coronal.heat_uri) == pytest.approx(_PEAK, abs=0.015)
  height, width = _size_mm(coronal.counted_path)
  assert 0.4 * slice_mm <= height <= slice_mm + 2
  counted = result.localization.slice_map(result.positive_slices[0])[row] > 0.6
  assert width == pytest.approx(counted.sum() * in_plane[1], abs=5)
  axial = maker.slice_picture(result.positive_slices[0], 512)
  assert axial.counted_path
  assert _strongest(axial.heat_uri) == pytest.approx(_PEAK, abs=0.015)


@pytest.mark.parametrize('slice_mm', _THICKNESS_MM)
def test_a_slice_of_the_coronal_map_is_as_high_as_it_is(slice_mm):
  volume, result = _one_positive_slice(slice_mm)
  maker = case_pictures.CasePictures(volume, result)
  coronal = maker.coronal_picture(720)
  seen = report_page.pixels(coronal.heat_uri)[..., 3].any(axis=1)
  height_mm = seen.sum() * maker.coronal.size_mm[0] / len(seen)
  assert height_mm == pytest.approx(slice_mm, abs=2.1)
  middle = (np.flatnonzero(seen).mean() + 0.5) * maker.coronal.size_mm[0] / len(seen)
  place = maker.coronal.down.place_mm(result.positive_slices[0])
  assert middle == pytest.approx(place, abs=1.5)


@pytest.mark.parametrize('slice_mm', _THICKNESS_MM)
def test_the_rendering_keeps_the_peak(slice_mm):
  _, result = _one_positive_slice(slice_mm)
  for voxel_mm in (1.5, 2.5):
    scene = rendering.lung_scene(
      result.lung_mask, result.localization, result.affine, voxel_mm
    )
    assert scene.heat.max() == pytest.approx(_PEAK, abs=1e-6)
    assert scene.heat.shape == scene.lungs.shape


def test_a_positive_slice_above_the_lungs_is_rendered():
  _, result = _one_positive_slice(8.0)
  mask, (index,) = result.lung_mask.copy(), result.positive_slices
  mask[index - 1 :] = 0
  scene = rendering.lung_scene(mask, result.localization, result.affine)
  assert scene.heat.max() == pytest.approx(_PEAK, abs=1e-6)


@settings(max_examples=60)
@given(
  st.integers(0, 39),
  st.integers(0, 39),
  st.integers(1, 6),
  st.integers(1, 6),
  st.sampled_from((0.5, 0.7, 1.0, 2.5, 5.0, 8.0)),
  st.sampled_from((0.5, 0.7, 1.0, 2.5, 5.0, 8.0)),
)
def test_every_rectangle_is_outlined_where_it_lies(
  row, column, rows, columns, down_mm, across_mm
):
  mask = np.zeros((40, 40), np.uint8)
  mask[row : row + rows, column : column + columns] = 1
  points = _points_mm(pictures.outline(mask, (down_mm, across_mm)))
  for axis, start, stop, step in (
    (1, row, min(40, row + rows), down_mm),
    (0, column, min(40, column + columns), across_mm),
  ):
    low, high = points[:, axis].min(), points[:, axis].max()
    assert low == pytest.approx(start * step, abs=max(2.5, 0.35 * step))
    assert high == pytest.approx(stop * step, abs=max(2.5, 0.35 * step))
  assert not pictures.outline(np.zeros((4, 5), bool), (down_mm, across_mm))


def test_a_thin_end_of_a_thick_region_is_outlined_too():
  mask = np.zeros((60, 60), bool)
  mask[10:50, 5:25] = True
  mask[30, 5:55] = True  # One slice of 1 mm goes on alone.
  _, width = _size_mm(pictures.outline(mask, (1.0, 1.0)))
  assert width == pytest.approx(50, abs=2.5)


@settings(max_examples=60)
@given(
  st.integers(1, 30),
  st.integers(1, 30),
  st.floats(0.05, 6),
  st.floats(0.05, 6),
  st.integers(0, 2**32 - 1),
)
def test_another_grid_has_the_same_maxima(rows, columns, down, across, seed):
  block = np.random.default_rng(seed).random((rows, columns), np.float32)
  other = pictures.with_peaks(block, (down, across))
  assert other.shape == (max(1, round(rows * down)), max(1, round(columns * across)))
  assert other.max() == block.max()
  if down >= 1 and across >= 1:
    assert set(other.ravel()) == set(block.ravel())
