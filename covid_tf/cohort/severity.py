"""Do the groups of severity differ in score, and by how much?"""

import dataclasses

import numpy as np
import scipy.stats

from covid_tf.cohort import delong
from covid_tf.cohort import shift


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
  shift: shift.Shift
  auc: float
  auc_interval: tuple[float, float] | None


def summarize(scores: np.ndarray) -> GroupSummary:
  """Describes one group; float [n], n at least 1."""
  low, middle, high = (float(value) for value in np.percentile(scores, (25, 50, 75)))
  return GroupSummary(
      len(scores), middle, (low, high), (float(min(scores)), float(max(scores))))


def compare_two(first: np.ndarray, second: np.ndarray) -> TwoGroups:
  """Compares two groups.

  Args:
    first: float [m], scores of the group named first (the milder one).
    second: float [n], scores of the other.

  Returns:
    Test and effect sizes, the second group against the first.
  """
  area = delong.estimate(second, first)
  interval = area.interval()
  return TwoGroups(
      rank_sum(first, second), shift.hodges_lehmann(first, second),
      float(area.auc[0]),
      None if interval is None else (float(interval[0, 0]), float(interval[0, 1])))


def rank_sum(first: np.ndarray, second: np.ndarray) -> RankSum:
  """Tests two groups as scipy's `auto` does, and says by which method."""
  if len(np.unique(np.concatenate([first, second]))) == 1:
    return RankSum(len(first) * len(second) / 2, 1.0, 'all scores are equal')
  exact = shift.is_exact(first, second)
  tested = scipy.stats.mannwhitneyu(
      second, first, alternative='two-sided',
      method='exact' if exact else 'asymptotic')
  method = 'exact' if exact else (
      'normal approximation with tie and continuity correction')
  return RankSum(float(tested.statistic), float(tested.pvalue), method)
