"""What answers to judged slabs come to: areas, shares, calibration, correlation.

Slabs of one chest are alike, so intervals are drawn over chests, and the network and
the simple rule are compared on the same draws.
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np
import scipy.stats
from sklearn import linear_model

from covid_tf import errors
from covid_tf import results
from covid_tf.statistics import operating_points
from covid_tf.statistics import roc

_DRAWS = 1000
_LEAST_LOGIT_PROBABILITY = 1e-6
# Ours: mm² of opacity on a slab, from, below and in words.
_AREAS = (
  (0.0, 200.0, 'less than 2 cm²'),
  (200.0, 1000.0, '2 to 10 cm²'),
  (1000.0, float('inf'), '10 cm² and more'),
)


@dataclasses.dataclass(frozen=True)
class SlabAnswer:
  """One slab and the answers to it.

  Attributes:
    chest, condition: which chest, and in which state of `stress`.
    manufacturer, kernel: of the chest's scanner, or 'not stated'.
    thickness_mm: of the slab.
    study: -1 for the chest as it is, else which implanted study.
    slab: its place in the chest.
    label: 1, 0, or -1 with less than 60 mm² of opacity.
    lesion_mm2: opacity on it.
    probability: of the network.
    rule_cm2: lung of -700 to -100 HU, the simple rule.
    is_marked: whether the map is above its threshold inside the opacity; None where
      the network is not positive or the slab shows none.
  """

  chest: str
  condition: str
  manufacturer: str
  kernel: str
  thickness_mm: float
  study: int
  slab: int
  label: int
  lesion_mm2: float
  probability: float
  rule_cm2: float
  is_marked: bool | None


@dataclasses.dataclass(frozen=True)
class StudyScore:
  """An implanted study: opacity in it, and the Corona score, in cm³."""

  chest: str
  condition: str
  study: int
  amount_cm3: float
  score_cm3: float
  kinds: str


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A figure with its 95 % bootstrap interval over chests; None where not defined."""

  value: float | None
  interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The network and the rule on the same slabs.

  Attributes:
    by, name: which slabs, such as 'kernel', 'STANDARD'; '' for all.
    n_positive, n_negative, n_chests: how many.
    auc, rule_auc, difference: areas under the ROC curve of slabs, and the first minus
      the second.
    sensitivity, specificity: at probability > the slice threshold, with Wilson's
      interval over slabs.
  """

  by: str
  name: str
  n_positive: int
  n_negative: int
  n_chests: int
  auc: Estimate
  rule_auc: Estimate
  difference: Estimate
  sensitivity: operating_points.Share
  specificity: operating_points.Share


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Probabilities at a stated prevalence (slabs weighted to it).

  Attributes:
    prevalence: share of slabs with an opacity.
    brier: mean squared error of the probability.
    slope, intercept: of the logistic regression of truth on the probability's logit;
      1 and 0 are calibrated, a slope below 1 is overconfident. None where the
      probabilities separate all slabs, so that no regression ends.
  """

  prevalence: float
  brier: float
  slope: float | None
  intercept: float | None


def groups(
  answers: Sequence[SlabAnswer],
  plain: Sequence[SlabAnswer],
  thresholds: results.Thresholds,
  seed: int,
) -> tuple[Comparison, ...]:
  """Network and rule, by what chests differ in.

  By opacity on the slab, those of each size are compared with all slabs without.

  Args:
    answers: all, which are grouped by condition.
    plain: those of chests as they were scanned, for the other groups.
    thresholds: of the slice.
    seed: of the bootstrap.
  """
  kinds: dict[str, Callable[[SlabAnswer], str]] = {
    'chest': lambda answer: answer.chest,
    'manufacturer': lambda answer: answer.manufacturer,
    'kernel': lambda answer: answer.kernel,
    'slab thickness': lambda answer: f'{answer.thickness_mm:.1f} mm',
    'condition': lambda answer: answer.condition or 'as it was scanned',
  }
  found = []
  for by, name_of in kinds.items():
    asked = answers if by == 'condition' else plain
    names = sorted({name_of(answer) for answer in asked})
    if len(names) > 1:
      for name in names:
        own = [answer for answer in asked if name_of(answer) == name]
        found.append(compared(by, name, own, thresholds, seed))
  for low, high, name in _AREAS:
    own = [
      answer
      for answer in plain
      if answer.label == 0 or (answer.label == 1 and low <= answer.lesion_mm2 < high)
    ]
    if any(answer.label == 1 for answer in own):
      found.append(compared('opacity', name, own, thresholds, seed))
  return tuple(found)


