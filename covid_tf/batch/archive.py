"""All studies of an archive, from headers only, each exactly once."""

import collections
from collections.abc import Callable, Iterable, Iterator
import dataclasses
import functools
import itertools
import json
import os
import pathlib

from covid_tf import errors
from covid_tf.batch import listing as listing_lib
from covid_tf.readers import elements
from covid_tf.readers import formats
from covid_tf.readers import header
from covid_tf.readers import sources
from covid_tf.storage import files
from covid_tf.storage import tables

# What a user calls an archive, as rows: a path each, and perhaps a series.

_MOST_LIST_BYTES = 1 << 28
_TABLE_SUFFIXES = ('.csv', '.tsv')
_COLUMN = 'path'
_REMEDY = (
  'give a folder, a list, a CSV, a DICOMDIR, a zip or a file of NIfTI, '
  'MetaImage or NRRD'
)


@dataclasses.dataclass(frozen=True)
class Row:
  """One entry of an archive.

  Attributes:
    path: a folder or a file.
    series_uid: the series to read there; None for whatever is there.
  """

  path: pathlib.Path
  series_uid: str | None = None


def listed_rows(source: pathlib.Path) -> tuple[Row, ...]:
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
        f'{source}: a folder, a list, a CSV or a DICOMDIR is required, found nothing.'
      )
    if source.is_dir() or _is_study_file(source):
      return (Row(source),)
  except OSError as error:
    raise _unreadable(source, error) from None
  text = _text(source)
  if source.suffix.lower() in _TABLE_SUFFIXES or _is_table(source, text):
    found = tuple(_table_rows(source, text))
  else:
    found = tuple(
      Row(tables.path_of(line, source.parent)) for line in tables.read_lines(text)
    )
  if not found:
    raise errors.UsageError(f'{source}: a list of paths is required, found it empty.')
  return found


def listed_folders(
  row: Row, problems: list[str], notes: list[str], skip: str | None = None
) -> Iterator[listing_lib.Folder]:
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
      yield from listing_lib.walk(path, problems, notes, skip)
    elif path.exists() and not path.is_file():
      problems.append(f'{path}: a pipe, socket or device is not read.')
    elif not _is_study_file(path) or not _is_dicomdir(path):
      path.stat()
      yield from _chosen([path])
    else:
      yield from _chosen(sources.referenced_files(path))
  except (OSError, errors.CTReadError) as error:
    reason = error.strerror if isinstance(error, OSError) else error
    problems.append(f'{path}: cannot be read: {reason}')


def _chosen(paths: Iterable[pathlib.Path]) -> Iterator[listing_lib.Folder]:
  names = collections.defaultdict(set)
  for path in paths:
    names[os.fspath(path.parent)].add(path.name)
  for folder in sorted(names):
    yield listing_lib.Folder(
      folder, tuple(sorted(names[folder])), os.stat(folder).st_mtime_ns, complete=False
    )


def _is_study_file(path: pathlib.Path) -> bool:
  """Whether a file is images itself, rather than a list of paths."""
  if not path.is_file():  # To look into a pipe would take from what it holds.
    path.stat()
    return False
  return (
    path.suffix.lower() == '.zip'
    or formats.volume_kind(path) is not None
    or formats.is_dicom_file(path)
  )


def _is_dicomdir(path: pathlib.Path) -> bool:
  return sources.is_dicomdir(sources.FileSource(path))


def _is_table(source: pathlib.Path, text: str) -> bool:
  """Whether a text has a table's header, and no path of that name as its first line."""
  return tables.has_header(text, (_COLUMN,)) and not os.path.lexists(
    source.parent / tables.read_lines(text)[0]
  )


