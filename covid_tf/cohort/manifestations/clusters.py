"""k-means over a range of k, how far it can be trusted, and a model to keep."""

from collections.abc import Sequence
import dataclasses
import json
import pathlib
import zipfile

import numpy as np
import sklearn.cluster
import sklearn.decomposition
import sklearn.metrics
import threadpoolctl

from covid_tf import errors
from covid_tf.cohort.manifestations import features
from covid_tf.storage import files

# k-means over a range of k, and how far its answer can be trusted.

_STARTS = 3  # Best of so many k-means++ starts for each k.
_RESTARTS = 10  # Seeds whose clusterings are compared.
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
      self,
      labels=np.argsort(order).astype(np.int32)[self.labels],
      centres=self.centres[np.asarray(order)],
    )


def scan(points: np.ndarray, most_clusters: int = 10, seed: int = 0) -> KScan:
  """Clusters with k = 1, 2, … and finds the elbow.

  Args:
    points: float32 [N, D], N at least 3.
    most_clusters: the largest k, at most the number of points that differ.
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
    for i, one in enumerate(fits)
    for other in fits[i + 1 :]
  ]
  return Clustering(
    best.labels_.astype(np.int32),
    best.cluster_centers_.astype(np.float32),
    float(np.mean(agreement)),
    float(np.min(agreement)),
  )


def _fit(points: np.ndarray, k: int, seed: int, starts: int) -> sklearn.cluster.KMeans:
  return sklearn.cluster.KMeans(k, n_init=starts, random_state=seed).fit(points)


def _silhouette(distances: np.ndarray, labels: np.ndarray) -> float | None:
  if not 1 < len(np.unique(labels)) < len(labels):
    return None
  return float(
    sklearn.metrics.silhouette_score(distances, labels, metric='precomputed')
  )


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


# A clustering that can be kept and applied to new patients.

SCHEMA_VERSION = 1
_ARRAYS = ('mean', 'scale', 'centres', 'axes', 'explained')


@dataclasses.dataclass(frozen=True)
class Scaler:
  """Brings weighted features to the scale they are clustered on.

  Attributes:
    mean: float32 [D].
    scale: float32 [D], above 0.
  """

  mean: np.ndarray
  scale: np.ndarray

  def apply(self, weighted: np.ndarray) -> np.ndarray:
    """float32 [N, D] to float32 [N, D]."""
    return ((weighted - self.mean) / self.scale).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ManifestationModel:
  """What new slices are assigned by.

  Attributes:
    weighting: name of the weighting, a key of features.WEIGHTINGS.
    scaler: from weighted to clustered features.
    centres: float32 [k, D].
    axes: float32 [2, D], unit vectors of the plane that is drawn (PCA).
    explained: float32 [2], share of the variance along each.
    names: what each cluster is read as.
    models: network name to card digest; features of others mean something else.
    thresholds: the slice and map thresholds, `thickness_mm` that slices were
      averaged to (None or absent: every slice as it is) and `smoothing_mm` of their
      logits (absent: 0).
    seed: of the starts.
  """

  weighting: str
  scaler: Scaler
  centres: np.ndarray
  axes: np.ndarray
  explained: np.ndarray
  names: tuple[str, ...]
  models: dict[str, str]
  thresholds: dict[str, float | None]
  seed: int

  def assign(self, points: np.ndarray) -> np.ndarray:
    """int32 [N]: the nearest centre of each of float32 [N, D] scaled points."""
    return self.distances(points).argmin(axis=1).astype(np.int32)

  def distances(self, points: np.ndarray) -> np.ndarray:
    """float64 [N, k]: Euclidean distance to every centre."""
    return np.stack(
      [np.linalg.norm(points - centre, axis=1) for centre in self.centres], axis=1
    )

  def plane(self, points: np.ndarray) -> np.ndarray:
    """float32 [N, 2]: places in the drawn plane."""
    return points @ self.axes.T

  def require_models(self, models: dict[str, str]) -> None:
    """Refuses features of other networks.

    Raises:
      errors.UsageError: a card digest differs; names the network.
    """
    for name, digest in self.models.items():
      if models.get(name) != digest:
        raise errors.UsageError(
          f'a fitted model belongs to the networks that it was fitted with: {name} '
          f'{digest[:12]} is required, found {models.get(name, "none")[:12]}; fit '
          'again with the network in use.'
        )

  def require_thickness(self, thickness_mm: float | None) -> None:
    """Refuses features of slices at another thickness.

    Args:
      thickness_mm: that slices are averaged to now; None: every slice as it is.

    Raises:
      errors.UsageError: it was fitted at another.
    """
    fitted = self.thresholds.get('thickness_mm')
    if fitted != thickness_mm:
      required, flag = (
        ('every slice as it is', '--every-slice')
        if fitted is None
        else (f'slabs of {fitted:g} mm', f'--thickness-mm {fitted:g}')
      )
      found = 'every slice' if thickness_mm is None else f'slabs of {thickness_mm:g} mm'
      raise errors.UsageError(
        'a fitted model belongs to the thickness that it was fitted at: '
        f'{required} is required, found {found}; give {flag}, or fit again.'
      )

  def require_smoothing(self, smoothing_mm: float) -> None:
    """Refuses slices that were chosen by logits smoothed otherwise.

    Args:
      smoothing_mm: along the body, now; 0: none.

    Raises:
      errors.UsageError: it was fitted with another.
    """
    fitted_mm = self.thresholds.get('smoothing_mm') or 0.0
    if fitted_mm != smoothing_mm:
      raise errors.UsageError(
        'a fitted model belongs to the smoothing that it was fitted with: '
        f'{fitted_mm:g} mm along the body is required, found {smoothing_mm:g} mm; '
        f'give --smoothing-mm {fitted_mm:g}, or fit again.'
      )


def fit_scaler(weighted: np.ndarray, per_feature: bool) -> Scaler:
  """Zero mean and unit deviation, of each feature or of all together.

  Args:
    weighted: float32 [N, D].
    per_feature: whether each feature is scaled to unit deviation by itself; a
      feature of none keeps its scale.

  Returns:
    The scaler.
  """
  mean = weighted.mean(axis=0, dtype=np.float64)
  deviation = weighted.std(axis=0, dtype=np.float64)
  if not per_feature:
    deviation = np.full_like(deviation, np.sqrt(np.mean(deviation**2)))
  # Below what float32 sums leave of a constant, a deviation is rounding.
  negligible = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-30)
  return Scaler(
    mean.astype(np.float32), np.where(negligible, 1, deviation).astype(np.float32)
  )


def fit_plane(points: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """PCA to two dimensions: (axes float32 [2, D], share of variance float32 [2])."""
  pca = sklearn.decomposition.PCA(2, random_state=seed).fit(points)
  shares = np.nan_to_num(pca.explained_variance_ratio_)  # No variance at all: 0 of it.
  return pca.components_.astype(np.float32), shares.astype(np.float32)


def save_model(model: ManifestationModel, path: pathlib.Path) -> None:
  """Writes the model as .npz: arrays, and its words as JSON; no pickle.

  Raises:
    errors.OutputError: it cannot be written.
  """
  words = json.dumps(
    {
      'schema_version': SCHEMA_VERSION,
      'weighting': model.weighting,
      'names': model.names,
      'models': model.models,
      'cuts': model.thresholds,
      'seed': model.seed,
    }
  )
  with files.replacing(path) as temporary, open(temporary, 'wb') as file:
    np.savez(
      file,
      words=np.array(words),
      mean=model.scaler.mean,
      scale=model.scaler.scale,
      centres=model.centres,
      axes=model.axes,
      explained=model.explained,
    )


def load_model(path: pathlib.Path) -> ManifestationModel:
  """Reads a model.

  Raises:
    errors.UsageError: no such file, or no fitted model of this schema.
  """
  try:
    with np.load(path, allow_pickle=False) as stored:
      words = json.loads(str(stored['words']))
      arrays = {name: stored[name] for name in _ARRAYS}
    if words['schema_version'] != SCHEMA_VERSION:
      raise ValueError(f'schema version {words["schema_version"]}')
    if words['weighting'] not in features.WEIGHTINGS:
      raise ValueError(f'weighting {words["weighting"]}')
    scaler = Scaler(arrays.pop('mean'), arrays.pop('scale'))
    return ManifestationModel(
      words['weighting'],
      scaler,
      **arrays,
      names=tuple(words['names']),
      models=words['models'],
      thresholds=words['cuts'],
      seed=words['seed'],
    )
  except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
    raise errors.UsageError(
      f'{path}: a model fitted by covid-tf manifestations, schema version '
      f'{SCHEMA_VERSION}, is required, found: {error}.'
    ) from error
