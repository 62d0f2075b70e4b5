"""Hodges-Lehmann: by how many cm³ one group lies above another."""

import dataclasses
import math

import numpy as np
import scipy.stats

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
  skipped = (_exact_skipped(len(first), len(second)) if exact
             else _approximate_skipped(len(first), len(second), together))
  interval = None
  if skipped >= 0 and 2 * skipped < len(differences):
    interval = (float(differences[skipped]), float(differences[-1 - skipped]))
  return Shift(
      float(np.median(differences)), interval,
      'exact' if exact else 'normal approximation with tie correction')


def is_exact(first: np.ndarray, second: np.ndarray) -> bool:
  """Whether the exact null distribution applies, and is cheap."""
  together = np.concatenate([first, second])
  return min(len(first), len(second)) <= LARGEST_EXACT_GROUP and (
      len(np.unique(together)) == len(together))


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
  ties = np.sum(repeats ** 3 - repeats) / (total * (total - 1))
  deviation = math.sqrt(m * n / 12 * (total + 1 - ties))
  return math.floor(m * n / 2 - scipy.stats.norm.ppf(0.975) * deviation - 0.5)
