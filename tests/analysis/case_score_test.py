import dataclasses

import numpy as np
import pytest
import synthetic_case

from covid_tf import results
from covid_tf.analysis import case_score
from covid_tf.analysis import lungs as lungs_lib

_SHAPE = (17, 42, 64)


@pytest.fixture(name='volume', scope='module')
def _volume():
  affine = synthetic_case.axial_affine((16.0, 6.0, 6.0), _SHAPE)
  return synthetic_case.make_volume(affine, _SHAPE, patient_key='k' * 64)


def _findings(volume, **changes):
  made = synthetic_case.make_result(volume)
  lungs = lungs_lib.Lungs(
    made.lung_mask,
    made.lung_box,
    int(made.lung_mask.sum()),
    made.lung_volume_cm3,
    made.lung_outside_box_fraction,
  )
  findings = case_score.Findings(
    lungs,
    made.slice_probability,
    made.localization,
    made.thresholds,
    made.models,
    ('an oddity',),
  )
  return dataclasses.replace(findings, **changes)


def test_a_case_is_scored_without_any_network(volume):
  expected = synthetic_case.make_result(volume)
  found = case_score.score(volume, _findings(volume))
  assert found.corona_score_cm3 == pytest.approx(expected.corona_score_cm3, rel=1e-12)
  assert found.involved_lung_fraction == expected.involved_lung_fraction
  assert found.positive_slices == expected.positive_slices
  assert found.patient_key == 'k' * 64 and found.series_uid == volume.series_uid
  assert found.warnings == ('an oddity',) and not found.demo_models
  np.testing.assert_array_equal(found.affine, volume.affine)


def test_positive_slices_are_those_of_the_map(volume):
  whole = _findings(volume)
  first = whole.localization.slices[0]
  rest = dataclasses.replace(
    whole.localization,
    slices=whole.localization.slices[1:],
    maps=whole.localization.maps[1:],
  )
  before = case_score.score(volume, whole)
  after = case_score.score(volume, _findings(volume, localization=rest))
  assert first in before.positive_slices and first not in after.positive_slices
  assert after.corona_score_cm3 == pytest.approx(
    before.corona_score_cm3 - before.corona_score_by_slice_cm3[first], rel=1e-12
  )
  assert after.slice_probability[first] == before.slice_probability[first] > 0.5


@pytest.mark.parametrize('case, detected', [(None, None), (1.0, True), (1e6, False)])
def test_the_case_is_answered_where_a_threshold_is_given(volume, case, detected):
  thresholds = results.Thresholds(case_corona_score_cm3=case)
  found = case_score.score(volume, _findings(volume, thresholds=thresholds))
  assert found.case_detected is detected
