"""Thresholds of the score: what each would mean, written and read back."""

from collections.abc import Iterable, Mapping
import dataclasses
import json
import math
import os
import pathlib
from typing import Any

import numpy as np
import scipy  # Loads `stats` where they are used: half a second of each command.

from covid_tf import errors
from covid_tf import results
from covid_tf.statistics import roc

# Thresholds of the score, and what each would mean for patients.


@dataclasses.dataclass(frozen=True)
class Share:
  """A proportion with its 95 % interval.

  Attributes:
    value: in [0, 1]; None when it is a share of nobody.
    interval: (low, high), or None.
    count: patients counted, or None where the share is computed, not counted.
    total: out of how many, or None.
  """

  value: float | None
  interval: tuple[float, float] | None
  count: int | None = None
  total: int | None = None


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
  """One threshold and its consequences.

  Attributes:
    name: 'youden', 'sensitivity' or 'threshold'.
    rule: how the threshold was chosen, for people.
    threshold_cm3: `score > threshold` is a positive call.
    sensitivity, specificity: with Wilson intervals.
    ppv, npv: predictive values at this cohort's share of disease, with Wilson
      intervals.
    prevalence: the stated one, or None.
    ppv_at_prevalence, npv_at_prevalence: at the stated prevalence, or None.
  """

  name: str
  rule: str
  threshold_cm3: float
  sensitivity: Share
  specificity: Share
  ppv: Share
  npv: Share
  prevalence: float | None
  ppv_at_prevalence: Share | None
  npv_at_prevalence: Share | None


def youden_threshold(curve: roc.RocCurve) -> float:
  """The threshold with the highest sensitivity + specificity; of equals the lowest one.

  The lowest, since missing a patient is the worse mistake of a first reading.
  """
  # Whole numbers, so that equals are equal.
  gain = (
    curve.true_positives * curve.n_negative - curve.false_positives * curve.n_positive
  )
  return float(curve.thresholds[np.argmax(gain)])


def sensitivity_threshold(curve: roc.RocCurve, sensitivity: float) -> float | None:
  """The highest threshold that reaches `sensitivity`; None when none does."""
  reached = np.flatnonzero(curve.sensitivity >= sensitivity)
  return float(curve.thresholds[reached[-1]]) if reached.size else None


def specificity_threshold(curve: roc.RocCurve, specificity: float) -> float:
  """The lowest threshold that reaches `specificity`, in [0, 1]."""
  return float(curve.thresholds[np.flatnonzero(curve.specificity >= specificity)[0]])


@dataclasses.dataclass(frozen=True)
class LogitShift:
  """What is added to a classifier's logit so that its operating point lies at 0.5.

  Attributes:
    shift: added to the logit.
    threshold: probability, before, that becomes 0.5.
    sensitivity_before, specificity_before: at 0.5 without the shift.
    sensitivity, specificity: with it, on the cases that it was chosen from.
  """

  shift: float
  threshold: float
  sensitivity_before: Share
  specificity_before: Share
  sensitivity: Share
  specificity: Share


def choose_shift(
  positive: np.ndarray, negative: np.ndarray, specificity: float
) -> LogitShift:
  """Chooses the lowest operating point of a classifier that reaches a specificity.

  Args:
    positive: float [m], probabilities of slices with opacity; one at least.
    negative: float [n], of slices without; one at least.
    specificity: wanted on `negative`, in (0, 1).

  Returns:
    The shift, and what it does to these slices.

  Raises:
    ValueError: too many of `negative` have a probability of 1, or all of 0: no finite
      shift reaches it.
  """
  positive, negative = (np.asarray(p, np.float64) for p in (positive, negative))
  threshold = specificity_threshold(roc.curve(positive, negative), specificity)
  if not 0 < threshold < 1:
    raise ValueError(
      f'a threshold between 0 and 1 is required for a specificity of {specificity:g}, '
      f'found {threshold:g}'
    )
  before, after = (
    (
      wilson(int(np.sum(positive > cut)), len(positive)),
      wilson(int(np.sum(negative <= cut)), len(negative)),
    )
    for cut in (0.5, threshold)
  )
  shift = math.log1p(-threshold) - math.log(threshold)
  return LogitShift(shift, threshold, *before, *after)


