"""Where the files of a study are: a file, a folder, a DICOMDIR or a zip.

Our own walk: a library that follows links has read a folder twice or stopped at
a broken link half-way without an error, and opening a FIFO waits for ever.
"""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import os
import pathlib
import stat
import zipfile

from covid_tf import errors
from covid_tf.readers import elements
from covid_tf.readers import formats
from covid_tf.readers import sources as sources_lib

# git-annex keeps all versions of all files there.
NO_FOLDERS = frozenset(('.git',))
FETCH = (
  'fetch the files (git annex get, datalad get), copy them instead of the '
  'links, or remove the links.'
)


@dataclasses.dataclass(frozen=True)
class Found:
  """What there is to read at a place.

  Attributes:
    sources: regular files or zip members, in a stable order.
    niftis: files of NIfTI by their content, and damaged ones by their name; never
      among `sources`.
    itk: the file of MetaImage or NRRD that was given, or those of a zip; of a folder
      they are among `sources`.
    notes: what was left aside and may be missed.
  """

  sources: tuple[sources_lib.SizedSource, ...]
  niftis: tuple[pathlib.Path | sources_lib.ZipSource, ...] = ()
  itk: tuple[pathlib.Path | sources_lib.ZipSource, ...] = ()
  notes: tuple[str, ...] = ()


@contextlib.contextmanager
def find(path: pathlib.Path) -> Iterator[Found]:
  """Yields what there is to read at `path`; closes it after.

  Raises:
    CTReadError: nothing is there, or it cannot be read.
  """
  try:
    mode = path.stat().st_mode
  except (OSError, ValueError):
    raise errors.CTReadError(
      'no such file or folder, or no right to read it; give a DICOM folder, '
      'a DICOMDIR, a zip, or a NIfTI, MetaImage or NRRD file.'
    ) from None
  if stat.S_ISDIR(mode):
    yield _walk(path)
  elif not stat.S_ISREG(mode):
    raise errors.CTReadError(
      'a pipe, socket or device is not read; give a file or a folder.'
    )
  elif kind := formats.volume_kind(path):
    yield Found((), (path,)) if kind == formats.NIFTI else Found((), itk=(path,))
  elif _is_zip(path):
    with _opened(path) as archive:
      yield _in_zip(archive)
  else:
    source = sources_lib.FileSource(path)
    if sources_lib.is_dicomdir(source):
      yield Found(
        tuple(
          sources_lib.FileSource(file) for file in sources_lib.referenced_files(path)
        )
      )
    else:
      yield Found((source,))


def _is_zip(path: pathlib.Path) -> bool:
  """Also one that is cut off, but not a DICOM file with a zip at its end."""
  with open(path, 'rb') as file:
    start = file.read(132)
  return start[128:] != b'DICM' and (
    start.startswith(b'PK\3\4') or zipfile.is_zipfile(path)
  )


def _walk(root: pathlib.Path) -> Found:
  """All files below `root`, linked ones too; links to folders are not followed.

  So it always ends, and a file that several links lead to is read once.
  """
  files, niftis, archives = [], [], 0
  links = Links(root)
  folders = [root]
  while folders:
    folder = folders.pop()
    try:
      with os.scandir(folder) as listed:
        entries = sorted(listed, key=lambda entry: entry.name)
    except OSError:
      raise errors.CTReadError(
        f'the folder {folder.name} cannot be listed (no right to?), so slices '
        'may be missed; make it readable or move it away.'
      ) from None
    for entry in entries:
      if entry.is_symlink():
        if not links.is_file(entry.path):
          continue
      elif entry.is_dir():
        if entry.name not in NO_FOLDERS:
          folders.append(pathlib.Path(entry.path))
        continue
      elif not entry.is_file():
        continue
      if formats.volume_kind(entry.path) == formats.NIFTI:
        niftis.append(pathlib.Path(entry.path))
      else:
        archives += _names_zip(entry.name)
        files.append(sources_lib.FileSource(pathlib.Path(entry.path)))
  refuse_dangling(links.dangling)
  return Found(
    tuple(files),
    tuple(niftis),
    notes=(*links.notes(), *_unopened(archives, 'folder')),
  )


