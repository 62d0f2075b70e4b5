"""Several files of one result: they all appear in a folder, or none does."""

from collections.abc import Iterator, Sequence
import contextlib
import errno
import os
import pathlib
import shutil

from covid_tf import errors
from covid_tf import files


@contextlib.contextmanager
def filling(
    path: str | os.PathLike, names: Sequence[str]) -> Iterator[pathlib.Path]:
  """Yields an empty folder whose files move to `path` when the block ends well.

  Whether `path` can be written is found out here, before any work is done for it.
  Files of these names that an earlier run left are replaced; others stay. When
  the block raises, the folder `path` stays as it was.

  Args:
    path: the folder; made with those above it where it is missing.
    names: what the block writes, in the order in which it appears: the last one
      is there only when all are.

  Yields:
    An empty folder on the same disk.

  Raises:
    errors.OutputError: it cannot be written; names the path and the reason.
  """
  target = pathlib.Path(os.path.realpath(path))
  existed = os.path.exists(target)  # False too where nobody may look.
  # Inside a folder that is there: the one above it may be another disk.
  temporary = files.temporary_name(target / 'partial' if existed else target)
  with files.explained(path, temporary):
    if existed and not target.is_dir():
      raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    temporary.mkdir(parents=True)
    try:
      with _in_words_of(target, temporary):
        yield temporary
      files.force_tree_to_disk(temporary)
      if existed:
        _move_all(temporary, target, names)
      else:
        os.rename(temporary, target)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
    files.force_to_disk(target)
    files.force_to_disk(target.parent)


@contextlib.contextmanager
def _in_words_of(target: pathlib.Path, temporary: pathlib.Path) -> Iterator[None]:
  """Errors of what is written inside name the place that the user asked for."""
  try:
    yield
  except errors.OutputError as error:
    raise errors.OutputError(
        str(error).replace(str(temporary), str(target))) from error


def _move_all(
    temporary: pathlib.Path, target: pathlib.Path, names: Sequence[str]) -> None:
  old = temporary / 'old'
  old.mkdir()
  arrived = []
  try:
    # The last name goes first: while files are exchanged, no result is complete.
    for name in reversed(names):
      if os.path.lexists(target / name):
        os.rename(target / name, old / name)
    for name in names:
      os.rename(temporary / name, target / name)
      arrived.append(name)
  except BaseException:
    for name in arrived:
      (target / name).unlink()
    for name in os.listdir(old):
      os.rename(old / name, target / name)
    raise
