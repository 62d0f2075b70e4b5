import dataclasses
import gzip
import hashlib
import json
import shutil

import fake_models
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import nibabel as nib
import numpy as np
import pytest
import synthetic_case

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import label_regions
from covid_tf.analysis import pipeline
from covid_tf.analysis import rescoring
from covid_tf.storage import maps
from covid_tf.storage import result_json

_SHAPE = (24, 42, 64)
# What is bound to the result's file, not to its numbers.
_OTHERS = {'edits', 'localization', 'stored_grid'}


def _volume(spacing_mm=12.0, slices=24, reverse=(), **fields):
  shape = (slices, *_SHAPE[1:])
  affine = synthetic_case.axial_affine((spacing_mm, 6.0, 6.0), shape, reverse)
  volume = synthetic_case.make_volume(affine, shape, **fields)
  moved = volume.affine.copy()
  moved[:3, 3] += (0.1, -733.3, 1e3 / 3)  # No round numbers, as scanners have it.
  return dataclasses.replace(volume, affine=moved)


def _write(folder, result):
  folder.mkdir()
  maps.write_lung_mask(folder / maps.MASK_NAME, result)
  maps.write_localization(folder / maps.MAP_NAME, result)
  result_json.write_result(folder / result_json.FILE_NAME, result)
  return folder


def _analyzed(volume, **options):
  return pipeline.analyze(volume, fake_models.FakeModels(), progress=False, **options)


@pytest.fixture(name='volume', scope='module')
def _thick():
  return _volume(warnings=('an oddity of the files',))


@pytest.fixture(name='result', scope='module')
def _result(volume):
  return _analyzed(
    volume,
    thresholds=results.Thresholds(case_corona_score_cm3=10.0),
  )


@pytest.fixture(name='folder', scope='module')
def _folder(result, tmp_path_factory):
  return _write(tmp_path_factory.mktemp('scored') / 'result', result)


def _same_bits(one, other, but=()):
  for field in dataclasses.fields(results.CaseResult):
    if field.name in _OTHERS | set(but):
      continue
    first, second = getattr(one, field.name), getattr(other, field.name)
    if isinstance(first, np.ndarray):
      assert first.dtype == second.dtype, field.name
      np.testing.assert_array_equal(first, second, field.name)
    else:
      assert first == second, field.name
  np.testing.assert_array_equal(
    one.localization.to_volume(), other.localization.to_volume()
  )


@pytest.mark.parametrize(
  'spacing_mm, slices, reverse', [(12.0, 24, ()), (2.0, 140, ()), (4.0, 70, (1, 2))]
)
def test_an_unedited_result_keeps_its_bits(tmp_path, spacing_mm, slices, reverse):
  volume = _volume(spacing_mm, slices, reverse, warnings=('an oddity',))
  result = dataclasses.replace(
    _analyzed(volume), patient_key='ab' * 32, warnings=('an oddity', 'another')
  )
  folder = _write(tmp_path / 'result', result)
  before = {path.name: path.read_bytes() for path in folder.iterdir()}
  again = rescoring.rescore(folder, volume)
  _same_bits(result, again)
  sha256 = hashlib.sha256(before['result.json']).hexdigest()
  assert again.edits == results.Edits(rescored_from_sha256=sha256)
  assert not again.edits.kinds
  assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
  # And once more, from what was scored again.
  _same_bits(result, rescoring.rescore(_write(tmp_path / 'again', again), volume))


def test_the_result_json_gives_the_folder(folder, volume, result):
  _same_bits(result, rescoring.rescore(folder / 'result.json', volume))


@settings(max_examples=8, deadline=None)
@given(
  slice_threshold=st.floats(0.5, 0.99),
  map_threshold=st.floats(0, 0.99),
  excluded=st.sets(st.integers(0, 23), max_size=12),
)
def test_it_is_what_scoring_so_at_once_gives(
  volume, folder, slice_threshold, map_threshold, excluded
):
  thresholds = results.Thresholds(slice_threshold, map_threshold, 10.0)
  expected = _analyzed(volume, thresholds=thresholds, exclude_slices=excluded)
  found = rescoring.rescore(
    folder,
    volume,
    slice_threshold=slice_threshold,
    map_threshold=map_threshold,
    exclude_slices=excluded,
  )
  _same_bits(expected, found)
  before = {'slice_probability': 0.5, 'map': 0.6}
  now = {'slice_probability': slice_threshold, 'map': map_threshold}
  assert found.edits.thresholds_before == {
    name: value for name, value in before.items() if now[name] != value
  }
  assert found.edits.excluded_slices == tuple(sorted(excluded))


