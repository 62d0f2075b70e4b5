"""Kinds of disease among slices: fitted on a cohort, applied to patients.

Paper, section 3.3 and Fig. 5.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from covid_tf import errors
from covid_tf.cohort import clustering
from covid_tf.cohort import feature_store
from covid_tf.cohort import known_kinds
from covid_tf.cohort import manifestation_model
from covid_tf.cohort import manifestation_reading
from covid_tf.cohort import manifestation_table
from covid_tf.cohort import manifestation_weightings
from covid_tf.cohort import paper


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
  scan: clustering.KScan
  k: int
  clustering: clustering.Clustering
  names: tuple[str, ...]
  agreement: known_kinds.Agreement | None

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

  table: manifestation_table.SliceTable
  model: manifestation_model.ManifestationModel
  outcome: Outcome
  others: tuple[Outcome, ...]
  plane: np.ndarray
  key_slices: list[np.ndarray]


def fit(
    store: feature_store.FeatureStore, sources: Sequence[str], *,
    models: Mapping[str, str], cuts: Mapping[str, float],
    weighting: str = manifestation_weightings.DEFAULT,
    compared: Sequence[str] = tuple(manifestation_weightings.WEIGHTINGS),
    k: int | None = None, most_clusters: int = 10, seed: int = 0,
    kinds: known_kinds.KnownKinds = known_kinds.NOTHING) -> Fitted:
  """Fits clusters on the described slices of a cohort.

  Args:
    store: where they are.
    sources: which studies, as they were put there.
    models: network name to card digest.
    cuts: the slice and map thresholds.
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
  table = manifestation_table.read_table(store, sources)
  outcomes = {}
  for name in dict.fromkeys((weighting, *compared)):
    weighted = manifestation_table.read_weighted(
        store, sources, manifestation_weightings.WEIGHTINGS[name])
    scaler = manifestation_model.fit_scaler(
        weighted, manifestation_weightings.WEIGHTINGS[name].per_feature)
    points = scaler.apply(weighted)
    del weighted
    outcomes[name] = _outcome(name, points, table, k, most_clusters, seed, kinds)
    if name == weighting:
      axes, explained = manifestation_model.fit_plane(points, seed)
      model = manifestation_model.ManifestationModel(
          name, scaler, outcomes[name].clustering.centres, axes, explained,
          outcomes[name].names, dict(models), dict(cuts), seed)
      plane = model.plane(points)
      keys = manifestation_reading.key_slices(
          model.distances(points), outcomes[name].clustering.labels, table.study,
          paper.KEY_SLICES_PER_CLUSTER)
  return Fitted(table, model, outcomes.pop(weighting), tuple(outcomes.values()), plane,
                keys)


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
    model: manifestation_model.ManifestationModel,
    store: feature_store.FeatureStore, source: str) -> dict[str, float] | None:
  """Shares of one described study under a fitted model."""
  slices = store.get(source)
  weigh = manifestation_weightings.WEIGHTINGS[model.weighting].weigh
  labels = model.assign(model.scaler.apply(weigh(slices)))
  return shares(model.names, labels, slices.positive)


def _outcome(
    name: str, points: np.ndarray, table: manifestation_table.SliceTable,
    k: int | None, most_clusters: int, seed: int,
    kinds: known_kinds.KnownKinds) -> Outcome:
  scan = clustering.scan(points, most_clusters, seed)
  if k is not None and k > len(np.unique(points, axis=0)):
    raise errors.UsageError(
        f'{k} clusters need as many slices that differ, found fewer under the '
        f'weighting {name!r}; ask for fewer clusters or add studies.')
  taken = scan.elbow_k if k is None else k
  found = clustering.cluster(points, taken, seed)
  found = found.renumbered(manifestation_reading.reading_order(
      found.labels, taken, table.positive, table.involved_fraction))
  names = manifestation_reading.name_clusters(found.labels, taken, table.positive)
  return Outcome(
      name, scan, taken, found, names,
      known_kinds.agreement(kinds, table, found.labels, taken))
