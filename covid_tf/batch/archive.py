"""All studies of an archive, from headers only, each exactly once."""

import collections
from collections.abc import Callable, Iterable, Iterator
import dataclasses
import functools
import itertools
import os
import pathlib

from covid_tf.batch import archive_list
from covid_tf.batch import folder_listing
from covid_tf.batch import grouping
from covid_tf.batch import index
from covid_tf.batch import studies
from covid_tf.batch import walk
from covid_tf.readers import identification

_FOLDERS_A_TASK = 16

# Applies a function to many items and yields its values in any order: `map`, or
# one that has many processes.
Map = Callable[[Callable, Iterable], Iterator]


def find_studies(
    source: str | os.PathLike, *, index_path: str | os.PathLike | None = None,
    map_: Map = map, skip: str | os.PathLike | None = None,
    identify: folder_listing.Identify = identification.identify) -> studies.Archive:
  """Finds every study of an archive, without decoding a pixel.

  Args:
    source: a folder to search, a text file with a path a line, a CSV with a column
      `path` and perhaps `series_uid`, a DICOMDIR, a zip or a NIfTI file.
    index_path: where listings are kept between runs; None keeps nothing.
    map_: how folders are listed.
    skip: a folder that is no part of the archive although it may lie in it.
    identify: path of a file to its identity.

  Returns:
    The studies, and what could not be looked into.

  Raises:
    errors.UsageError: there is no such file, or a list is not one.
    errors.OutputError: the index cannot be written.
  """
  # Whole paths: workers may have another working directory than this process.
  source = pathlib.Path(source).absolute()
  rows = tuple(dict.fromkeys(archive_list.rows(source)))
  problems: list[str] = []
  notes: list[str] = []
  known = {} if index_path is None else index.load(index_path)
  listing = _Listing(
      rows, known, problems, notes, None if skip is None else os.path.realpath(skip))
  tasks = _batched(listing.new_folders(), _FOLDERS_A_TASK)
  for listed in map_(functools.partial(_list_all, identify=identify), tasks):
    for key, folder in listed:
      listing.folders[key] = folder
  if index_path is not None and listing.has_news:
    index.save(index_path, listing.complete())
  for folder in listing.folders.values():
    problems.extend(folder.problems)
  # Not a folder that depends on the rows: a list may grow between two runs.
  root = os.fspath(source if source.is_dir() else source.parent)
  found = []
  for series_uid, folders in listing.by_series().items():
    grouped = grouping.group(folders, root, identify=identify)
    found += grouped if series_uid is None else _with_series(grouped, series_uid)
  return studies.Archive(tuple(_unique(found)), tuple(problems), tuple(notes))


class _Listing:
  """The folders of all rows; their file names pass through and are not kept.

  Attributes:
    folders: key of a folder to its listing, in the order of the walk.
    has_news: whether any was not in the index.
  """

  def __init__(self, rows, known, problems, notes, skip):
    self._rows = rows
    self._known = known
    self._problems = problems
    self._notes = notes
    self._skip = skip
    self._keys_of_row = {row: {} for row in rows}
    self.folders: dict = {}
    self.has_news = False

  def new_folders(self) -> Iterator[walk.Folder]:
    """Walks all rows; yields what the index does not know, each folder once."""
    for row in self._rows:
      for folder in archive_list.folders(
          row, self._problems, self._notes, self._skip):
        key = _key(folder)
        self._keys_of_row[row][key] = None
        if key in self.folders:
          continue
        earlier = self._known.get(folder.path) if folder.complete else None
        if earlier and earlier.changed_ns == folder.changed_ns:
          self.folders[key] = earlier
          continue
        self.folders[key] = folder_listing.FolderListing(folder.path, 0)  # Its place.
        self.has_news = True
        yield folder

  def complete(self) -> Iterator[folder_listing.FolderListing]:
    """Listings of whole folders: what an index may keep."""
    return (folder for key, folder in self.folders.items() if isinstance(key, str))

  def by_series(self) -> dict[str | None, list[folder_listing.FolderListing]]:
    """The series that rows name, None for rows that name none, to their folders."""
    keys = collections.defaultdict(dict)
    for row in self._rows:
      keys[row.series_uid].update(self._keys_of_row[row])
    return {series_uid: [self.folders[key] for key in of_series]
            for series_uid, of_series in keys.items()}


def _key(folder: walk.Folder):
  return folder.path if folder.complete else (folder.path, folder.names)


def _list_all(folders, identify):
  return [(_key(folder), folder_listing.list_folder(folder, identify))
          for folder in folders]


def _batched(items: Iterator, count: int) -> Iterator[tuple]:
  # itertools.batched is new in Python 3.12.
  while batch := tuple(itertools.islice(items, count)):
    yield batch


def _with_series(found: Iterable[studies.Study], series_uid: str):
  """Studies of rows that name a series, for that series only."""
  found = list(found)
  fitting = [study for study in found if series_uid in study.series_uids] or [
      dataclasses.replace(
          study, refusal=f'the series {series_uid} of the list is not among its '
          f'{len(study.series_uids)} CT series; correct the list.')
      for study in found]
  return [
      dataclasses.replace(
          study, key=f'{study.key}_{series_uid}', series_uid=series_uid)
      for study in fitting]


def _unique(found: Iterable[studies.Study]) -> Iterator[studies.Study]:
  """In order of key, each key once."""
  ordered = sorted(found, key=lambda study: study.key)
  for _, same in itertools.groupby(ordered, key=lambda study: study.key):
    yield next(same)
