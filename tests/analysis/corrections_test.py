import hashlib

import fake_models
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
import synthetic_case

from covid_tf import errors
from covid_tf import results
from covid_tf.analysis import corrections
from covid_tf.analysis import pipeline

_SHAPE = (24, 42, 64)


@pytest.fixture(name='volume', scope='module')
def _volume():
  affine = synthetic_case.axial_affine((12.0, 6.0, 6.0), _SHAPE)
  return synthetic_case.make_volume(affine, _SHAPE)


@pytest.fixture(name='result', scope='module')
def _result(volume):
  return pipeline.analyze(volume, fake_models.FakeModels(), progress=False)


def _analyze(volume, **corrected):
  models = fake_models.FakeModels()
  return pipeline.analyze(volume, models, progress=False, **corrected), models


@pytest.mark.parametrize('dtype', [np.uint8, bool, np.int64, np.float32])
def test_the_networks_own_mask_gives_the_networks_numbers(volume, result, dtype):
  given_mask = result.lung_mask.astype(dtype)
  found, models = _analyze(volume, lung_mask=given_mask)
  assert not models.lung_calls  # The lung network is not asked.
  assert found.corona_score_by_slice_cm3.tolist() == (
    result.corona_score_by_slice_cm3.tolist()
  )
  assert found.corona_score_by_region_cm3 == result.corona_score_by_region_cm3
  assert found.lung_volume_cm3 == result.lung_volume_cm3
  assert found.lung_box == result.lung_box and found.models == result.models
  assert found.edits == results.Edits(
    hashlib.sha256(result.lung_mask.tobytes()).hexdigest()
  )
  assert result.edits is None
  given_mask[:] = 0  # The result keeps voxels of its own.
  assert found.lung_mask.any()


def test_no_piece_of_a_given_mask_is_dropped_and_the_box_follows(volume, result):
  mask = result.lung_mask.copy()
  mask[:, :, : _SHAPE[2] // 2] = 0  # One lung, and a knob far below it.
  mask[0, 1:3, 1:4] = 1
  found, models = _analyze(volume, lung_mask=mask)
  np.testing.assert_array_equal(found.lung_mask, mask)
  assert found.lung_box.column0 > result.lung_box.column0
  assert {shape[1:] for shape in models.crops} == {found.lung_box.shape}
  assert (
    found.corona_score_by_region_cm3['right']
    < (result.corona_score_by_region_cm3['right'])
  )


def test_excluded_slices_are_negative_and_their_lung_stays(volume, result):
  first, second = result.positive_slices[:2]
  found, _ = _analyze(volume, exclude_slices=[second, np.int64(first), 0, first])
  assert found.positive_slices == result.positive_slices[2:]
  assert found.localization.slices == found.positive_slices
  expected = result.corona_score_by_slice_cm3.copy()
  expected[[first, second]] = 0
  np.testing.assert_array_equal(found.corona_score_by_slice_cm3, expected)
  np.testing.assert_array_equal(found.slice_probability, result.slice_probability)
  assert found.lung_volume_cm3 == result.lung_volume_cm3
  assert found.involved_lung_fraction < result.involved_lung_fraction
  assert found.edits == results.Edits(excluded_slices=(0, first, second))


@given(st.sets(st.integers(0, 40)))
def test_slices_in_words_name_each_slice_once(slices):
  text = results.slices_in_words(sorted(slices))
  found = []
  for part in text.split(', ') if text else ():
    first, _, last = part.partition('-')
    found += range(int(first), int(last or first) + 1)
  assert found == sorted(slices)


@pytest.mark.parametrize(
  'slices, words',
  [
    ([24], '0 to 23 are required.*24 slices of this study, found 24;'),
    ([-1, 3], 'found -1;'),
    ([10**12], 'found 1000000000000;'),
    (range(24), 'all 24 excluded'),
    ([1.5], 'whole numbers'),
    ('3-7', "whole numbers.*found '3-7'"),
    (7, 'whole numbers'),
    ([None], 'whole numbers'),
  ],
)
def test_slices_that_do_not_exist_are_refused(volume, slices, words):
  with pytest.raises(errors.UsageError, match=words):
    _analyze(volume, exclude_slices=slices)


def test_every_slice_with_lung_excluded_leaves_nothing_to_score(volume, result):
  with_lung = np.flatnonzero(result.lung_mask.any(axis=(1, 2)))
  assert 0 not in with_lung
  with pytest.raises(errors.UsageError, match='slice with lung must be left'):
    _analyze(volume, exclude_slices=with_lung)
  with pytest.raises(errors.UsageError, match='slice with lung must be left'):
    _analyze(volume, lung_mask=result.lung_mask, exclude_slices=with_lung)


def _shifted(mask):
  """The lungs, moved out of the body."""
  return np.roll(mask, _SHAPE[1] // 2, axis=1)


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda mask: mask[1:], r'the shape of the CT is required, \(24, 42, 64\)'),
    (lambda mask: mask * 255, 'found 0, 255; make one label'),
    (lambda mask: mask + mask[::-1], 'found 0, 1, 2; '),
    (lambda mask: mask * np.float32(0.7), 'found 0, 0.7; '),
    (lambda mask: np.random.default_rng(0).random(mask.shape), 'values from'),
    (lambda mask: np.where(mask, 1, np.nan), 'found 0, nan|found 1, nan'),
    (lambda mask: mask * 0, 'found an empty mask'),
    (lambda mask: mask * (np.arange(24) == 3)[:, None, None], r'found \d+ cm³'),
    (lambda mask: 1 - mask, r'200 to 15000 cm³ of lung are required, found 2\d{4} cm³'),
    (lambda mask: mask.tolist(), 'numpy array of 0 and 1 is required, found list'),
    (lambda mask: mask.astype(str), 'numpy array of 0 and 1'),
  ],
)
def test_what_is_no_mask_of_this_chest_is_refused(volume, result, change, words):
  with pytest.raises(errors.UsageError, match=words):
    _analyze(volume, lung_mask=change(result.lung_mask))


def test_masks_of_soft_tissue_or_of_the_air_outside_cover_no_lung(volume, result):
  soft = (volume.hu == 30).astype(np.uint8)
  soft &= np.cumsum(soft).reshape(soft.shape) * volume.voxel_volume_mm3 < 5e6
  air = (volume.hu == -1024).astype(np.uint8)
  air &= np.cumsum(air).reshape(air.shape) * volume.voxel_volume_mm3 < 5e6
  for mask in (soft, air):
    with pytest.raises(errors.UsageError, match='lung of this CT is required.*found'):
      _analyze(volume, lung_mask=mask)


def test_lungs_that_are_nearly_white_are_lungs(volume, result):
  hu = volume.hu.copy()
  lung = np.flatnonzero(result.lung_mask)
  hu.reshape(-1)[lung[: int(0.9 * len(lung))]] = 20
  white = type(volume)(hu, volume.affine)
  assert corrections.checked(white, result.lung_mask).lung_mask is not None
