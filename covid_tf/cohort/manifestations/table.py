"""The slices of a cohort as a table, and kinds of disease known beforehand."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

import numpy as np
import sklearn.metrics

from covid_tf import errors
from covid_tf.cohort.manifestations import features
from covid_tf.storage import tables

# The slices of a cohort, read from the store: their facts, and their features.

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


def read_table(store: features.FeatureStore, sources: Sequence[str]) -> SliceTable:
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
      f'found {count} in {len(sources)} studies; add studies.'
    )
  mean = total / count
  for slices in store.studies(sources):
    norms.append(np.linalg.norm(slices.gradients - mean, axis=1).max(initial=0))
  length = float(np.linalg.norm(mean))
  return SliceTable(
    tuple(uids),
    np.concatenate(study),
    np.concatenate(index),
    np.concatenate(positive),
    np.concatenate(involved),
    gradient_spread=float(max(norms)) / length if length > 0 else float('inf'),
  )


def read_weighted(
  store: features.FeatureStore, sources: Sequence[str], weighting: features.Weighting
) -> np.ndarray:
  """float32 [N, D]: weighted features of every slice; one block, filled by study."""
  return np.concatenate(
    [weighting.weigh(slices).astype(np.float32) for slices in store.studies(sources)]
  )


# Kinds of disease that are known beforehand, to compare clusters with.

_REQUIRED = ('study_uid', 'kind')
_SLICE = 'slice'


@dataclasses.dataclass(frozen=True)
class KnownKinds:
  """What is known.

  Attributes:
    of_studies: study UID to the kind of all its slices that have none of their own.
    of_slices: (study UID, slice index from 0, the lowest) to the slice's kind.
  """

  of_studies: Mapping[str, str] = dataclasses.field(default_factory=dict)
  of_slices: Mapping[tuple[str, int], str] = dataclasses.field(default_factory=dict)

  def of(self, study_uid: str, slice_index: int) -> str | None:
    """The kind of a slice, or None where nobody knows it."""
    return self.of_slices.get((study_uid, slice_index), self.of_studies.get(study_uid))


NOTHING = KnownKinds()


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Clusters beside known kinds, over the slices whose kind is known.

  Attributes:
    rand_index: adjusted Rand index; 1 the same, 0 chance.
    kinds: the known kinds, in order of name.
    counts: int [cluster, kind], slices.
  """

  rand_index: float
  kinds: tuple[str, ...]
  counts: np.ndarray


def read_known_kinds(path: pathlib.Path | str) -> KnownKinds:
  """Reads known kinds.

  Args:
    path: CSV with `study_uid,kind` and, where kinds differ within a study, `slice`
      (an index from 0; blank: all slices without a row of their own).

  Raises:
    errors.UsageError: no such table, a blank cell, or a study or slice twice; names
      the row.
  """
  of_studies: dict = {}  # study_uid to its kind.
  of_slices: dict = {}  # (study_uid, slice) to its kind.
  for row in tables.read_table(path, _REQUIRED, (_SLICE,)):
    uid, kind, index = (row.cells[name] for name in (*_REQUIRED, _SLICE))
    known, key = (
      (of_slices, (uid, _index(path, row, index))) if index else (of_studies, uid)
    )
    if not uid or not kind or key in known:
      found = 'a blank' if not uid or not kind else 'it a second time'
      raise errors.UsageError(
        f'{path}, row {row.number}: each study or slice needs one study_uid and one '
        f'kind, found {found}.'
      )
    if problem := tables.uid_problem('study_uid', uid):
      raise errors.UsageError(f'{path}, row {row.number}: {problem}.')
    known[key] = kind
  return KnownKinds(of_studies, of_slices)


def agreement(
  kinds: KnownKinds, table: SliceTable, labels: np.ndarray, clusters: int
) -> Agreement | None:
  """Compares clusters with known kinds.

  Args:
    kinds: what is known.
    table: the slices, N of them.
    labels: int [N], in [0, clusters).
    clusters: how many.

  Returns:
    How far they agree; None where no slice's kind is known.
  """
  found = [
    kinds.of(table.study_uids[study], index)
    for study, index in zip(table.study.tolist(), table.slice_index.tolist())
  ]
  known = np.array([kind is not None for kind in found])
  if not known.any():
    return None
  names, truth = np.unique(
    [kind for kind in found if kind is not None], return_inverse=True
  )
  counts = np.zeros((clusters, len(names)), int)
  np.add.at(counts, (labels[known], truth), 1)
  return Agreement(
    float(sklearn.metrics.adjusted_rand_score(truth, labels[known])),
    tuple(names.tolist()),
    counts,
  )


def _index(path: pathlib.Path | str, row: tables.TableRow, text: str) -> int:
  if not text.isdecimal():
    raise errors.UsageError(
      f'{path}, row {row.number}: slice must be an index from 0 or blank, found '
      f'{text!r}.'
    )
  return int(text)