def operating_point(
  name: str,
  rule: str,
  threshold_cm3: float,
  positive: np.ndarray,
  negative: np.ndarray,
  prevalence: float | None = None,
) -> OperatingPoint:
  """Counts what a threshold does in this cohort.

  Args:
    name: short name of the rule.
    rule: the rule as text.
    threshold_cm3: its threshold.
    positive: float [m], scores of the patients with disease.
    negative: float [n], scores of those without.
    prevalence: share of disease among those to be read, in (0, 1); None: not stated.

  Returns:
    The point with its intervals.
  """
  true_positives = int(np.sum(positive > threshold_cm3))
  false_positives = int(np.sum(negative > threshold_cm3))
  false_negatives = len(positive) - true_positives
  true_negatives = len(negative) - false_positives
  sensitivity = wilson(true_positives, len(positive))
  specificity = wilson(true_negatives, len(negative))
  return OperatingPoint(
    name,
    rule,
    threshold_cm3,
    sensitivity,
    specificity,
    ppv=wilson(true_positives, true_positives + false_positives),
    npv=wilson(true_negatives, true_negatives + false_negatives),
    prevalence=prevalence,
    ppv_at_prevalence=_predictive(sensitivity, specificity, prevalence),
    npv_at_prevalence=_predictive(
      specificity, sensitivity, None if prevalence is None else 1 - prevalence
    ),
  )


def wilson(count: int, total: int) -> Share:
  """A counted share with Wilson's 95 % interval."""
  if total == 0:
    return Share(None, None, count, total)
  interval = scipy.stats.binomtest(count, total).proportion_ci(method='wilson')
  return Share(count / total, (float(interval.low), float(interval.high)), count, total)


def _predictive(
  found: Share, spared: Share, share_of_kind: float | None
) -> Share | None:
  """Bayes' rule; its interval takes both Wilson limits to the same side.

  Both shares at their lower limits at once is rarer than either, so the interval
  covers at least 95 %: wide, and honest about it.

  Args:
    found: share of the kind that is called so (sensitivity, for the PPV).
    spared: share of the other kind that is not (specificity, for the PPV).
    share_of_kind: share of the kind among those read; None: not stated.
  """
  if share_of_kind is None:
    return None
  if (
    found.value is None
    or spared.value is None
    or found.interval is None
    or spared.interval is None
  ):
    return Share(None, None)  # One kind has no patient.
  value = _bayes(found.value, spared.value, share_of_kind)
  low = _bayes(found.interval[0], spared.interval[0], share_of_kind)
  high = _bayes(found.interval[1], spared.interval[1], share_of_kind)
  if value is None:
    return Share(None, None)
  return Share(value, (0.0 if low is None else low, 1.0 if high is None else high))


def _bayes(found: float, spared: float, share_of_kind: float) -> float | None:
  right = found * share_of_kind
  wrong = (1 - spared) * (1 - share_of_kind)
  return right / (right + wrong) if right + wrong > 0 else None


# The threshold of a case: a number, or the operating point that a cohort gave.

FILE_NAME = 'operating_point.json'
SCHEMA_VERSION = 1  # Of this file.


@dataclasses.dataclass(frozen=True)
class CaseThreshold:
  """Where a score is called positive.

  Attributes:
    corona_score_cm3: a score above it is a detected case.
    rule: how it was chosen, for people.
    models: name to card digest of the models whose scores it was chosen from;
      empty where none is stated.
    is_of_scores: whether it was chosen from scores; False: a number of somebody.
    thickness_mm: that the slices of these scores were averaged to; None: every slice
      as it is.
    smoothing_mm: that the logits of these scores were smoothed by; 0: not smoothed.
    slice_probability: above which slices of these scores were positive.
    map: above which voxels of them counted.
  """

  corona_score_cm3: float
  rule: str = ''
  models: Mapping[str, str] = dataclasses.field(default_factory=dict)
  is_of_scores: bool = False
  thickness_mm: float | None = None
  smoothing_mm: float = 0.0
  slice_probability: float = 0.5
  map: float = 0.6

  def require_same_models(self, identities: Iterable[results.ModelIdentity]) -> None:
    """Refuses to judge scores of other models: their cm³ are not the same.

    Args:
      identities: the models that score now.

    Raises:
      errors.UsageError: another model of one of these names.
    """
    digests = results.card_digests(identities)
    for name, digest in self.models.items():
      if digests.get(name) != digest:
        raise errors.UsageError(
          f'--case-threshold: it was chosen with the {name} model {digest[:12]}, '
          f'but {digests.get(name, "no model")[:12]} answers; run covid-tf cohort '
          'on scores of the model in use.'
        )

  def require_same_analysis(
    self, thresholds: results.Thresholds, are_averaged: bool = True
  ) -> None:
    """Refuses to judge scores of another thickness, smoothing or other thresholds.

    Args:
      thresholds: of the scores, with the thickness and the smoothing that are used.
      are_averaged: whether slices are averaged to it; False where those of the study
        are so thick that each is taken as it is, True where that is not known yet.

    Raises:
      errors.UsageError: the scores that it was chosen from had others.
    """
    if not self.is_of_scores:
      return
    self._require_same_thickness(thresholds.thickness_mm, are_averaged)
    self._require_same_smoothing(thresholds.smoothing_mm or 0.0)
    for name, flag in (
      ('slice_probability', '--slice-threshold'),
      ('map', '--map-threshold'),
    ):
      own, used = getattr(self, name), getattr(thresholds, name)
      if own != used:
        raise errors.UsageError(
          f'--case-threshold: it was chosen from scores with {flag} {own:g}, but '
          f'{used:g} is in use; give {flag} {own:g}, or run covid-tf cohort on scores '
          'with the threshold in use.'
        )

  def _require_same_thickness(self, used: float | None, are_averaged: bool) -> None:
    if self.thickness_mm == used:
      return
    if self.thickness_mm is None and not are_averaged:
      return
    own, other = (
      'every slice as it is' if thickness is None else f'slabs of {thickness:g} mm'
      for thickness in (self.thickness_mm, used)
    )
    flag = (
      '--every-slice'
      if self.thickness_mm is None
      else f'--thickness-mm {self.thickness_mm:g}'
    )
    raise errors.UsageError(
      f'--case-threshold: it was chosen from scores of {own}, but {other} are asked '
      f'for; give {flag}, or run covid-tf cohort on scores at the thickness in use.'
    )

  def _require_same_smoothing(self, used_mm: float) -> None:
    if self.smoothing_mm == used_mm:
      return
    raise errors.UsageError(
      '--case-threshold: it was chosen from scores of logits smoothed by '
      f'{self.smoothing_mm:g} mm along the body, but {used_mm:g} mm are in use; '
      f'score with --smoothing-mm {self.smoothing_mm:g}, or run covid-tf cohort on '
      'scores with the smoothing in use.'
    )


