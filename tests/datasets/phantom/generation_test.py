"""Phantoms: determinism, tissues, truth, and one anatomy on every grid."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from covid_tf.datasets import phantom
from covid_tf.datasets.phantom import generation
from covid_tf.datasets.phantom import shapes

_SEED = phantom.TRAINING_SEED_LIMIT + 5


def _draw(kind='focal', seed=_SEED, **overrides):
  fields = dict(matrix=96, slice_spacing_mm=16.0, noise_hu=8.0, padded=False)
  return phantom.generate(phantom.draw_case(seed, kind, **(fields | overrides)))


@pytest.fixture(scope='module', name='focal')
def _focal():
  return _draw('focal', consolidation=0.9, lesion_fraction=0.06)


@pytest.fixture(scope='module', name='diffuse')
def _diffuse():
  return _draw('diffuse', consolidation=0.0, lesion_fraction=0.3)


@pytest.fixture(scope='module', name='clear')
def _clear():
  return _draw('none', nodules=6, plate_atelectases=3)


def test_the_same_case_gives_the_same_voxels(focal):
  again = _draw('focal', consolidation=0.9, lesion_fraction=0.06)
  np.testing.assert_array_equal(again.volume.hu, focal.volume.hu)
  np.testing.assert_array_equal(again.lesion_mask, focal.lesion_mask)


def test_another_seed_gives_another_chest(focal):
  other = _draw('focal', seed=_SEED + 1)
  assert other.volume.shape != focal.volume.shape or (
    np.mean(other.lung_mask != focal.lung_mask) > 0.01
  )


@pytest.mark.parametrize('drawn', ('focal', 'diffuse', 'clear'))
def test_masks_are_binary_and_lesions_lie_in_the_lungs(drawn, request):
  drawn = request.getfixturevalue(drawn)
  for mask in (drawn.lung_mask, drawn.lesion_mask):
    assert mask.dtype == np.uint8
    assert mask.shape == drawn.volume.shape
    assert mask.max() <= 1
  assert not (drawn.lesion_mask & ~drawn.lung_mask & 1).any()
  assert drawn.lesion_mask.any() == (drawn.kind != 'none')


@pytest.mark.parametrize('drawn', ('focal', 'diffuse', 'clear'))
def test_two_lungs_of_human_volume(drawn, request):
  drawn = request.getfixturevalue(drawn)
  labels, _ = ndimage.label(drawn.lung_mask)
  sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
  litres = sizes * drawn.volume.voxel_volume_mm3 / 1e6
  assert litres[:2].min() > 0.7
  assert 1.8 < litres.sum() < 8.0
  # Left is positive x: one lung on either side of the spine.
  sides = [
    ndimage.center_of_mass(labels == number)[2]
    for number in np.argsort(np.bincount(labels.ravel())[1:])[::-1][:2] + 1
  ]
  middle = drawn.volume.shape[2] / 2
  assert min(sides) < middle < max(sides)


def test_lesion_load_is_what_the_case_says(focal, diffuse):
  for drawn in (focal, diffuse):
    fraction = drawn.lesion_mask.sum() / drawn.lung_mask.sum()
    assert fraction == pytest.approx(drawn.case.lesion_fraction, rel=0.3)


def test_tissues_have_their_hounsfield_units(clear):
  hu, lung = clear.volume.hu, clear.lung_mask > 0
  assert -900 < np.median(hu[lung]) < -720
  outside = ndimage.binary_dilation(lung, iterations=4)
  air_outside = hu[:, :6, :][~outside[:, :6, :]]
  assert np.median(air_outside) < -950
  assert (hu[~outside] > 300).mean() > 0.004  # Bone.
  soft = hu[~outside & (hu > -300) & (hu < 200)]
  fat, muscle = soft[soft < -50], soft[soft > 0]
  assert -120 < np.median(fat) < -80
  assert 30 < np.median(muscle) < 75
  assert hu.min() >= -1024


def test_ground_glass_and_consolidation_differ(focal, diffuse):
  glass = np.median(diffuse.volume.hu[diffuse.lesion_mask > 0])
  solid = np.percentile(focal.volume.hu[focal.lesion_mask > 0], 75)
  assert -700 < glass < -350
  assert -50 < solid < 80


def test_consolidated_lung_stays_in_the_lung_mask(focal):
  dense = (focal.lesion_mask > 0) & (focal.volume.hu > -100)
  assert dense.sum() > 20
  assert focal.lung_mask[dense].all()


def test_vessels_run_in_the_lungs(clear):
  hu, lung = clear.volume.hu, clear.lung_mask > 0
  inner = ndimage.binary_erosion(lung, np.ones((1, 3, 3)))
  assert 0.01 < (hu[inner] > -600).mean() < 0.25


def test_look_alikes_defeat_a_plain_threshold():
  """A clear lung with look-alikes holds as many voxels of lesion HU as a sick one."""

  def share(drawn):
    inside = ndimage.binary_erosion(drawn.lung_mask > 0, np.ones((1, 3, 3)))
    return ((drawn.volume.hu[inside] > -700) & (drawn.volume.hu[inside] < -100)).mean()

  clear = _draw(
    'none', nodules=8, plate_atelectases=4, dependent_hu=130.0, vessel_calibre=1.3
  )
  sick = _draw(
    'focal',
    nodules=0,
    plate_atelectases=0,
    dependent_hu=20.0,
    vessel_calibre=0.85,
    lesion_fraction=0.008,
  )
  assert share(clear) > share(sick)


def test_another_grid_shows_the_same_chest():
  """Twice the matrix and half the slice spacing: volumes and places agree."""
  coarse, fine = (
    _draw('diffuse'),
    _draw(
      'diffuse',
      matrix=192,
      slice_spacing_mm=8.0,
      pixel_spacing_mm=_draw_case_spacing() / 2,
    ),
  )
  for name in ('lung_mask', 'lesion_mask'):
    volumes = [
      getattr(d, name).sum() * d.volume.voxel_volume_mm3 for d in (coarse, fine)
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.05)
    centres = [
      d.volume.index_to_lps_mm(ndimage.center_of_mass(getattr(d, name)))
      for d in (coarse, fine)
    ]
    np.testing.assert_allclose(centres[0], centres[1], atol=4)


def _draw_case_spacing():
  return phantom.draw_case(_SEED, 'diffuse', matrix=96).pixel_spacing_mm


def test_dose_and_kernel_change_the_noise_and_not_the_chest():
  quiet, loud = _draw(noise_hu=2.0), _draw(noise_hu=30.0)
  np.testing.assert_array_equal(quiet.lung_mask, loud.lung_mask)
  air = np.s_[:, 2:8, 2:8]
  assert loud.volume.hu[air].std() > 3 * quiet.volume.hu[air].std()


def test_overrides_leave_the_other_draws_alone():
  plain, changed = (
    phantom.draw_case(_SEED, 'focal', **fields) for fields in ({}, {'noise_hu': 1.0})
  )
  assert dataclasses.replace(changed, noise_hu=plain.noise_hu) == plain


def test_cohort_takes_turns_or_counts():
  assert [case.kind for case in phantom.cohort(4, 9)] == [
    'none',
    'focal',
    'diffuse',
    'none',
  ]
  cases = phantom.cohort({'none': 2, 'diffuse': 1}, 50)
  assert [(case.seed, case.kind) for case in cases] == [
    (50, 'none'),
    (51, 'none'),
    (52, 'diffuse'),
  ]


@pytest.mark.parametrize(
  'overrides, message',
  (
    ({'kind': 'tumour'}, 'kind must be one of'),
    ({'kind': 'focal', 'lesion_fraction': 0.0}, 'lesion_fraction'),
    ({'kind': 'none', 'matrix': 0}, 'matrix must be above 0'),
    ({'kind': 'none', 'seed': -1}, 'seed'),
  ),
)
def test_wrong_cases_are_refused(overrides, message):
  case = phantom.draw_case(_SEED, 'none')
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(case, **overrides)


def test_severe_patients_carry_more_disease_on_average():
  cases = phantom.cohort({'diffuse': 200}, 0)
  loads = {
    severe: np.median([c.lesion_fraction for c in cases if c.severe == severe])
    for severe in (True, False)
  }
  assert loads[True] > 1.4 * loads[False]


def test_smooth_fields_agree_on_every_grid():
  coarse = shapes.make_grid(-20, 20, 10, 10, 33, 8.0)
  fine = shapes.make_grid(-20, 20, 5, 5, 65, 4.0)
  fields = [shapes.SmoothField(3, 1, 12, grid) for grid in (coarse, fine)]
  np.testing.assert_allclose(
    fields[0].on_slice(1), fields[1].on_slice(2)[::2, ::2], atol=1e-4
  )
  many = shapes.make_grid(-200, 200, 25, 25, 60, 8.0)
  field = shapes.SmoothField(3, 1, 12, many)
  values = np.stack([field.on_slice(i) for i in range(len(many.z))])
  assert values.std() == pytest.approx(1, abs=0.1)


def test_a_tree_tapers_and_reaches_its_points():
  rng = np.random.default_rng(0)
  points = rng.uniform(-50, 50, (2000, 3))
  tree = shapes.grow((0.0, 0.0, 0.0), points, 60, 5.0, rng)
  assert (tree.radius[:, 1] <= tree.radius[:, 0]).all()
  assert tree.radius.max() == 5.0
  ends = tree.end[:, np.newaxis] - points[::20]
  assert np.linalg.norm(ends, axis=-1).min(0).max() < 40


def test_a_vessel_across_a_thick_slice_fades_by_the_share_it_takes():
  tree = shapes.Tree(
    np.array([[-30.0, 0, 0]]), np.array([[30.0, 0, 0]]), np.array([[2.0, 2.0]])
  )
  thick = shapes.make_grid(-10, 10, 10, 10, 64, 1.0)
  share = shapes.draw_tree(tree, thick) / 255
  # 4 mm of a 10 mm slice, less at the rim of the round vessel.
  assert 0.25 < share[1, 31:33, 32].max() < 0.55
  assert share[0].max() == share[2].max() == 0


def test_a_negative_slice_range_is_not_needed_below_the_lungs():
  """The scan covers the lungs with a margin above and below."""
  drawn = _draw('none')
  covered = np.flatnonzero(drawn.lung_mask.any((1, 2)))
  assert covered[0] > 0 or drawn.lung_mask[0].mean() < 0.01
  assert covered[-1] < drawn.volume.shape[0] - 1
  assert isinstance(drawn, generation.Phantom)


def test_another_scan_shows_the_same_chest_at_other_positions_with_other_noise():
  case = phantom.draw_case(4, 'focal', slice_spacing_mm=20.0, matrix=48, motion_mm=0.0)
  first, again = phantom.generate(case), phantom.generate(case, scan=0)
  np.testing.assert_array_equal(first.volume.hu, again.volume.hu)
  noisy = phantom.generate(case, scan=1)
  np.testing.assert_array_equal(noisy.lung_mask, first.lung_mask)
  assert (noisy.volume.hu != first.volume.hu).mean() > 0.5
  shifted = phantom.generate(case, shift_mm=20.0)
  np.testing.assert_allclose(
    shifted.volume.affine[:3, 3] - first.volume.affine[:3, 3], (0, 0, 20), atol=0.11
  )
  np.testing.assert_array_equal(shifted.lung_mask[:-1], first.lung_mask[1:])
