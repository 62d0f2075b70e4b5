import dataclasses

import fake_features
import nibabel
import numpy as np
import pytest

from covid_tf import errors
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import pipeline
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.cohort.manifestations import clusters
from covid_tf.cohort.manifestations import features
from covid_tf.cohort.manifestations import kinds
from covid_tf.cohort.manifestations import slices as slices_lib
from covid_tf.reports import scored_study


@pytest.fixture(scope='module')
def models():
  return fake_features.LinearModels()


@pytest.fixture(scope='module')
def focal(models):
  volume = fake_features.make_study('focal', 1)
  return volume, pipeline.analyze(volume, models)


def test_positive_slices_of_the_ill_and_clear_ones_of_the_others(models, focal):
  volume, case = focal
  study = slices_lib.from_case(case)
  assert study.positive_slices
  assert slices_lib.choose_slices(study, 5, None) == study.positive_slices
  assert slices_lib.choose_slices(study, 5, True) == study.positive_slices
  clear = slices_lib.choose_slices(study, 5, False)
  assert len(clear) == 5 and not set(clear) & set(study.positive_slices)
  assert all(case.lung_mask[index].any() for index in clear)
  healthy = slices_lib.from_case(
    pipeline.analyze(fake_features.make_study('none', 2), models)
  )
  assert not healthy.positive_slices
  assert slices_lib.choose_slices(healthy, 0, None) == ()
  assert slices_lib.choose_slices(healthy, 5, True) == ()


def test_excluded_slices_are_neither_positive_nor_negative(models, focal):
  volume, case = focal
  clear = slices_lib.choose_slices(slices_lib.from_case(case), 99, False)
  excluded = (clear[0], case.positive_slices[0])
  edited = pipeline.analyze(volume, models, exclude_slices=excluded, progress=False)
  study = slices_lib.from_case(edited)
  assert slices_lib.choose_slices(study, 99, False) == clear[1:]
  assert slices_lib.choose_slices(study, 99, True) == case.positive_slices[1:]


def test_described_slices(models, focal):
  volume, case = focal
  study = slices_lib.from_case(case)
  chosen = (*study.positive_slices, 0)
  found = slices_lib.describe(volume, study, chosen, models)
  box = case.lung_box
  asked = models.features(
    np.ascontiguousarray(volume.hu[list(chosen), box.rows, box.columns])
  )
  np.testing.assert_array_equal(found.features, asked.features)
  np.testing.assert_array_equal(found.gradients, asked.gradients)
  np.testing.assert_array_equal(found.positive, [True] * (len(chosen) - 1) + [False])
  np.testing.assert_array_equal(found.erased_features[-1], found.features[-1])
  # A negative slice has no map, so nothing of it is involved or shown.
  assert found.involved_fraction[-1] == 0 and not found.maps[-1].any()
  assert (found.involved_fraction[:-1] > 0).all()
  assert found.maps[:-1].max() > 150
  assert found.pictures.dtype == np.uint8 and max(found.pictures.shape[1:]) == 128


def test_erasing_takes_the_opacity_and_leaves_the_rest(models, focal):
  volume, case = focal
  worst = max(case.positive_slices, key=lambda i: case.corona_score_by_slice_cm3[i])
  box = case.lung_box
  crop = volume.hu[[worst], box.rows, box.columns]
  map_ = case.localization.slice_map(worst)[np.newaxis, box.rows, box.columns]
  lungs = case.lung_mask[[worst], box.rows, box.columns] > 0
  erased = slices_lib.erase(crop, map_, lungs, 0.6, -850)
  assert erased.dtype == np.int16
  hot = (map_ > 0.6) & lungs
  assert hot.any() and (erased[hot] == -850).all()
  untouched = ~lungs | (map_ == 0)
  np.testing.assert_array_equal(erased[untouched], crop[untouched])
  between = erased[(map_ > 0) & lungs]
  assert between.min() >= min(crop.min(), -850) and between.max() <= crop.max()
  before, after = (
    models.grad_cam(image).covid_probability[0] for image in (crop, erased)
  )
  assert after < 0.6 * before


