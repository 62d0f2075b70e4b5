"""Where results lie below a folder, and which studies there have none."""

from collections.abc import Iterator
import dataclasses
import json
import os
import pathlib

from covid_tf.reports import study_files

RESULT_NAME = 'result.json'
_OWN_OUTPUT = 'cohort.json'  # A cohort written among its results is none of them.
_REASON_KEYS = ('error', 'reason', 'refusal', 'message')
_LARGEST_NOTE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class FailedStudy:
  """A study folder without a usable result.

  Attributes:
    path: the folder or file.
    reason: why it gives no score.
  """

  path: pathlib.Path
  reason: str


def result_files(
    root: pathlib.Path, failed: list[FailedStudy]) -> Iterator[pathlib.Path]:
  """Yields result files; adds the studies that end without one to `failed`.

  A folder that ends without a result is a failed study where its neighbours have
  results, or where something of a study was left in it; not every folder below is
  one.

  Args:
    root: the folder to search.
    failed: grows.

  Yields:
    Paths of result.json, in order of name.
  """
  yield from _search(root, failed, set())


def _search(
    folder: pathlib.Path, failed: list[FailedStudy],
    seen: set[str]) -> Iterator[pathlib.Path]:
  seen.add(os.path.realpath(folder))
  try:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
  except OSError as error:
    failed.append(FailedStudy(folder, f'cannot be listed: {error.strerror}'))
    return
  names = {entry.name for entry in entries}
  is_result = RESULT_NAME in names
  if is_result:
    yield folder / RESULT_NAME
  elif _OWN_OUTPUT in names:
    return
  # A name with a dot in front is a result that is still being written.
  folders = [folder / entry.name for entry in entries
             if entry.is_dir() and not entry.name.startswith('.')]
  among_results = any((inner / RESULT_NAME).exists() for inner in folders)
  for inner in folders:
    if os.path.realpath(inner) in seen:  # A link may lead back up.
      continue
    # What else lies in a result's folder is of that study, unless it has a result.
    if not is_result and (among_results or _was_a_study(inner)):
      _add_failure(inner, failed)
    yield from _search(inner, failed, seen)


def _was_a_study(folder: pathlib.Path) -> bool:
  """Whether a folder is empty or holds what scoring leaves, but maybe no result."""
  try:
    names = {entry.name for entry in os.scandir(folder)}
  except OSError:
    return False  # Listed when it is searched.
  return not names or any(name in names for name in study_files.NAMES) or (
      _noted_reason(folder, names) is not None)


def _add_failure(folder: pathlib.Path, failed: list[FailedStudy]) -> None:
  """Adds a folder that ends without a result to `failed`."""
  try:
    entries = list(os.scandir(folder))
  except OSError:
    return
  names = {entry.name for entry in entries}
  if names & {RESULT_NAME, _OWN_OUTPUT} or any(entry.is_dir() for entry in entries):
    return
  failed.append(FailedStudy(
      folder, _noted_reason(folder, names) or f'no {RESULT_NAME}'))


def _noted_reason(folder: pathlib.Path, names: set[str]) -> str | None:
  """The reason that whoever failed left in a JSON file, if any."""
  for name in sorted(names):
    path = folder / name
    if not name.endswith('.json') or path.stat().st_size > _LARGEST_NOTE_BYTES:
      continue
    try:
      note = json.loads(path.read_text('utf-8'))
    except (OSError, ValueError):
      continue
    for key in _REASON_KEYS if isinstance(note, dict) else ():
      if isinstance(note.get(key), str):
        return note[key]
  return None
