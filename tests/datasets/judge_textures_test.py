"""Density of real lesions: taken from their window, laid into a chest."""

import numpy as np
import pytest

from covid_tf import errors
from covid_tf.datasets import judge_grid
from covid_tf.datasets import judge_textures


def _slice(opaque_mm=40.0, pixel_mm=0.8):
  """A lung of -850 HU with a square opacity of -400 HU and a vessel through it."""
  hu = np.full((200, 200), 40, np.int16)
  lung = np.zeros(hu.shape, np.uint8)
  lung[20:180, 20:180] = 1
  hu[lung != 0] = -850
  side = round(opaque_mm / pixel_mm)
  hu[60 : 60 + side, 70 : 70 + side] = -400
  hu[60 : 60 + side, 90:93] = 100
  return hu, lung, pixel_mm


def test_the_share_of_water_is_the_opacity_without_its_vessels():
  texture = judge_textures.texture_of(*_slice())
  assert texture.pixel_mm == 0.8
  assert 0.4 < np.median(texture.water) < 0.6  # (-400 + 850) / (30 + 850)
  assert texture.water.max() < 0.8  # Not the vessel's 1.


@pytest.mark.parametrize('opaque_mm', [0.0, 10.0])
def test_a_slice_without_an_opacity_has_no_texture(opaque_mm):
  with pytest.raises(errors.NoLungsError, match='opacity'):
    judge_textures.texture_of(*_slice(opaque_mm))


def test_a_texture_covers_any_box_and_changes_along_the_body():
  random = np.random.default_rng(1)
  texture = judge_textures.Texture(random.random((9, 7)).astype(np.float32), 0.8)
  box = slice(3, 9), slice(0, 50), slice(5, 25)
  grid = judge_grid.Grid(box, (5.0, 1.0, 1.5), (20, 33, 20))
  place = judge_textures.Place.draw(texture, grid, random)
  planes = [place.water(index) for index in range(6)]
  for plane in planes:
    assert plane.shape == (50, 20)
    assert texture.water.min() <= plane.min() and plane.max() <= texture.water.max()
  assert not np.array_equal(planes[0], planes[5])
