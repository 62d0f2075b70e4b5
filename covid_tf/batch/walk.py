"""Every folder below a root with its files; always ends, says what it left out."""

from collections.abc import Iterator
import dataclasses
import os

from covid_tf.readers import discovery


@dataclasses.dataclass(frozen=True, slots=True)
class Folder:
  """A folder as the walk saw it.

  Attributes:
    path: of the folder.
    names: its regular files, sorted.
    changed_ns: modification time of the folder: another one after a file came,
      went or was renamed.
    complete: False where somebody chose some of its files.
    links_skipped: whether links to files that the walk meets elsewhere are not among
      the names.
  """

  path: str
  names: tuple[str, ...]
  changed_ns: int
  complete: bool = True
  links_skipped: bool = False


def walk(
    root: str | os.PathLike, problems: list[str], notes: list[str],
    skip: str | None = None) -> Iterator[Folder]:
  """Yields the folders below `root` that hold files, `root` included.

  Links to regular files are followed, those to folders are not, so a loop of them is
  no loop here. A link that leads nowhere is among the names where it may have been an
  image: who reads it finds that something is missing.

  Args:
    root: a folder; may itself be a link.
    problems: gets a line for each folder that cannot be listed.
    notes: gets a line if links to folders were left aside.
    skip: real path of a folder that is no part of it; results are no studies.

  Yields:
    Folders in order of path, parents first.
  """
  links = discovery.Links(root)
  waiting = [os.fspath(root)]
  while waiting:
    path = waiting.pop()
    if skip is not None and os.path.realpath(path) == skip:
      continue
    try:
      changed_ns = os.stat(path).st_mtime_ns
      skipped = links.skipped
      names, inner = _listed(path, links)
    except OSError as error:
      problems.append(
          f'{path}: cannot be listed ({error.strerror}), so its studies are missing; '
          'make it readable and start again.')
      continue
    waiting.extend(os.path.join(path, name) for name in reversed(inner))
    if names:
      yield Folder(path, tuple(names), changed_ns,
                   links_skipped=links.skipped > skipped)
  for note in links.notes():
    notes.append(
        f'{os.fspath(root)}: {note}; list the folders that they lead to, if they '
        'matter.')


def _listed(path: str, links: discovery.Links) -> tuple[list[str], list[str]]:
  names, inner = [], []
  with os.scandir(path) as entries:
    # In order, so that of two links to one file always the same is followed.
    for entry in sorted(entries, key=lambda entry: entry.name):
      if entry.is_symlink():
        dangling = len(links.dangling)
        if links.is_file(entry.path) or len(links.dangling) > dangling:
          names.append(entry.name)
      elif entry.is_dir():
        if entry.name not in discovery.NO_FOLDERS:
          inner.append(entry.name)
      elif entry.is_file():
        names.append(entry.name)
  return names, inner
