import numpy as np
import pytest
import sklearn.cluster
import sklearn.metrics

from covid_tf.cohort.manifestations import clusters


def blobs(count, per_blob=40, dimensions=30, spread=1.0, seed=0):
  rng = np.random.default_rng(seed)
  centres = rng.normal(0, 6, (count, dimensions))
  points = np.concatenate(
    [centre + rng.normal(0, spread, (per_blob, dimensions)) for centre in centres]
  )
  return points.astype(np.float32), np.repeat(np.arange(count), per_blob)


@pytest.mark.parametrize('count', [2, 3, 4, 5])
def test_elbow_finds_the_blobs(count):
  points, truth = blobs(count)
  scan = clusters.scan(points, most_clusters=10)
  assert scan.elbow_k == count
  assert scan.k == tuple(range(1, 11))
  assert np.nanargmax(np.array(scan.silhouette, float)) + 1 == count
  found = clusters.cluster(points, scan.elbow_k)
  assert sklearn.metrics.adjusted_rand_score(truth, found.labels) == 1
  assert found.stability > 0.8


def test_elbow_rule_by_hand():
  # Below the line from (1, 100) to (5, 0): 0.45, 0.35, 0.15 at k = 2, 3, 4.
  assert clusters.elbow((1, 2, 3, 4, 5), (100, 30, 15, 10, 0)) == 2
  assert clusters.elbow((1, 2, 3, 4, 5), (100, 75, 10, 5, 0)) == 3
  # A straight line has no elbow, and neither has a flat one.
  assert clusters.elbow((1, 2, 3, 4, 5), (100, 75, 50, 25, 0)) == 1
  assert clusters.elbow((1, 2, 3), (5, 5, 5)) == 1


def test_silhouette_and_inertia_are_those_of_the_library():
  points, _ = blobs(3)
  scan = clusters.scan(points, most_clusters=4)
  labels = sklearn.cluster.KMeans(3, n_init=10, random_state=1).fit(points)
  assert scan.inertia[2] == pytest.approx(labels.inertia_, rel=1e-4)
  assert scan.silhouette[2] == pytest.approx(
    sklearn.metrics.silhouette_score(points, labels.labels_), abs=1e-3
  )
  assert scan.silhouette[0] is None


def test_restarts_disagree_where_there_is_nothing_to_find():
  rng = np.random.default_rng(0)
  found = clusters.cluster(rng.normal(size=(200, 20)).astype(np.float32), 4)
  assert found.lowest_stability <= found.stability < 0.5


def test_same_seed_same_answer():
  points, _ = blobs(3, spread=6)
  one, other = clusters.cluster(points, 3, 5), clusters.cluster(points, 3, 5)
  np.testing.assert_array_equal(one.labels, other.labels)
  np.testing.assert_array_equal(one.centres, other.centres)


def test_no_more_clusters_than_points_that_differ():
  points = np.repeat(np.eye(3, 5, dtype=np.float32), 10, axis=0)
  scan = clusters.scan(points, most_clusters=10)
  assert scan.k == (1, 2, 3)
  same = np.ones((12, 5), np.float32)
  scan = clusters.scan(same)
  assert (scan.k, scan.elbow_k) == ((1,), 1)
  assert clusters.cluster(same, 1).stability == 1
