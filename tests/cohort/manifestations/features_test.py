"""When the paper's weighting says something, and when it cannot."""

import dataclasses

import numpy as np
import pytest
import scipy.spatial.distance

from covid_tf.cohort.manifestations import clusters
from covid_tf.cohort.manifestations import features as features_lib
from covid_tf.cohort.manifestations import slices as slices_lib

SLICES = 40
CHANNELS = 64


def slices_of(gradients, seed=0):
  rng = np.random.default_rng(seed)
  features = rng.gamma(1, 1, (SLICES, CHANNELS)).astype(np.float32)
  features[:, 7] = 0  # A dead channel: no deviation to divide by.
  empty = np.zeros((SLICES, 1, 1), np.uint8)
  return slices_lib.StudySlices(
    '1.2',
    np.arange(SLICES, dtype=np.int32),
    rng.uniform(0.001, 0.999, SLICES).astype(np.float32),
    np.ones(SLICES, bool),
    np.zeros(SLICES, np.float32),
    features,
    gradients,
    features * rng.uniform(0.2, 1, (SLICES, CHANNELS)).astype(np.float32),
    empty,
    empty,
  )


def distances(slices, name):
  weighting = features_lib.WEIGHTINGS[name]
  weighted = weighting.weigh(slices)
  points = clusters.fit_scaler(weighted, weighting.per_feature).apply(weighted)
  assert np.isfinite(points).all()
  return scipy.spatial.distance.pdist(points)


@pytest.fixture
def same_gradient():
  rng = np.random.default_rng(1)
  one = rng.normal(size=CHANNELS).astype(np.float32)
  return slices_of(np.tile(one, (SLICES, 1)))


def test_papers_weighting_is_void_under_global_average_pooling(same_gradient):
  # One dense unit on pooled features: d logit / d features is its weights, always.
  plain = distances(same_gradient, 'features')
  np.testing.assert_allclose(distances(same_gradient, 'paper'), plain, rtol=1e-4)
  assert plain.min() > 1


def test_papers_weighting_counts_where_gradients_differ():
  rng = np.random.default_rng(2)
  slices = slices_of(rng.normal(size=(SLICES, CHANNELS)).astype(np.float32))
  assert not np.allclose(
    distances(slices, 'paper'), distances(slices, 'features'), rtol=0.05
  )


@pytest.mark.parametrize('name', ['probability', 'relevance', 'profile', 'focus'])
def test_the_other_weightings_are_not_void(same_gradient, name):
  plain, weighted = distances(same_gradient, 'features'), distances(same_gradient, name)
  assert np.corrcoef(plain, weighted)[0, 1] < 0.95


def test_gradient_of_the_probability_shrinks_confident_slices(same_gradient):
  p = np.where(np.arange(SLICES) < 20, 0.5, 0.9999).astype(np.float32)
  slices = dataclasses.replace(same_gradient, covid_probability=p)
  weighted = features_lib.WEIGHTINGS['probability'].weigh(slices)
  lengths = np.linalg.norm(weighted, axis=1)
  assert lengths[20:].max() < 0.01 * lengths[:20].min()


def test_relevance_ignores_channels_that_mean_nothing(same_gradient):
  gradients = same_gradient.gradients.copy()
  gradients[:, 1:] = 0
  slices = dataclasses.replace(same_gradient, gradients=gradients)
  first = same_gradient.features[:, :1]
  assert np.corrcoef(
    distances(slices, 'relevance'), scipy.spatial.distance.pdist(first)
  )[0, 1] == pytest.approx(1)


def test_profile_is_of_what_the_evidence_consists_not_how_much_there_is(same_gradient):
  more = np.arange(1, SLICES + 1, dtype=np.float32)[:, np.newaxis]
  slices = dataclasses.replace(same_gradient, features=more * same_gradient.features)
  np.testing.assert_allclose(
    distances(slices, 'profile'), distances(same_gradient, 'profile'), rtol=1e-4
  )
  weighted = features_lib.WEIGHTINGS['profile'].weigh(slices)
  np.testing.assert_allclose(np.linalg.norm(weighted, axis=1), 1, rtol=1e-5)


def test_a_slice_without_evidence_has_no_profile_and_no_nan(same_gradient):
  features = same_gradient.features.copy()
  features[3] = 0
  slices = dataclasses.replace(same_gradient, features=features)
  assert not features_lib.WEIGHTINGS['profile'].weigh(slices)[3].any()
  distances(slices, 'profile')


def test_focus_sees_only_what_erasing_takes_away(same_gradient):
  slices = dataclasses.replace(
    same_gradient, erased_features=same_gradient.features.copy()
  )
  assert not features_lib.WEIGHTINGS['focus'].weigh(slices).any()
  assert not distances(slices, 'focus').any()
