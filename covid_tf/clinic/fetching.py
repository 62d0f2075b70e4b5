"""A study from a PACS to a folder: whole under its final name, or not there at all."""

from collections.abc import Callable
import dataclasses
import os
import pathlib

from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import pacs
from covid_tf.storage import files


@dataclasses.dataclass(frozen=True)
class Fetched:
  """What has come.

  Attributes:
    folder: where it is, `SERIES_UID/SOP_INSTANCE_UID.dcm`.
    series_uids: its series, sorted.
    instance_count: number of files.
    size_bytes: of all of them.
  """

  folder: pathlib.Path
  series_uids: tuple[str, ...]
  instance_count: int
  size_bytes: int


def fetch(
  archive: pacs.Archive,
  study_uid: str,
  output: str | os.PathLike[str],
  *,
  series_uid: str | None = None,
  on_listed: Callable[[int], None] = lambda count: None,
  on_instance: Callable[[], None] = lambda: None,
) -> Fetched:
  """Fetches a study, or one of its series.

  Args:
    archive: the PACS.
    study_uid: Study Instance UID.
    output: a new or empty folder.
    series_uid: Series Instance UID; None: all series.
    on_listed: called with the number of instances, once it is known.
    on_instance: called for each that has come.

  Raises:
    errors.UsageError: a UID is none, or the folder is in use.
    errors.StudyRefusedError: the PACS does not have it.
    errors.PACSError: it cannot be reached, refuses, sends something else, or not all.
    errors.OutputError: the disk does not take it.
  """
  study_uid = addresses.require_uid(study_uid, 'STUDY_UID')
  if series_uid is not None:
    series_uid = addresses.require_uid(series_uid, '--series')
  files.require_unused(output)
  listed = archive.find(study_uid, series_uid)
  if not listed:
    what = f'series {series_uid} of study' if series_uid else 'study'
    raise errors.StudyRefusedError(
      f'{archive.name}: it has no instance of {what} {study_uid}, or shows us none; '
      'check the UID.'
    )
  on_listed(len(listed))
  with files.replacing_directory(output) as folder:
    receiver = pacs.Receiver(folder, listed, on_instance)
    archive.retrieve(study_uid, series_uid, receiver)
    receiver.require_whole(archive.name)
    for left in folder.glob('.*.part'):  # Of an attempt that was cut off.
      left.unlink()
  return Fetched(
    pathlib.Path(output),
    tuple(sorted({each.series_uid for each in listed})),
    len(receiver.paths),
    receiver.size_bytes,
  )
