"""The judge's figures: calibration at a stated prevalence, intervals over chests."""

import numpy as np
import pytest

from covid_tf import errors
from covid_tf.training.evaluation import judged_figures


def test_calibration_holds_for_the_stated_prevalence():
  random = np.random.default_rng(0)
  truth = random.random(40000) < 0.3
  logit = np.log(0.3 / 0.7) + np.where(truth, 1.0, -1.0) * 1.5
  logit = logit + random.normal(0, np.sqrt(3), len(truth))  # Likelihood ratio: exp(x).
  label = truth.astype(int)
  honest = judged_figures.calibrate(label, 1 / (1 + np.exp(-logit)), 0.3)
  assert honest.slope == pytest.approx(1, abs=0.06)
  assert honest.intercept == pytest.approx(0, abs=0.06)
  bold = judged_figures.calibrate(label, 1 / (1 + np.exp(-2 * logit)), 0.3)
  assert bold.slope == pytest.approx(0.5, abs=0.04)
  assert bold.brier > honest.brier
  # The same answers where opacities are rarer: the intercept says how much.
  rare = judged_figures.calibrate(label, 1 / (1 + np.exp(-logit)), 0.1)
  shift = np.log(0.1 / 0.9) - np.log(0.3 / 0.7)
  assert rare.intercept == pytest.approx(shift, abs=0.08)


def test_calibration_where_it_is_not_defined():
  separated = judged_figures.calibrate(np.array([1, 0]), np.array([0.9, 0.1]), 0.5)
  assert separated.slope is None and separated.brier == pytest.approx(0.01)
  assert judged_figures.calibrate(np.array([1, -1]), np.array([0.9, 0.1]), 0.5) is None
  with pytest.raises(errors.UsageError, match='prevalence'):
    judged_figures.calibrate(np.array([1, 0]), np.array([0.9, 0.1]), 1.0)


def test_score_and_amount_of_studies():
  studies = [
    judged_figures.StudyScore('a', '', number, amount, score, 'ground glass')
    for number, (amount, score) in enumerate([(1, 2), (2, 3), (4, 10), (0, 1)])
  ]
  assert judged_figures.score_ratio(studies) == pytest.approx((1.75, 2.0, 2.25))
  assert judged_figures.score_ratio(studies[3:]) is None
  found = judged_figures.rank_correlation(studies, 0)
  assert found.value == pytest.approx(1.0)
  assert found.interval is None  # Of one chest there is no other to draw.
  assert judged_figures.rank_correlation(studies[:2], 0).value is None