def _table_rows(source: pathlib.Path, text: str) -> Iterator[Row]:
  for row in tables.parse(source, text, (_COLUMN,), ('series_uid',), is_list=True):
    path, series_uid = row.cells[_COLUMN], row.cells['series_uid']
    where = f'{source}, line {row.number}'
    if problem := tables.uid_problem('series_uid', series_uid):
      raise errors.UsageError(f'{where}: {problem}.')
    if not path or (series_uid and not elements.legal_uid(series_uid)):
      raise errors.UsageError(
        f'{where}: a path, and a series_uid of digits and dots or none, are '
        'required; correct the line.'
      )
    yield Row(tables.path_of(path, source.parent), series_uid or None)


def _text(source: pathlib.Path) -> str:
  try:
    size = source.stat().st_size
  except OSError as error:
    raise _unreadable(source, error) from None
  if size > _MOST_LIST_BYTES:
    raise errors.UsageError(
      f'{source}: a list of paths in UTF-8 is required, found a file of {size} '
      f'bytes; {_REMEDY}.'
    )
  return tables.read_text(source, _REMEDY)


def _unreadable(source: pathlib.Path, error: OSError) -> errors.UsageError:
  return errors.UsageError(
    f'{source}: cannot be read ({error.strerror}); make it readable.'
  )


# What folders held when they were last listed: a second start reads few headers.
#
# One line of JSON a folder. A folder is listed again when its modification time
# differs, which it does as soon as a file came, went or was renamed.

_FORMAT = 3  # Raised when a line changes its meaning; others are read anew.


def load_index(path: str | os.PathLike) -> dict[str, listing_lib.FolderListing]:
  """Reads an index; one that is absent, damaged or of another format is empty.

  Returns:
    Path of a folder to its listing.
  """
  try:
    with open(path, encoding='utf-8', errors='surrogateescape') as lines:
      if json.loads(next(lines, 'null')) != _FORMAT:
        return {}
      return {listing.path: listing for listing in map(_listing, lines)}
  except (OSError, ValueError, TypeError):
    return {}


def save_index(
  path: str | os.PathLike, listings: Iterable[listing_lib.FolderListing]
) -> None:
  """Replaces an index. Folders with problems are left out, to be tried again.

  Raises:
    errors.OutputError: it cannot be written.
  """
  with files.replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8', errors='surrogateescape') as lines:
      print(_FORMAT, file=lines)
      for listing in listings:
        if not listing.problems:
          print(json.dumps(_fields(listing)), file=lines)


def default_index_path(output: pathlib.Path) -> pathlib.Path:
  """Where an archive's index lies among its results."""
  return output / 'index.jsonl'


def _fields(listing) -> list:
  studies = [
    [
      getattr(study, field.name)
      for field in dataclasses.fields(study)
      if field.name != 'folder'
    ]
    for study in listing.studies
  ]
  return [
    listing.path,
    listing.changed_ns,
    studies,
    listing.files,
    listing.segmentations,
  ]


def _listing(line: str) -> listing_lib.FolderListing:
  path, changed_ns, studies, files_, segmentations = json.loads(line)
  return listing_lib.FolderListing(
    path,
    changed_ns,
    tuple(_study(path, *fields) for fields in studies),
    tuple((name, kind) for name, kind in files_),
    segmentations=segmentations,
  )


def _study(folder, study_uid, series_uids, images, size, digest, names):
  return listing_lib.FolderStudy(
    folder,
    study_uid,
    tuple(series_uids),
    images,
    size,
    digest,
    None if names is None else tuple(names),
  )


_FOLDERS_A_TASK = 16

# Applies a function to many items and yields its values in any order: `map`, or
# one that has many processes.
Map = Callable[[Callable, Iterable], Iterator]


