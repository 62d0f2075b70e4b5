"""What folders held when they were last listed: a second start reads few headers.

One line of JSON a folder. A folder is listed again when its modification time
differs, which it does as soon as a file came, went or was renamed.
"""

from collections.abc import Iterable
import dataclasses
import json
import os
import pathlib

from covid_tf import files
from covid_tf.batch import folder_listing

_FORMAT = 1  # Raised when a line changes its meaning; others are read anew.


def load(path: str | os.PathLike) -> dict[str, folder_listing.FolderListing]:
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


def save(
    path: str | os.PathLike,
    listings: Iterable[folder_listing.FolderListing]) -> None:
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


def default_path(output: pathlib.Path) -> pathlib.Path:
  """Where an archive's index lies among its results."""
  return output / 'index.jsonl'


def _fields(listing) -> list:
  studies = [
      [getattr(study, field.name) for field in dataclasses.fields(study)
       if field.name != 'folder'] for study in listing.studies]
  return [listing.path, listing.changed_ns, studies, listing.zips, listing.niftis]


def _listing(line: str) -> folder_listing.FolderListing:
  path, changed_ns, studies, zips, niftis = json.loads(line)
  return folder_listing.FolderListing(
      path, changed_ns,
      tuple(_study(path, *fields) for fields in studies), tuple(zips), tuple(niftis))


def _study(folder, study_uid, series_uids, images, size, digest, names):
  return folder_listing.FolderStudy(
      folder, study_uid, tuple(series_uids), images, size, digest,
      None if names is None else tuple(names))
