"""Three or more grades: do they differ, and does the score rise with the grade?"""

from collections.abc import Sequence
import dataclasses

import numpy as np
import scipy.stats


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
      float(tested.statistic), float(tested.pvalue), trend(groups) if ordered else None)


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
      for i, lower in enumerate(groups) for higher in groups[i + 1:])
  return Trend(statistic, float(tested.statistic), float(tested.pvalue))
