"""COVID-CT-MD: DICOM folders by patient, slice labels in a NumPy array.

Patients are folders named P001 (COVID), cap001 (pneumonia) or normal001, wherever
they lie. Index.csv says which row of Slice-level-labels*.npy is whose.
"""

import functools
import os
import pathlib
import re

import numpy as np
import pydicom

from covid_tf import errors
from covid_tf import readers
from covid_tf.datasets.collections import study
from covid_tf.storage import tables

NAME = 'covid-ct-md'
_KINDS = {'P': 'covid', 'cap': 'pneumonia', 'normal': 'normal'}
_PATIENT = re.compile(r'(P|cap|normal)\d+')
_INDEX_COLUMNS = ('label index', 'folder/id')


def list_studies(
  folder: str | os.PathLike, pneumonia_is_negative: bool = False
) -> list[study.StudyEntry]:
  """Lists the patients.

  Args:
    folder: the collection's.
    pneumonia_is_negative: take patients with other pneumonia as without COVID;
      else they are left out, as in the paper, whose negatives are normal.

  Raises:
    errors.UsageError: no patients, or label files that do not fit together.
  """
  folder = pathlib.Path(folder)
  patients = {
    path.name: path
    for path in sorted(folder.rglob('*'))
    if path.is_dir() and _PATIENT.fullmatch(path.name)
  }
  if not patients:
    raise errors.UsageError(
      f'{folder}: DICOM folders named P001, cap001 or normal001 are required, found '
      'none.'
    )
  rows = _label_rows(folder, patients)
  entries = []
  for name, path in patients.items():
    found = _PATIENT.fullmatch(name)
    assert found  # The others are no patients' folders.
    kind = _KINDS[found[1]]
    if kind == 'pneumonia' and not pneumonia_is_negative:
      continue
    entries.append(
      study.StudyEntry(
        NAME,
        f'{NAME}/{name}',
        name,
        kind,
        functools.partial(_read_study, path, kind, rows.get(name)),
        int(kind == 'covid'),
        labels_by='radiologist' if name in rows else 'diagnosis of the patient',
      )
    )
  return entries


def _label_rows(folder, patients) -> dict[str, np.ndarray]:
  """Labels by patient, most superior slice first.

  Label Index leaves out a number, so it is no row: its rank among all is.
  """
  indices, arrays = (
    sorted(folder.rglob(name)) for name in ('Index.csv', 'Slice-level-labels*.npy')
  )
  if not indices or not arrays:
    raise errors.UsageError(
      f'{folder}: Index.csv and Slice-level-labels.npy are required, found only '
      f'{len(indices)} and {len(arrays)} of them.'
    )
  updated = [path for path in arrays if 'updated' in path.name]
  path = (updated or arrays)[-1]
  labels = _load(path)
  numbers: dict[int, str] = {}
  for row in tables.read_table(indices[0], _INDEX_COLUMNS):
    index, name = (row.cells[column] for column in _INDEX_COLUMNS)
    name = pathlib.PurePosixPath(name).name
    if not index.isdecimal():
      raise errors.UsageError(
        f'{indices[0]}, row {row.number}: a whole Label Index is required, found '
        f'{index!r}.'
      )
    if int(index) in numbers or name in numbers.values():
      raise errors.UsageError(
        f'{indices[0]}, row {row.number}: each index and patient once is required, '
        'found one again.'
      )
    if name not in patients:
      raise errors.UsageError(
        f'{indices[0]}, row {row.number}: it labels a patient whose folder is not '
        'there; complete the download.'
      )
    numbers[int(index)] = name
  if len(numbers) != len(labels):
    raise errors.UsageError(
      f'{path}: a row for each of the {len(numbers)} patients of Index.csv is '
      f'required, found {len(labels)}.'
    )
  return {numbers[number]: labels[rank] for rank, number in enumerate(sorted(numbers))}


def _load(path) -> np.ndarray:
  try:
    labels = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError):
    raise errors.UsageError(f'{path}: it is no readable NumPy array.') from None
  if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
    raise errors.UsageError(
      f'{path}: 0 or 1 by patient and slice is required, found {labels.dtype} '
      f'{labels.shape} with other values or axes.'
    )
  return labels.astype(np.int8)


def _read_study(path, kind, row) -> study.Study:
  files = sorted(file for file in path.iterdir() if file.is_file())
  volume = readers.read_files(files, name=path.name)
  count = volume.shape[0]
  if kind != 'covid':
    labels = np.zeros(count, np.int8)
  elif row is None:
    labels = np.full(count, study.UNLABELLED, np.int8)
  else:
    labels = _in_slice_order(path, files, volume, row)
  return study.of_volume(volume, labels)


def _in_slice_order(path, files, volume, row) -> np.ndarray:
  """Labels of the volume's slices, from labels by falling Slice Location.

  File names do not follow the slices. Slice Location is optional in DICOM; the
  height of the slice stands in where one is missing.
  """
  headers = [place for file in files if (place := _place(file)) is not None]
  count = volume.shape[0]
  if len(headers) != count or row[count:].any() or count > len(row):
    raise errors.UsageError(
      f'{path}: as many slices as labels is required, found {len(headers)} files, '
      f'{count} slices and labels up to the {np.flatnonzero(row).max(initial=-1) + 1}'
      'th; complete the download.'
    )
  heights = np.array([height for height, _ in headers])
  locations = np.array(
    [height if place is None else place for height, place in headers]
    if all(place is not None for _, place in headers)
    else heights
  )
  by_file = np.empty(count, np.int8)
  by_file[np.argsort(-locations, kind='stable')] = row[:count]
  upwards = by_file[np.argsort(heights, kind='stable')]
  return upwards if volume.affine[2, 0] > 0 else upwards[::-1].copy()


def _place(file) -> tuple[float, float | None] | None:
  """(height, Slice Location or None) in mm; None for a file without a place."""
  try:
    header = pydicom.dcmread(
      file,
      stop_before_pixels=True,
      specific_tags=['ImagePositionPatient', 'SliceLocation'],
    )
    location = header.get('SliceLocation')
    return (
      float(header.ImagePositionPatient[2]),
      None if location is None else float(location),
    )
  except Exception:  # Whatever is not DICOM, or damaged, is no slice.
    return None
