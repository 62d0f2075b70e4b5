"""Tests of severity against published figures and against scipy and brute force."""

import numpy as np
import pytest
import scipy.stats

from covid_tf.statistics import groups

# M. Hollander, D. A. Wolfe, Nonparametric Statistical Methods, 2nd ed. 1999, table
# 4.1, p. 110: tritiated water diffusion across human chorioamnion, at term and at 12
# to 26 weeks. Exact p 0.2544, shift -0.305, 95 % interval -0.76 to 0.15: p. 111 and
# 126, and the documentation of R's package coin (wilcox_test).
AT_TERM = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
EARLIER = np.array([1.15, 0.88, 0.90, 0.74, 1.21])

# The same book, example 6.2, p. 205: number of pieces processed with no, rough and
# accurate information on one's output. J = 79; with ties variance 150.29, J* 2.04,
# one-sided p .0207.
PIECES = tuple(
  np.array(group, float)
  for group in (
    (40, 35, 38, 43, 44, 41),
    (38, 40, 47, 44, 40, 42),
    (48, 40, 45, 43, 46, 44),
  )
)


def test_rank_sum_of_a_textbook():
  two = groups.compare_two(AT_TERM, EARLIER)
  assert two.rank_sum.p_value == pytest.approx(0.2544, abs=5e-5)
  assert two.rank_sum.method == 'exact'
  assert two.rank_sum.statistic == 15
  assert two.shift.estimate_cm3 == pytest.approx(-0.305)
  assert two.shift.interval_cm3 == pytest.approx((-0.76, 0.15))
  assert two.auc == pytest.approx(15 / 50)


def test_trend_of_a_textbook():
  found = groups.compare_many(PIECES, ordered=True)
  assert found.trend.statistic == 79
  assert found.trend.p_value == pytest.approx(2 * 0.0207, abs=1e-4)
  assert found.trend.p_value == pytest.approx(
    2 * scipy.stats.norm.sf((79 - 54) / np.sqrt(150.29)), abs=1e-4
  )
  assert found.kruskal_wallis_p_value == pytest.approx(
    scipy.stats.kruskal(*PIECES).pvalue
  )
  assert groups.compare_many(PIECES, ordered=False).trend is None


def test_trend_falls_when_the_order_is_turned_round():
  up = groups.trend(PIECES)
  down = groups.trend(PIECES[::-1])
  assert down.kendall_tau == pytest.approx(-up.kendall_tau)
  assert down.p_value == pytest.approx(up.p_value)
  assert up.statistic + down.statistic == 3 * 36


@pytest.mark.parametrize(
  'sizes, rounded, method',
  [
    ((8, 40), False, 'exact'),
    ((40, 8), False, 'exact'),
    ((9, 9), False, 'normal'),
    ((5, 6), True, 'normal'),
    ((13, 36), False, 'normal'),
    ((1, 4), False, 'exact'),
  ],
)
def test_rank_sum_is_scipys_auto(sizes, rounded, method):
  rng = np.random.default_rng(3)
  first, second = rng.gamma(1, 60, sizes[0]), rng.gamma(2, 100, sizes[1])
  if rounded:
    first, second = np.round(first, -2), np.round(second, -2)
  tested = groups.rank_sum(first, second)
  auto = scipy.stats.mannwhitneyu(second, first, alternative='two-sided')
  assert tested.p_value == auto.pvalue and tested.statistic == auto.statistic
  assert tested.method.startswith(method)


@pytest.mark.parametrize('sizes', [(4, 5), (8, 20), (7, 7), (13, 36)])
def test_shift_interval_holds_what_the_test_does_not_reject(sizes):
  rng = np.random.default_rng(sum(sizes))
  first, second = rng.normal(0, 50, sizes[0]), rng.normal(40, 50, sizes[1])
  low, high = groups.hodges_lehmann(first, second).interval_cm3
  method = 'exact' if min(sizes) <= 8 else 'asymptotic'

  def p_value(moved):
    return scipy.stats.mannwhitneyu(second - moved, first, method=method).pvalue

  assert p_value(low + 1e-6) > 0.05 and p_value(high - 1e-6) > 0.05
  assert p_value(low - 1e-6) <= 0.05 and p_value(high + 1e-6) <= 0.05


def test_shift_of_groups_too_small_for_an_interval():
  found = groups.hodges_lehmann(np.array([1.0, 2, 3]), np.array([5.0, 9, 10, 12]))
  assert found.estimate_cm3 == 7.5 and found.interval_cm3 is None


def test_equal_scores_give_no_nan():
  same = np.full(5, 3.0)
  two = groups.compare_two(same, same[:3])
  assert two.rank_sum.p_value == 1 and two.rank_sum.method == 'all scores are equal'
  assert two.shift.estimate_cm3 == 0 and two.shift.interval_cm3 == (0, 0)
  assert two.auc == 0.5
  many = groups.compare_many([same, same, same], ordered=True)
  assert many.kruskal_wallis_p_value == 1 and many.trend is None


def test_group_of_one_has_no_interval_of_the_area():
  two = groups.compare_two(np.array([1.0, 2, 4]), np.array([3.0]))
  assert two.auc == pytest.approx(2 / 3) and two.auc_interval is None


def test_summary_of_a_group():
  found = groups.summarize(np.array([1.0, 2, 3, 4, 10]))
  assert (found.n, found.median_cm3) == (5, 3)
  assert found.quartiles_cm3 == (2, 4) and found.range_cm3 == (1, 10)
