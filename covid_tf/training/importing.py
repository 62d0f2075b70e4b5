"""A list of studies to shards with their lists, one study in memory at a time."""

import collections
from collections.abc import Callable, Sequence
import csv
import dataclasses
import os
import re

from covid_tf import errors
from covid_tf import volume as volume_lib
from covid_tf.datasets import splits
from covid_tf.datasets.collections import study as study_lib
from covid_tf.storage import files
from covid_tf.training import shards as shards_lib

LEFT_OUT_NAME = 'left_out.csv'
_CLASSES = {1: 'positive', 0: 'negative', study_lib.UNLABELLED: 'unlabelled'}


@dataclasses.dataclass(frozen=True)
class Imported:
  """What an import wrote.

  Attributes:
    slices: set -> {'positive', 'negative', 'unlabelled'} -> slices.
    patients: set -> patients, of those whose studies were written.
    left_out: (series, reason) of studies that cannot be measured.
  """

  slices: dict[str, dict[str, int]]
  patients: dict[str, int]
  left_out: tuple[tuple[str, str], ...]


def write_shards(
  entries: Sequence[study_lib.StudyEntry],
  split: splits.Split,
  output: str | os.PathLike,
  size: int,
  progress: Callable[[Sequence], Sequence] = lambda entries: entries,
  allow_empty_class: bool = False,
  thickness_mm: float | None = None,
) -> Imported:
  """Writes a shard for every study into the folder of its patient's set.

  Args:
    entries: the studies.
    split: the set of every patient.
    output: folder to make: <set>/<shard>.tfrecord, manifest.csv, shards.csv,
      splits.csv, splits.json, left_out.csv; all of them or nothing.
    size: largest side of a stored slice; 0 keeps slices as they are.
    progress: wraps the loop over the studies, as tqdm does.
    allow_empty_class: accept a set without positive or without negative slices.
    thickness_mm: average slices that lie closer, as `study_lib.prepared` does;
      kept in shards.csv.

  Returns:
    What was written.

  Raises:
    errors.UsageError: the folder is in use, a study's files contradict each other,
      or a set lacks a class that others have.
  """
  files.require_unused(output)
  with files.replacing_directory(output) as folder:
    imported, shards = _write_all(entries, split, folder, size, progress, thickness_mm)
    _require_classes(imported, allow_empty_class)
    splits.write_shards(folder, shards, thickness_mm)
    splits.write(split, folder, imported.slices)
    with open(folder / LEFT_OUT_NAME, 'w', encoding='utf-8', newline='') as file:
      writer = csv.writer(file, lineterminator='\n')
      writer.writerows((('series', 'reason'), *imported.left_out))
  return imported


def _write_all(entries, split, folder, size, progress, thickness_mm):
  slices = {name: dict.fromkeys(_CLASSES.values(), 0) for name in split.set_names}
  patients, left_out, shards = collections.defaultdict(set), [], {}
  with splits.ManifestWriter(folder) as manifest:
    for number, entry in enumerate(progress(entries)):
      name = split.set_of[entry.patient]
      try:
        study = study_lib.prepared(entry.read(), size, entry.series, thickness_mm)
      except errors.StudyRefusedError as error:
        left_out.append((entry.series, str(error)))
        continue
      shard = f'{name}/{_file_name(number, entry)}'
      (folder / name).mkdir(exist_ok=True)
      shards[shard] = shards_lib.write_shard(
        folder / shard, slice_records(entry, study)
      )
      manifest.write(_manifest_rows(shard, name, entry, study))
      patients[name].add(entry.patient)
      for label, word in _CLASSES.items():
        slices[name][word] += int((study.labels == label).sum())
  found = {name: len(patients[name]) for name in split.set_names}
  return Imported(slices, found, tuple(left_out)), shards


def slice_records(entry: study_lib.StudyEntry, study: study_lib.Study):
  """The records of a prepared study, slice by slice."""
  # `study_lib.prepared` gives both.
  assert study.lung_mask is not None and study.box is not None
  acquisition = study.acquisition or volume_lib.Acquisition()
  for place, hu in enumerate(study.hu):
    yield shards_lib.SliceRecord(
      hu=hu,
      lung_mask=study.lung_mask[place],
      lesion_mask=None if study.lesion_mask is None else study.lesion_mask[place],
      box=study.box,
      label=int(study.labels[place]),
      pixel_mm=study.spacing_mm[1],
      patient=entry.patient,
      series=entry.series,
      slice_index=_slice_index(study, place),
      source=entry.source,
      lung_mask_kind=study.lung_mask_kind,
      case_label=entry.case_label,
      slice_mm=study.spacing_mm[0],
      window_hu=study.window_hu or (0.0, 0.0),
      manufacturer=acquisition.manufacturer or '',
      kernel=acquisition.kernel or '',
      nominal_thickness_mm=acquisition.slice_thickness_mm or 0.0,
    )


def _manifest_rows(shard, name, entry, study):
  window = '' if study.window_hu is None else '{:g}..{:g}'.format(*study.window_hu)
  for place, label in enumerate(study.labels):
    yield splits.ManifestRow(
      shard,
      name,
      entry.patient,
      entry.series,
      _slice_index(study, place),
      int(label),
      entry.source,
      entry.case_label,
      entry.severity,
      entry.labels_by,
      study.lung_mask_kind,
      int(study.lesion_mask is not None),
      window,
    )


def _slice_index(study, place) -> int:
  return place if study.slice_index is None else int(study.slice_index[place])


def _file_name(number, entry) -> str:
  """A name that sorts as the list does, and says what is inside."""
  series = re.sub(r'[^A-Za-z0-9._-]', '_', entry.series)[:60]
  return f'{number:05d}-{series}.tfrecord'


def _require_classes(imported, allow_empty_class):
  if not any(imported.patients.values()):
    reason = imported.left_out[0][1] if imported.left_out else 'the list is empty'
    raise errors.UsageError(
      f'import: at least one study that can be read is required, found none '
      f'({len(imported.left_out)} left out; the first: {reason})'
    )
  if gone := [name for name, count in imported.patients.items() if not count]:
    raise errors.UsageError(
      f'import: a study that can be read in every set is required, found none in '
      f'{", ".join(gone)}: {len(imported.left_out)} studies were left out; take '
      'another --seed, or other sets.'
    )
  for word in ('positive', 'negative'):
    having = [name for name, counts in imported.slices.items() if counts[word]]
    if having and len(having) < len(imported.slices) and not allow_empty_class:
      lacking = sorted(set(imported.slices) - set(having))
      raise errors.UsageError(
        f'import: {word} slices in every set are required, found none in '
        f'{", ".join(lacking)}; take another --seed or fewer sets, or accept it with '
        '--allow_empty_class.'
      )
