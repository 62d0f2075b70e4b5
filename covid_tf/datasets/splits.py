"""Which patient is in which set. A patient has one set, as a dictionary key has.

Sets are kept in proportion within every stratum (with COVID, without, a grade), and
follow from the patients and the seed alone, not from the order of files.
"""

from collections.abc import Iterable, Mapping, Sequence
import csv
import dataclasses
import hashlib
import io
import os
import pathlib

import numpy as np

from covid_tf import errors
from covid_tf import results
from covid_tf.storage import files
from covid_tf.storage import tables

CSV_NAME = 'splits.csv'
JSON_NAME = 'splits.json'
_COLUMNS = ['patient', 'set', 'stratum']


@dataclasses.dataclass(frozen=True)
class Split:
  """Patients by set.

  Attributes:
    set_of: patient -> name of the set.
    stratum_of: patient -> stratum.
    set_names: all sets, in order; none is empty.
    method: how the sets were made, in words, with its numbers.
    seed: of the draw; None where nothing was drawn.
  """

  set_of: Mapping[str, str]
  stratum_of: Mapping[str, str]
  set_names: tuple[str, ...]
  method: str
  seed: int | None

  def __post_init__(self):
    used = set(self.set_of.values())
    if empty := [name for name in self.set_names if name not in used]:
      raise errors.UsageError(
        f'split: at least one patient in every set is required, found none in '
        f'{", ".join(empty)} ({len(self.set_of)} patients in all); ask for fewer '
        'sets, or bring more patients.'
      )

  def counts(self) -> dict[str, dict[str, int]]:
    """Patients by set and stratum, zeros included."""
    strata = sorted(set(self.stratum_of.values()))
    table = {name: dict.fromkeys(strata, 0) for name in self.set_names}
    for patient, name in self.set_of.items():
      table[name][self.stratum_of[patient]] += 1
    return table


def strata(studies: Iterable[tuple[str, str]]) -> dict[str, str]:
  """Patient -> stratum, from (patient, stratum) of every study.

  Of several, the last by name: a patient who was normal once and had COVID later
  must count as one of them, and always as the same one.
  """
  found: dict[str, str] = {}
  for patient, stratum in studies:
    found[patient] = max(stratum, found.get(patient, ''))
  return found


def parse_shares(texts: Iterable[str]) -> dict[str, float]:
  """Reads 'train=0.7' and its like.

  Raises:
    errors.UsageError: a text is anything else, or a name is there twice.
  """
  shares = {}
  for text in texts:
    name, _, share = text.partition('=')
    try:
      value = float(share)
    except ValueError:
      value = 0.0
    if not name.isidentifier() or name in shares or not 0 < value < float('inf'):
      raise errors.UsageError(
        '--sets: NAME=SHARE with a share above 0 is required, each name once, such '
        f'as train=0.7,test=0.3; found {text!r}.'
      )
    shares[name] = value
  return shares


def by_fractions(
  stratum_of: Mapping[str, str], fractions: Mapping[str, float], seed: int
) -> Split:
  """Draws sets of given sizes.

  Args:
    stratum_of: patient -> stratum.
    fractions: set -> share of the patients; they are divided by their sum. A
      stratum with as many patients as sets gives each set at least one.
    seed: of the draw.

  Raises:
    errors.UsageError: a share that is not above 0, or too few patients.
  """
  if not fractions or not all(share > 0 for share in fractions.values()):
    raise errors.UsageError(
      f'split: shares above 0 are required, found {dict(fractions)}.'
    )
  names = tuple(fractions)
  shares = np.array([fractions[name] for name in names], float)
  shares /= shares.sum()
  random = np.random.default_rng(seed)
  owed = np.zeros(len(names))  # Patients that rounding has kept from a set so far.
  set_of = {}
  for stratum in sorted(set(stratum_of.values())):
    patients = sorted(p for p in stratum_of if stratum_of[p] == stratum)
    wanted = shares * len(patients)
    quotas = _quotas(wanted, owed, len(patients))
    owed += wanted - quotas
    order = random.permutation(len(patients))
    drawn = np.repeat(np.arange(len(names)), quotas)
    for place, number in zip(order, drawn):
      set_of[patients[place]] = names[number]
  described = ', '.join(f'{name} {share:g}' for name, share in zip(names, shares))
  return Split(set_of, dict(stratum_of), names, f'shares: {described}', seed)


