"""A clustering that can be kept and applied to new patients."""

import dataclasses
import json
import pathlib
import zipfile

import numpy as np
import sklearn.decomposition

from covid_tf import errors
from covid_tf import files
from covid_tf.cohort import manifestation_weightings

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
  """What new slices are held against.

  Attributes:
    weighting: name of the weighting, a key of manifestation_weightings.WEIGHTINGS.
    scaler: from weighted to clustered features.
    centres: float32 [k, D].
    axes: float32 [2, D], unit vectors of the plane that is drawn (PCA).
    explained: float32 [2], share of the variance along each.
    names: what each cluster is read as.
    models: network name to card digest; features of others mean something else.
    cuts: the slice and map thresholds.
    seed: of the starts.
  """

  weighting: str
  scaler: Scaler
  centres: np.ndarray
  axes: np.ndarray
  explained: np.ndarray
  names: tuple[str, ...]
  models: dict[str, str]
  cuts: dict[str, float]
  seed: int

  def assign(self, points: np.ndarray) -> np.ndarray:
    """int32 [N]: the nearest centre of each of float32 [N, D] scaled points."""
    return self.distances(points).argmin(axis=1).astype(np.int32)

  def distances(self, points: np.ndarray) -> np.ndarray:
    """float64 [N, k]: Euclidean distance to every centre."""
    return np.stack([
        np.linalg.norm(points - centre, axis=1) for centre in self.centres], axis=1)

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
            'again with the network in use.')


def fit_scaler(weighted: np.ndarray, per_feature: bool) -> Scaler:
  """Zero mean and unit deviation, of each feature or of all together.

  Args:
    weighted: float32 [N, D].
    per_feature: whether each feature is brought to unit deviation by itself; a
      feature of none keeps its scale.

  Returns:
    The scaler.
  """
  mean = weighted.mean(axis=0, dtype=np.float64)
  deviation = weighted.std(axis=0, dtype=np.float64)
  if not per_feature:
    deviation = np.full_like(deviation, np.sqrt(np.mean(deviation ** 2)))
  # Below what float32 sums leave of a constant, a deviation is rounding.
  negligible = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-30)
  return Scaler(mean.astype(np.float32),
                np.where(negligible, 1, deviation).astype(np.float32))


def fit_plane(points: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """PCA to two dimensions: (axes float32 [2, D], share of variance float32 [2])."""
  pca = sklearn.decomposition.PCA(2, random_state=seed).fit(points)
  shares = np.nan_to_num(pca.explained_variance_ratio_)  # No variance at all: 0 of it.
  return pca.components_.astype(np.float32), shares.astype(np.float32)


def save(model: ManifestationModel, path: pathlib.Path) -> None:
  """Writes the model as .npz: arrays, and its words as JSON; no pickle.

  Raises:
    errors.OutputError: it cannot be written.
  """
  words = json.dumps({
      'schema_version': SCHEMA_VERSION, 'weighting': model.weighting,
      'names': model.names, 'models': model.models, 'cuts': model.cuts,
      'seed': model.seed})
  with files.replacing(path) as temporary, open(temporary, 'wb') as file:
    np.savez(file, words=np.array(words), mean=model.scaler.mean,
             scale=model.scaler.scale, centres=model.centres, axes=model.axes,
             explained=model.explained)


def load(path: pathlib.Path) -> ManifestationModel:
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
    if words['weighting'] not in manifestation_weightings.WEIGHTINGS:
      raise ValueError(f'weighting {words["weighting"]}')
    scaler = Scaler(arrays.pop('mean'), arrays.pop('scale'))
    return ManifestationModel(
        words['weighting'], scaler, **arrays, names=tuple(words['names']),
        models=words['models'], cuts=words['cuts'], seed=words['seed'])
  except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
    raise errors.UsageError(
        f'{path}: a model fitted by covid-tf manifestations, schema version '
        f'{SCHEMA_VERSION}, is required, found: {error}.') from error
