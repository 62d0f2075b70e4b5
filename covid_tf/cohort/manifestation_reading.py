"""What the clusters are read as, and the slices that show it."""

from collections.abc import Sequence

import numpy as np

NORMAL, MIXED, ILL = 'normal', 'mixed', 'ill'
FOCAL, DIFFUSE = 'focal', 'diffuse'
# Ours: the share of positive slices up to which a cluster is normal, and from which
# it is ill; between them it says nothing, and is called so.
_MIXED_SHARES = (1 / 3, 2 / 3)
_KINDS = (NORMAL, MIXED, ILL)


def reading_order(
    labels: np.ndarray, count: int, positive: np.ndarray,
    involved_fraction: np.ndarray) -> list[int]:
  """Clusters from the clear to the most involved, as tables and legends list them.

  Args:
    labels: int [N], in [0, count).
    count: number of clusters.
    positive: bool [N].
    involved_fraction: float [N], in [0, 1].

  Returns:
    The clusters: the normal ones first, then the mixed, then the ill, and within each
    kind by the mean involved fraction of their slices.
  """
  return sorted(range(count), key=lambda i: (
      _KINDS.index(_kind(labels == i, positive)),
      _mean(involved_fraction, labels == i)))


def name_clusters(
    labels: np.ndarray, count: int, positive: np.ndarray) -> tuple[str, ...]:
  """Names clusters by what their slices show, not by eye.

  The paper reads its three as normal, focal and diffuse (section 3.3). Here: a
  cluster is normal where at most a third of its slices are positive, ill where at
  least two thirds are, and mixed between; when two are ill, the less involved one is
  focal and the other diffuse.

  Args:
    labels: int [N], in [0, count), numbered in `reading_order`.
    count: number of clusters.
    positive: bool [N].

  Returns:
    A name for each cluster, all different.
  """
  kinds = [_kind(labels == i, positive) for i in range(count)]
  names = {}
  for kind in _KINDS:
    group = [i for i in range(count) if kinds[i] == kind]
    for rank, cluster in enumerate(group):
      if len(group) == 1:
        names[cluster] = kind
      elif kind == ILL and len(group) == 2:
        names[cluster] = (FOCAL, DIFFUSE)[rank]
      else:
        names[cluster] = f'{kind} {rank + 1}'
  return tuple(names[i] for i in range(count))


def _kind(own: np.ndarray, positive: np.ndarray) -> str:
  share = _mean(positive, own)
  if share <= _MIXED_SHARES[0]:
    return NORMAL
  return ILL if share >= _MIXED_SHARES[1] else MIXED


def _mean(values: np.ndarray, own: np.ndarray) -> float:
  return float(values[own].mean()) if own.any() else 0.0


def key_slices(
    distances: np.ndarray, labels: np.ndarray, study: Sequence[int], count: int
) -> list[np.ndarray]:
  """The slices nearest to each centre (paper: four, in L2).

  Of slices equally near, those of different studies come first.

  Args:
    distances: float [N, k] to every centre.
    labels: int [N].
    study: int [N], which study a slice is of.
    count: slices a cluster, at most.

  Returns:
    For each cluster int [<= count], indices of slices, nearest first.
  """
  study = np.asarray(study)
  chosen = []
  for cluster in range(distances.shape[1]):
    own = np.flatnonzero(labels == cluster)
    near = distances[own, cluster]
    turn = np.zeros(len(own), int)
    for number in np.unique(study[own]):
      of_study = study[own] == number
      turn[of_study] = np.arange(of_study.sum())
    order = np.lexsort((turn, np.round(near, 6)))
    chosen.append(own[order[:count]])
  return chosen
