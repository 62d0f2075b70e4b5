"""Where the files of a study are: a file, a folder, a DICOMDIR or a zip.

Our own walk: a library that follows links has read a folder twice or stopped at
a broken link half-way without an error, and opening a FIFO waits for ever.
"""

import contextlib
import dataclasses
import os
import pathlib
import stat
import zipfile

from covid_tf import errors
from covid_tf.readers import dicomdir
from covid_tf.readers import sources

_NIFTI_SUFFIXES = ('.nii', '.nii.gz')


@dataclasses.dataclass(frozen=True)
class Found:
  """What there is to read at a place.

  Attributes:
    sources: regular files or zip members, in a stable order.
    niftis: files that by their name are NIfTI; never among `sources`.
    notes: what was left aside and may be missed.
  """

  sources: tuple
  niftis: tuple[pathlib.Path, ...] = ()
  notes: tuple[str, ...] = ()


@contextlib.contextmanager
def find(path: pathlib.Path):
  """Yields what there is to read at `path`; closes it after.

  Raises:
    CTReadError: nothing is there, or it cannot be read.
  """
  try:
    mode = path.stat().st_mode
  except (OSError, ValueError):
    raise errors.CTReadError(
        'no such file or folder, or no right to read it; give a DICOM folder, '
        'a DICOMDIR, a zip or a NIfTI file.') from None
  if stat.S_ISDIR(mode):
    yield _walk(path)
  elif not stat.S_ISREG(mode):
    raise errors.CTReadError(
        'a pipe, socket or device is not read; give a file or a folder.')
  elif is_nifti(path.name):
    yield Found((), (path,))
  elif _is_zip(path):
    with _opened(path) as archive:
      yield _in_zip(archive)
  else:
    source = sources.FileSource(path)
    if dicomdir.is_dicomdir(source):
      yield Found(tuple(
          sources.FileSource(file) for file in dicomdir.referenced_files(path)))
    else:
      yield Found((source,))


def is_nifti(name: str) -> bool:
  """Whether a file name is one of NIfTI."""
  return name.lower().endswith(_NIFTI_SUFFIXES)


def _is_zip(path: pathlib.Path) -> bool:
  """Also one that is cut off, but not a DICOM file with a zip at its end."""
  with open(path, 'rb') as file:
    start = file.read(132)
  return start[128:] != b'DICM' and (
      start.startswith(b'PK\3\4') or zipfile.is_zipfile(path))


def _walk(root: pathlib.Path) -> Found:
  """All regular files below `root`; links are not followed, so it always ends."""
  files, niftis, links, archives = [], [], 0, 0
  folders = [root]
  while folders:
    folder = folders.pop()
    try:
      with os.scandir(folder) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    except OSError:
      raise errors.CTReadError(
          f'the folder {folder.name} cannot be listed (no right to?), so slices '
          'may be missed; make it readable or move it away.') from None
    for entry in entries:
      if entry.is_symlink():
        links += 1
      elif entry.is_dir():
        folders.append(pathlib.Path(entry.path))
      elif not entry.is_file():
        continue
      elif is_nifti(entry.name):
        niftis.append(pathlib.Path(entry.path))
      else:
        archives += _names_zip(entry.name)
        files.append(sources.FileSource(pathlib.Path(entry.path)))
  notes = []
  if links:
    notes.append(f'{links} symbolic link(s) were not followed')
  return Found(tuple(files), tuple(niftis), (*notes, *_unopened(archives, 'folder')))


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
        'the zip is protected by a password; unpack it and give the folder.')
  members.sort(key=lambda info: info.filename)
  return Found(
      tuple(sources.ZipSource(archive, info) for info in members),
      notes=_unopened(sum(_names_zip(info.filename) for info in members), 'zip'))