def test_a_study_without_slices_is_described_as_none(models, focal):
  volume, case = focal
  found = slices_lib.describe(volume, slices_lib.from_case(case), (), models)
  assert found.features.shape == (0, 2048) and len(found.pictures) == 0


def test_a_stored_result_gives_the_same_slices(tmp_path, models, focal):
  volume, case = focal
  scored_study.write_all(tmp_path, case, volume, demo_models=False)
  stored = slices_lib.read_study(tmp_path / 'result.json', volume)
  fresh = slices_lib.from_case(case)
  one = slices_lib.describe(volume, stored, fresh.positive_slices, models)
  other = slices_lib.describe(volume, fresh, fresh.positive_slices, models)
  np.testing.assert_array_equal(one.erased_features, other.erased_features)
  np.testing.assert_array_equal(one.involved_fraction, other.involved_fraction)
  assert stored.models == fresh.models
  other_volume = fake_features.make_study('focal', 3)
  with pytest.raises(errors.UsageError, match='another series'):
    slices_lib.read_study(tmp_path / 'result.json', other_volume)
  map_path = tmp_path / 'localization.nii.gz'
  map_path.write_bytes(map_path.read_bytes()[:500])
  with pytest.raises(errors.UsageError, match='localization.nii.gz.*score the study'):
    slices_lib.read_study(tmp_path / 'result.json', volume)


def test_store_keeps_studies_and_knows_damaged_ones(tmp_path, models, focal):
  volume, case = focal
  study = slices_lib.from_case(case)
  slices = slices_lib.describe(volume, study, study.positive_slices, models)
  store = features.FeatureStore(tmp_path / 'features', {'models': {'a': '1'}})
  assert not store.holds('study')
  store.put('study', slices)
  assert store.holds('study')
  back = store.get('study')
  assert back.study_uid == slices.study_uid
  np.testing.assert_array_equal(back.features, slices.features)
  np.testing.assert_array_equal(back.maps, slices.maps)
  other = features.FeatureStore(tmp_path / 'features', {'models': {'a': '2'}})
  assert not other.holds('study')
  with pytest.raises(errors.UsageError, match='another configuration'):
    other.get('study')
  path = store.path('study')
  path.write_bytes(path.read_bytes()[:-200])
  assert not store.holds('study')


def _read(labels, positive, involved):
  """(reading order, names in that order)."""
  found = clusters.Clustering(labels, np.arange(3.0)[:, np.newaxis], 1.0, 1.0)
  order = kinds.reading_order(labels, 3, positive, involved)
  found = found.renumbered(order)
  assert found.centres[:, 0].tolist() == order
  for new, old in enumerate(order):
    np.testing.assert_array_equal(found.labels == new, labels == old)
  return order, kinds.name_clusters(found.labels, 3, positive)


def test_clusters_are_ordered_and_named_by_what_they_show():
  labels = np.repeat([0, 1, 2], 10).astype(np.int32)
  positive = np.repeat([True, False, True], 10)
  involved = np.repeat([0.4, 0.0, 0.1], 10)
  names = ('normal', 'focal', 'diffuse')
  assert _read(labels, positive, involved) == ([1, 2, 0], names)
  assert _read(labels, positive, involved[::-1]) == ([1, 0, 2], names)
  assert _read(labels, np.ones(30, bool), involved) == (
    [1, 2, 0],
    ('ill 1', 'ill 2', 'ill 3'),
  )


def test_a_cluster_of_as_many_positive_as_negative_slices_is_mixed():
  labels = np.repeat([0, 1, 2], 18).astype(np.int32)
  positive = np.arange(54) % 18 < np.repeat([9, 17, 1], 18)
  involved = np.repeat([0.5, 0.2, 0.0], 18)
  assert _read(labels, positive, involved) == ([2, 0, 1], ('normal', 'mixed', 'ill'))


def test_key_slices_are_nearest_and_of_different_studies_where_equal():
  distances = np.array([[0.0, 9], [0.0, 9], [0.0, 9], [3.0, 9], [9.0, 1], [9.0, 0.5]])
  labels = np.array([0, 0, 0, 0, 1, 1])
  study = np.array([0, 0, 1, 1, 1, 1])
  near, other = kinds.key_slices(distances, labels, study, 3)
  assert near.tolist() == [0, 2, 1]
  assert other.tolist() == [5, 4]


