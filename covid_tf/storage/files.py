"""Results on disk: whole under their final names, or not there at all.

Everything is written beside its target, forced to the disk and renamed: on one
file system a rename happens or does not, so neither a full disk nor a killed
process leaves half a result that looks like one.
"""

from collections.abc import Iterator, Sequence
import contextlib
import errno
import json
import logging
import os
import pathlib
import shutil
from typing import IO
import uuid

from covid_tf import errors

_log = logging.getLogger(__name__)

_REASONS = {
  errno.ENOSPC: 'no space left on the device; free some or choose another place',
  errno.EDQUOT: 'the disk quota is used up; free some or choose another place',
  errno.EROFS: 'the file system is read-only; choose another place',
  errno.EACCES: 'permission denied; choose a place that you may write to',
  errno.EPERM: 'permission denied; choose a place that you may write to',
  errno.ENOTDIR: 'a file stands where a folder is required; remove or rename it',
  errno.EEXIST: 'a file stands where a folder is required; remove or rename it',
  errno.EISDIR: 'a folder stands where a file is required; remove or rename it',
  errno.ENAMETOOLONG: 'the name is too long; choose a shorter one',
  errno.EFBIG: 'the file system takes no file that large; choose another place',
  errno.EIO: 'the device failed; check the disk',
}


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
  """Puts `data` under `path`, whole or not at all.

  Args:
    path: the file to make or replace; missing folders above it are made.
    data: its bytes.

  Raises:
    errors.OutputError: it cannot be written; names the path and the reason.
  """
  with replacing(path) as temporary:
    temporary.write_bytes(data)


def write_json(path: str | os.PathLike[str], content: object) -> None:
  """Writes JSON for people and programs: strict, indented, in UTF-8.

  Args:
    path: the file to make or replace; missing folders above it are made.
    content: JSON values. Names of files that are no text stay readable: JSON's own
      escapes hold their bytes as Python's strings do.

  Raises:
    errors.OutputError: it cannot be written; names the path and the reason.
    ValueError: a number is NaN or infinite, which no JSON holds.
  """
  text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
  write_atomically(path, text.encode('utf-8', 'backslashreplace'))


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a name to write to, which becomes `path` when the block ends well.

  The yielded name ends as `path` does, for writers that look at the suffix. When
  the block raises, `path` stays as it was.

  Args:
    path: the file to make or replace; missing folders above it are made.

  Yields:
    A name beside `path` where nothing is yet.

  Raises:
    errors.OutputError: it cannot be written; names the path and the reason.
  """
  target = pathlib.Path(os.path.realpath(path))  # Through a link, not over it.
  temporary = temporary_name(target)
  with explained(path, temporary):
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
      yield temporary
      force_to_disk(temporary)
      os.replace(temporary, target)
    finally:
      temporary.unlink(missing_ok=True)
    _force_names_to_disk(target.parent)


@contextlib.contextmanager
def replacing_directory(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields an empty folder, which becomes `path` when the block ends well.

  An earlier folder of that name, with all that it holds, is replaced. When the
  block raises, `path` stays as it was.

  Args:
    path: the folder to make or replace; missing folders above it are made.

  Yields:
    An empty folder beside `path`.

  Raises:
    errors.OutputError: it cannot be written; names the path and the reason.
  """
  target = pathlib.Path(os.path.realpath(path))
  temporary = temporary_name(target)
  with explained(path, temporary):
    if os.path.exists(target) and not target.is_dir():
      raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    temporary.mkdir(parents=True)
    try:
      yield temporary
      force_tree_to_disk(temporary)
      _swap_in(temporary, target)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
    _force_names_to_disk(target.parent)


def require_unused(folder: str | os.PathLike[str]) -> None:
  """Refuses a folder that holds files; a new or empty one passes.

  Raises:
    errors.UsageError: it is in use.
  """
  # A file in its place is found when the folder is made.
  if os.path.isdir(folder) and os.listdir(folder):
    raise errors.UsageError(
      f'{folder}: a new or empty folder is required, found files in it; choose '
      'another, or remove it.'
    )


def temporary_name(target: pathlib.Path) -> pathlib.Path:
  """A name beside `target`, ending like it, where nothing is yet."""
  # Not tempfile: its files are readable by their owner only, and stay so.
  return target.with_name(f'.{uuid.uuid4().hex[:8]}.{target.name}')


def lock(stream: IO[bytes], needed_by: str, *, wait: bool) -> None:
  """Locks an open file until it is closed or the process ends.

  Args:
    stream: the file, open for writing.
    needed_by: what needs the lock, for the error.
    wait: whether to wait for another process that holds it.

  Raises:
    BlockingIOError: another process holds it, and `wait` is False.
    errors.OutputError: there are no such locks on this system.
  """
  try:
    import fcntl  # Here: all else of this module works without POSIX.
  except ModuleNotFoundError:
    raise errors.OutputError(
      f'{stream.name}: {needed_by} needs locks of files as POSIX systems have them, '
      'found none; use Linux, macOS or the Windows Subsystem for Linux.'
    ) from None
  fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def force_to_disk(path: str | os.PathLike[str]) -> None:
  """Waits until a file's content, or a folder's list of names, is on the disk."""
  if os.name == 'nt' and os.path.isdir(path):
    return  # Windows has no such call for folders, whose names it writes by itself.
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _force_names_to_disk(folder: pathlib.Path) -> None:
  """Forces a folder's list of names to the disk, or warns.

  What was renamed stands under its final name, whole, and its content is on the disk:
  whoever reads the folder finds it. So it is no error where the names are not
  confirmed (some network file systems cannot), and nothing is taken back.
  """
  try:
    force_to_disk(folder)
  except OSError as error:
    _log.warning(
      '%s: what was written is there, but may be lost if the machine stops now: the '
      'file system did not confirm it (%s).',
      folder,
      error.strerror,
    )


