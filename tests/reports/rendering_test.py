import itertools

import numpy as np
import pytest
import synthetic_case

from covid_tf import results
from covid_tf.reports import rendering

# Patient's right, dorsal and basal.
_LESION = (((-80, 45, -60), (24, 22, 24)),)


def _scene(affine=None, voxel_mm=5.0):
  volume = synthetic_case.make_volume(affine, lesions=_LESION)
  result = synthetic_case.make_result(volume, _LESION)
  return rendering.lung_scene(
    result.lung_mask, result.localization, result.affine, voxel_mm
  )


def _glow(picture):
  """Row and column of the heat's middle, as shares of the picture."""
  red, _, blue, alpha = np.moveaxis(picture.astype(float), -1, 0)
  weight = np.clip(red - blue, 0, None) * alpha
  places = np.indices(weight.shape)
  return [
    float((weight * place).sum() / weight.sum() / (length - 1))
    for place, length in zip(places, weight.shape)
  ]


@pytest.mark.parametrize(
  'turn, shown',
  [
    (0, 'left'),
    (180, 'right'),  # From the front the right lung is on the left.
    (90, 'left'),
    (-90, 'right'),
  ],
)  # From the right side the back is on the left.
def test_a_dorsal_right_basal_lesion_is_where_a_reader_expects_it(turn, shown):
  row, column = _glow(rendering.render(_scene(), turn))
  assert row > 0.6
  assert column < 0.4 if shown == 'left' else column > 0.6


def test_what_is_far_is_dimmed_by_what_is_near():
  near, far = (rendering.render(_scene(), turn).astype(float) for turn in (90, -90))
  warmth = [
    np.clip(picture[..., 0] - picture[..., 2], 0, None).sum() for picture in (near, far)
  ]
  assert warmth[0] > 1.5 * warmth[1]


@pytest.mark.parametrize('turn', [-90, 0, 90, 180])
def test_turning_by_interpolation_agrees_with_exact_quarter_turns(turn):
  scene = _scene()
  exact = rendering.render(scene, turn).astype(float)
  turned = rendering.render(scene, turn + 1e-6).astype(float)
  trimmed = turned[: exact.shape[0], : exact.shape[1]]
  assert np.abs(trimmed - exact)[..., 3].mean() < 4


def test_from_above_the_near_end_of_the_lungs_sinks():
  # A lesion at the front moves down in the picture, one at the back moves up.
  heights = []
  for y in (-60, 60):
    lesion = (((-75, y, 0), (20, 15, 20)),)
    volume = synthetic_case.make_volume(lesions=lesion)
    result = synthetic_case.make_result(volume, lesion)
    scene = rendering.lung_scene(
      result.lung_mask, result.localization, result.affine, 5.0
    )
    heights.append(_glow(rendering.render(scene, 0, 30))[0])
  assert heights[0] > heights[1] + 0.1


@pytest.mark.parametrize(
  'reverse', [axes for n in (1, 2, 3) for axes in itertools.combinations(range(3), n)]
)
def test_the_scene_does_not_depend_on_the_order_of_storage(reverse):
  flipped = _scene(synthetic_case.axial_affine(reverse=reverse))
  reference = _scene()
  assert flipped.lungs.shape == reference.lungs.shape
  assert np.abs(flipped.heat - reference.heat).mean() < 0.01


def test_the_scene_keeps_lung_volume():
  volume = synthetic_case.make_volume()
  result = synthetic_case.make_result(volume)
  scene = rendering.lung_scene(
    result.lung_mask, result.localization, result.affine, 3.0
  )
  assert scene.lungs.sum() * 0.027 == pytest.approx(result.lung_volume_cm3, rel=0.03)


def test_a_map_of_no_slice_leaves_bare_lungs():
  volume = synthetic_case.make_volume()
  result = synthetic_case.make_result(volume)
  bare = results.LocalizationMap(
    volume.shape, result.lung_box, (), np.zeros((0, *result.lung_box.shape))
  )
  scene = rendering.lung_scene(result.lung_mask, bare, result.affine, 5.0)
  picture = rendering.render(scene, 0)
  assert not scene.heat.any() and picture[..., 3].max() > 100
  assert (picture[..., 2] >= picture[..., 0]).all()