class Links:
  """The symbolic links that a walk meets, and which of them it follows.

  Attributes:
    to_folders: number of links that lead to folders, which are not followed.
    dangling: names of links that lead nowhere, where a slice may have been.
    skipped: number of links to files that the walk meets without them.
  """

  def __init__(self, root: str | os.PathLike[str]):
    self._root = os.path.realpath(root)
    self._seen: set[str] = set()
    self.to_folders = 0
    self.dangling: list[str] = []
    self.skipped = 0

  def is_file(self, path: str) -> bool:
    """Whether a link leads to a regular file that is met nowhere else."""
    try:
      mode = os.stat(path).st_mode
    except OSError:  # Gone, out of reach, or a link to itself.
      name = os.path.basename(path)
      if formats.may_be_image(name):
        self.dangling.append(name)
      return False
    self.to_folders += stat.S_ISDIR(mode)
    if not stat.S_ISREG(mode):
      return False
    target = os.path.realpath(path)
    if target in self._seen or self._meets(target):
      self.skipped += 1
      return False
    self._seen.add(target)
    return True

  def _meets(self, target: str) -> bool:
    """Whether the walk comes to a file itself."""
    inner = os.path.relpath(target, self._root).split(os.sep)
    return inner[0] != os.pardir and NO_FOLDERS.isdisjoint(inner[:-1])

  def notes(self) -> tuple[str, ...]:
    """What was not followed, in words."""
    if not self.to_folders:
      return ()
    return (f'{self.to_folders} symbolic link(s) to folders were not followed',)


def of_files(files: Iterable[str | os.PathLike[str]]) -> Found:
  """What there is to read in files that are known to belong together.

  Raises:
    CTReadError: links among them lead nowhere.
  """
  paths = sorted(map(pathlib.Path, files))
  nowhere = [file for file in paths if sources_lib.leads_nowhere(file)]
  refuse_dangling([file.name for file in nowhere if formats.may_be_image(file.name)])
  return Found(
    tuple(
      map(sources_lib.FileSource, (file for file in paths if file not in set(nowhere)))
    )
  )


def refuse_dangling(names: list[str]) -> None:
  """Raises CTReadError if there are links that lead nowhere."""
  if names:
    raise errors.CTReadError(
      f'{dangling(len(names))}, the first one {elements.printable(names[0])}; {FETCH}'
    )


def dangling(count: int) -> str:
  """What links that lead nowhere mean, in words."""
  return f'{count} symbolic link(s) lead to no file, so slices may be missing'


def _names_zip(name: str) -> bool:
  return name.lower().endswith('.zip')


def _unopened(archives: int, place: str) -> tuple[str, ...]:
  if not archives:
    return ()
  return (f'{archives} zip file(s) inside the {place} were not opened',)


def _opened(path: pathlib.Path) -> zipfile.ZipFile:
  try:
    return zipfile.ZipFile(path)
  except Exception:  # Damaged tables of contents raise many kinds.
    raise errors.CTReadError('the zip is damaged; copy it again.') from None


def _in_zip(archive: zipfile.ZipFile) -> Found:
  members = [info for info in archive.infolist() if not info.is_dir()]
  if any(info.flag_bits & 0x1 for info in members):
    raise errors.CTReadError(
      'the zip is protected by a password; unpack it and give the folder.'
    )
  members.sort(key=lambda info: info.filename)
  files: list[sources_lib.ZipSource] = []
  niftis: list[sources_lib.ZipSource] = []
  itk: list[sources_lib.ZipSource] = []
  for info in members:
    source = sources_lib.ZipSource(archive, info)
    kind = formats.kind_of_start(source.name, source.read(0, formats.START_BYTES))
    (files if kind is None else niftis if kind == formats.NIFTI else itk).append(source)
  return Found(
    tuple(files),
    tuple(niftis),
    tuple(itk),
    _unopened(sum(_names_zip(info.filename) for info in members), 'zip'),
  )
