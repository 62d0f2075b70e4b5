"""DeLong, ROC and bootstrap against published figures and slower, plainer ways."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from covid_tf.cohort.accuracy import experiments
from covid_tf.cohort.accuracy import report
from covid_tf.statistics import operating_points
from covid_tf.statistics import roc

# E. R. DeLong et al., Biometrics 44 (1988) 837-845: patients with ovarian cancer and
# bowel obstruction (12 would not benefit from surgery, 31 would). Rows: albumin, total
# protein, Krebs-Goplerud score, benefit. As reprinted, without the six patients with
# a missing value, in the SAS/STAT User's Guide, chapter "The LOGISTIC Procedure",
# example "Comparing Receiver Operating Characteristic Curves".
OVARIAN = np.array(
  """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0
2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1
4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1
3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
3.6 6.6 5 1""".split(),
  float,
).reshape(-1, 4)


def ovarian(*columns):
  """(with benefit, without), [K, n] each; the K-G score is turned round as there."""
  table = OVARIAN.copy()
  table[:, 2] = 10 - table[:, 2]
  benefit = table[:, 3] == 1
  return table[benefit][:, columns].T, table[~benefit][:, columns].T


def test_areas_and_intervals_of_the_published_example():
  area = roc.estimate_area(*ovarian(0, 1, 2))
  # SAS/STAT, table "ROC Association Statistics": albumin, total protein, K-G score.
  np.testing.assert_allclose(area.auc, (0.7366, 0.6478, 0.7258), atol=5e-5)
  np.testing.assert_allclose(area.standard_error(), (0.0927, 0.1000, 0.1028), atol=5e-5)
  np.testing.assert_allclose(
    area.interval(), ((0.5549, 0.9182), (0.4518, 0.8439), (0.5243, 0.9273)), atol=5e-5
  )


@pytest.mark.parametrize(
  'column, difference, error, interval, p_value',
  [
    (0, 0.0108, 0.0953, (-0.1761, 0.1976), 0.9102),
    (1, -0.0780, 0.1046, (-0.2830, 0.1271), 0.4561),
  ],
)
def test_paired_comparison_of_the_published_example(
  column, difference, error, interval, p_value
):
  # SAS/STAT, table "ROC Contrast Estimation": each against the K-G score.
  compared = roc.compare_paired(roc.estimate_area(*ovarian(column, 2)))
  assert compared.difference == pytest.approx(difference, abs=5e-5)
  assert compared.standard_error == pytest.approx(error, abs=5e-5)
  assert compared.interval == pytest.approx(interval, abs=5e-5)
  assert compared.p_value == pytest.approx(p_value, abs=5e-5)


def plain_delong(positive, negative):
  """Areas and covariance by the article's formulas, every pair looked at."""
  pairs = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (
    positive[:, :, None] == negative[:, None, :]
  )
  covariance = (
    np.cov(pairs.mean(axis=2)) / positive.shape[1]
    + np.cov(pairs.mean(axis=1)) / negative.shape[1]
  )
  return pairs.mean(axis=(1, 2)), covariance


@pytest.mark.parametrize('seed', range(5))
def test_midranks_give_what_counting_pairs_gives(seed):
  rng = np.random.default_rng(seed)
  # Rounded, so that many scores tie within and between the groups.
  positive = np.round(rng.gamma(2, 3, (2, 17)))
  negative = np.round(rng.gamma(1, 3, (2, 11)))
  area = roc.estimate_area(positive, negative)
  auc, covariance = plain_delong(positive, negative)
  np.testing.assert_allclose(area.auc, auc)
  np.testing.assert_allclose(area.covariance, covariance)
  truth = np.repeat([1, 0], [17, 11])
  assert area.auc[0] == pytest.approx(
    sklearn.metrics.roc_auc_score(truth, np.concatenate([positive[0], negative[0]]))
  )


def test_a_score_against_itself_and_against_its_rank():
  positive, negative = np.array([[3.0, 5, 9]]), np.array([[1.0, 4, 4, 2]])
  same = roc.compare_paired(
    roc.estimate_area(
      np.vstack([positive, positive**2]), np.vstack([negative, negative**2])
    )
  )
  assert (same.difference, same.p_value) == (0, 1)


def test_groups_of_one_have_an_area_and_no_interval():
  area = roc.estimate_area([2.0], [1.0, 2.0, 3.0])
  assert area.auc[0] == 0.5
  assert area.covariance is None and area.interval() is None


