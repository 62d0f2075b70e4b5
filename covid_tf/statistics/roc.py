"""The ROC curve of a score, and how far its area may be off.

Every threshold is strict, as in the score itself: a patient above the threshold is
called positive, one at it is not.
"""

import dataclasses

import numpy as np
import scipy  # Loads `stats` where they are used: half a second of each command.

BOOTSTRAP_DRAWS = 2000
# Draws worked on at once: 64 x 10,000 patients stay below 20 MB.
_DRAWS_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class RocCurve:
  """Sensitivity and specificity over all thresholds that differ.

  Attributes:
    thresholds: float64 [T], ascending; halfway between neighbouring scores, and
      one below the lowest score. `score > threshold` is a positive call.
    true_positives: int64 [T], patients with disease called positive.
    false_positives: int64 [T], patients without disease called positive.
    n_positive: patients with disease.
    n_negative: patients without.
  """

  thresholds: np.ndarray
  true_positives: np.ndarray
  false_positives: np.ndarray
  n_positive: int
  n_negative: int

  @property
  def sensitivity(self) -> np.ndarray:
    """float64 [T]."""
    return self.true_positives / self.n_positive

  @property
  def specificity(self) -> np.ndarray:
    """float64 [T]."""
    return 1 - self.false_positives / self.n_negative


def curve(positive: np.ndarray, negative: np.ndarray) -> RocCurve:
  """Computes the ROC curve.

  scikit-learn's roc_curve takes the scores themselves, with >=; a threshold
  taken from it would, under our strict comparison, lose the patient it was read
  from. Hence the thresholds between the scores.

  Args:
    positive: float [m], scores of the patients with disease; higher is worse.
    negative: float [n], scores of those without.

  Returns:
    The curve, from everything called positive to nothing.
  """
  values = np.unique(np.concatenate([positive, negative]))
  # Below the lowest score all are positive. A score is a volume: when its lowest
  # is 0 no threshold lies below it, so no threshold calls everyone positive.
  lowest = [values[0] / 2] if values[0] > 0 else []
  thresholds = np.concatenate([lowest, (values[:-1] + values[1:]) / 2, values[-1:]])
  return RocCurve(
    thresholds,
    count_above(positive, thresholds),
    count_above(negative, thresholds),
    len(positive),
    len(negative),
  )


def count_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
  """int64 [T]: how many of `scores` lie strictly above each of `thresholds`."""
  return len(scores) - np.searchsorted(np.sort(scores), thresholds, side='right')


def bootstrap_interval(
  positive: np.ndarray,
  negative: np.ndarray,
  draws: int = BOOTSTRAP_DRAWS,
  seed: int = 0,
) -> tuple[float, float]:
  """Percentile bootstrap of the area, 95 %.

  Patients are drawn with replacement within each group, one score a patient, so
  that a draw has as many patients with disease as the cohort. Percentile, not
  BCa: the latter has no answer where every draw separates the groups.

  Args:
    positive: float [m], one score for each patient with disease.
    negative: float [n], one for each without.
    draws: resampled cohorts.
    seed: of the resampling.

  Returns:
    (low, high).
  """
  drawn = scipy.stats.bootstrap(
    (positive, negative),
    _areas,
    n_resamples=draws,
    batch=_DRAWS_AT_ONCE,
    vectorized=True,
    method='percentile',
    confidence_level=0.95,
    rng=np.random.default_rng(seed),
  )
  low, high = drawn.confidence_interval
  return float(low), float(high)


def newcombe_interval(
  auc: float, n_positive: int, n_negative: int
) -> tuple[float, float]:
  """Newcombe's method 5 for an area, 95 %: of use where the others collapse.

  When the groups are fully separated, DeLong's variance and every draw give
  "no uncertainty". This interval, a score interval on the Hanley-McNeil variance,
  still depends on the number of patients. R. G. Newcombe, Statistics in Medicine
  25 (2006) 559-573.

  Args:
    auc: the observed area.
    n_positive: patients with disease.
    n_negative: patients without.

  Returns:
    (low, high).
  """
  z = scipy.stats.norm.ppf(0.975)
  mean_size_less_one = (n_positive + n_negative) / 2 - 1

  def excess(area: float) -> float:
    spread = 1 + mean_size_less_one * ((1 - area) / (2 - area) + area / (1 + area))
    variance = area * (1 - area) * spread / (n_positive * n_negative)
    return (auc - area) ** 2 - z**2 * variance

  # Just off the area itself: at 0 and 1, where it has no variance, that is a root.
  off = 1e-9
  low = 0.0 if auc <= off else float(scipy.optimize.brentq(excess, 0, auc - off))
  high = 1.0 if auc >= 1 - off else float(scipy.optimize.brentq(excess, auc + off, 1))
  return low, high


def _areas(positive: np.ndarray, negative: np.ndarray, axis: int = -1) -> np.ndarray:
  """Areas of many resampled cohorts at once: [..., m] and [..., n] to [...]."""
  m, n = positive.shape[axis], negative.shape[axis]
  ranks = scipy.stats.rankdata(
    np.concatenate([positive, negative], axis=axis), axis=axis
  )
  above = np.take(ranks, np.arange(m), axis=axis).sum(axis=axis) - m * (m + 1) / 2
  return above / (m * n)


# Area under the ROC curve with DeLong's variance, for one score or several.
#
# E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or
# more correlated receiver operating characteristic curves: a nonparametric
# approach", Biometrics 44 (1988) 837-845. The placement values come from midranks
# (X. Sun, W. Xu, IEEE Signal Processing Letters 21 (2014) 1389-1393), so a cohort of
# any size costs a sort, not the square of its patients. No library we depend on
# offers it.

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
    """float64 [K, 2], the Wald interval clipped to [0, 1], or None."""
    error = self.standard_error()
    if error is None:
      return None
    half = _normal_quantile(confidence) * error
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


def estimate_area(positive: np.ndarray, negative: np.ndarray) -> AreaEstimate:
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

  Raises:
    ValueError: the areas have no covariance.
  """
  if areas.covariance is None:
    raise ValueError('areas: a covariance is required, found None.')
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
    difference,
    error,
    (max(difference - half, -1.0), min(difference + half, 1.0)),
    p_value,
  )


def _normal_quantile(confidence: float) -> float:
  return float(scipy.stats.norm.ppf(0.5 + confidence / 2))
