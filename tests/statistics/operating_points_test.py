import numpy as np
import pytest

from covid_tf.statistics import operating_points
from covid_tf.statistics import roc

POSITIVE = np.array([0.0, 3, 8, 8, 12, 20, 30, 31, 40, 55])
NEGATIVE = np.array([0.0, 0, 0, 1, 2, 3, 8, 14])


def test_wilson_of_a_published_example():
  # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: 81 of 263.
  share = operating_points.wilson(81, 263)
  assert share.value == pytest.approx(81 / 263)
  assert share.interval == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_youden_is_the_best_cut_there_is():
  threshold = operating_points.youden_threshold(roc.curve(POSITIVE, NEGATIVE))
  gain = lambda t: np.mean(POSITIVE > t) - np.mean(NEGATIVE > t)
  assert gain(threshold) == pytest.approx(max(gain(t) for t in np.arange(0, 60, 0.25)))
  assert threshold not in POSITIVE and threshold not in NEGATIVE


def test_youden_takes_the_lowest_of_equal_thresholds():
  # Both 1.5 and 3.5 gain one half.
  curve = roc.curve(np.array([2.0, 4]), np.array([1.0, 3]))
  assert operating_points.youden_threshold(curve) == 1.5


def test_fixed_sensitivity_is_the_highest_cut_that_reaches_it():
  curve = roc.curve(POSITIVE, NEGATIVE)
  threshold = operating_points.sensitivity_threshold(curve, 0.8)
  assert np.mean(POSITIVE > threshold) >= 0.8
  higher = curve.thresholds[curve.thresholds > threshold][0]
  assert np.mean(POSITIVE > higher) < 0.8


def test_fixed_sensitivity_that_no_cut_reaches():
  # One patient with disease scores 0, and no volume lies below 0.
  curve = roc.curve(POSITIVE, NEGATIVE)
  assert operating_points.sensitivity_threshold(curve, 0.95) is None
  curve = roc.curve(POSITIVE + 1, NEGATIVE)
  assert operating_points.sensitivity_threshold(curve, 1.0) < 1


def test_counts_are_strict():
  point = operating_points.operating_point('threshold', 'stated', 8, POSITIVE, NEGATIVE)
  assert (point.sensitivity.count, point.sensitivity.total) == (6, 10)
  assert (point.specificity.count, point.specificity.total) == (7, 8)
  assert (point.ppv.count, point.ppv.total) == (6, 7)
  assert (point.npv.count, point.npv.total) == (7, 11)
  assert point.ppv_at_prevalence is None


def test_predictive_values_at_a_stated_prevalence():
  point = operating_points.operating_point(
    'threshold', 'stated', 8, POSITIVE, NEGATIVE, prevalence=0.05
  )
  # Of 1000 people 50 have the disease: 0.6 x 50 = 30 found; 950 / 8 wrongly called.
  assert point.ppv_at_prevalence.value == pytest.approx(30 / (30 + 950 / 8))
  assert point.npv_at_prevalence.value == pytest.approx(
    950 * 7 / 8 / (950 * 7 / 8 + 20)
  )
  low, high = point.ppv_at_prevalence.interval
  assert 0 < low < point.ppv_at_prevalence.value < high < 1


def test_at_the_cohorts_own_prevalence_bayes_agrees_with_counting():
  point = operating_points.operating_point(
    'threshold', 'stated', 2.5, POSITIVE, NEGATIVE, prevalence=10 / 18
  )
  assert point.ppv_at_prevalence.value == pytest.approx(point.ppv.value)
  assert point.npv_at_prevalence.value == pytest.approx(point.npv.value)


def test_nobody_called_positive_has_no_ppv():
  point = operating_points.operating_point(
    'threshold', 'stated', 100, POSITIVE, NEGATIVE, prevalence=0.1
  )
  assert point.sensitivity.value == 0
  assert point.ppv.value is None and point.ppv.interval is None
  assert point.ppv_at_prevalence.value is None
  assert point.npv.value == pytest.approx(8 / 18)


def test_predictive_values_of_a_kind_without_patients_are_unknown():
  point = operating_points.operating_point(
    'threshold', 'stated', 1.0, np.array([2.0, 3.0]), np.zeros(0), prevalence=0.1
  )
  assert point.sensitivity.value == 1 and point.specificity.value is None
  assert point.ppv_at_prevalence == operating_points.Share(None, None)
  assert point.npv_at_prevalence == operating_points.Share(None, None)


def test_a_shift_is_the_lowest_that_reaches_the_specificity():
  rng = np.random.default_rng(5)
  positive, negative = (
    1 / (1 + np.exp(-rng.normal(mean, 2, count)))
    for mean, count in ((2, 80), (-5, 400))
  )
  chosen = operating_points.choose_shift(positive, negative, 0.95)

  def shifted(p):
    return 1 / (1 + np.exp(-(np.log(p) - np.log1p(-p) + chosen.shift)))

  assert np.mean(shifted(negative) <= 0.5) == chosen.specificity.value == 0.95
  assert np.mean(shifted(positive) > 0.5) == chosen.sensitivity.value
  assert chosen.specificity_before.value == np.mean(negative <= 0.5) > 0.95
  assert chosen.sensitivity_before.value == np.mean(positive > 0.5)
  # One negative fewer called negative is too many.
  below = max(p for p in np.concatenate([positive, negative]) if p < chosen.threshold)
  lower = np.nextafter(below, 0)
  assert np.mean(negative <= lower) <= 0.95
  # An overconfident network is moved down.
  assert operating_points.choose_shift(positive, positive, 0.95).shift < 0


def test_no_finite_shift():
  for wrong in (np.ones(20), np.zeros(20)):
    with pytest.raises(ValueError, match='a threshold between 0 and 1'):
      operating_points.choose_shift(wrong, wrong, 0.95)
