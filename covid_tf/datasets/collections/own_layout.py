"""The layout for your own data: a folder of studies and one CSV.

  folder/
    labels.csv          study,patient[,slice,label,severity,set]
    studies/            one DICOM folder, or file of NIfTI, MetaImage or NRRD, a study
    lung_masks/         <study>.nii.gz; optional, then one for every study
    lesion_masks/       <study>.nii.gz; optional, for any of the studies

A row without `slice` is about the whole study: label 0 makes all its slices
negative, label 1 says that the patient has COVID, and leaves slices unlabelled.
`slice` counts from 0, the most inferior slice of the patient, as the package's reports
do; where a NIfTI file runs to the feet that is its last.
"""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from covid_tf import errors
from covid_tf import readers
from covid_tf.datasets.collections import mask_files
from covid_tf.datasets.collections import study as study_lib
from covid_tf.readers import formats
from covid_tf.readers import itk_headers
from covid_tf.storage import tables

NAME = 'own'


@dataclasses.dataclass
class _Rows:
  """What the CSV says of one study."""

  patient: str
  severity: str = ''
  given_set: str = ''
  whole: int | None = None
  slices: dict[int, int] = dataclasses.field(default_factory=dict)

  @property
  def case_label(self) -> int:
    labels = set(self.slices.values())
    if self.whole is not None:
      labels.add(self.whole)
    return max(labels, default=study_lib.UNLABELLED)


def list_studies(folder: str | os.PathLike) -> list[study_lib.StudyEntry]:
  """Lists the studies.

  Raises:
    errors.UsageError: rows and files do not match each other; names row or file.
  """
  folder = pathlib.Path(folder)
  table = folder / 'labels.csv'
  found = _named(folder / 'studies')
  rows = _read(table, found)
  if unnamed := sorted(set(found) - set(rows)):
    raise errors.UsageError(
      f'{table}: a row for every study is required, found none for {len(unnamed)} '
      f'(first: {found[unnamed[0]]}).'
    )
  lungs = _masks(folder / 'lung_masks', rows)
  lesions = _masks(folder / 'lesion_masks', rows)
  if lungs and set(lungs) != set(rows):
    missing = sorted(set(rows) - set(lungs))
    raise errors.UsageError(
      f'{folder / "lung_masks"}: a mask for every study is required once there is '
      f'one, missing for {len(missing)} (first: {missing[0]}.nii.gz).'
    )
  return [
    study_lib.StudyEntry(
      NAME,
      f'{NAME}/{said.patient}',
      study,
      _stratum(said, study in lesions),
      functools.partial(
        _read_study, found[study], table, said, lungs.get(study), lesions.get(study)
      ),
      said.case_label,
      said.severity,
      'own',
      said.given_set,
    )
    for study, said in sorted(rows.items())
  ]


def _stratum(said: _Rows, has_lesions: bool) -> str:
  if said.severity:
    return said.severity
  label = 1 if has_lesions else said.case_label
  return {1: 'covid', 0: 'normal'}.get(label, 'unlabelled')


def _read(table, found) -> dict[str, _Rows]:
  rows: dict[str, _Rows] = {}
  problems = []
  for row in tables.read_table(
    table, ('study', 'patient'), ('slice', 'label', 'severity', 'set')
  ):
    try:
      _add(rows, row.cells, found)
    except ValueError as error:
      problems.append(f'row {row.number}: {error}')
  if problems:
    more = f'; and {len(problems) - 10} more' if len(problems) > 10 else ''
    raise errors.UsageError(
      f'{table}: {len(problems)} problem(s): {"; ".join(problems[:10])}{more}.'
    )
  return rows


