"""What a user calls an archive, as rows: a path each, and perhaps a series."""

import collections
from collections.abc import Iterable, Iterator
import dataclasses
import os
import pathlib

from covid_tf import errors
from covid_tf import tables
from covid_tf.batch import folder_listing
from covid_tf.batch import walk
from covid_tf.readers import dicomdir
from covid_tf.readers import sources
from covid_tf.readers import uids

_MOST_LIST_BYTES = 1 << 28
_TABLE_SUFFIXES = ('.csv', '.tsv')
_COLUMN = 'path'
_REMEDY = 'give a folder, a list, a CSV, a DICOMDIR, a zip or a NIfTI file'


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

  Relative paths of a list are relative to the list's own folder. A list is a table
  where its name ends so, or where its first row names the column `path`.

  Raises:
    errors.UsageError: nothing is there, a list names nothing or is no text, or a
      row of a table is wrong; names the line.
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
  text = _text(source)
  if source.suffix.lower() in _TABLE_SUFFIXES or _is_table(source, text):
    found = tuple(_table_rows(source, text))
  else:
    found = tuple(Row(tables.path_of(line, source.parent))
                  for line in tables.read_lines(text))
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


def _is_table(source: pathlib.Path, text: str) -> bool:
  """Whether a text has a table's header, and no path of that name as its first line."""
  return tables.has_header(text, (_COLUMN,)) and not os.path.lexists(
      source.parent / tables.read_lines(text)[0])


def _table_rows(source: pathlib.Path, text: str) -> Iterator[Row]:
  for row in tables.parse(source, text, (_COLUMN,), ('series_uid',), is_list=True):
    path, series_uid = row.cells[_COLUMN], row.cells['series_uid']
    where = f'{source}, line {row.number}'
    if problem := tables.uid_problem('series_uid', series_uid):
      raise errors.UsageError(f'{where}: {problem}.')
    if not path or (series_uid and not uids.legal(series_uid)):
      raise errors.UsageError(
          f'{where}: a path, and a series_uid of digits and dots or none, are '
          'required; correct the line.')
    yield Row(tables.path_of(path, source.parent), series_uid or None)


def _text(source: pathlib.Path) -> str:
  try:
    size = source.stat().st_size
  except OSError as error:
    raise _unreadable(source, error) from None
  if size > _MOST_LIST_BYTES:
    raise errors.UsageError(
        f'{source}: a list of paths in UTF-8 is required, found a file of {size} '
        f'bytes; {_REMEDY}.')
  return tables.read_text(source, _REMEDY)


def _unreadable(source: pathlib.Path, error: OSError) -> errors.UsageError:
  return errors.UsageError(
      f'{source}: cannot be read ({error.strerror}); make it readable.')