def force_tree_to_disk(folder: pathlib.Path) -> None:
  """Forces every file and folder below `folder`, and itself, to the disk."""
  for root, _, names in os.walk(folder):
    for name in names:
      force_to_disk(os.path.join(root, name))
    force_to_disk(root)


@contextlib.contextmanager
def explained(path: str | os.PathLike[str], temporary: pathlib.Path) -> Iterator[None]:
  """Turns what the disk refuses into an OutputError about `path`.

  Args:
    path: what the user asked for.
    temporary: where it is written meanwhile; an OSError that names neither this
      nor a folder above it is about something else, and passes.
  """
  try:
    yield
  except OSError as error:
    cause = _of_the_system(error)
    # A block may also read other files; what fails there is not our output.
    if not _concerns(cause, temporary):
      raise
    other = f'{cause.strerror}; choose another place'
    reason = _REASONS.get(cause.errno or 0, other)  # 0 is no error's number.
    raise errors.OutputError(f'{path}: cannot be written: {reason}.') from error


def _swap_in(temporary: pathlib.Path, target: pathlib.Path) -> None:
  try:
    os.rename(temporary, target)  # Also over an empty folder, in one step.
    return
  except OSError as error:
    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
      raise
  old = temporary_name(target)
  os.rename(target, old)
  try:
    os.rename(temporary, target)
  except BaseException:
    os.rename(old, target)
    raise
  shutil.rmtree(old, ignore_errors=True)


def _of_the_system(error: OSError) -> OSError:
  """What an error was made of that has no number: pydicom's quotes a traceback."""
  found: BaseException | None = error
  while found is not None:
    if isinstance(found, OSError) and found.errno is not None:
      return found
    found = found.__cause__
  return error


def _concerns(error: OSError, temporary: pathlib.Path) -> bool:
  if error.filename is None:  # A full disk: write() and fsync() name no file.
    return error.errno in _REASONS
  name = pathlib.Path(os.fsdecode(error.filename))
  return name == temporary or temporary in name.parents or (name in temporary.parents)


# Several files of one result: they all appear in a folder, or none does.


@contextlib.contextmanager
def filling_folder(
  path: str | os.PathLike[str], names: Sequence[str], outdated: Sequence[str] = ()
) -> Iterator[pathlib.Path]:
  """Yields an empty folder whose files move to `path` when the block ends well.

  Whether `path` can be written is found out here, before any work is done for it.
  Files of these names that an earlier run left are replaced; others stay. When
  the block raises, the folder `path` stays as it was.

  Args:
    path: the folder; made with those above it where it is missing.
    names: what the block writes, in the order in which it appears: the last one
      is there only when all are. What it writes besides, in folders too, appears
      before them.
    outdated: patterns of files, such as 'dicom/*.dcm', that an earlier run may have
      left and that do not belong to the new ones; they go away with those that are
      replaced.

  Yields:
    An empty folder on the same disk.

  Raises:
    errors.OutputError: it cannot be written; names the path and the reason.
  """
  target = pathlib.Path(os.path.realpath(path))
  existed = os.path.exists(target)  # False too where nobody may look.
  # Inside a folder that is there: the one above it may be another disk.
  temporary = temporary_name(target / 'partial' if existed else target)
  with explained(path, temporary):
    if existed and not target.is_dir():
      raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    temporary.mkdir(parents=True)
    try:
      with _in_words_of(target, temporary):
        yield temporary
      force_tree_to_disk(temporary)
      if existed:
        _move_all(temporary, target, names, outdated)
      else:
        os.rename(temporary, target)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
    _force_names_to_disk(target)
    _force_names_to_disk(target.parent)


@contextlib.contextmanager
def _in_words_of(target: pathlib.Path, temporary: pathlib.Path) -> Iterator[None]:
  """Errors of what is written inside name the place that the user asked for."""
  try:
    yield
  except errors.OutputError as error:
    raise errors.OutputError(str(error).replace(str(temporary), str(target))) from error


def _move_all(
  temporary: pathlib.Path,
  target: pathlib.Path,
  names: Sequence[str],
  outdated: Sequence[str],
) -> None:
  besides = sorted(
    str(path.relative_to(temporary)) for path in temporary.rglob('*') if path.is_file()
  )
  new = [*(name for name in besides if name not in names), *names]
  left = (path for pattern in outdated for path in target.glob(pattern))
  old = [*reversed(new), *(str(path.relative_to(target)) for path in left)]
  kept = temporary / 'old'
  arrived: list[str] = []
  try:
    # The last name goes first: while files are exchanged, no result is complete.
    for name in dict.fromkeys(old):
      if os.path.lexists(target / name):
        _rename_into(target / name, kept / name)
    for name in new:
      _rename_into(temporary / name, target / name)
      arrived.append(name)
  except BaseException:
    for name in arrived:
      (target / name).unlink()
    for name in dict.fromkeys(old):
      if os.path.lexists(kept / name):
        os.rename(kept / name, target / name)
    raise
  finally:
    for name in dict.fromkeys(old):
      with contextlib.suppress(OSError):  # Not empty, or not there.
        if (target / name).parent != target:
          (target / name).parent.rmdir()


def _rename_into(path: pathlib.Path, target: pathlib.Path) -> None:
  target.parent.mkdir(parents=True, exist_ok=True)
  os.rename(path, target)
