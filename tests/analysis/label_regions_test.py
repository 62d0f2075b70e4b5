import json

import fake_models
import numpy as np
import pytest
import synthetic_case

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf.analysis import label_regions
from covid_tf.analysis import pipeline

_SHAPE = (24, 42, 64)
_NAMES = dict(enumerate(lung_measures.LOBES, 1))


@pytest.fixture(name='volume', scope='module')
def _volume():
  affine = synthetic_case.axial_affine((12.0, 6.0, 6.0), _SHAPE)
  return synthetic_case.make_volume(affine, _SHAPE)


@pytest.fixture(name='labels', scope='module')
def _labels():
  """Five 'lobes', also beyond the lungs: blocks of columns and slices."""
  labels = np.zeros(_SHAPE, np.int32)
  right, left = (slice(None), slice(0, 32)), (slice(None), slice(32, 64))
  for label, (slices, side) in enumerate(
    [
      (slice(15, 24), right),
      (slice(11, 15), right),
      (slice(0, 11), right),
      (slice(13, 24), left),
      (slice(0, 13), left),
    ],
    1,
  ):
    labels[(slices, *side)] = label
  return labels


@pytest.fixture(name='plain', scope='module')
def _plain(volume):
  return pipeline.analyze(volume, fake_models.FakeModels())


@pytest.fixture(name='result', scope='module')
def _result(volume, labels):
  regions = label_regions.LabelMap(labels, _NAMES)
  return pipeline.analyze(volume, fake_models.FakeModels(), regions=regions)


def test_each_label_as_its_masked_voxels_have_it(volume, labels, result):
  heat = result.localization.to_volume().astype(np.float64)
  counted = (heat > np.float32(0.6)) & (result.lung_mask != 0)
  cm3 = volume.voxel_volume_mm3 / 1000
  assert list(result.label_regions.regions) == list(_NAMES.values())
  for label, name in _NAMES.items():
    found = result.label_regions.regions[name]
    inside = (labels == label) & (result.lung_mask != 0)
    assert found.label == label
    assert found.label_volume_cm3 == pytest.approx((labels == label).sum() * cm3)
    assert found.corona_score_in_lung_cm3 == pytest.approx(
      heat[counted & inside].sum() * cm3, rel=1e-9
    )
    assert found.involved_lung_fraction == pytest.approx(counted[inside].mean())
    assert found.densities.mean_hu == pytest.approx(volume.hu[inside].mean(), rel=1e-9)
    np.testing.assert_allclose(
      list(found.densities.percentiles_hu.values()),
      np.percentile(volume.hu[inside], result.densities.schemes.percentiles),
    )


def test_labels_that_fill_the_chest_add_up_to_the_lungs(result, plain):
  found = result.label_regions
  total = sum(region.corona_score_in_lung_cm3 for region in found.regions.values())
  assert total == pytest.approx(result.corona_score_in_lung_cm3, rel=1e-9)
  volume = sum(region.densities.volume_cm3 for region in found.regions.values())
  assert volume == pytest.approx(result.lung_volume_cm3)
  assert found.unlabelled_lung_cm3 == 0
  # Nothing else of the result moves.
  assert result.corona_score_cm3 == plain.corona_score_cm3
  assert result.densities == plain.densities and result.warnings == plain.warnings
  assert plain.label_regions is None and plain.lobe_score is None


def test_the_score_of_five_lobes(result):
  score = result.lobe_score
  for lobe in lung_measures.LOBES:
    share = result.label_regions.regions[lobe].involved_lung_fraction
    grade = (
      0 if not share else 1 + int(np.sum(share > np.array((0.05, 0.25, 0.5, 0.75))))
    )
    assert (score.lobes[lobe], score.shares[lobe]) == (grade, share)
  assert score.total == sum(score.lobes.values()) > 0


def _regions(shares, names=lung_measures.LOBES):
  empty = lung_measures.RegionDensity(1.0, -800.0, {}, {}, 0.0)
  return lung_measures.LabelRegions(
    '0' * 64,
    lung_measures.DensitySchemes(),
    0.0,
    {
      name: lung_measures.LabelRegion(label, 1.0, 0.0, share, empty)
      for label, (name, share) in enumerate(zip(names, shares), 1)
    },
  )


@pytest.mark.parametrize(
  'share, grade',
  [
    (0.0, 0),
    (1e-6, 1),
    (0.05, 1),
    (0.051, 2),
    (0.25, 2),
    (0.251, 3),
    (0.5, 3),
    (0.501, 4),
    (0.75, 4),
    (0.751, 5),
    (1.0, 5),
    (None, None),
  ],
)
def test_grades_of_a_lobe(share, grade):
  score = label_regions.lobe_score(_regions((share, 1.0, 0.0, 0.0, 0.0)))
  assert score.lobes['right_upper_lobe'] == grade
  assert score.total == (grade or 0) + 5


@pytest.mark.parametrize(
  'name, lobe',
  [
    ('lung_upper_lobe_left', 'left_upper_lobe'),
    ('lung_middle_lobe_right', 'right_middle_lobe'),
    ('Right Lower Lobe', 'right_lower_lobe'),
    ('upper lobe of the right lung', 'right_upper_lobe'),
    ('left-lower', 'left_lower_lobe'),
    ('RML', 'right_middle_lobe'),
    ('left_middle_lobe', None),
    ('left_upper_lobe_2', None),
    ('liver', None),
    ('left_lung', None),
  ],
)
def test_names_of_lobes(name, lobe):
  assert label_regions.lobe_of(name) == lobe


def test_four_lobes_have_no_score():
  assert label_regions.lobe_score(_regions((0.1,) * 4, lung_measures.LOBES[:4])) is None


