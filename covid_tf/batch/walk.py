"""Every folder below a root with its files; always ends, says what it left out."""

from collections.abc import Iterator
import dataclasses
import os


@dataclasses.dataclass(frozen=True, slots=True)
class Folder:
  """A folder as the walk saw it.

  Attributes:
    path: of the folder.
    names: its regular files, sorted.
    changed_ns: modification time of the folder: another one after a file came,
      went or was renamed.
    complete: False where somebody chose some of its files.
  """

  path: str
  names: tuple[str, ...]
  changed_ns: int
  complete: bool = True


def walk(
    root: str | os.PathLike, problems: list[str], notes: list[str],
    skip: str | None = None) -> Iterator[Folder]:
  """Yields the folders below `root` that hold files, `root` included.

  Symbolic links are not followed, so a loop of them is no loop here.

  Args:
    root: a folder; may itself be a link.
    problems: gets a line for each folder that cannot be listed.
    notes: gets a line if links were left aside.
    skip: real path of a folder that is no part of it; results are no studies.

  Yields:
    Folders in order of path, parents first.
  """
  links = 0
  waiting = [os.fspath(root)]
  while waiting:
    path = waiting.pop()
    if skip is not None and os.path.realpath(path) == skip:
      continue
    try:
      changed_ns = os.stat(path).st_mtime_ns
      names, inner, linked = _listed(path)
    except OSError as error:
      problems.append(
          f'{path}: cannot be listed ({error.strerror}), so its studies are missing; '
          'make it readable and start again.')
      continue
    links += linked
    waiting.extend(os.path.join(path, name) for name in reversed(inner))
    if names:
      yield Folder(path, tuple(names), changed_ns)
  if links:
    notes.append(
        f'{os.fspath(root)}: {links} symbolic link(s) were not followed; list the '
        'folders that they lead to, if they matter.')


def _listed(path: str) -> tuple[list[str], list[str], int]:
  names, inner, links = [], [], 0
  with os.scandir(path) as entries:
    for entry in entries:
      if entry.is_symlink():
        links += 1
      elif entry.is_dir():
        inner.append(entry.name)
      elif entry.is_file():
        names.append(entry.name)
  return sorted(names), sorted(inner), links