def test_another_mask_moves_what_is_inside_and_keeps_the_box(folder, volume, result):
  mask = result.lung_mask.copy()
  mask[:, :, _SHAPE[2] // 2 :] = 0
  found = rescoring.rescore(folder, volume, lung_mask=mask)
  assert found.lung_box == result.lung_box
  assert found.corona_score_cm3 == result.corona_score_cm3  # Eq. 1 knows no mask.
  inside = result.localization.to_volume().astype(np.float64) * mask
  inside = inside[inside > np.float32(0.6)].sum() * volume.voxel_volume_mm3 / 1000
  assert found.corona_score_in_lung_cm3 == pytest.approx(inside, rel=1e-9)
  assert found.lung_volume_cm3 == pytest.approx(
    mask.sum() * volume.voxel_volume_mm3 / 1000
  )
  assert found.edits.lung_mask_sha256 == hashlib.sha256(mask.tobytes()).hexdigest()
  assert found.edits.kinds == ('lung mask given',)


def test_the_same_mask_again_is_no_edit(folder, volume, result):
  found = rescoring.rescore(folder, volume, lung_mask=result.lung_mask)
  assert not found.edits.kinds
  _same_bits(result, found)


def test_lung_outside_the_box_is_warned_of_by_the_mask_of_now(folder, volume, result):
  box = result.lung_box
  mask = result.lung_mask.copy()
  mask[8:16, box.row0 - 3 : box.row0, box.columns] = 1
  found = rescoring.rescore(folder, volume, lung_mask=mask)
  assert found.lung_outside_box_fraction > 0.02
  assert found.warnings[0] == 'an oddity of the files'
  assert 'of the lung lies outside' in found.warnings[1]
  # Taken back, the warning goes too.
  edited = _write(folder.parent / 'edited', found)
  back = rescoring.rescore(edited, volume, lung_mask=result.lung_mask)
  assert back.warnings == ('an oddity of the files',)


def test_one_lung_is_warned_of_by_the_mask_of_now(folder, volume, result):
  mask = result.lung_mask.copy()
  mask[:, :, : _SHAPE[2] // 2] = 0
  found = rescoring.rescore(folder, volume, lung_mask=mask)
  (text,) = set(found.warnings) - set(result.warnings)
  assert text.startswith('Nearly all lung') and found.warnings[-1] == text


def test_edits_add_up(folder, volume, result, tmp_path):
  first = rescoring.rescore(
    folder, volume, exclude_slices=[3], map_threshold=0.7, case_threshold_cm3=1.0
  )
  assert first.case_detected is True
  second = rescoring.rescore(
    _write(tmp_path / 'first', first), volume, exclude_slices=[12], map_threshold=0.6
  )
  assert second.edits.excluded_slices == (3, 12)
  assert second.edits.thresholds_before == {'case_corona_score_cm3': 10.0}
  assert second.edits.kinds == ('slices excluded',)
  assert second.edits.rescored_from_sha256 != first.edits.rescored_from_sha256
  unchanged = rescoring.rescore(_write(tmp_path / 'second', second), volume)
  _same_bits(second, unchanged)
  assert unchanged.edits.excluded_slices == (3, 12)


@pytest.mark.parametrize(
  'options, words',
  [
    ({'slice_threshold': 0.4}, 'slice threshold: 0.5 or more.*score the study again'),
    ({'slice_threshold': 1.0}, r'slice_probability must be in \[0, 1\)'),
    ({'map_threshold': float('nan')}, r'map must be in \[0, 1\)'),
    ({'map_threshold': 'high'}, 'thresholds: '),
    ({'case_threshold_cm3': -1.0}, 'case_corona_score_cm3'),
    ({'exclude_slices': [24]}, '0 to 23'),
    ({'exclude_slices': range(1, 24)}, 'slice with lung must be left'),
    ({'lung_mask': np.zeros(_SHAPE, np.uint8)}, 'empty mask'),
  ],
)
def test_corrections_that_cannot_be_made_are_refused(folder, volume, options, words):
  with pytest.raises(errors.UsageError, match=words):
    rescoring.rescore(folder, volume, **options)


def test_another_study_is_refused(folder, volume):
  moved = volume.affine.copy()
  moved[2, 3] += 0.01
  lesions = (((92, 30, 10), (18, 18, 16)),)
  for other, words in (
    (dataclasses.replace(volume, series_uid='1.2.3'), 'found one of another series'),
    (dataclasses.replace(volume, affine=moved), 'in the place and the order'),
    (_volume(slices=23), 'found one of another series'),
    (
      dataclasses.replace(volume, hu=_volume(lesions=lesions).hu),
      'result.json: .*found one of other voxels',
    ),
  ):
    with pytest.raises(errors.UsageError, match=words):
      rescoring.rescore(folder, other)


def test_results_of_before_digests_were_stored_are_scored_again(
  folder, volume, result, tmp_path
):
  old = shutil.copytree(folder, tmp_path / 'old')
  content = json.loads((old / 'result.json').read_text())
  del content['edits'], content['hu_sha256']
  content['schema_version'] = 2
  (old / 'result.json').write_text(json.dumps(content))
  _same_bits(result, rescoring.rescore(old, volume))


def test_a_path_is_no_ct(folder):
  with pytest.raises(errors.UsageError, match='CTVolume is required, found str'):
    rescoring.rescore(folder, 'study/')


def test_a_map_that_was_changed_is_refused(folder, volume, tmp_path):
  damaged = shutil.copytree(folder, tmp_path / 'damaged')
  path = damaged / maps.MAP_NAME
  image = nib.load(path)
  nib.save(nib.Nifti1Image(image.get_fdata() * 0.9, image.affine, image.header), path)
  with pytest.raises(errors.UsageError, match='localization.nii.gz: the map of result'):
    rescoring.rescore(damaged, volume)
  path.write_bytes(gzip.compress(b''))
  with pytest.raises(errors.UsageError, match='localization.nii.gz: '):
    rescoring.rescore(damaged, volume)
  path.unlink()
  with pytest.raises(errors.UsageError, match='localization.nii.gz: '):
    rescoring.rescore(damaged, volume)


def test_a_mask_that_was_edited_in_its_place_must_be_given(
  folder, volume, result, tmp_path
):
  edited = shutil.copytree(folder, tmp_path / 'edited')
  mask = result.lung_mask.copy()
  mask[10:12] = 0
  maps.write_lung_mask(
    edited / maps.MASK_NAME, dataclasses.replace(result, lung_mask=mask)
  )
  with pytest.raises(errors.UsageError, match='--lung-mask'):
    rescoring.rescore(edited, volume)
  found = rescoring.rescore(edited, volume, lung_mask=mask)
  assert found.edits.kinds == ('lung mask given',)
  np.testing.assert_array_equal(found.lung_mask, mask)


@settings(max_examples=6, deadline=None)
@given(
  spacing=st.sampled_from([(1.0, 280), (2.0, 140), (2.4, 117)]),
  slice_threshold=st.floats(0.5, 0.95),
  excluded=st.sets(st.integers(0, 116), max_size=40),
)
def test_a_raised_threshold_on_averaged_slices_is_exact(
  tmp_path_factory, spacing, slice_threshold, excluded
):
  volume = _volume(*spacing)
  thresholds = results.Thresholds(slice_threshold)
  expected = _analyzed(volume, thresholds=thresholds, exclude_slices=excluded)
  folder = _write(tmp_path_factory.mktemp('raised') / 'result', _analyzed(volume))
  found = rescoring.rescore(
    folder, volume, slice_threshold=slice_threshold, exclude_slices=excluded
  )
  _same_bits(expected, found)


def test_where_it_cannot_be_exact_a_raised_threshold_is_warned_of(tmp_path):
  volume = _volume(3.6, 78)  # Slabs of 1.4 slices: not each has a slice of its own.
  result = _analyzed(volume)
  folder = _write(tmp_path / 'result', result)
  highest = float(np.sort(result.slice_probability)[-8])
  found = rescoring.rescore(folder, volume, slice_threshold=highest)
  assert found.warnings and 'slice threshold was raised' in found.warnings[-1]
  assert not rescoring.rescore(folder, volume, map_threshold=0.8).warnings


def test_voxels_of_the_ct_alone_make_its_digest(volume):
  flipped = volume_lib.CTVolume(np.asfortranarray(volume.hu), volume.affine)
  expected = hashlib.sha256(volume.hu.astype('<i2').tobytes()).hexdigest()
  assert _analyzed(flipped).hu_sha256 == expected


def test_regions_stay_where_nothing_moves_them_and_are_measured_again(volume, tmp_path):
  labels = np.ones(volume.shape, np.uint8)
  labels[:, :, 32:] = 2
  regions = label_regions.LabelMap(labels, {1: 'one', 2: 'other'})
  result = _analyzed(volume, regions=regions)
  folder = _write(tmp_path / 'with', result)
  _same_bits(result, rescoring.rescore(folder, volume))
  _same_bits(result, rescoring.rescore(folder, volume, regions=regions))
  found = rescoring.rescore(folder, volume, map_threshold=0.7)
  assert found.label_regions is None
  assert any('--regions' in text for text in found.warnings)
  found = rescoring.rescore(folder, volume, map_threshold=0.7, regions=regions)
  assert not any('--regions' in text for text in found.warnings)
  assert (
    found.label_regions.regions['one'].corona_score_in_lung_cm3
    < result.label_regions.regions['one'].corona_score_in_lung_cm3
  )


def test_densities_are_of_the_given_mask_by_the_schemes_of_the_result(volume, tmp_path):
  schemes = lung_measures.DensitySchemes(low_attenuation_hu=-870)
  result = _analyzed(volume, density_schemes=schemes)
  mask = result.lung_mask.copy()
  mask[:, :, :32] = 0  # The patient's left lung alone.
  folder = _write(tmp_path / 'with', result)
  found = rescoring.rescore(folder, volume, lung_mask=mask)
  assert found.densities.schemes == schemes
  assert found.densities.regions['lungs'].mean_hu == pytest.approx(
    volume.hu[mask != 0].mean(), rel=1e-9
  )