def _add(rows, cells, found):
  """Takes in one row; raises ValueError with what is wrong about it."""
  study, patient = cells['study'], cells['patient']
  if not study or not patient:
    raise ValueError('study and patient must not be blank')
  if study not in found and (problem := tables.uid_problem('study', study)):
    raise ValueError(problem)
  if problem := tables.patient_problem('patient', patient):
    raise ValueError(problem)
  if study not in found:
    raise ValueError('it names a study that is not in studies/')
  truth = tables.truth(cells['label'])
  if cells['label'] and truth is None:
    raise ValueError(f'label must be 0, 1 or blank, found {cells["label"]!r}')
  said = rows.setdefault(study, _Rows(patient, cells['severity'], cells['set']))
  if said.patient != patient:
    raise ValueError('it gives another patient than an earlier row of the study')
  if (cells['severity'] or said.severity) != said.severity or (
    cells['set'] or said.given_set
  ) != said.given_set:
    raise ValueError('severity and set must be the same in all rows of a study')
  label = study_lib.UNLABELLED if truth is None else int(truth)
  if not cells['slice']:
    if said.whole is not None:
      raise ValueError('it repeats the row of the whole study')
    said.whole = label
    return
  if not cells['slice'].isdecimal():
    raise ValueError(
      f'slice must be a whole number from 0 on, found {cells["slice"]!r}'
    )
  number = int(cells['slice'])
  if number in said.slices:
    raise ValueError(f'it repeats slice {number} of its study')
  said.slices[number] = label


def _read_study(path, table, said, lung_path, lesion_path) -> study_lib.Study:
  volume = readers.read_ct(path)
  count = volume.shape[0]
  if said.slices and max(said.slices) >= count:
    raise errors.UsageError(
      f'{table}: slices of {path.name} from 0 to {count - 1} are required, found a '
      f'row for slice {max(said.slices)}.'
    )
  lesion = (
    None
    if lesion_path is None
    else np.minimum(mask_files.read_on_grid(lesion_path, volume), 1)
  )
  lung = (
    None
    if lung_path is None
    else np.minimum(mask_files.read_on_grid(lung_path, volume), 1)
  )
  if lung is not None and lesion is not None:
    lung = mask_files.require_inside(lesion_path, lesion, lung)
  labels = np.full(count, 0 if said.whole == 0 else study_lib.UNLABELLED, np.int8)
  if lesion is not None:
    labels = study_lib.labels_from_lesions(lesion, volume.spacing_mm[1])
  for number, label in said.slices.items():
    if lesion is not None and label == 0 and labels[number] == 1:
      raise errors.UsageError(
        f'{table}: slice {number} of {path.name} has label 0, but '
        f'{lesion_path.name} shows a lesion there; correct one of them.'
      )
    labels[number] = label
  kind = study_lib.NO_MASK if lung is None else study_lib.DRAWN
  return study_lib.of_volume(volume, labels, lung, lesion, kind)


def _entries(folder):
  try:
    return sorted(path for path in folder.iterdir() if not path.name.startswith('.'))
  except OSError:
    raise errors.UsageError(
      f'{folder}: a folder of studies is required, found none; see docs/training.md '
      'for the layout.'
    ) from None


def _masks(folder, rows) -> dict[str, pathlib.Path]:
  if not folder.is_dir():
    return {}
  masks = _named(folder)
  if stray := sorted(set(masks) - set(rows)):
    raise errors.UsageError(
      f'{masks[stray[0]]}: a mask with the name of a study is required, found no '
      f'study {stray[0]}.'
    )
  return masks


def _named(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Name without its ending to path; voxels beside a header (.mhd, .nhdr) are its."""
  entries = _entries(folder)
  voxels = itk_headers.voxel_files(entries)
  named: dict[str, pathlib.Path] = {}
  for path in entries:
    if path in voxels:
      continue
    other = named.setdefault(_stem(path), path)
    if other is not path:
      raise errors.UsageError(
        f'{path}: one file or folder of this name is required, found {other.name} '
        'too; remove or rename one of them.'
      )
  return named


def _stem(path: pathlib.Path) -> str:
  for suffix in sorted(formats.VOLUME_SUFFIXES, key=len, reverse=True):
    if path.name.lower().endswith(suffix):
      return path.name[: -len(suffix)]
  return path.name
