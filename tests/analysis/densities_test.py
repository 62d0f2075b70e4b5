import dataclasses

import fake_models
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import synthetic_case

from covid_tf import lung_measures
from covid_tf.analysis import densities
from covid_tf.analysis import lungs as lungs_lib
from covid_tf.analysis import pipeline

_SCHEMES = lung_measures.DensitySchemes()
_HU = st.integers(-1024, 3071) | st.sampled_from(
  (-1000, -950, -901, -900, -700, -500, -300, -100, 100, -32768, 32767)
)


def _of(hu, schemes=_SCHEMES, voxel_volume_mm3=0.7):
  counts = densities.VoxelCounts()
  for part in np.array_split(np.array(hu, np.int16), 3):
    counts.add(part)
  return densities.of_counts(
    counts.counts[0], counts.lowest_hu, voxel_volume_mm3, schemes
  )


@settings(max_examples=80)
@given(st.lists(_HU, min_size=1, max_size=60))
def test_as_an_independent_computation_has_it(values):
  hu = np.array(values, np.float64)
  found = _of(values)
  cm3 = 0.7 / 1000
  assert found.volume_cm3 == pytest.approx(len(hu) * cm3, rel=1e-12)
  assert found.mean_hu == pytest.approx(hu.mean(), rel=1e-9, abs=1e-9)
  assert list(found.percentiles_hu) == list(_SCHEMES.percentiles)
  np.testing.assert_allclose(
    list(found.percentiles_hu.values()),
    np.percentile(hu, _SCHEMES.percentiles),
    rtol=1e-9,
    atol=1e-9,
  )
  for name, scheme in _SCHEMES.by_name().items():
    edges = (-np.inf, *scheme.edges_hu, np.inf)
    wanted = [((low <= hu) & (hu < high)).sum() for low, high in zip(edges, edges[1:])]
    parts = found.bins_cm3[name]
    assert tuple(parts) == ('below', *scheme.bins, 'above')
    np.testing.assert_array_equal(np.rint(np.array(list(parts.values())) / cm3), wanted)
  assert found.low_attenuation_cm3 == pytest.approx((hu < -950).sum() * cm3)
  assert found.low_attenuation_cm3 == found.bins_cm3['covid']['below']


@given(st.lists(_HU, max_size=60))
def test_the_parts_of_a_scheme_are_the_whole(values):
  found = _of(values, voxel_volume_mm3=1000.0)  # Voxels, exactly.
  for parts in found.bins_cm3.values():
    assert sum(parts.values()) == found.volume_cm3 == len(values)


def test_a_bin_holds_its_lower_edge_and_not_its_upper():
  found = _of((-901, -900, -501, -500, 99, 100), voxel_volume_mm3=1000.0)
  assert found.bins_cm3['aeration'] == {
    'below': 0,
    'hyperinflated': 1,
    'normally_aerated': 2,
    'poorly_aerated': 1,
    'not_aerated': 1,
    'above': 1,
  }


def test_a_region_without_voxels_has_no_mean():
  found = _of(())
  assert found.volume_cm3 == found.low_attenuation_cm3 == 0
  assert found.mean_hu is None and found.percentiles_hu == {}
  assert set(found.bins_cm3['covid'].values()) == {0}
  assert found.share(0.0) is None


def test_other_schemes():
  scheme = lung_measures.DensityScheme((-800, 0), ('middle',))
  schemes = lung_measures.DensitySchemes(
    covid=scheme,
    low_attenuation_hu=-910,
    percentiles=(0, 50, 100),
    dense_bins=('middle',),
  )
  found = _of((-1000, -920, -800, -1, 0), schemes, 1000.0)
  assert found.bins_cm3['covid'] == {'below': 2, 'middle': 2, 'above': 1}
  assert found.low_attenuation_cm3 == 2
  assert found.percentiles_hu == {0: -1000, 50: -800, 100: 0}


@pytest.mark.parametrize(
  'make, said',
  [
    (lambda: lung_measures.DensityScheme((0, -5), ('a',)), 'ascending'),
    (lambda: lung_measures.DensityScheme((-5.5, 0), ('a',)), 'whole numbers'),
    (lambda: lung_measures.DensityScheme((-5, 0), ('a', 'b')), '2 edges and 2 bins'),
    (lambda: lung_measures.DensityScheme((-5, 0), ('below',)), "'below'"),
    (lambda: lung_measures.DensitySchemes(percentiles=(101,)), '0 to 100'),
    (lambda: lung_measures.DensitySchemes(dense_bins=('lead',)), 'ground_glass'),
    (lambda: lung_measures.DensitySchemes(low_attenuation_hu=-0.5), 'whole number'),
  ],
)
def test_schemes_that_are_none_are_refused(make, said):
  with pytest.raises(ValueError, match=said):
    make()


@pytest.fixture(name='volume', scope='module')
def _volume():
  shape = (24, 42, 64)
  affine = synthetic_case.axial_affine((12.0, 6.0, 6.0), shape)
  return synthetic_case.make_volume(affine, shape)


