"""The demo's named figures: how good the shipped models are on phantoms."""

from collections.abc import Sequence

import numpy as np
from scipy import stats
from sklearn import metrics

from covid_tf.demo import agreement

# Figure -> what the demo models are held to; other figures are only told.
REQUIRED = {
    'positives_above_negatives': 1.0,
    'volume_rank_correlation': 0.8,
    'map_hits_lesion_fraction': 0.9,
    'lung_dice_min': 0.95,
}


def figures(cases: Sequence[agreement.CaseAgreement]) -> dict[str, float | None]:
  """Named figures of a cohort; None where the cohort cannot have one.

  positives_above_negatives is the share of positive patients whose score lies
  above every negative's.

  Args:
    cases: the scored phantoms.
  """
  positive = [case for case in cases if case.truth.positive]
  negative = [case for case in cases if not case.truth.positive]
  scores = np.array([case.corona_score_cm3 for case in positive])
  highest = max((case.corona_score_cm3 for case in negative), default=None)
  found = sum(case.true_positive_slices for case in cases)
  dices = [case.lung_dice for case in cases]
  slices = sum(case.truth.slice_count for case in cases)
  seconds = sum(case.seconds for case in cases)
  both = bool(positive) and bool(negative)
  return {
      'patients': len(cases),
      'positive_patients': len(positive),
      'slices': slices,
      'score_auc': _auc([case.truth.positive for case in cases],
                        [case.corona_score_cm3 for case in cases]),
      'positives_above_negatives': float((scores > highest).mean()) if both else None,
      'lowest_positive_score_cm3': float(scores.min()) if positive else None,
      'highest_negative_score_cm3': highest,
      'volume_rank_correlation': _rank_correlation(positive),
      'true_positive_slices': found,
      'map_hits_lesion_fraction': (
          sum(case.hit_slices for case in cases) / found if found else None),
      **_slice_figures(cases),
      'lung_dice_min': min(dices, default=None),
      'lung_dice_mean': float(np.mean(dices)) if dices else None,
      'seconds': seconds,
      'seconds_per_slice': seconds / slices if slices else None,
  }


def failures(named: dict[str, float | None]) -> list[str]:
  """Names of the required figures that are known and not reached."""
  return [name for name, least in REQUIRED.items()
          if named[name] is not None and named[name] < least]


def _rank_correlation(positive):
  """Spearman's, of score and true lesion volume; None below three patients."""
  if len(positive) < 3:
    return None
  scores = [case.corona_score_cm3 for case in positive]
  volumes = [case.truth.lesion_volume_cm3 for case in positive]
  if min(scores) == max(scores) or min(volumes) == max(volumes):
    return 0.0  # All equal: no order at all.
  return float(stats.spearmanr(scores, volumes).statistic)


def _slice_figures(cases):
  """Sensitivity, specificity and AUC over slices; any lesion makes one positive."""
  truth, found, probability = [], [], []
  for case in cases:
    indices = np.arange(case.truth.slice_count)
    truth.append(np.isin(indices, case.truth.positive_slices))
    found.append(np.isin(indices, case.positive_slices))
    probability.append(case.slice_probability)
  if not cases:
    return dict.fromkeys(('slice_sensitivity', 'slice_specificity', 'slice_auc'))
  truth, found = np.concatenate(truth), np.concatenate(found)
  return {
      'slice_sensitivity': float(found[truth].mean()) if truth.any() else None,
      'slice_specificity': float((~found[~truth]).mean()) if (~truth).any() else None,
      'slice_auc': _auc(truth, np.concatenate(probability))}


def _auc(truth, score):
  if len(set(np.asarray(truth).tolist())) < 2:
    return None
  return float(metrics.roc_auc_score(truth, score))