def test_curve_cuts_strictly_and_between_the_scores():
  positive, negative = np.array([0.0, 4, 4, 9]), np.array([0.0, 0, 4, 1])
  curve = roc.curve(positive, negative)
  np.testing.assert_array_equal(curve.thresholds, (0.5, 2.5, 6.5, 9))
  for threshold, sensitivity, specificity in zip(
    curve.thresholds, curve.sensitivity, curve.specificity
  ):
    assert sensitivity == np.mean(positive > threshold)
    assert specificity == np.mean(negative <= threshold)


@pytest.mark.parametrize('seed', range(3))
def test_curve_holds_the_area(seed):
  rng = np.random.default_rng(seed)
  positive = np.round(rng.gamma(2, 3, 30)) + 1
  negative = np.round(rng.gamma(1, 3, 20)) + 1
  curve = roc.curve(positive, negative)
  assert (curve.true_positives[0], curve.false_positives[0]) == (30, 20)
  area = np.trapezoid(curve.sensitivity[::-1], 1 - curve.specificity[::-1])
  assert area == pytest.approx(roc.estimate_area(positive, negative).auc[0])


def test_bootstrap_is_that_of_whole_patients():
  rng = np.random.default_rng(5)
  positive, negative = np.round(rng.gamma(2, 3, 40)), np.round(rng.gamma(1, 3, 30))
  truth = np.repeat([1, 0], [40, 30])
  plain = [
    sklearn.metrics.roc_auc_score(
      truth, np.concatenate([rng.choice(positive, 40), rng.choice(negative, 30)])
    )
    for _ in range(1500)
  ]
  low, high = roc.bootstrap_interval(positive, negative, draws=1500, seed=1)
  assert (low, high) == pytest.approx(np.percentile(plain, (2.5, 97.5)), abs=0.015)
  assert (low, high) == roc.bootstrap_interval(positive, negative, 1500, seed=1)
  assert (low, high) != roc.bootstrap_interval(positive, negative, 1500, seed=2)


def test_intervals_of_wholly_separated_groups():
  positive, negative = np.arange(10.0, 22), np.arange(9.0)
  np.testing.assert_array_equal(
    roc.estimate_area(positive, negative).interval(), [[1, 1]]
  )
  assert roc.bootstrap_interval(positive, negative, 200) == (1, 1)
  low, high = roc.newcombe_interval(1.0, 12, 9)
  assert 0.6 < low < 0.95 and high == 1
  assert roc.newcombe_interval(1.0, 120, 90)[0] > low
  assert roc.newcombe_interval(0.0, 12, 9) == pytest.approx((0, 1 - low), abs=1e-6)


def test_newcombe_holds_the_true_area_about_as_often_as_it_says():
  rng = np.random.default_rng(0)
  shift = 2.0
  true_area = scipy.stats.norm.cdf(shift / np.sqrt(2))
  inside = 0
  for _ in range(400):
    area = roc.estimate_area(rng.normal(shift, 1, 15), rng.normal(0, 1, 12)).auc[0]
    low, high = roc.newcombe_interval(float(area), 15, 12)
    inside += low <= true_area <= high
  assert 0.91 <= inside / 400 <= 0.99


def test_points_at_one_place_of_the_curve_are_all_seen():
  """Old: filled markers of one size; only the last one drawn was seen."""
  share = operating_points.Share(0.9, (0.8, 0.95))
  points = tuple(
    operating_points.OperatingPoint(name, '', 5.0, *(share,) * 4, *(None,) * 3)
    for name in ('youden', 'sensitivity', 'threshold')
  )
  found = experiments.Detection(
    2,
    2,
    experiments.DetectionOptions(),
    auc=0.9,
    auc_ci95_delong=(0.8, 1),
    auc_ci95_bootstrap=(0.8, 1),
    auc_ci95_newcombe=(0.8, 1),
    points=points,
    curve=roc.curve(np.array([2.0, 4]), np.array([1.0, 3])),
  )
  drawn = [
    line
    for line in report.roc_figure(found).axes[0].lines
    if line.get_marker() not in ('None', None)
  ]
  assert [line.get_markerfacecolor() for line in drawn] == ['none'] * 3
  sizes = [line.get_markersize() for line in drawn]
  assert all(large - small >= 3 for large, small in zip(sizes, sizes[1:]))
