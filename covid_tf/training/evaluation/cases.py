"""Where the cases of an evaluation come from; one is in memory at a time."""

from collections.abc import Iterator, Sequence
import dataclasses
import glob
import itertools

import numpy as np

from covid_tf.datasets import shard_list
from covid_tf.datasets import single_slices
from covid_tf.datasets.collections import phantoms
from covid_tf.datasets.collections import preparation
from covid_tf.datasets.collections import study as study_lib
from covid_tf.training import pipelines
from covid_tf.training import records
from covid_tf.training import shards as shards_lib


@dataclasses.dataclass(frozen=True)
class Case:
  """Slices of one series with their truth.

  Attributes:
    series, patient: as in the shard.
    hu: int16 [slice, row, column].
    labels: int [slice], 1, 0 or -1.
    case_label: 1, 0 or -1.
    lung_mask: uint8 [slice, row, column], or None.
    lung_mask_kind: 'drawn', 'pseudo', 'none', or '' where a shard does not say.
    box: lung box [row0, column0, row1, column1], or None: ask the lung network.
    spacing_mm: (slices, rows, columns); 0 where unknown or no stack.
    window_hu: of slices that have lost their HU, or None.
  """

  series: str
  patient: str
  hu: np.ndarray
  labels: np.ndarray
  case_label: int
  lung_mask: np.ndarray | None
  lung_mask_kind: str
  box: tuple[int, int, int, int] | None
  spacing_mm: tuple[float, float, float]
  window_hu: tuple[float, float] | None = None


def check_shards(shards: Sequence[str]) -> int:
  """Refuses damaged shards before a network is asked anything.

  Shards are held to the checksums of their shards.csv; those without one are read
  through, since every record carries its own.

  Returns:
    How many had to be read through.

  Raises:
    errors.UsageError: a shard is missing, damaged, empty or no shard of slices.
  """
  unlisted = shard_list.check(shards)
  for path in unlisted:
    shards_lib.look_through(glob.escape(str(path)))
  return len(unlisted)


def from_shards(shards: Sequence[str]) -> Iterator[Case]:
  """Cases of shards, in the order written; neighbouring slices of a series are one."""
  def key(item):
    return item['patient'], item['series'], item['hu'].shape, tuple(item['box'])

  parsed = (record for record, _ in
            pipelines.records_in_order(shards).as_numpy_iterator())
  for _, group in itertools.groupby(parsed, key):
    group = list(group)
    first = group[0]
    mask = np.stack([item['lung_mask'] for item in group])
    kind = first['lung_mask_kind'].decode()
    window = tuple(map(float, first['window_hu']))
    pixel_mm = float(first['pixel_mm'])
    yield Case(
        first['series'].decode(), first['patient'].decode(),
        np.stack([item['hu'] for item in group]),
        np.array([item['label'] for item in group]), int(first['case_label']),
        mask if mask.any() and kind != study_lib.NO_MASK else None, kind,
        tuple(map(int, first['box'])), (float(first['slice_mm']), pixel_mm, pixel_mm),
        window if any(window) else None)


def from_phantoms(count: int, first_seed: int, size: int) -> Iterator[Case]:
  """Phantoms, drawn as they are asked for."""
  for entry in phantoms.list_studies(count, first_seed, size):
    study = preparation.prepared(entry.read(), size, entry.series)
    yield Case(
        entry.series, entry.patient, study.hu, study.labels, entry.case_label,
        study.lung_mask, study.lung_mask_kind, study.box, study.spacing_mm)


def from_single_slices(table: str) -> Iterator[Case]:
  """Slices that a CSV lists, each on its own (see `single_slices`)."""
  for entry in single_slices.list_slices(table):
    hu, pixel_mm = single_slices.read_slice(entry.path)
    yield Case(
        entry.path.name, entry.patient, hu[np.newaxis], np.array([entry.label]),
        records.UNLABELLED, None, study_lib.NO_MASK, None, (0.0, pixel_mm, pixel_mm))

