"""Networks judged on chests that training left out, with a simple rule beside.

Positive are slabs of a chest with implanted opacities, negative those of the same chest
as it is (`judged_chests`). What their answers come to: `judged_figures`.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses

import numpy as np

from covid_tf import errors
from covid_tf import results
from covid_tf.analysis import localization
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.cohort.accuracy import strata
from covid_tf.datasets import judged_chests
from covid_tf.statistics import operating_points
from covid_tf.training.evaluation import judged_figures

Explain = Callable[[np.ndarray], results.SliceExplanation]

# Ours: of the slices of a study of suspected pneumonia, a third with an opacity.
PREVALENCE = 0.33
_GALLERY = 12


@dataclasses.dataclass(frozen=True)
class Shown:
  """A slab for the gallery: int16 hu and uint8 lesion_mask [row, column]."""

  answer: judged_figures.SlabAnswer
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

  slabs: tuple[judged_figures.SlabAnswer, ...]
  overall: judged_figures.Comparison
  groups: tuple[judged_figures.Comparison, ...]
  calibration: judged_figures.Calibration | None
  studies: tuple[judged_figures.StudyScore, ...]
  rank_correlation: judged_figures.Estimate
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
    smoothing_mm: of the logits along the body, as in `analyze`, which asks at half
      steps for it; 0: none.
    prevalence: of opacity, for the calibration.
    seed: of the bootstraps.

  Returns:
    The figures.

  Raises:
    errors.UsageError: there is no chest.
  """
  thresholds = thresholds or results.Thresholds()
  answers: list[judged_figures.SlabAnswer] = []
  studies: list[judged_figures.StudyScore] = []
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
    judged_figures.compared('', '', plain, thresholds, seed),
    judged_figures.groups(answers, plain, thresholds, seed),
    judged_figures.calibrate(
      np.array([answer.label for answer in plain]),
      np.array([answer.probability for answer in plain]),
      prevalence,
    ),
    tuple(studies),
    judged_figures.rank_correlation(scored, seed),
    judged_figures.score_ratio(scored),
    operating_points.wilson(sum(marks), len(marks)),
    tuple(sorted(misses, key=lambda shown: shown.answer.probability)[:_GALLERY]),
    tuple(sorted(alarms, key=lambda shown: -shown.answer.probability)[:_GALLERY]),
    skipped,
  )


def _asked(chest, classifier, thresholds, smoothing_mm):
  """(answers to the slabs of a chest, scores of its studies)."""
  found = classifier(chest.hu)
  between = np.empty(0, np.float32)
  if smoothing_mm and len(chest.between_hu):
    between = _covid_probability(classifier(chest.between_hu))
  probability, by_study = smoothed(
    chest, _covid_probability(found), between, smoothing_mm
  )
  if not isinstance(found, results.SliceExplanation):
    return _answers(chest, probability, None, thresholds), []
  maps = localization.FusedMaps(found.cam_28, found.cam_14, chest.hu.shape[1:])
  answers = _answers(chest, probability, maps, thresholds)
  return answers, _studies(chest, by_study, maps, thresholds)


def _covid_probability(found) -> np.ndarray:
  """float32 [n], of what a classifier gave."""
  is_explained = isinstance(found, results.SliceExplanation)
  return np.asarray(found.covid_probability if is_explained else found, np.float32)


def smoothed(
  chest: judged_chests.JudgedChest,
  of_slabs: np.ndarray,
  between: np.ndarray,
  smoothing_mm: float,
) -> tuple[np.ndarray, dict[int, tuple[np.ndarray, np.ndarray]]]:
  """What analysis makes of the answers, study by study.

  A slab, or what is between two, that shows no opacity of a study is the chest's own.

  Args:
    chest: the slabs; their pixels are not needed.
    of_slabs: float32 [n], probabilities of its slabs.
    between: float32 [m], of what is between them; [0] where slabs alone were asked.
    smoothing_mm: of the logits along the body; 0: none.

  Returns:
    (float64 [n], of every slab; study -> (places in [n] of all its slabs, int [k],
    their probabilities, float32 [k])).
  """
  used = of_slabs.astype(float)
  asked = np.concatenate([of_slabs, between])
  # In halves of a slab.
  steps = np.concatenate([2 * chest.slab, 2 * chest.between_slab + 1])[: len(asked)]
  study_of = np.concatenate([chest.study, chest.between_study])[: len(asked)]
  own = {int(steps[place]): int(place) for place in np.flatnonzero(study_of < 0)}
  by_study = {}
  for study in range(judged_chests.UNTOUCHED, len(chest.amount_cm3)):
    shown = np.flatnonzero(study_of == study)
    sequence = own | {int(steps[place]): int(place) for place in shown}
    along = sorted(sequence)
    places = np.array([sequence[step] for step in along], int)
    values = slabs_lib.smoothed(
      asked[places], np.array(along) * (chest.thickness_mm / 2), smoothing_mm
    )
    is_slab = places < len(used)
    places, values = places[is_slab], values[is_slab]
    by_study[study] = places, values
    is_own = chest.study[places] == study
    used[places[is_own]] = values[is_own]
  return used, by_study


def _answers(chest, probability, maps, thresholds) -> list[judged_figures.SlabAnswer]:
  rule, area = chest.rule_cm2(), chest.lesion_mm2
  answers = []
  for place in range(len(chest.hu)):
    is_found = probability[place] > thresholds.slice_probability
    is_marked = None
    if maps is not None and chest.label[place] == 1 and is_found:
      inside = maps[place][chest.lesion_mask[place] != 0]
      is_marked = bool((inside > float(thresholds.map)).any())
    answers.append(
      judged_figures.SlabAnswer(
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


def _studies(chest, by_study, maps, thresholds) -> list[judged_figures.StudyScore]:
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
      judged_figures.StudyScore(
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