def k_folds(stratum_of: Mapping[str, str], folds: int, seed: int) -> Split:
  """Draws `folds` sets of one size: fold0, fold1, ...; train on all but one.

  Raises:
    errors.UsageError: fewer than 2 folds, or than patients.
  """
  if folds < 2:
    raise errors.UsageError(f'--folds: 2 or more are required, found {folds}.')
  drawn = by_fractions(stratum_of, {f'fold{i}': 1.0 for i in range(folds)}, seed)
  return dataclasses.replace(drawn, method=f'{folds} folds')


def given(sets: Iterable[tuple[str, str, str]]) -> Split:
  """The sets that a collection states.

  Args:
    sets: (patient, stratum, set) of every study.

  Raises:
    errors.UsageError: a study without a set, or a patient in two.
  """
  set_of: dict[str, str] = {}
  stratum_of: dict[str, str] = {}
  divided: set[str] = set()
  for patient, stratum, name in sets:
    if not name:
      raise errors.UsageError(
        'split: a set for every study is required by --given_sets, found one '
        'without; fill the column, or let the sets be drawn.'
      )
    if set_of.setdefault(patient, name) != name:
      divided.add(patient)
    stratum_of[patient] = max(stratum, stratum_of.get(patient, ''))
  if divided:
    raise errors.UsageError(
      f'split: each patient in one set is required, found {len(divided)} in two or '
      'more; correct the sets, or let them be drawn.'
    )
  return Split(
    set_of,
    stratum_of,
    tuple(sorted(set(set_of.values()))),
    'as the collection gives them',
    None,
  )


def write(split: Split, folder: str | os.PathLike, slice_counts: Mapping) -> None:
  """Writes splits.csv (a row a patient) and splits.json (method and counts).

  Args:
    split: the sets.
    folder: gets both files.
    slice_counts: set -> counts of its slices, as splits.json holds them.
  """
  folder = pathlib.Path(folder)
  text = io.StringIO(newline='')
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(_COLUMNS)
  writer.writerows(
    sorted(
      (patient, name, split.stratum_of[patient])
      for patient, name in split.set_of.items()
    )
  )
  files.write_atomically(folder / CSV_NAME, text.getvalue().encode())
  content = {
    'method': split.method,
    'seed': split.seed,
    'patients': split.counts(),
    'slices': dict(slice_counts),
  }
  files.write_json(folder / JSON_NAME, content)


def _quotas(wanted: np.ndarray, owed: np.ndarray, total: int) -> np.ndarray:
  """int64 [set]: `wanted` in whole numbers that sum to `total`.

  Within a stratum no set is off by a patient or more, but for the one that it must
  have; whom rounding favours is decided by what earlier strata owe.
  """
  quotas = np.floor(wanted).astype(np.int64)
  order = np.argsort(quotas - wanted - owed, kind='stable')
  quotas[order[: total - quotas.sum()]] += 1
  if total >= len(wanted):
    for empty in np.flatnonzero(quotas == 0):
      surplus = np.where(quotas > 1, quotas - wanted - owed, -np.inf)
      quotas[np.argmax(surplus)] -= 1
      quotas[empty] += 1
  return quotas


# The lists beside shards, for people and for checks: manifest.csv and shards.csv.
#
# manifest.csv has a row for every slice, shards.csv one for every shard with its count
# and checksum. A training asks `check` and `require_apart` before its first step.

