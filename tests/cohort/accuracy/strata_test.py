"""Cohorts whose groups were imaged alike, and otherwise."""

import numpy as np
import pytest
from scipy import stats

from covid_tf import volume as volume_lib
from covid_tf.cohort import labels
from covid_tf.cohort import results
from covid_tf.cohort.accuracy import strata
from covid_tf.statistics import groups

_GE = {'manufacturer': 'GE MEDICAL SYSTEMS', 'model': 'LightSpeed16'}
_SIEMENS = {'manufacturer': 'SIEMENS', 'model': 'Sensation 10'}


def _cohort(*parts):
  """Patients and acquisitions from (covid, count, fields of the acquisition)."""
  patients, acquisitions = [], {}
  for part, (covid, count, fields) in enumerate(parts):
    for index in range(count):
      uid = f'1.2.{part}.{index}'
      score = 10.0 * covid + index
      patients.append(
        labels.Patient(uid, bool(covid), None, {results.CORONA_SCORE: score})
      )
      acquisitions[uid] = None if fields is None else volume_lib.Acquisition(**fields)
  return patients, acquisitions


def _by_name(found):
  return {factor.name: factor for factor in found}


def test_patients_are_counted_by_what_their_scans_have_in_common():
  found = _by_name(
    strata.factors(
      *_cohort(
        (1, 3, _GE | {'kernel': 'LUNG', 'slice_thickness_mm': 1.25}),
        (1, 2, {'manufacturer': 'Ge Medical Systems', 'model': 'LIGHTSPEED16'}),
        (0, 4, _SIEMENS | {'slice_distance_mm': 8.0, 'contrast': True}),
        (0, 1, None),
      )
    )
  )
  assert set(found) == {'scanner', 'kernel', 'slice thickness', 'contrast'}
  counts = {
    name: {each.name: (each.n_positive, each.n_negative) for each in factor.strata}
    for name, factor in found.items()
  }
  assert counts['scanner'] == {
    'GE MEDICAL SYSTEMS LIGHTSPEED16': (5, 0),
    'SIEMENS SENSATION 10': (0, 4),
    'not stated': (0, 1),
  }
  assert counts['kernel'] == {'LUNG': (3, 0), 'not stated': (2, 5)}
  assert counts['slice thickness'] == {
    '6 mm and more': (0, 4),
    'below 1.5 mm': (3, 0),
    'not stated': (2, 1),
  }
  assert counts['contrast'] == {'given': (0, 4), 'not stated': (5, 1)}


@pytest.mark.parametrize(
  'thickness_mm, name',
  (
    (0.6, 'below 1.5 mm'),
    (1.5, '1.5 to below 3.5 mm'),
    (3.49, '1.5 to below 3.5 mm'),
    (5.0, '3.5 to below 6 mm'),
    (6.0, '6 mm and more'),
    (10.0, '6 mm and more'),
  ),
)
def test_thicknesses_fall_into_four(thickness_mm, name):
  found = strata.factors(*_cohort((1, 1, {'slice_thickness_mm': thickness_mm})))
  assert found[0].strata[0].name == name


def test_the_area_within_a_stratum_is_that_of_its_patients():
  (factor,) = strata.factors(
    *_cohort((1, 6, {'kernel': 'B40f'}), (0, 12, {'kernel': 'B40f'}))
  )
  (stratum,) = factor.strata
  positive, negative = 10.0 + np.arange(6), np.arange(12.0)
  wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
  assert stratum.auc == pytest.approx(wins.mean())
  low, high = stratum.auc_ci95_newcombe
  assert low < stratum.auc < high
  assert (stratum.median_positive_cm3, stratum.median_negative_cm3) == (12.5, 5.5)
  assert factor.p_value is None and not factor.separates


def test_groups_that_no_scanner_has_both_of_are_told():
  found = strata.factors(*_cohort((1, 8, _GE), (0, 9, _SIEMENS)))
  (text,) = strata.warnings(found)
  assert 'differ in scanner' in text and '8 of 8 with and 0 of 9 without' in text
  assert 'No scanner has patients of both groups' in text
  assert found[0].separates and found[0].p_value < 0.01


def test_results_of_two_sources_differ_in_what_they_state():
  """DICOM with disease, NIfTI without: one source for each group."""
  found = strata.factors(
    *_cohort((1, 6, {'kernel': 'B40f'}), (0, 6, {'slice_distance_mm': 5.0}))
  )
  texts = strata.warnings(found)
  assert any('differ in kernel' in text and 'not stated' in text for text in texts)


def test_groups_that_differ_in_part_are_told_with_the_probability():
  found = strata.factors(
    *_cohort(
      (1, 18, {'kernel': 'B60f'}),
      (1, 6, {'kernel': 'B40f'}),
      (0, 5, {'kernel': 'B60f'}),
      (0, 19, {'kernel': 'B40f'}),
    )
  )
  (text,) = strata.warnings(found)
  assert 'differ in kernel (B40f: 6 of 24 with and 19 of 24 without; B60f' in text
  assert 'p = 0.00' in text and 'A part of the AUC may be of the kernel' in text
  assert not found[0].separates


@pytest.mark.parametrize(
  'parts',
  (
    ((1, 10, _GE), (0, 10, _GE)),
    ((1, 5, _GE), (1, 5, _SIEMENS), (0, 5, _GE), (0, 5, _SIEMENS)),
    # As many scanners as patients: they separate any two groups.
    tuple((index % 2, 1, {'model': f'{index}'}) for index in range(8)),
    ((1, 1, _GE), (0, 1, _SIEMENS)),
    ((1, 5, _GE), (1, 5, _SIEMENS)),
  ),
)
def test_groups_that_were_imaged_alike_are_not_warned_of(parts):
  assert strata.warnings(strata.factors(*_cohort(*parts))) == ()


def test_results_of_before_acquisition_have_no_factors():
  assert strata.factors(*_cohort((1, 3, None), (0, 3, None))) == ()
  assert strata.factors(*_cohort((1, 3, {}), (0, 3, {}))) == ()


@pytest.mark.parametrize(
  'table', (((3, 0), (0, 3)), ((5, 1), (2, 6)), ((10, 3), (4, 9)))
)
def test_the_probability_is_fishers(table):
  exact = stats.fisher_exact(table).pvalue
  assert groups.association_p_value(np.array(table)) == pytest.approx(exact, abs=0.02)
  assert groups.association_p_value(np.array(table)[::-1]) == pytest.approx(
    exact, abs=0.02
  )