def parse_case_threshold(text: str) -> CaseThreshold:
  """Reads the value of --case-threshold.

  Args:
    text: a number of cm³, or the path of an operating_point.json.

  Raises:
    errors.UsageError: neither.
  """
  try:
    number = float(text)
  except ValueError:
    return read_operating_point(text)
  return CaseThreshold(_volume(number, '--case-threshold'), 'given as a number')


def read_operating_point(path: str | os.PathLike[str]) -> CaseThreshold:
  """Reads an operating_point.json of `covid-tf cohort`.

  Raises:
    errors.UsageError: no such file, or not an operating point.
  """
  path = pathlib.Path(path)
  required = 'a number of cm³ or an operating_point.json of covid-tf cohort is required'
  try:
    content = json.loads(path.read_text('utf-8'))
  except OSError as error:
    raise errors.UsageError(
      f'--case-threshold {path}: {required}, found no such file ({error.strerror}).'
    ) from error
  except ValueError as error:
    raise errors.UsageError(
      f'--case-threshold {path}: {required}, found no JSON.'
    ) from error
  found = content.get('schema_version') if isinstance(content, dict) else None
  if found != SCHEMA_VERSION:
    raise errors.UsageError(
      f'--case-threshold {path}: schema_version {SCHEMA_VERSION} is required, '
      f'found {found}; write it again with covid-tf cohort.'
    )
  return CaseThreshold(
    _volume(content.get('case_corona_score_cm3'), f'--case-threshold {path}'),
    str(content.get('rule', '')),
    _digests(content.get('models'), path),
    True,
    # Files of before slices were averaged, or smoothed, do not say it: as they were.
    _stated('thickness_mm', content.get('thickness_mm'), path),
    _stated('smoothing_mm', content.get('smoothing_mm', 0.0), path) or 0.0,
    # Nor those of before the thresholds could be chosen.
    *(
      float(_stated(name, content.get(name, getattr(CaseThreshold, name)), path))
      for name in ('slice_probability', 'map')
    ),
  )


def _stated(name: str, value: Any, path: pathlib.Path) -> Any:
  try:
    return getattr(results.Thresholds(**{name: value}), name)
  except (TypeError, ValueError):
    kind = (
      'millimetres or null' if name.endswith('_mm') else 'a number from 0 to below 1'
    )
    raise errors.UsageError(
      f'--case-threshold {path}: {name} must be {kind}, found '
      f'{value!r}; write it again with covid-tf cohort.'
    ) from None


def _volume(value: object, where: str) -> float:
  if (
    isinstance(value, bool)
    or not isinstance(value, (int, float))
    or not (0 <= value < math.inf)
  ):
    raise errors.UsageError(
      f'{where}: a finite number of cm³ not below 0 is required, found {value!r}.'
    )
  return float(value)


def _digests(models: object, path: pathlib.Path) -> dict[str, str]:
  if not isinstance(models, dict) or not all(
    isinstance(digest, str) for digest in models.values()
  ):
    raise errors.UsageError(
      f'--case-threshold {path}: models with their card digests are required, '
      f'found {json.dumps(models)[:60]}; write it again with covid-tf cohort.'
    )
  return dict(models)
