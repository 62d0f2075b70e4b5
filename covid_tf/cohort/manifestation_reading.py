"""What the clusters are read as, and the slices that show it."""

from collections.abc import Sequence

import numpy as np

NORMAL, FOCAL, DIFFUSE = 'normal', 'focal', 'diffuse'


def name_clusters(
    labels: np.ndarray, count: int, positive: np.ndarray,
    involved_fraction: np.ndarray) -> tuple[str, ...]:
  """Names clusters by what their slices show, not by eye.

  The paper reads its three as normal, focal and diffuse (section 3.3). Here: a
  cluster with fewer positive slices than negative ones is normal; the others are
  ordered by the mean involved fraction of their slices, and when they are two the
  lower one is focal and the higher one diffuse.

  Args:
    labels: int [N], in [0, count).
    count: number of clusters.
    positive: bool [N].
    involved_fraction: float [N], in [0, 1].

  Returns:
    A name for each cluster, all different.
  """
  def mean(values: np.ndarray, cluster: int) -> float:
    own = values[labels == cluster]
    return float(own.mean()) if own.size else 0.0

  normal = [i for i in range(count) if mean(positive, i) < 0.5]
  ill = [i for i in range(count) if i not in normal]
  names = {}
  for group, whole, parts in ((normal, NORMAL, None), (ill, 'ill', (FOCAL, DIFFUSE))):
    group.sort(key=lambda i: mean(involved_fraction, i))
    for rank, cluster in enumerate(group):
      if len(group) == 1:
        names[cluster] = whole
      elif parts and len(group) == 2:
        names[cluster] = parts[rank]
      else:
        names[cluster] = f'{whole} {rank + 1}'
  return tuple(names[i] for i in range(count))


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