def test_other_regions_beside_five_lobes():
  names = ('RUL', 'RML', 'heart', 'RLL', 'LUL', 'LLL')
  assert label_regions.lobe_score(_regions((0.1,) * 6, names)).total == 10


def test_only_named_labels_are_measured_and_without_names_all(volume, labels):
  models = fake_models.FakeModels()
  some = pipeline.analyze(
    volume, models, regions=label_regions.LabelMap(labels, {3: 'base', 1: 'top'})
  ).label_regions
  assert list(some.regions) == ['base', 'top'] and some.unlabelled_lung_cm3 > 0
  every = pipeline.analyze(
    volume, models, regions=label_regions.LabelMap(labels)
  ).label_regions
  assert list(every.regions) == [f'label_{label}' for label in range(1, 6)]
  assert every.regions['label_3'] == some.regions['base']
  assert every.labels_sha256 == some.labels_sha256


def test_a_region_without_lung_is_named_and_lobes_that_leave_lung_out(volume, labels):
  few = np.where(labels == 4, 0, labels)
  few[0, 0, 0] = 4
  result = pipeline.analyze(
    volume, fake_models.FakeModels(), regions=label_regions.LabelMap(few, _NAMES)
  )
  region = result.label_regions.regions['left_upper_lobe']
  assert region.involved_lung_fraction is None and region.densities.mean_hu is None
  assert result.lobe_score.lobes['left_upper_lobe'] is None
  assert any('cover no lung: left_upper_lobe.' in text for text in result.warnings)
  assert any('none of the five lobes' in text for text in result.warnings)


def test_a_map_that_covers_no_lung_is_refused(volume, labels):
  outside = np.zeros_like(labels)
  outside[:, 0, 0] = 1
  with pytest.raises(errors.UsageError, match='covers lung'):
    pipeline.analyze(
      volume, fake_models.FakeModels(), regions=label_regions.LabelMap(outside)
    )


@pytest.mark.parametrize(
  'change, said',
  [
    (lambda labels: labels, 'covid_tf.LabelMap is required'),
    (lambda labels: label_regions.LabelMap(labels[1:]), 'shape of the CT'),
    (lambda labels: label_regions.LabelMap(labels * 0), 'empty'),
    (lambda labels: label_regions.LabelMap(labels / 2), 'whole numbers'),
    (lambda labels: label_regions.LabelMap(labels - 2), 'from 0 to 65535'),
    (lambda labels: label_regions.LabelMap(labels, {9: 'x'}), r'1, 2, .*found 9'),
    (lambda labels: label_regions.LabelMap(labels, {}), 'region names'),
    (lambda labels: label_regions.LabelMap(labels, {1: 'x', 2: 'X'}), '1 and 2'),
    (lambda labels: label_regions.LabelMap(labels, {0: 'x'}), 'label'),
    (lambda labels: label_regions.LabelMap(labels, {1: ' '}), 'blank'),
    (
      lambda labels: label_regions.LabelMap(
        np.arange(labels.size).reshape(labels.shape) % 300
      ),
      'at most 200',
    ),
  ],
)
def test_maps_and_names_that_cannot_be_meant(volume, labels, change, said):
  with pytest.raises(errors.UsageError, match=said):
    label_regions.checked(volume, change(labels))


def test_names_as_people_state_them(tmp_path):
  wanted = {1: 'left upper', 12: 'right'}
  table = tmp_path / 'names.csv'
  table.write_text('label;name\n1;left upper\n12;right\n')
  by_label, by_name = tmp_path / 'a.json', tmp_path / 'b.json'
  by_label.write_text(json.dumps({'1': 'left upper', '12': 'right'}))
  by_name.write_text(json.dumps({'left upper': 1, 'right': 12}))
  for stated in (
    table,
    by_label,
    by_name,
    '1=left upper, 12=right',
    '1=left upper,12=right,',
  ):
    assert label_regions.read_names(stated) == wanted
  by_name.write_text('\ufeff{"background": 0, "left upper": 1, "right": 12}', 'utf-8')
  assert label_regions.read_names(by_name) == wanted


def test_many_names_in_a_flag_are_no_file_name():
  wanted = {label: f'lung_upper_lobe_{label}' for label in range(1, 100)}
  text = ','.join(f'{label}={name}' for label, name in wanted.items())
  assert label_regions.read_names(text) == wanted


@pytest.mark.parametrize(
  'text, said',
  [
    ('1=a,1=b', 'label 1 twice'),
    ('1=a,2=A', 'for the labels 1 and 2'),
    ('x=a', "label 'x'"),
    ('0=a', "label '0'"),
    ('70000000=a', "label '70000000'"),
    ('1=', 'blank'),
    ('=', 'label'),
    ('missing.csv', 'missing.csv'),
    ('missing.json', 'missing.json'),
  ],
)
def test_names_that_are_none_are_refused(text, said):
  with pytest.raises(errors.UsageError, match=said):
    label_regions.read_names(text)


@pytest.mark.parametrize(
  'text',
  ['', '[]', '{}', '[["a", 1]]', '{"1": null}', '{"1": {"a": 2}}', '{"1": true}'],
)
def test_json_of_other_kinds_is_refused(tmp_path, text):
  path = tmp_path / 'names.json'
  path.write_text(text)
  with pytest.raises(errors.UsageError, match='names.json'):
    label_regions.read_names(path)


def test_labels_of_any_whole_kind(volume, labels):
  for dtype in (np.uint8, np.int64, np.uint16):
    found = label_regions.checked(
      volume, label_regions.LabelMap(labels.astype(dtype), _NAMES)
    )
    assert found.labels.dtype == np.uint16
