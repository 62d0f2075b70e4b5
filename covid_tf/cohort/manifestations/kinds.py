"""Kinds of disease among slices: fitted on a cohort, applied to patients.

Paper, section 3.3 and Fig. 5.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np
import numpy.typing as npt

from covid_tf import errors
from covid_tf.cohort import paper
from covid_tf.cohort.manifestations import clusters
from covid_tf.cohort.manifestations import features
from covid_tf.cohort.manifestations import table as table_lib

# What the clusters are read as, and the slices that show it.

NORMAL, MIXED, ILL = 'normal', 'mixed', 'ill'
FOCAL, DIFFUSE = 'focal', 'diffuse'
# Ours: the share of positive slices up to which a cluster is normal, and from which
# it is ill; between them the share decides nothing, and the cluster is mixed.
_MIXED_SHARES = (1 / 3, 2 / 3)
_KINDS = (NORMAL, MIXED, ILL)


def reading_order(
  labels: np.ndarray, count: int, positive: np.ndarray, involved_fraction: np.ndarray
) -> list[int]:
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
  return sorted(
    range(count),
    key=lambda i: (
      _KINDS.index(_kind(labels == i, positive)),
      _mean(involved_fraction, labels == i),
    ),
  )


def name_clusters(
  labels: np.ndarray, count: int, positive: np.ndarray
) -> tuple[str, ...]:
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
  distances: np.ndarray, labels: np.ndarray, study: npt.ArrayLike, count: int
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
  study_of = np.asarray(study)
  chosen = []
  for cluster in range(distances.shape[1]):
    own = np.flatnonzero(labels == cluster)
    near = distances[own, cluster]
    turn = np.zeros(len(own), int)
    for number in np.unique(study_of[own]):
      of_study = study_of[own] == number
      turn[of_study] = np.arange(of_study.sum())
    order = np.lexsort((turn, np.round(near, 6)))
    chosen.append(own[order[:count]])
  return chosen


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Clusters under one weighting.

  Attributes:
    weighting: the weighting's name.
    scan: k-means over k.
    k: the number of clusters taken.
    clustering: the solution for it.
    names: of its clusters.
    agreement: with known kinds, or None.
  """

  weighting: str
  scan: clusters.KScan
  k: int
  clustering: clusters.Clustering
  names: tuple[str, ...]
  agreement: table_lib.Agreement | None

  @property
  def silhouette(self) -> float | None:
    """Mean silhouette for k, or None where it was not tried or is not defined."""
    tried = dict(zip(self.scan.k, self.scan.silhouette))
    return tried.get(self.k)


@dataclasses.dataclass(frozen=True)
class Fitted:
  """A fitted cohort.

  Attributes:
    table: its slices.
    model: to keep.
    outcome: under the weighting of the model.
    others: under the other weightings, for comparison.
    plane: float32 [N, 2], places in the drawn plane.
    key_slices: for each cluster the indices of its key slices, nearest first.
  """

  table: table_lib.SliceTable
  model: clusters.ManifestationModel
  outcome: Outcome
  others: tuple[Outcome, ...]
  plane: np.ndarray
  key_slices: list[np.ndarray]


def fit(
  store: features.FeatureStore,
  sources: Sequence[str],
  *,
  models: Mapping[str, str],
  thresholds: Mapping[str, float | None],
  weighting: str = features.DEFAULT,
  compared: Sequence[str] = tuple(features.WEIGHTINGS),
  k: int | None = None,
  most_clusters: int = 10,
  seed: int = 0,
  kinds: table_lib.KnownKinds = table_lib.NOTHING,
) -> Fitted:
  """Fits clusters on the described slices of a cohort.

  Args:
    store: where they are.
    sources: which studies, as they were put there.
    models: network name to card digest.
    thresholds: the slice and map thresholds, `thickness_mm` that slices were
      averaged to (None: every slice as it is) and `smoothing_mm` of their logits.
    weighting: the one whose clusters are kept.
    compared: the weightings to try beside it.
    k: number of clusters; None: the elbow.
    most_clusters: the largest k tried.
    seed: of the starts.
    kinds: what is known of the slices' kinds, to compare with.

  Returns:
    The fitted cohort.

  Raises:
    errors.UsageError: too few slices, or fewer that differ than clusters.
  """
  table = table_lib.read_table(store, sources)
  outcomes = {}
  for name in dict.fromkeys((weighting, *compared)):
    weighted = table_lib.read_weighted(store, sources, features.WEIGHTINGS[name])
    scaler = clusters.fit_scaler(weighted, features.WEIGHTINGS[name].per_feature)
    points = scaler.apply(weighted)
    del weighted
    outcomes[name] = _outcome(name, points, table, k, most_clusters, seed, kinds)
    if name == weighting:
      axes, explained = clusters.fit_plane(points, seed)
      model = clusters.ManifestationModel(
        name,
        scaler,
        outcomes[name].clustering.centres,
        axes,
        explained,
        outcomes[name].names,
        dict(models),
        dict(thresholds),
        seed,
      )
      plane = model.plane(points)
      keys = key_slices(
        model.distances(points),
        outcomes[name].clustering.labels,
        table.study,
        paper.KEY_SLICES_PER_CLUSTER,
      )
  return Fitted(
    table, model, outcomes.pop(weighting), tuple(outcomes.values()), plane, keys
  )


def shares(
  names: Sequence[str], labels: np.ndarray, positive: np.ndarray
) -> dict[str, float] | None:
  """What share of a patient's positive slices is of each kind.

  Args:
    names: of the clusters.
    labels: int [N], cluster of each slice.
    positive: bool [N].

  Returns:
    Name to share, summing to 1; None without a positive slice.
  """
  if not positive.any():
    return None
  counts = np.bincount(labels[positive], minlength=len(names))
  return {name: float(count / positive.sum()) for name, count in zip(names, counts)}


def apply(
  model: clusters.ManifestationModel, store: features.FeatureStore, source: str
) -> dict[str, float] | None:
  """Shares of one described study under a fitted model."""
  slices = store.get(source)
  weigh = features.WEIGHTINGS[model.weighting].weigh
  labels = model.assign(model.scaler.apply(weigh(slices)))
  return shares(model.names, labels, slices.positive)


def _outcome(
  name: str,
  points: np.ndarray,
  table: table_lib.SliceTable,
  k: int | None,
  most_clusters: int,
  seed: int,
  kinds: table_lib.KnownKinds,
) -> Outcome:
  scan = clusters.scan(points, most_clusters, seed)
  if k is not None and k > len(np.unique(points, axis=0)):
    raise errors.UsageError(
      f'{k} clusters need as many slices that differ, found fewer under the '
      f'weighting {name!r}; ask for fewer clusters or add studies.'
    )
  taken = scan.elbow_k if k is None else k
  found = clusters.cluster(points, taken, seed)
  found = found.renumbered(
    reading_order(found.labels, taken, table.positive, table.involved_fraction)
  )
  names = name_clusters(found.labels, taken, table.positive)
  return Outcome(
    name,
    scan,
    taken,
    found,
    names,
    table_lib.agreement(kinds, table, found.labels, taken),
  )
