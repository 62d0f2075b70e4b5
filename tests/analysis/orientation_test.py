import itertools

import fake_models
import numpy as np
import pytest
import synthetic_case

from covid_tf.analysis import orientation
from covid_tf.analysis import pipeline
from covid_tf.datasets.collections import study as study_lib

_STORED = list(itertools.product((False, True), (0, 1), (0, 1)))


def _stored(volume_affine, hu, swapped, flip_rows, flip_columns):
  """The same patient, its planes stored another way; slices keep their order."""
  affine = np.array(volume_affine)
  for axis, flip in ((1, flip_rows), (2, flip_columns)):
    if flip:
      affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
      affine[:3, axis] *= -1
      hu = np.flip(hu, axis)
  if swapped:
    affine[:, [1, 2]] = affine[:, [2, 1]]
    hu = hu.swapaxes(1, 2)
  return affine, np.ascontiguousarray(hu)


@pytest.mark.parametrize('stored', _STORED)
def test_planes_are_turned_to_the_usual_way_and_back(stored):
  usual = np.arange(2 * 3 * 5).reshape(2, 3, 5)
  affine, planes = _stored(
    synthetic_case.axial_affine((8, 2, 3), usual.shape), usual, *stored
  )
  turn = orientation.plane_turn(affine)
  turned = turn.to_usual(planes)
  np.testing.assert_array_equal(turned, usual)
  assert turned.flags.c_contiguous
  np.testing.assert_array_equal(turn.to_stored(turned), planes)


def test_a_plane_turned_a_little_stays_as_stored():
  affine = synthetic_case.axial_affine()
  cosine, sine = np.cos(np.radians(40)), np.sin(np.radians(40))
  affine[:2, :3] = np.array([[cosine, -sine], [sine, cosine]]) @ affine[:2, :3]
  assert orientation.plane_turn(affine) == orientation.PlaneTurn(False, (False, False))


class _Lopsided(fake_models.FakeModels):
  """Answers by place in the picture, so that a turned picture is another one."""

  def segment_lungs(self, hu):
    mask = super().segment_lungs(hu)
    mask[:, : hu.shape[1] // 3] = 0  # Blind in front.
    return mask

  def grad_cam(self, hu):
    answer = super().grad_cam(hu)
    side = np.linspace(0.2, 1, 28, dtype=np.float32)
    return answer._replace(cam_28=answer.cam_28 * side)


@pytest.mark.parametrize('stored', _STORED)
def test_a_patient_scores_alike_however_the_planes_are_stored(stored):
  usual = synthetic_case.make_volume()
  expected = pipeline.analyze(usual, _Lopsided())
  affine, hu = _stored(usual.affine, usual.hu, *stored)
  found = pipeline.analyze(
    synthetic_case.volume_lib.CTVolume(hu=hu, affine=affine), _Lopsided()
  )
  assert expected.corona_score_cm3 > 1
  assert found.corona_score_cm3 == pytest.approx(expected.corona_score_cm3, rel=1e-5)
  assert found.lung_volume_cm3 == expected.lung_volume_cm3
  assert found.corona_score_by_region_cm3 == pytest.approx(
    expected.corona_score_by_region_cm3, rel=1e-5
  )
  np.testing.assert_array_equal(
    found.lung_mask, _stored(usual.affine, expected.lung_mask, *stored)[1]
  )
  np.testing.assert_allclose(
    found.localization.to_volume(),
    _stored(usual.affine, expected.localization.to_volume(), *stored)[1],
    atol=1e-5,
  )


@pytest.mark.parametrize('stored', _STORED)
def test_networks_learn_from_slices_turned_the_same_way(stored):
  usual = synthetic_case.make_volume(synthetic_case.axial_affine((8, 3, 2)))
  affine, hu = _stored(usual.affine, usual.hu, *stored)
  dense = (hu > -500).astype(np.uint8)
  study = study_lib.of_volume(
    synthetic_case.volume_lib.CTVolume(hu=hu, affine=affine),
    np.zeros(len(hu), np.int8),
    lesion_mask=dense,
  )
  np.testing.assert_array_equal(study.hu, usual.hu)
  np.testing.assert_array_equal(study.lesion_mask, usual.hu > -500)
  assert study.spacing_mm == pytest.approx((8, 3, 2))
