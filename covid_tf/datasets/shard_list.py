"""The lists beside shards, for people and for checks: manifest.csv and shards.csv.

manifest.csv has a row for every slice, shards.csv one for every shard with its count
and checksum. A training asks `check` and `require_apart` before its first step.
"""

from collections.abc import Iterable, Mapping, Sequence
import csv
import dataclasses
import hashlib
import os
import pathlib

from covid_tf import errors
from covid_tf import tables

MANIFEST_NAME = 'manifest.csv'
SHARDS_NAME = 'shards.csv'
_SHARD_COLUMNS = ('shard', 'slices', 'bytes', 'sha256')


@dataclasses.dataclass(frozen=True)
class ManifestRow:
  """One slice in manifest.csv; field names are its columns.

  Attributes:
    shard: path below the manifest's folder.
    set: name of the set.
    patient, series, slice_index, label, source: as in the shard's record.
    case_label: 1 COVID, 0 not, -1 unknown: of the patient.
    severity: the collection's grade, or blank.
    labels_by: who labelled, or blank.
    lung_mask: 'drawn', 'pseudo' or 'none'.
    lesion_mask: 1 where lesions are drawn.
    window_hu: 'low..high' where HU come from grey values, else blank.
  """

  shard: str
  set: str
  patient: str
  series: str
  slice_index: int
  label: int
  source: str
  case_label: int
  severity: str
  labels_by: str
  lung_mask: str
  lesion_mask: int
  window_hu: str


MANIFEST_COLUMNS = tuple(field.name for field in dataclasses.fields(ManifestRow))


class ManifestWriter:
  """Writes manifest.csv row by row; a context manager."""

  def __init__(self, folder: pathlib.Path):
    self._file = open(folder / MANIFEST_NAME, 'w', encoding='utf-8', newline='')
    self._writer = csv.writer(self._file, lineterminator='\n')
    self._writer.writerow(MANIFEST_COLUMNS)

  def __enter__(self) -> 'ManifestWriter':
    return self

  def __exit__(self, *exception) -> None:
    self._file.close()

  def write(self, rows: Iterable[ManifestRow]) -> None:
    """Appends rows."""
    self._writer.writerows(dataclasses.astuple(row) for row in rows)


def write_shards(folder: pathlib.Path, counts: Mapping[str, int]) -> None:
  """Writes shards.csv.

  Args:
    folder: holds the shards.
    counts: path below `folder` -> slices.
  """
  with open(folder / SHARDS_NAME, 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(_SHARD_COLUMNS)
    for shard, slices in counts.items():
      path = folder / shard
      writer.writerow((shard, slices, path.stat().st_size, _sha256(path)))


def check(shards: Sequence[str | os.PathLike]) -> list[pathlib.Path]:
  """Holds shards to the list that was written with them.

  Args:
    shards: files; a list is looked for beside each and one folder up.

  Returns:
    The shards that no list names; nothing is known of them.

  Raises:
    errors.UsageError: a shard is missing, or has other bytes than were written.
  """
  unlisted = []
  for path, (_, row) in _listed(shards, SHARDS_NAME, _SHARD_COLUMNS).items():
    if not path.is_file():
      raise errors.UsageError(f'{path}: a shard is required, found no such file.')
    if not row:
      unlisted.append(path)
      continue
    size = path.stat().st_size
    if str(size) != row[0]['bytes']:
      raise errors.UsageError(
          f'{path}: {row[0]["bytes"]} bytes are required by its {SHARDS_NAME}, found '
          f'{size}; copy or import it again.')
    if _sha256(path) != row[0]['sha256']:
      raise errors.UsageError(
          f'{path}: its bytes are not those of its {SHARDS_NAME}: the shard is '
          'damaged; copy or import it again.')
  return unlisted


def require_apart(sets: Mapping[str, Sequence[str | os.PathLike]]) -> dict[str, int]:
  """Refuses sets of shards that share a patient.

  Args:
    sets: what messages call a set -> its shards. Shards without a manifest beside
      them are taken as apart from all others, except from themselves.

  Returns:
    Set -> how many patients its manifests name.

  Raises:
    errors.UsageError: a patient, or a shard, is in two sets.
  """
  patients = {}
  for name, shards in sets.items():
    listed = _listed(shards, MANIFEST_NAME, ('shard', 'patient'))
    patients[name] = {row['patient'] for _, rows in listed.values() for row in rows}
    patients[name] |= {path for path, (_, rows) in listed.items() if not rows}
  names = list(sets)
  for place, first in enumerate(names):
    for second in names[place + 1:]:
      if common := patients[first] & patients[second]:
        raise errors.UsageError(
            f'{first} and {second}: no patient in both is required, found '
            f'{len(common)}; split by patient, as tools/import_dataset.py does.')
  return {name: len(found) for name, found in patients.items()}


def _listed(shards, name, columns):
  """{shard: (folder of its list, its rows)}; rows are [] where no list names it."""
  lists, found = {}, {}
  for path in map(pathlib.Path, shards):
    path = path.resolve()
    found[path] = path.parent, []
    for folder in (path.parent, path.parent.parent):
      if folder not in lists:
        lists[folder] = _read(folder / name, columns)
      if rows := lists[folder].get(path.relative_to(folder).as_posix()):
        found[path] = folder, rows
        break
  return found


def _read(path, columns) -> dict[str, list[dict[str, str]]]:
  if not path.is_file():
    return {}
  rows = {}
  for row in tables.read_table(path, columns):
    rows.setdefault(row.cells['shard'], []).append(row.cells)
  return rows


def _sha256(path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
