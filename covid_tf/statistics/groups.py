"""Groups of patients: do their scores differ, by how much, and in which order?"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np
import scipy  # Loads `stats` where they are used: half a second of each command.

from covid_tf.statistics import roc

# Hodges-Lehmann: by how many cm³ one group lies above another.

# scipy's `auto`: exact when the smaller group has at most 8 and nothing is tied.
LARGEST_EXACT_GROUP = 8


@dataclasses.dataclass(frozen=True)
class Shift:
  """How far the second group lies above the first.

  Attributes:
    estimate_cm3: median of all differences, second minus first.
    interval_cm3: 95 % interval, or None where the groups are too small for one.
    method: 'exact' or 'normal approximation with tie correction'.
  """

  estimate_cm3: float
  interval_cm3: tuple[float, float] | None
  method: str


def hodges_lehmann(first: np.ndarray, second: np.ndarray) -> Shift:
  """Estimates the shift with the interval that belongs to the rank-sum test.

  The interval holds the shifts that the two-sided test at 5 % would not reject: a
  range of the ordered differences (M. Hollander, D. A. Wolfe, Nonparametric
  Statistical Methods, 2nd ed. 1999, section 4.3). scipy offers none.

  Args:
    first: float [m], m at least 1.
    second: float [n], n at least 1.

  Returns:
    The shift, second minus first.
  """
  differences = np.sort(np.subtract.outer(second, first), axis=None)
  together = np.concatenate([first, second])
  exact = is_exact(first, second)
  skipped = (
    _exact_skipped(len(first), len(second))
    if exact
    else _approximate_skipped(len(first), len(second), together)
  )
  interval = None
  if skipped >= 0 and 2 * skipped < len(differences):
    interval = (float(differences[skipped]), float(differences[-1 - skipped]))
  return Shift(
    float(np.median(differences)),
    interval,
    'exact' if exact else 'normal approximation with tie correction',
  )


def is_exact(first: np.ndarray, second: np.ndarray) -> bool:
  """Whether the exact null distribution applies, and is cheap."""
  together = np.concatenate([first, second])
  return min(len(first), len(second)) <= LARGEST_EXACT_GROUP and (
    len(np.unique(together)) == len(together)
  )


def _exact_skipped(m: int, n: int) -> int:
  """Differences outside the interval on each side; -1: even all are too few.

  The largest k with P(U < k) <= 2.5 % leaves k - 1 out.
  """
  counts = _null_counts(m, n)
  total = math.comb(m + n, m)
  tail = np.cumsum(counts / total)
  return int(np.searchsorted(tail, 0.025, side='right')) - 1


def _null_counts(m: int, n: int) -> np.ndarray:
  """float64 [m * n + 1]: arrangements of the ranks with each U.

  The coefficients of the Gaussian binomial: product of (1 - q^(n+i)) / (1 - q^i).
  """
  counts = np.zeros(m * n + 1)
  counts[0] = 1
  for i in range(1, min(m, n) + 1):
    step = max(m, n) + i
    if step < len(counts):
      counts[step:] -= counts[:-step].copy()
    for start in range(i):
      counts[start::i] = np.cumsum(counts[start::i])
  return counts


def _approximate_skipped(m: int, n: int, together: np.ndarray) -> int:
  total = m + n
  _, repeats = np.unique(together, return_counts=True)
  ties = np.sum(repeats**3 - repeats) / (total * (total - 1))
  deviation = math.sqrt(m * n / 12 * (total + 1 - ties))
  return math.floor(m * n / 2 - scipy.stats.norm.ppf(0.975) * deviation - 0.5)


# Do the groups of severity differ in score, and by how much?


@dataclasses.dataclass(frozen=True)
class GroupSummary:
  """A box of the box plot.

  Attributes:
    n: patients.
    median_cm3: the middle score.
    quartiles_cm3: (25th, 75th percentile), interpolated linearly.
    range_cm3: (lowest, highest).
  """

  n: int
  median_cm3: float
  quartiles_cm3: tuple[float, float]
  range_cm3: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class RankSum:
  """Two-sided Wilcoxon rank-sum (Mann-Whitney) test of two groups.

  Attributes:
    statistic: Mann-Whitney U of the second group: pairs in which it scores higher.
    p_value: two-sided.
    method: 'exact', or 'normal approximation with tie and continuity correction',
      or why no test was needed.
  """

  statistic: float
  p_value: float
  method: str


@dataclasses.dataclass(frozen=True)
class TwoGroups:
  """The second group against the first.

  Attributes:
    rank_sum: the test.
    shift: Hodges-Lehmann shift, second minus first, cm3.
    auc: chance that a patient of the second group scores higher than one of the
      first, ties counting half.
    auc_interval: DeLong's 95 % interval, or None for a group of one.
  """

  rank_sum: RankSum
  shift: Shift
  auc: float
  auc_interval: tuple[float, float] | None


def summarize(scores: np.ndarray) -> GroupSummary:
  """Describes one group; float [n], n at least 1."""
  low, middle, high = (float(value) for value in np.percentile(scores, (25, 50, 75)))
  return GroupSummary(
    len(scores), middle, (low, high), (float(min(scores)), float(max(scores)))
  )


def compare_two(first: np.ndarray, second: np.ndarray) -> TwoGroups:
  """Compares two groups.

  Args:
    first: float [m], scores of the group named first (the milder one).
    second: float [n], scores of the other.

  Returns:
    Test and effect sizes, the second group against the first.
  """
  area = roc.estimate_area(second, first)
  interval = area.interval()
  return TwoGroups(
    rank_sum(first, second),
    hodges_lehmann(first, second),
    float(area.auc[0]),
    None if interval is None else (float(interval[0, 0]), float(interval[0, 1])),
  )


def rank_sum(first: np.ndarray, second: np.ndarray) -> RankSum:
  """Tests two groups as scipy's `auto` does, and names the method."""
  if len(np.unique(np.concatenate([first, second]))) == 1:
    return RankSum(len(first) * len(second) / 2, 1.0, 'all scores are equal')
  exact = is_exact(first, second)
  tested = scipy.stats.mannwhitneyu(
    second, first, alternative='two-sided', method='exact' if exact else 'asymptotic'
  )
  method = (
    'exact' if exact else ('normal approximation with tie and continuity correction')
  )
  return RankSum(float(tested.statistic), float(tested.pvalue), method)


