"""COVIDx-CT (variant A): PNG slices of many sources, label files with boxes.

The pictures are 8 bits of one window, without spacing: they train the classifier and
are marked as such. Boxes are of the body, so lung boxes come from pseudo-masks. The
patient is in the file's name, by rules that differ from source to source;
metadata.csv lists the patients, and the longest one that a name begins with counts.
"""

import dataclasses
import functools
import os
import pathlib
import re

import matplotlib.image
import numpy as np

from covid_tf import errors
from covid_tf.datasets.collections import mask_files
from covid_tf.datasets.collections import study
from covid_tf.storage import tables

NAME = 'covidx-ct'
_SETS = {'train': 'train', 'val': 'validation', 'test': 'test'}
_LABEL_FILE = re.compile(r'(train|val|test)_COVIDx[-_]CT.*\.txt')
_NORMAL, _PNEUMONIA, _COVID = 0, 1, 2
_STRATA = {_NORMAL: 'normal', _PNEUMONIA: 'pneumonia', _COVID: 'covid'}
# China National Center for Bioinformation: class, patient, scan, slice.
_CNCB = re.compile(r'((?:NCP|CP|Normal)_\d+)_\d+_\d+')
_MODEL_MADE = 'automatic'
_REMEDY = 'complete the download'


@dataclasses.dataclass(frozen=True)
class _Line:
  """A line of a label file."""

  path: pathlib.Path
  kind: int
  given_set: str


def list_studies(
  folder: str | os.PathLike,
  window_hu: tuple[float, float],
  pneumonia_is_negative: bool = False,
  people_only: bool = True,
) -> list[study.StudyEntry]:
  """Lists the scans.

  Args:
    folder: holds label files, images and, needed for most sources, metadata.csv.
    window_hu: (low, high) that the pictures' 0 to 255 stand for.
    pneumonia_is_negative: take slices with other pneumonia as without COVID; else
      such scans are left out.
    people_only: leave out scans whose slices a model labelled (`slice selection`
      Automatic in metadata.csv).

  Raises:
    errors.UsageError: files are missing, a line is damaged or there twice, a name
      belongs to no known patient.
  """
  folder = pathlib.Path(folder)
  label_files = sorted(
    path for path in folder.iterdir() if _LABEL_FILE.fullmatch(path.name)
  )
  images = {
    name: pathlib.Path(root, name)
    for root, _, names in os.walk(folder)
    for name in names
    if name.endswith('.png')
  }
  if not label_files or not images:
    raise errors.UsageError(
      f'{folder}: train/val/test_COVIDx_CT*.txt and PNG slices are required, found '
      f'{len(label_files)} and {len(images)} of them.'
    )
  selection = _read_metadata(folder / 'metadata.csv')
  scans: dict[tuple[str, str], list[_Line]] = {}
  seen: set[str] = set()
  for path in label_files:
    for scan, line in _lines(path, images, seen):
      # By set too: a scan in two of them must not pass for one of the first.
      scans.setdefault((scan, line.given_set), []).append(line)
  entries = []
  for (scan, given_set), lines in sorted(scans.items()):
    kind = max(line.kind for line in lines)
    patient = _patient(scan, selection, folder)
    labels_by = selection.get(patient, '')
    if (kind == _PNEUMONIA and not pneumonia_is_negative) or (
      people_only and labels_by.casefold() == _MODEL_MADE
    ):
      continue
    lines.sort(key=lambda line: _number(line.path.name))
    entries.append(
      study.StudyEntry(
        NAME,
        f'{NAME}/{patient}',
        scan,
        _STRATA[kind],
        functools.partial(_read_study, tuple(lines), window_hu),
        int(kind == _COVID),
        labels_by=labels_by,
        given_set=given_set,
      )
    )
  return entries


def _lines(path, images, seen):
  """(scan, line) for each line of a label file."""
  found = _LABEL_FILE.fullmatch(path.name)
  assert found  # Files of other names are not given.
  name = found[1]
  for number, text in enumerate(tables.read_text(path, _REMEDY).splitlines(), start=1):
    if not text.strip():
      continue
    parts = text.split()
    where = f'{path}, line {number}'
    try:
      file, (kind, left, top, right, bottom) = parts[0], map(int, parts[1:])
    except ValueError:
      raise errors.UsageError(
        f'{where}: a file name, a class and xmin ymin xmax ymax are required, '
        f'found {len(parts)} words or other than whole numbers.'
      ) from None
    if kind not in _STRATA or not (0 <= left < right and 0 <= top < bottom):
      raise errors.UsageError(
        f'{where}: a class from 0 to 2 and a box with an area are required.'
      )
    if file not in images:
      raise errors.UsageError(
        f'{where}: its picture is required, found none of that name; complete the '
        'download.'
      )
    if file in seen:
      raise errors.UsageError(
        f'{where}: each picture once is required, found it again.'
      )
    seen.add(file)
    yield _scan(file), _Line(images[file], kind, _SETS[name])


def _scan(file: str) -> str:
  """The name without the slice's number at its end."""
  return re.sub(r'[-_]?[A-Za-z]*\d+\.png$', '', file)


def _number(file: str) -> int:
  found = re.search(r'(\d+)\.png$', file)
  assert found  # Lines without one are refused before.
  return int(found[1])


def _read_metadata(path) -> dict[str, str]:
  """Patient to `slice selection`; {} without the file."""
  if not path.is_file():
    return {}
  return {
    row.cells['patient id']: row.cells['slice selection']
    for row in tables.read_table(path, ('patient id',), ('slice selection',))
  }


def _patient(scan: str, patients: dict[str, str], folder) -> str:
  ends = [len(scan), *(match.start() for match in re.finditer(r'[-_ .]', scan))]
  for end in sorted(ends, reverse=True):
    if scan[:end] in patients:
      return scan[:end]
  if not patients and (match := _CNCB.fullmatch(f'{scan}_0')):
    return match[1]
  raise errors.UsageError(
    f'{folder / "metadata.csv"}: the patient of every slice is required, found none '
    f'that the scan {scan} belongs to; take the metadata.csv of the same release.'
  )


def _read_study(lines, window_hu) -> study.Study:
  planes = [_read_grey(line.path) for line in lines]
  if len({plane.shape for plane in planes}) > 1:
    raise errors.CTReadError(
      f'{lines[0].path.name}: slices of one size in a scan are required, found several.'
    )
  labels = [int(line.kind == _COVID) for line in lines]
  return study.Study(
    mask_files.to_hu(np.stack(planes), window_hu),
    np.array(labels, np.int8),
    (0.0, 0.0, 0.0),
    window_hu=window_hu,
    slice_index=np.array([_number(line.path.name) for line in lines]),
  )


def _read_grey(path) -> np.ndarray:
  try:
    grey = matplotlib.image.imread(path)  # Shares of 255, as PNG are read.
  except Exception:  # Pillow raises what it meets in damaged bytes.
    raise errors.CTReadError(f'{path.name}: it is no readable PNG.') from None
  if grey.ndim == 3 and (grey[..., :3] == grey[..., :1]).all():
    grey = grey[..., 0]
  if grey.ndim != 2:
    raise errors.CTReadError(f'{path.name}: a grey picture is required, found colour.')
  return np.rint(grey * 255.0)