MANIFEST_NAME = 'manifest.csv'
SHARDS_NAME = 'shards.csv'
_SHARD_COLUMNS = ('shard', 'slices', 'bytes', 'sha256')
_THICKNESS = 'thickness_mm'  # Later than the first lists, which lack it.


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


def write_shards(
  folder: pathlib.Path, counts: Mapping[str, int], thickness_mm: float | None = None
) -> None:
  """Writes shards.csv.

  Args:
    folder: holds the shards.
    counts: path below `folder` -> slices.
    thickness_mm: that closer slices were averaged to; None: slices as they are.
  """
  thickness = '' if thickness_mm is None else f'{thickness_mm:g}'
  with open(folder / SHARDS_NAME, 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow((*_SHARD_COLUMNS, _THICKNESS))
    for shard, slices in counts.items():
      path = folder / shard
      writer.writerow((shard, slices, path.stat().st_size, _sha256(path), thickness))


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
        f'{size}; copy or import it again.'
      )
    if _sha256(path) != row[0]['sha256']:
      raise errors.UsageError(
        f'{path}: its bytes are not those of its {SHARDS_NAME}: the shard is '
        'damaged; copy or import it again.'
      )
  return unlisted


def require_one_thickness(shards: Sequence[str | os.PathLike]) -> float | None:
  """Refuses shards whose slices were averaged to different thicknesses.

  Args:
    shards: files; their lists are looked for as by `check`.

  Returns:
    The thickness in millimetres that closer slices were averaged to; None: slices as
    they are, as those of shards that no list names are taken to be.

  Raises:
    errors.UsageError: there are several, or a list states what is no thickness.
  """
  found: dict[float | None, pathlib.Path] = {}
  listed = _listed(shards, SHARDS_NAME, _SHARD_COLUMNS, (_THICKNESS,))
  for path, (_, rows) in listed.items():
    text = rows[0][_THICKNESS] if rows else ''
    try:
      thickness_mm = float(text) if text else None
      if thickness_mm is not None:
        results.check_thickness(thickness_mm)
    except ValueError:
      raise errors.UsageError(
        f'{path}: its {SHARDS_NAME} must give {_THICKNESS} as a number above 0 and at '
        f'most {results.MAX_THICKNESS_MM:g}, or leave it blank, found {text!r}; import '
        'it again.'
      ) from None
    found.setdefault(thickness_mm, path)
  if len(found) > 1:
    stated = ', '.join(
      f'{"slices as they are" if mm is None else f"{mm:g} mm"} ({path})'
      for mm, path in found.items()
    )
    raise errors.UsageError(
      f'shards: slices of one thickness are required, found {stated}; import all with '
      'the same --thickness_mm.'
    )
  return next(iter(found), None)


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
    for second in names[place + 1 :]:
      if common := patients[first] & patients[second]:
        raise errors.UsageError(
          f'{first} and {second}: no patient in both is required, found '
          f'{len(common)}; split by patient, as tools/import_dataset.py does.'
        )
  return {name: len(found) for name, found in patients.items()}


def _listed(shards, name, columns, optional=()):
  """{shard: (folder of its list, its rows)}; rows are [] where no list names it."""
  lists: dict[pathlib.Path, dict[str, list[dict[str, str]]]] = {}
  found: dict[pathlib.Path, tuple[pathlib.Path, list[dict[str, str]]]] = {}
  for path in map(pathlib.Path, shards):
    path = path.resolve()
    found[path] = path.parent, []
    for folder in (path.parent, path.parent.parent):
      if folder not in lists:
        lists[folder] = _read(folder / name, columns, optional)
      if rows := lists[folder].get(path.relative_to(folder).as_posix()):
        found[path] = folder, rows
        break
  return found


def _read(path, columns, optional) -> dict[str, list[dict[str, str]]]:
  if not path.is_file():
    return {}
  rows: dict[str, list[dict[str, str]]] = {}
  for row in tables.read_table(path, columns, optional):
    rows.setdefault(row.cells['shard'], []).append(row.cells)
  return rows


def _sha256(path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
