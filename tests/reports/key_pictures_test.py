"""Key pictures: what they show is what the result says, and nobody's name."""

import dataclasses

import numpy as np
import pytest
import synthetic_case

from covid_tf.reports import key_pictures

_SHAPE, _SPACING_MM = (15, 60, 90), (18.0, 4.2, 4.2)
_RED = (190, 30, 30)


def _case(reverse=(), **changes):
  affine = synthetic_case.axial_affine(_SPACING_MM, _SHAPE, reverse)
  volume = synthetic_case.make_volume(affine, _SHAPE)
  result = synthetic_case.measured(volume, synthetic_case.make_result(volume))
  return volume, dataclasses.replace(result, **changes)


@pytest.fixture(scope='module')
def case():
  return _case()


def _shares(pixels, colour):
  return float((pixels == colour).all(axis=-1).mean())


def test_there_are_numbers_slices_and_lungs(case):
  volume, result = case
  summary, slices, lungs = key_pictures.key_pictures(volume, result)
  for picture in (summary, slices, lungs):
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape[1:] == (1200, 3)
    assert _shares(picture.pixels, (255, 255, 255)) > 0.001  # Words.
    assert _shares(picture.pixels, _RED) == 0
    assert len(f'covid-tf picture: {picture.title} (DEMO MODELS)') <= 64
  assert summary.slices == lungs.slices == ()
  assert summary.orientation is None
  by_slice = result.corona_score_by_slice_cm3
  assert slices.slices[0] == int(np.argmax(by_slice))
  assert list(by_slice[list(slices.slices)]) == sorted(
    by_slice[list(slices.slices)], reverse=True
  )
  assert slices.orientation == ('L', 'P')


def test_words_are_all_within_the_picture(case):
  volume, result = case
  warnings = ('A long warning. ' * 30, 'Öffnung 3 × 4 mm³ – nötig.', *('W',) * 8)
  changed = dataclasses.replace(result, warnings=warnings, demo_models=True)
  for picture in key_pictures.key_pictures(volume, changed):
    assert picture.pixels[:, -4:].max(axis=(1, 2)).astype(int).min() == 0
    assert (picture.pixels[-8:] == 0).all()


def test_demo_models_are_said_in_red(case):
  volume, result = case
  changed = dataclasses.replace(result, demo_models=True)
  for picture in key_pictures.key_pictures(volume, changed):
    assert _shares(picture.pixels, _RED) > 0.005


def test_mirrored_series_are_shown_the_usual_way(case):
  # Right is at the left of the picture, however columns are stored.
  _, slices, _ = key_pictures.key_pictures(*case)
  for reverse in ((2,), (0, 1)):
    _, other, _ = key_pictures.key_pictures(*_case(reverse))
    assert other.orientation == ('L', 'P')
    different = np.abs(other.pixels.astype(int) - slices.pixels)[180:-90].max(axis=-1)
    assert (different > 60).mean() < 0.05


def test_a_slice_of_the_lungs_is_shown_where_nothing_counts(case):
  volume, _ = case
  result = synthetic_case.make_result(volume, lesions=())
  summary, slices, _ = key_pictures.key_pictures(volume, result)
  assert len(slices.slices) == 1 and 'No slice counts' in slices.description
  assert result.lung_mask[slices.slices[0]].any()
  assert summary.pixels.any()


def test_no_date_and_no_key_of_the_patient_changes_a_picture(case):
  # Else they were burned in.
  volume, result = case
  before = key_pictures.key_pictures(volume, result)
  changed = dataclasses.replace(
    result,
    acquisition_date='1999-12-31',
    patient_key='f' * 64,
    study_uid='1.2.3',
    series_uid='1.2.4',
  )
  for one, other in zip(before, key_pictures.key_pictures(volume, changed)):
    np.testing.assert_array_equal(one.pixels, other.pixels)