def compared(
  by: str,
  name: str,
  answers: Sequence[SlabAnswer],
  thresholds: results.Thresholds,
  seed: int,
) -> Comparison:
  """Network and rule on the labelled ones of some answers; see `Comparison`."""
  labelled = [answer for answer in answers if answer.label >= 0]
  label = np.array([answer.label for answer in labelled]) == 1
  scores = np.array([(a.probability, a.rule_cm2) for a in labelled]).reshape(-1, 2).T
  chests = np.array([answer.chest for answer in labelled])
  is_found = scores[0] > thresholds.slice_probability
  networks, rules, differences = _areas(label, scores, chests, seed)
  return Comparison(
    by,
    name,
    int(label.sum()),
    int((~label).sum()),
    len(set(chests.tolist())),
    networks,
    rules,
    differences,
    operating_points.wilson(int(is_found[label].sum()), int(label.sum())),
    operating_points.wilson(int((~is_found[~label]).sum()), int((~label).sum())),
  )


def _areas(label, scores, chests, seed) -> tuple[Estimate, Estimate, Estimate]:
  """Areas of the network and of the rule, and their difference."""

  def values(places):
    kind = label[places]
    if kind.all() or not kind.any():
      return None
    own = scores[:, places]
    areas = roc.estimate_area(own[:, kind], own[:, ~kind]).auc
    return (*areas, areas[0] - areas[1])

  names, clusters = np.unique(chests, return_inverse=True)
  members = [np.flatnonzero(clusters == number) for number in range(len(names))]
  value = values(np.arange(len(label)))
  if value is None:
    return (Estimate(None, None),) * 3
  intervals = _over_chests(members, values, seed)
  first, second, third = (
    Estimate(float(value[place]), None if intervals is None else intervals[place])
    for place in range(3)
  )
  return first, second, third


def _over_chests(members, values, seed):
  """Percentile intervals of each of `values`, chests drawn with all that they hold.

  None with fewer than two chests, and where half of the draws give no value.
  """
  if len(members) < 2:
    return None
  random = np.random.default_rng(seed)
  drawn = []
  for _ in range(_DRAWS):
    chosen = random.integers(0, len(members), len(members))
    found = values(np.concatenate([members[number] for number in chosen]))
    if found is not None:
      drawn.append(found)
  if len(drawn) < _DRAWS // 2:
    return None
  limits = np.percentile(np.array(drawn), (2.5, 97.5), axis=0)
  return [(float(low), float(high)) for low, high in limits.T]


def calibrate(
  label: np.ndarray, probability: np.ndarray, prevalence: float
) -> Calibration | None:
  """Calibration of probabilities, slabs weighted to a prevalence.

  Args:
    label: int [n], 1, 0, or -1 where unknown (left out).
    probability: float [n], in [0, 1].
    prevalence: share of positives that the figures hold for, in (0, 1).

  Returns:
    The figures; None where a class is empty.

  Raises:
    errors.UsageError: the prevalence is no share.
  """
  if not 0 < prevalence < 1:
    raise errors.UsageError(
      f'prevalence: a share above 0 and below 1 is required, found {prevalence:g}.'
    )
  known = label >= 0
  positive, probability = label[known] == 1, probability[known].astype(float)
  if positive.all() or not positive.any():
    return None
  weights = np.where(
    positive, prevalence / positive.sum(), (1 - prevalence) / (~positive).sum()
  )
  brier = float((weights * (probability - positive) ** 2).sum())
  if probability[positive].min() > probability[~positive].max():
    return Calibration(prevalence, brier, None, None)
  least = _LEAST_LOGIT_PROBABILITY
  clipped = np.clip(probability, least, 1 - least)
  logit = np.log(clipped / (1 - clipped))[:, np.newaxis]
  fit = linear_model.LogisticRegression(C=np.inf, max_iter=1000).fit(
    logit, positive, weights * len(positive)
  )
  return Calibration(
    prevalence, brier, float(fit.coef_[0, 0]), float(fit.intercept_[0])
  )


def rank_correlation(studies: Sequence[StudyScore], seed: int) -> Estimate:
  """Spearman's, of score and amount of opacity; None where all are alike."""
  pairs = np.array([(s.amount_cm3, s.score_cm3) for s in studies]).reshape(-1, 2)

  def values(places):
    own = pairs[places]
    if len(np.unique(own[:, 0])) < 3 or len(np.unique(own[:, 1])) < 2:
      return None
    return (float(scipy.stats.spearmanr(own[:, 0], own[:, 1]).statistic),)

  found = values(np.arange(len(pairs)))
  if found is None:
    return Estimate(None, None)
  names = [study.chest for study in studies]
  members = [
    np.flatnonzero([name == own for name in names]) for own in sorted(set(names))
  ]
  intervals = _over_chests(members, values, seed)
  return Estimate(found[0], None if intervals is None else intervals[0])


def score_ratio(studies: Sequence[StudyScore]) -> tuple[float, float, float] | None:
  """Quartiles of score ÷ amount of opacity; None without opacity."""
  ratios = [s.score_cm3 / s.amount_cm3 for s in studies if s.amount_cm3 > 0]
  if not ratios:
    return None
  low, middle, high = np.percentile(ratios, (25, 50, 75)).tolist()
  return low, middle, high