# Three or more grades: do they differ, and does the score rise with the grade?


@dataclasses.dataclass(frozen=True)
class Trend:
  """Jonckheere-Terpstra test of scores that rise with the grade.

  Attributes:
    statistic: J, pairs of patients of different grades in which the higher grade
      has the higher score, ties counting half.
    kendall_tau: tau-b of grade and score, the test's effect size, in [-1, 1].
    p_value: two-sided, normal approximation with tie correction.
  """

  statistic: float
  kendall_tau: float
  p_value: float


@dataclasses.dataclass(frozen=True)
class ManyGroups:
  """Three or more groups.

  Attributes:
    kruskal_wallis_h: tie-corrected H; None when all scores are equal.
    kruskal_wallis_p_value: that of H, 1 when all scores are equal.
    trend: Jonckheere-Terpstra, or None when the order of the groups is unknown.
  """

  kruskal_wallis_h: float | None
  kruskal_wallis_p_value: float
  trend: Trend | None


def compare_many(groups: Sequence[np.ndarray], ordered: bool) -> ManyGroups:
  """Compares three or more groups.

  Args:
    groups: float [n_i] each, from mild to severe where `ordered`.
    ordered: whether their order means something.

  Returns:
    The tests.
  """
  if len(np.unique(np.concatenate(groups))) == 1:
    return ManyGroups(None, 1.0, None)
  tested = scipy.stats.kruskal(*groups)
  return ManyGroups(
    float(tested.statistic), float(tested.pvalue), trend(groups) if ordered else None
  )


def trend(groups: Sequence[np.ndarray]) -> Trend:
  """Tests for a trend over ordered groups.

  The Jonckheere-Terpstra test is Kendall's test of score against grade, whose ties
  are the groups: 2 J = (concordant - discordant) + (pairs of different groups). So
  scipy's tie-corrected Kendall test is it.
  """
  grades = np.concatenate([np.full(len(group), i) for i, group in enumerate(groups)])
  scores = np.concatenate(groups)
  tested = scipy.stats.kendalltau(grades, scores, method='asymptotic')
  statistic = sum(
    float(scipy.stats.mannwhitneyu(higher, lower, method='asymptotic').statistic)
    for i, lower in enumerate(groups)
    for higher in groups[i + 1 :]
  )
  return Trend(statistic, float(tested.statistic), float(tested.pvalue))


# Do two groups of patients fall into the same kinds, such as scanners?

ASSOCIATION_DRAWS = 9999


def association_p_value(table: np.ndarray) -> float:
  """P value that two groups fall into kinds alike, for any counts.

  Pearson's chi-squared against tables drawn with the same sums: right for few patients
  too, where the usual approximation is not.

  Args:
    table: int [kinds, 2], patients; two kinds or more, no sum of zero.

  Returns:
    In [1e-4, 1]; the same for the same table.
  """
  tested = scipy.stats.chi2_contingency(
    table,
    correction=False,
    method=scipy.stats.MonteCarloMethod(
      n_resamples=ASSOCIATION_DRAWS, rng=np.random.default_rng(0)
    ),
  )
  return float(tested.pvalue)
