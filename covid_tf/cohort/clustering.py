"""k-means over a range of k, and how far its answer can be trusted."""

from collections.abc import Sequence
import dataclasses

import numpy as np
import sklearn.cluster
import sklearn.metrics
import threadpoolctl

_STARTS = 3  # Best of so many k-means++ starts for each k.
_RESTARTS = 10  # Seeds whose clusterings are held against each other.
_MOST_SILHOUETTE_SLICES = 3000  # Its cost grows with their square.


@dataclasses.dataclass(frozen=True)
class KScan:
  """k-means for every k.

  Attributes:
    k: the numbers of clusters tried, ascending, from 1.
    inertia: sum of squared distances to the nearest centre, one a k.
    silhouette: mean silhouette, one a k; None for k = 1.
    elbow_k: the k that the elbow rule takes.
  """

  k: tuple[int, ...]
  inertia: tuple[float, ...]
  silhouette: tuple[float | None, ...]
  elbow_k: int


@dataclasses.dataclass(frozen=True)
class Clustering:
  """One k-means solution.

  Attributes:
    labels: int32 [N].
    centres: float32 [k, D].
    stability: mean adjusted Rand index between pairs of restarts with other seeds.
    lowest_stability: the lowest of these.
  """

  labels: np.ndarray
  centres: np.ndarray
  stability: float
  lowest_stability: float

  def renumbered(self, order: Sequence[int]) -> 'Clustering':
    """The same clusters, `order[i]` called i."""
    return dataclasses.replace(
        self, labels=np.argsort(order).astype(np.int32)[self.labels],
        centres=self.centres[np.asarray(order)])


def scan(points: np.ndarray, most_clusters: int = 10, seed: int = 0) -> KScan:
  """Clusters with k = 1, 2, … and finds the elbow.

  Args:
    points: float32 [N, D], N at least 3.
    most_clusters: the largest k, cut to the number of points that differ.
    seed: of the starts.

  Returns:
    The scan.
  """
  distinct = len(np.unique(points, axis=0))
  ks = tuple(range(1, min(most_clusters, distinct) + 1))
  inertia, silhouette = [], []
  shown = _sample(len(points), seed)
  with _one_thread():
    distances = sklearn.metrics.pairwise_distances(points[shown])
    for k in ks:
      fitted = _fit(points, k, seed, _STARTS)
      inertia.append(float(fitted.inertia_))
      silhouette.append(_silhouette(distances, fitted.labels_[shown]))
  return KScan(ks, tuple(inertia), tuple(silhouette), elbow(ks, inertia))


def elbow(ks: Sequence[int], inertia: Sequence[float]) -> int:
  """The k whose inertia lies furthest below the line from the first k to the last.

  Both axes are scaled to [0, 1] first, as in V. Satopaa et al., "Finding a 'Kneedle'
  in a Haystack", 2011, without smoothing; of equal ones the smallest k. The answer
  depends on the last k tried, so that is reported with it.

  Args:
    ks: ascending.
    inertia: one for each, not rising.

  Returns:
    One of `ks`.
  """
  if len(ks) < 3 or inertia[0] <= inertia[-1]:
    return ks[0]
  across = (np.array(ks) - ks[0]) / (ks[-1] - ks[0])
  down = (inertia[0] - np.array(inertia)) / (inertia[0] - inertia[-1])
  return ks[int(np.argmax(np.round(down - across, 12)))]


def cluster(points: np.ndarray, k: int, seed: int = 0) -> Clustering:
  """Clusters into `k`, and again from other starts.

  Args:
    points: float32 [N, D] with at least `k` points that differ.
    k: number of clusters.
    seed: of the first start.

  Returns:
    The best of all starts, and how alike they are.
  """
  with _one_thread():
    fits = [_fit(points, k, seed + i, starts=1) for i in range(_RESTARTS)]
  best = min(fits, key=lambda fit: fit.inertia_)
  agreement = [
      sklearn.metrics.adjusted_rand_score(one.labels_, other.labels_)
      for i, one in enumerate(fits) for other in fits[i + 1:]]
  return Clustering(
      best.labels_.astype(np.int32), best.cluster_centers_.astype(np.float32),
      float(np.mean(agreement)), float(np.min(agreement)))


def _fit(points: np.ndarray, k: int, seed: int, starts: int) -> sklearn.cluster.KMeans:
  return sklearn.cluster.KMeans(k, n_init=starts, random_state=seed).fit(points)


def _silhouette(distances: np.ndarray, labels: np.ndarray) -> float | None:
  if not 1 < len(np.unique(labels)) < len(labels):
    return None
  return float(sklearn.metrics.silhouette_score(
      distances, labels, metric='precomputed'))


def _one_thread():
  # Threads wait for each other longer than they work here: on two busy cores ten
  # clusters of 2,293 slices take 3.6 s with two threads and 0.7 s with one. One
  # thread also adds up in one order, so the same seed gives the same bits.
  return threadpoolctl.threadpool_limits(1)


def _sample(count: int, seed: int) -> np.ndarray:
  if count <= _MOST_SILHOUETTE_SLICES:
    return np.arange(count)
  rng = np.random.default_rng(seed)
  return rng.choice(count, _MOST_SILHOUETTE_SLICES, replace=False)
