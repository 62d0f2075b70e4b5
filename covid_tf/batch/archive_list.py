"""What a user calls an archive, as rows: a path each, and perhaps a series."""

import collections
from collections.abc import Iterable, Iterator
import csv
import dataclasses
import io
import os
import pathlib

from covid_tf import errors
from covid_tf.batch import folder_listing
from covid_tf.batch import walk
from covid_tf.readers import dicomdir
from covid_tf.readers import sources
from covid_tf.readers import uids

_MOST_LIST_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class Row:
  """One entry of an archive.

  Attributes:
    path: a folder or a file.
    series_uid: the series to read there; None for whatever is there.
  """

  path: pathlib.Path
  series_uid: str | None = None


def rows(source: pathlib.Path) -> tuple[Row, ...]:
  """Reads what the user gave: the thing itself, or a list of paths.

  Relative paths of a list are relative to the list's own folder.

  Raises:
    errors.UsageError: nothing is there, or a list names nothing.
  """
  try:
    if not source.exists():
      raise errors.UsageError(
          f'{source}: a folder, a list, a CSV or a DICOMDIR is required, found '
          'nothing.')
    if source.is_dir() or _is_study_file(source):
      return (Row(source),)
  except OSError as error:
    raise _unreadable(source, error) from None
  if source.suffix.lower() == '.csv':
    found = tuple(_csv_rows(source))
  else:
    lines = map(str.strip, _text(source).splitlines())
    found = tuple(Row(source.parent / line) for line in lines if line)
  if not found:
    raise errors.UsageError(f'{source}: a list of paths is required, found it empty.')
  return found


def folders(
    row: Row, problems: list[str], notes: list[str],
    skip: str | None = None) -> Iterator[walk.Folder]:
  """Yields the folders of a row.

  Args:
    row: of the archive.
    problems: gets a line for each thing that cannot be looked into.
    notes: gets a line for what was left aside on purpose.
    skip: real path of a folder that is no part of the archive.
  """
  path = row.path
  try:
    if path.is_dir():
      yield from walk.walk(path, problems, notes, skip)
    elif path.exists() and not path.is_file():
      problems.append(f'{path}: a pipe, socket or device is not read.')
    elif not _is_study_file(path) or not _is_dicomdir(path):
      path.stat()
      yield from _chosen([path])
    else:
      yield from _chosen(dicomdir.referenced_files(path))
  except (OSError, errors.CTReadError) as error:
    reason = error.strerror if isinstance(error, OSError) else error
    problems.append(f'{path}: cannot be read: {reason}')


def _chosen(paths: Iterable[pathlib.Path]) -> Iterator[walk.Folder]:
  names = collections.defaultdict(set)
  for path in paths:
    names[os.fspath(path.parent)].add(path.name)
  for folder in sorted(names):
    yield walk.Folder(
        folder, tuple(sorted(names[folder])), os.stat(folder).st_mtime_ns,
        complete=False)


def _is_study_file(path: pathlib.Path) -> bool:
  """Whether a file is images itself, rather than a list of paths."""
  if folder_listing.is_nifti(path.name) or path.suffix.lower() == '.zip':
    return True
  if not path.is_file():  # To look into a pipe would take from what it holds.
    path.stat()
    return False
  with open(path, 'rb') as file:
    return file.read(132)[128:] == b'DICM'


def _is_dicomdir(path: pathlib.Path) -> bool:
  return dicomdir.is_dicomdir(sources.FileSource(path))


def _csv_rows(source: pathlib.Path) -> Iterator[Row]:
  reader = csv.DictReader(io.StringIO(_text(source)))
  if 'path' not in (reader.fieldnames or ()):
    raise errors.UsageError(
        f'{source}: a column named path is required, found '
        f'{", ".join(reader.fieldnames or ()) or "no columns"}.')
  for number, fields in enumerate(reader, 2):
    path = (fields['path'] or '').strip()
    series_uid = (fields.get('series_uid') or '').strip()
    if not path or (series_uid and not uids.legal(series_uid)):
      raise errors.UsageError(
          f'{source}, line {number}: a path, and a series_uid of digits and dots or '
          'none, are required; correct the line.')
    yield Row(source.parent / path, series_uid or None)


def _text(source: pathlib.Path) -> str:
  try:
    if source.stat().st_size > _MOST_LIST_BYTES:
      raise ValueError
    return source.read_text('utf-8-sig')
  except OSError as error:
    raise _unreadable(source, error) from None
  except ValueError:  # Or UnicodeDecodeError, which is one.
    raise errors.UsageError(
        f'{source}: a list of paths in UTF-8 is required, found something else; give '
        'a folder, a list, a CSV, a DICOMDIR, a zip or a NIfTI file.') from None


def _unreadable(source: pathlib.Path, error: OSError) -> errors.UsageError:
  return errors.UsageError(
      f'{source}: cannot be read ({error.strerror}); make it readable.')