def _thin(volume, times=8):
  """The study with every slice as `times` thin ones."""
  affine = volume.affine.copy()
  affine[:3, 3] -= affine[:3, 0] * (times - 1) / (2 * times)
  affine[:3, 0] /= times
  return volume_lib.CTVolume(volume.hu.repeat(times, axis=0), affine)


def test_thin_slices_enter_once_for_each_slab_and_as_its_average(models, focal):
  volume = _thin(focal[0])
  case = pipeline.analyze(volume, models)
  study = slices_lib.from_case(case)
  assert study.slabs.is_averaged
  chosen = slices_lib.choose_slices(study, 5, None)
  middles = study.slabs.middles(slice(None))
  assert set(chosen) == set(middles) & set(case.positive_slices)
  assert len(chosen) < len(case.positive_slices) / 2
  clear = slices_lib.choose_slices(study, 5, False)
  assert set(clear) <= set(middles) and len(clear) == 5
  found = slices_lib.describe(volume, study, chosen, models)
  box = case.lung_box
  averages = study.slabs.average(volume.hu[:, box.rows, box.columns], slice(None))
  wanted = models.features(averages[[middles.index(index) for index in chosen]])
  np.testing.assert_array_equal(found.features, wanted.features)


def _save(volume, path):
  affine = volume_lib.LPS_RAS @ volume.affine[:, [2, 1, 0, 3]]
  nibabel.save(nibabel.Nifti1Image(volume.hu.T, affine), path)


def test_slices_are_described_again_for_another_thickness(models, focal, tmp_path):
  _save(_thin(focal[0]), tmp_path / 'thin.nii')

  def described(**thickness):
    options = features.DescribeOptions(
      thresholds=results.Thresholds(**{'smoothing_mm': 0} | thickness)
    )
    found = features.describe_studies(
      {'thin': tmp_path / 'thin.nii'},
      tmp_path / 'store',
      models,
      options,
      progress=False,
    )
    return len(found.store.get(found.sources[0]).slice_index)

  by_slab = described()
  calls = models.feature_calls
  assert described(thickness_mm=5.0) == by_slab and models.feature_calls == calls
  unsmoothed = pipeline.analyze(
    focal[0], models, thresholds=results.Thresholds(smoothing_mm=0)
  )
  every = 8 * len(unsmoothed.positive_slices)
  assert described(every_slice=True) == every > by_slab
  assert models.feature_calls > calls
  calls = models.feature_calls
  assert described(smoothing_mm=9) and models.feature_calls > calls


def test_a_stored_result_at_another_thickness_is_refused(models, focal, tmp_path):
  thin = _thin(focal[0])
  scored_study.write_all(
    tmp_path / 'old',
    pipeline.analyze(thin, models, thresholds=results.Thresholds(every_slice=True)),
    thin,
    demo_models=False,
  )
  stored = slices_lib.read_study(tmp_path / 'old' / 'result.json', thin)
  assert stored.slabs == slabs_lib.Slabs(thin.shape[0], thin.shape[0], 13.0 / 8)
  _save(thin, tmp_path / 'thin.nii')
  options = features.DescribeOptions(
    result_paths={'thin': tmp_path / 'old' / 'result.json'}
  )
  with pytest.raises(
    errors.UsageError,
    match=r'\(slabs of 5 mm\) is required, .* as it is; .* give --every-slice',
  ):
    features.describe_studies(
      {'thin': tmp_path / 'thin.nii'},
      tmp_path / 'store',
      models,
      options,
      progress=False,
    )
  options = dataclasses.replace(
    options, thresholds=results.Thresholds(every_slice=True, smoothing_mm=6)
  )
  with pytest.raises(
    errors.UsageError, match=r'\(6 mm .*found one of 0 mm; .* give --smoothing-mm 0'
  ):
    features.describe_studies(
      {'thin': tmp_path / 'thin.nii'},
      tmp_path / 'store',
      models,
      options,
      progress=False,
    )
