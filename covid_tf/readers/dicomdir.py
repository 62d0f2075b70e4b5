"""DICOMDIR: the table of contents of a DICOM disc (PS3.10, PS3.3 annex F)."""

import io
import pathlib
import warnings

import pydicom

from covid_tf import errors

MEDIA_STORAGE_DIRECTORY = '1.2.840.10008.1.3.10'
_MOST_BYTES = 1 << 28  # A directory of a full DVD has tens of megabytes.


def is_dicomdir(source) -> bool:
  """Whether a source is a DICOMDIR, by its content."""
  start = source.read(0, 1024)
  return start[128:132] == b'DICM' and MEDIA_STORAGE_DIRECTORY.encode() in start


def referenced_files(path: pathlib.Path) -> list[pathlib.Path]:
  """The files that a DICOMDIR lists, all of them there.

  Raises:
    CTReadError: it cannot be parsed, points outside its folder, or lists files
      that are not there: a slice would be missed in silence.
  """
  if path.stat().st_size > _MOST_BYTES:
    raise errors.CTReadError('the DICOMDIR is larger than 256 MiB.')
  try:
    # pydicom's warnings quote values, which may be names.
    with warnings.catch_warnings(action='ignore'):
      directory = pydicom.dcmread(io.BytesIO(path.read_bytes()))
      file_ids = [
          _components(record) for record in directory.DirectoryRecordSequence
          if 'ReferencedFileID' in record]
  except Exception:  # Any byte may be wrong, and pydicom raises what it meets.
    raise errors.CTReadError(
        'the DICOMDIR is damaged; give the folder of the images instead.') from None
  root = path.parent
  files = [_resolve(root, components) for components in file_ids]
  missing = sum(file is None for file in files)
  if missing:
    raise errors.CTReadError(
        f'the DICOMDIR lists {len(files)} files and {missing} of them are not '
        'there; copy the whole disc, or give the folder of the images instead.')
  return sorted(set(files))


def _components(record) -> tuple[str, ...]:
  file_id = record.ReferencedFileID
  return (file_id,) if isinstance(file_id, str) else tuple(map(str, file_id))


def _resolve(root: pathlib.Path, components) -> pathlib.Path | None:
  """The file of a File ID below `root`; discs are often copied in lower case."""
  found = root
  for name in components:
    if name in ('', '.', '..') or '/' in name or '\\' in name or '\0' in name:
      raise errors.CTReadError(
          'the DICOMDIR points outside its own folder; give the folder of the '
          'images instead.')
    candidates = (found / name, found / name.lower())
    found = next((file for file in candidates if file.exists()), None)
    if found is None or found.is_symlink() and found.is_dir():
      return None
  return found if found.is_file() else None