def find_studies(
  source: str | os.PathLike,
  *,
  index_path: str | os.PathLike | None = None,
  map_: Map = map,
  skip: str | os.PathLike | None = None,
  identify: listing_lib.Identify = header.identify,
) -> listing_lib.Archive:
  """Finds every study of an archive, without decoding a pixel.

  Args:
    source: a folder to search, a text file with a path a line, a CSV with a column
      `path` and perhaps `series_uid`, a DICOMDIR, a zip or a file of one volume
      (NIfTI, MetaImage, NRRD).
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
  rows = tuple(dict.fromkeys(listed_rows(source)))
  problems: list[str] = []
  notes: list[str] = []
  known = {} if index_path is None else load_index(index_path)
  listing = _Listing(
    rows, known, problems, notes, None if skip is None else os.path.realpath(skip)
  )
  tasks = _batched(listing.new_folders(), _FOLDERS_A_TASK)
  for listed in map_(functools.partial(_list_all, identify=identify), tasks):
    for key, folder in listed:
      listing.folders[key] = folder
  if index_path is not None and listing.has_news:
    save_index(index_path, listing.complete())
  for folder in listing.folders.values():
    problems.extend(folder.problems)
  if count := sum(folder.segmentations for folder in listing.folders.values()):
    notes.append(f'{count} segmentation(s) of 3D Slicer (.seg.nrrd) are no CT')
  # Not a folder that depends on the rows: a list may grow between two runs.
  root = os.fspath(source if source.is_dir() else source.parent)
  found: list[listing_lib.Study] = []
  for series_uid, folders in listing.by_series().items():
    grouped = listing_lib.group_studies(folders, root, identify=identify)
    found += grouped if series_uid is None else _with_series(grouped, series_uid)
  return listing_lib.Archive(tuple(_unique(found)), tuple(problems), tuple(notes))


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
    self._keys_of_row: dict[Row, dict] = {row: {} for row in rows}
    self.folders: dict = {}
    self.has_news = False

  def new_folders(self) -> Iterator[listing_lib.Folder]:
    """Walks all rows; yields what the index does not know, each folder once."""
    for row in self._rows:
      for folder in listed_folders(row, self._problems, self._notes, self._skip):
        key = _key(folder)
        self._keys_of_row[row][key] = None
        if key in self.folders:
          continue
        earlier = self._known.get(folder.path) if folder.complete else None
        if earlier and earlier.changed_ns == folder.changed_ns != 0:
          self.folders[key] = earlier
          continue
        self.folders[key] = listing_lib.FolderListing(folder.path, 0)  # Its place.
        self.has_news = True
        yield folder

  def complete(self) -> Iterator[listing_lib.FolderListing]:
    """Listings of whole folders: what an index may keep."""
    return (folder for key, folder in self.folders.items() if isinstance(key, str))

  def by_series(self) -> dict[str | None, list[listing_lib.FolderListing]]:
    """The series that rows name, None for rows that name none, to their folders."""
    keys: dict[str | None, dict] = collections.defaultdict(dict)
    for row in self._rows:
      keys[row.series_uid].update(self._keys_of_row[row])
    return {
      series_uid: [self.folders[key] for key in of_series]
      for series_uid, of_series in keys.items()
    }


def _key(folder: listing_lib.Folder):
  return folder.path if folder.complete else (folder.path, folder.names)


def _list_all(folders, identify):
  return [
    (_key(folder), listing_lib.list_folder(folder, identify)) for folder in folders
  ]


def _batched(items: Iterator, count: int) -> Iterator[tuple]:
  # itertools.batched is new in Python 3.12.
  while batch := tuple(itertools.islice(items, count)):
    yield batch


def _with_series(found: Iterable[listing_lib.Study], series_uid: str):
  """Studies of rows that name a series, for that series only."""
  found = list(found)
  fitting = [study for study in found if series_uid in study.series_uids] or [
    dataclasses.replace(
      study,
      refusal=f'the series {series_uid} of the list is not among its '
      f'{len(study.series_uids)} CT series; correct the list.',
    )
    for study in found
  ]
  return [
    dataclasses.replace(study, key=f'{study.key}_{series_uid}', series_uid=series_uid)
    for study in fitting
  ]


def _unique(found: Iterable[listing_lib.Study]) -> Iterator[listing_lib.Study]:
  """In order of key, each key once."""
  ordered = sorted(found, key=lambda study: study.key)
  for _, same in itertools.groupby(ordered, key=lambda study: study.key):
    yield next(same)
