"""Area under the ROC curve with DeLong's variance, for one score or several.

E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or
more correlated receiver operating characteristic curves: a nonparametric
approach", Biometrics 44 (1988) 837-845. The placement values come from midranks
(X. Sun, W. Xu, IEEE Signal Processing Letters 21 (2014) 1389-1393), so a cohort of
any size costs a sort, not the square of its patients. No library we depend on
offers it.
"""

import dataclasses

import numpy as np
import scipy.stats

# A variance over one patient is no variance.
SMALLEST_GROUP = 2


@dataclasses.dataclass(frozen=True)
class AreaEstimate:
  """Areas of K scores over the same patients.

  Attributes:
    auc: float64 [K], in [0, 1]; ties count half.
    covariance: float64 [K, K], of the areas; None when a group has one patient.
  """

  auc: np.ndarray
  covariance: np.ndarray | None

  def standard_error(self) -> np.ndarray | None:
    """float64 [K], or None without a covariance."""
    if self.covariance is None:
      return None
    return np.sqrt(np.diag(self.covariance))

  def interval(self, confidence: float = 0.95) -> np.ndarray | None:
    """float64 [K, 2], the Wald interval cut to [0, 1], or None."""
    if self.covariance is None:
      return None
    half = _normal_quantile(confidence) * self.standard_error()
    return np.clip(np.stack([self.auc - half, self.auc + half], axis=1), 0, 1)


@dataclasses.dataclass(frozen=True)
class PairedComparison:
  """Area of the first score minus that of the second, on the same patients.

  Attributes:
    difference: in [-1, 1].
    standard_error: of the difference.
    interval: 95 % Wald interval of the difference.
    p_value: two-sided; 1 when the scores rank all pairs alike.
  """

  difference: float
  standard_error: float
  interval: tuple[float, float]
  p_value: float


def estimate(positive: np.ndarray, negative: np.ndarray) -> AreaEstimate:
  """Estimates the areas of one or several scores.

  Args:
    positive: float [K, m] or [m], scores of the patients with disease.
    negative: float [K, n] or [n], scores of those without, m and n at least 1.

  Returns:
    The areas and their covariance.
  """
  positive = np.atleast_2d(np.asarray(positive, np.float64))
  negative = np.atleast_2d(np.asarray(negative, np.float64))
  m, n = positive.shape[1], negative.shape[1]
  together = scipy.stats.rankdata(np.hstack([positive, negative]), axis=1)
  # Share of the other group that each patient's score beats.
  above = (together[:, :m] - scipy.stats.rankdata(positive, axis=1)) / n
  below = 1 - (together[:, m:] - scipy.stats.rankdata(negative, axis=1)) / m
  if min(m, n) < SMALLEST_GROUP:
    return AreaEstimate(above.mean(axis=1), None)
  covariance = np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n
  return AreaEstimate(above.mean(axis=1), covariance)


def compare_paired(areas: AreaEstimate) -> PairedComparison:
  """Tests whether the first two of `areas` differ.

  Args:
    areas: of two scores over the same patients, with a covariance.

  Returns:
    The difference, first minus second, with its test.
  """
  contrast = np.array([1.0, -1.0])
  difference = float(contrast @ areas.auc[:2])
  variance = float(contrast @ areas.covariance[:2, :2] @ contrast)
  error = max(variance, 0.0) ** 0.5  # Rounding may leave -1e-19 of equal scores.
  half = _normal_quantile(0.95) * error
  if error > 0:
    p_value = float(2 * scipy.stats.norm.sf(abs(difference) / error))
  else:
    p_value = 1.0 if difference == 0 else 0.0
  return PairedComparison(
      difference, error,
      (max(difference - half, -1.0), min(difference + half, 1.0)), p_value)


def _normal_quantile(confidence: float) -> float:
  return float(scipy.stats.norm.ppf(0.5 + confidence / 2))
