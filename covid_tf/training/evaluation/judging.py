"""Networks judged on chests that training left out, with a simple rule beside.

Positive are slabs of a chest with implanted opacities, negative those of the same chest
as it is (`judged_chests`). Slabs of one chest are alike, so intervals are drawn over
chests, and the network and the rule are compared on the same draws.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses

import numpy as np
import scipy.stats
from sklearn import linear_model

from covid_tf import errors
from covid_tf import results
from covid_tf.analysis import localization
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.cohort.accuracy import strata
from covid_tf.datasets import judged_chests
from covid_tf.statistics import operating_points
from covid_tf.statistics import roc

Explain = Callable[[np.ndarray], results.SliceExplanation]

# Ours: of the slices of a study of suspected pneumonia, a third with an opacity.
PREVALENCE = 0.33
_DRAWS = 1000
_GALLERY = 12
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


@dataclasses.dataclass(frozen=True)
class Shown:
  """A slab for the gallery: int16 hu and uint8 lesion_mask [row, column]."""

  answer: SlabAnswer
  hu: np.ndarray = dataclasses.field(repr=False)
  lesion_mask: np.ndarray = dataclasses.field(repr=False)
  pixel_mm: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Judgement:
  """All figures of a judge.

  Attributes:
    slabs: every slab asked.
    overall: of all labelled slabs of chests as they were scanned; so are the other
      figures, but for those by condition.
    groups: the same by chest, manufacturer, kernel, thickness and condition, where
      there is more than one, and by opacity on the slab.
    calibration: at a stated prevalence; None where a class is empty.
    studies: implanted studies with their scores; empty where no maps were asked.
    rank_correlation: Spearman's, of score and amount.
    score_ratio: quartiles of score ÷ amount.
    marked: of positive slabs called positive, those with the map inside the opacity.
    misses, false_alarms: the worst ones.
    skipped: opacities that no lung held.
  """

  slabs: tuple[SlabAnswer, ...]
  overall: Comparison
  groups: tuple[Comparison, ...]
  calibration: Calibration | None
  studies: tuple[StudyScore, ...]
  rank_correlation: Estimate
  score_ratio: tuple[float, float, float] | None
  marked: operating_points.Share
  misses: tuple[Shown, ...]
  false_alarms: tuple[Shown, ...]
  skipped: int


def judge(
  classifier: Explain | Callable[[np.ndarray], np.ndarray],
  chests: Iterable[judged_chests.JudgedChest],
  *,
  thresholds: results.Thresholds | None = None,
  smoothing_mm: float = 0.0,
  prevalence: float = PREVALENCE,
  seed: int = 0,
) -> Judgement:
  """Asks a classifier about judged slabs, with the simple rule beside.

  Args:
    classifier: int16 [N, h, w] lung crops to float32 [N] probabilities, or to a
      `SliceExplanation`, with which scores and maps are judged too.
    chests: consumed one by one.
    thresholds: of the slice and of the map; None: the package's.
    smoothing_mm: of the logits along the body, as in `analyze`; 0: none.
    prevalence: of opacity, for the calibration.
    seed: of the bootstraps.

  Returns:
    The figures.

  Raises:
    errors.UsageError: there is no chest.
  """
  thresholds = thresholds or results.Thresholds()
  answers: list[SlabAnswer] = []
  studies: list[StudyScore] = []
  misses: list[Shown] = []
  alarms: list[Shown] = []
  skipped = 0
  for chest in chests:
    found, scores = _asked(chest, classifier, thresholds, smoothing_mm)
    answers += found
    studies += scores
    misses += _worst(chest, found, 1)
    alarms += _worst(chest, found, 0)
    skipped += chest.skipped
  return _judgement(
    answers, studies, misses, alarms, skipped, thresholds, prevalence, seed
  )


def pooled(
  folds: Sequence[Judgement],
  *,
  thresholds: results.Thresholds | None = None,
  prevalence: float = PREVALENCE,
  seed: int = 0,
) -> Judgement:
  """One judgement of the chests of several, such as each fold's network on its own.

  Args:
    folds: what `judge` gave, of different chests.
    thresholds, prevalence, seed: as of `judge`.

  Raises:
    errors.UsageError: there is none.
  """

  def all_of(name):
    return [item for fold in folds for item in getattr(fold, name)]

  return _judgement(
    all_of('slabs'),
    all_of('studies'),
    all_of('misses'),
    all_of('false_alarms'),
    sum(fold.skipped for fold in folds),
    thresholds or results.Thresholds(),
    prevalence,
    seed,
  )


def _judgement(answers, studies, misses, alarms, skipped, thresholds, prevalence, seed):
  if not answers:
    raise errors.UsageError('judge: one chest or more is required, found none.')
  # Chests under stress are judged beside, not with, those as they were scanned.
  plain = [answer for answer in answers if not answer.condition] or answers
  scored = [study for study in studies if not study.condition] or studies
  marks = [answer.is_marked for answer in plain if answer.is_marked is not None]
  return Judgement(
    tuple(answers),
    _compared('', '', plain, thresholds, seed),
    _groups(answers, plain, thresholds, seed),
    calibrate(
      np.array([answer.label for answer in plain]),
      np.array([answer.probability for answer in plain]),
      prevalence,
    ),
    tuple(studies),
    _rank_correlation(scored, seed),
    _score_ratio(scored),
    operating_points.wilson(sum(marks), len(marks)),
    tuple(sorted(misses, key=lambda shown: shown.answer.probability)[:_GALLERY]),
    tuple(sorted(alarms, key=lambda shown: -shown.answer.probability)[:_GALLERY]),
    skipped,
  )


def _asked(chest, classifier, thresholds, smoothing_mm):
  """(answers to the slabs of a chest, scores of its studies)."""
  found = classifier(chest.hu)
  if not isinstance(found, results.SliceExplanation):
    probability, _ = _probability(chest, found, smoothing_mm)
    return _answers(chest, probability, None, thresholds), []
  maps = localization.FusedMaps(found.cam_28, found.cam_14, chest.hu.shape[1:])
  probability, by_study = _probability(chest, found.covid_probability, smoothing_mm)
  answers = _answers(chest, probability, maps, thresholds)
  return answers, _studies(chest, by_study, maps, thresholds)


def _probability(chest, probability, smoothing_mm):
  """What analysis makes of the answers, study by study.

  A slab that shows no opacity of a study is the chest's own.

  Returns:
    (float [n], of every slab; study -> (places of its slabs in [n], their float [k])).
  """
  used = np.array(probability, float)
  own = {int(chest.slab[place]): place for place in np.flatnonzero(chest.study < 0)}
  by_study = {}
  for study in range(judged_chests.UNTOUCHED, len(chest.amount_cm3)):
    shown = np.flatnonzero(chest.study == study)
    sequence = own | {int(chest.slab[place]): int(place) for place in shown}
    slabs = sorted(sequence)
    places = np.array([sequence[slab] for slab in slabs], int)
    values = slabs_lib.smoothed(
      np.asarray(probability, np.float32)[places],
      np.array(slabs) * chest.thickness_mm,
      smoothing_mm,
    )
    by_study[study] = places, values
    is_own = chest.study[places] == study
    used[places[is_own]] = values[is_own]
  return used, by_study


def _answers(chest, probability, maps, thresholds) -> list[SlabAnswer]:
  rule, area = chest.rule_cm2(), chest.lesion_mm2
  answers = []
  for place in range(len(chest.hu)):
    is_found = probability[place] > thresholds.slice_probability
    is_marked = None
    if maps is not None and chest.label[place] == 1 and is_found:
      inside = maps[place][chest.lesion_mask[place] != 0]
      is_marked = bool((inside > float(thresholds.map)).any())
    answers.append(
      SlabAnswer(
        chest.name,
        chest.condition,
        chest.acquisition.manufacturer or strata.NOT_STATED,
        chest.acquisition.kernel or strata.NOT_STATED,
        chest.thickness_mm,
        int(chest.study[place]),
        int(chest.slab[place]),
        int(chest.label[place]),
        float(area[place]),
        float(probability[place]),
        float(rule[place]),
        is_marked,
      )
    )
  return answers


def _studies(chest, by_study, maps, thresholds) -> list[StudyScore]:
  """The Corona score (Eq. 1) of each implanted study, over all its slabs."""
  slab_cm3 = chest.thickness_mm * float(np.prod(chest.pixel_mm)) / 1000
  parts: dict[int, float] = {}
  scores = []
  for number, amount_cm3 in enumerate(chest.amount_cm3):
    score = 0.0
    for place, probability in zip(*by_study[number]):
      if probability > thresholds.slice_probability:
        if place not in parts:
          values = maps[place][maps[place] > float(thresholds.map)]
          parts[place] = float(values.sum(dtype=np.float64)) * slab_cm3
        score += parts[place]
    scores.append(
      StudyScore(
        chest.name,
        chest.condition,
        number,
        float(amount_cm3),
        score,
        chest.kinds[number],
      )
    )
  return scores


def _worst(chest, answers, label) -> list[Shown]:
  """For the gallery: the worst slab of each study, or of five neighbours."""
  worst: dict[int, int] = {}
  sign = 1 if label else -1
  for place, answer in enumerate(answers):
    if answer.label != label:
      continue
    key = answer.study if label else answer.slab // 5
    best = worst.setdefault(key, place)
    if sign * answer.probability < sign * answers[best].probability:
      worst[key] = place
  # Copies: the whole chest need not stay for a few slabs of it.
  return [
    Shown(
      answers[place],
      chest.hu[place].copy(),
      chest.lesion_mask[place].copy(),
      chest.pixel_mm,
    )
    for place in sorted(worst.values(), key=lambda p: sign * answers[p].probability)
  ][:_GALLERY]


def _groups(answers, plain, thresholds, seed) -> tuple[Comparison, ...]:
  """By what chests differ in; by condition all answers, else the plain ones.

  By opacity on the slab, those of each size against all slabs without.
  """
  kinds: dict[str, Callable[[SlabAnswer], str]] = {
    'chest': lambda answer: answer.chest,
    'manufacturer': lambda answer: answer.manufacturer,
    'kernel': lambda answer: answer.kernel,
    'slab thickness': lambda answer: f'{answer.thickness_mm:.1f} mm',
    'condition': lambda answer: answer.condition or 'as it was scanned',
  }
  compared = []
  for by, name_of in kinds.items():
    asked = answers if by == 'condition' else plain
    names = sorted({name_of(answer) for answer in asked})
    if len(names) > 1:
      for name in names:
        own = [answer for answer in asked if name_of(answer) == name]
        compared.append(_compared(by, name, own, thresholds, seed))
  for low, high, name in _AREAS:
    own = [
      answer
      for answer in plain
      if answer.label == 0 or (answer.label == 1 and low <= answer.lesion_mm2 < high)
    ]
    if any(answer.label == 1 for answer in own):
      compared.append(_compared('opacity', name, own, thresholds, seed))
  return tuple(compared)


def _compared(by, name, answers, thresholds, seed) -> Comparison:
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


def _rank_correlation(studies: Sequence[StudyScore], seed) -> Estimate:
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


def _score_ratio(studies) -> tuple[float, float, float] | None:
  ratios = [s.score_cm3 / s.amount_cm3 for s in studies if s.amount_cm3 > 0]
  if not ratios:
    return None
  low, middle, high = np.percentile(ratios, (25, 50, 75)).tolist()
  return low, middle, high