@pytest.fixture(name='result', scope='module')
def _result(volume):
  return pipeline.analyze(volume, fake_models.FakeModels())


def _masks(volume, result):
  """Each region as a mask, by the millimetres of each voxel."""
  lungs = result.lung_mask != 0
  index = np.moveaxis(np.indices(volume.shape), 0, -1)
  x, _, z = np.moveaxis(volume.index_to_lps_mm(index), -1, 0)
  planes = lungs_lib.find_regions(result.lung_mask, volume.affine)
  low, high = planes.level_z_mm
  sides = {'right': x <= planes.midline_x_mm, 'left': x > planes.midline_x_mm}
  levels = {'apical': z > high, 'middle': (z > low) & (z <= high), 'basal': z <= low}
  masks = {'lungs': lungs} | {name: lungs & side for name, side in sides.items()}
  masks |= {
    f'{side}_{level}': lungs & sides[side] & levels[level]
    for side in sides
    for level in levels
  }
  masks['opacity'] = lungs & (result.localization.to_volume() > np.float32(0.6))
  return masks


def test_regions_of_a_study_as_their_masked_voxels_have_it(volume, result):
  found = result.densities.regions
  assert tuple(found) == lung_measures.DENSITY_REGIONS
  masks = _masks(volume, result)
  assert set(masks) == set(found) and masks['opacity'].any()
  for name, mask in masks.items():
    hu = volume.hu[mask].astype(np.float64)
    region = found[name]
    cm3 = volume.voxel_volume_mm3 / 1000
    assert region.volume_cm3 == pytest.approx(len(hu) * cm3, rel=1e-9), name
    assert region.mean_hu == pytest.approx(hu.mean(), rel=1e-9), name
    np.testing.assert_allclose(
      list(region.percentiles_hu.values()),
      np.percentile(hu, _SCHEMES.percentiles),
      rtol=1e-9,
    )
    glass = ((hu >= -700) & (hu < -300)).sum() * cm3
    assert region.bins_cm3['covid']['ground_glass'] == pytest.approx(glass, rel=1e-9)
  assert found['lungs'].volume_cm3 == result.lung_volume_cm3
  assert found['opacity'].volume_cm3 == pytest.approx(
    result.involved_lung_fraction * result.lung_volume_cm3
  )


def test_zones_of_a_study_by_its_map_and_by_its_density(volume, result):
  masks = _masks(volume, result)
  dense = (volume.hu >= -700) & (volume.hu < 100)
  for score, involved in (
    (result.zone_score, masks['opacity']),
    (result.zone_score_by_density, dense),
  ):
    for zone in lung_measures.ZONES:
      wanted = involved[masks[zone]].mean()
      assert score.shares[zone] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
      assert score.zones[zone] == (wanted > 0) + sum(
        wanted >= np.array((0.25, 0.5, 0.75))
      )
    assert score.total == sum(score.zones.values()) > 0
  # The lesion of the right base is the larger one.
  assert result.zone_score.shares['right_basal'] == max(
    result.zone_score.shares.values()
  )


def test_anatomy_not_indices_names_the_zones(volume, result):
  turned = dataclasses.replace(
    volume,
    hu=np.ascontiguousarray(volume.hu[:, :, ::-1]),
    affine=synthetic_case.axial_affine((12.0, 6.0, 6.0), volume.shape, (2,)),
  )
  mirrored = pipeline.analyze(turned, fake_models.FakeModels())
  for name in ('right', 'left', *lung_measures.ZONES):
    assert mirrored.densities.regions[name].volume_cm3 == pytest.approx(
      result.densities.regions[name].volume_cm3, rel=0.02
    )


@pytest.mark.parametrize(
  'involved, grade',
  [
    (0, 0),
    (1, 1),
    (249, 1),
    (250, 2),
    (499, 2),
    (500, 3),
    (749, 3),
    (750, 4),
    (1000, 4),
  ],
)
def test_grades_of_a_zone(involved, grade):
  voxels = dict.fromkeys(lung_measures.ZONES, (0, 1000))
  score = densities.zone_score(voxels | {'left_basal': (involved, 1000)})
  assert score.zones['left_basal'] == score.total == grade
  assert score.shares['left_basal'] == involved / 1000


def test_a_zone_without_lung_has_no_grade():
  voxels = dict.fromkeys(lung_measures.ZONES, (9, 9)) | {'left_apical': (0, 0)}
  score = densities.zone_score(voxels)
  assert score.zones['left_apical'] is None and score.shares['left_apical'] is None
  assert score.total == 20


def test_schemes_are_those_that_were_asked_for(volume):
  schemes = lung_measures.DensitySchemes(low_attenuation_hu=-870, percentiles=(50,))
  result = pipeline.analyze(volume, fake_models.FakeModels(), density_schemes=schemes)
  assert result.densities.schemes == schemes
  lungs = result.densities.regions['lungs']
  assert list(lungs.percentiles_hu) == [50]
  wanted = (volume.hu[result.lung_mask != 0] < -870).sum() * volume.voxel_volume_mm3
  assert lungs.low_attenuation_cm3 == pytest.approx(wanted / 1000, rel=1e-9)
