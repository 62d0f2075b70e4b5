"""The slices of a cohort, read from the store: their facts, and their features."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from covid_tf import errors
from covid_tf.cohort import feature_store
from covid_tf.cohort import manifestation_weightings

FEWEST_SLICES = 10  # Fewer make no clusters that mean anything.
# A gradient that differs by less from slice to slice is one vector, rounded.
_SAME_GRADIENT = 1e-3


@dataclasses.dataclass(frozen=True)
class SliceTable:
  """All slices of a cohort, without their features: N of them.

  Attributes:
    study_uids: one entry a study.
    study: int32 [N], index into `study_uids`.
    slice_index: int32 [N], in its CT.
    positive: bool [N].
    involved_fraction: float32 [N].
    gradient_spread: largest distance of a slice's gradient from the mean gradient,
      relative to the mean's length.
  """

  study_uids: tuple[str, ...]
  study: np.ndarray
  slice_index: np.ndarray
  positive: np.ndarray
  involved_fraction: np.ndarray
  gradient_spread: float

  @property
  def same_gradient(self) -> bool:
    """Whether the gradient is one vector, which makes the paper's weighting void."""
    return self.gradient_spread < _SAME_GRADIENT


def read_table(
    store: feature_store.FeatureStore, sources: Sequence[str]) -> SliceTable:
  """Reads what is small of every study.

  Raises:
    errors.UsageError: the studies hold fewer than FEWEST_SLICES slices.
  """
  uids, study, index, positive, involved = [], [], [], [], []
  total, count, norms = 0.0, 0, []
  for number, slices in enumerate(store.studies(sources)):
    uids.append(slices.study_uid)
    study.append(np.full(len(slices.slice_index), number, np.int32))
    index.append(slices.slice_index)
    positive.append(slices.positive)
    involved.append(slices.involved_fraction)
    total = total + slices.gradients.sum(axis=0, dtype=np.float64)
    count += len(slices.gradients)
  if count < FEWEST_SLICES:
    raise errors.UsageError(
        f'at least {FEWEST_SLICES} slices are required to look for kinds of disease, '
        f'found {count} in {len(sources)} studies; add studies.')
  mean = total / count
  for slices in store.studies(sources):
    norms.append(np.linalg.norm(slices.gradients - mean, axis=1).max(initial=0))
  length = float(np.linalg.norm(mean))
  return SliceTable(
      tuple(uids), *map(np.concatenate, (study, index, positive, involved)),
      gradient_spread=float(max(norms)) / length if length > 0 else float('inf'))


def read_weighted(
    store: feature_store.FeatureStore, sources: Sequence[str],
    weighting: manifestation_weightings.Weighting) -> np.ndarray:
  """float32 [N, D]: weighted features of every slice; one block, filled by study."""
  return np.concatenate([
      weighting.weigh(slices).astype(np.float32)
      for slices in store.studies(sources)])
