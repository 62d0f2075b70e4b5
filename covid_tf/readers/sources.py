"""Bytes to read from: a file, a member of a zip, an inflated data set."""

import abc
from collections.abc import Iterable, Iterator
import contextlib
import io
import os
import pathlib
import shutil
import tempfile
from typing import IO, Protocol
import warnings
import zipfile
import zlib

import pydicom

from covid_tf import errors
from covid_tf.readers import elements

_PIECE = 1 << 16
GZIP = b'\x1f\x8b'
# How NIfTI begins: the size of its header, then a mark. (size, place, mark)
_NIFTI_MARKS = ((348, 344, b'n+1\0'), (540, 4, b'n+2\0'))
_NIFTI_PAIR_MARKS = ((348, 344, b'ni1\0'), (540, 4, b'ni2\0'))
_NIFTI_START = 348
# What follows the pixels is shorter; a file of many frames is read to its end once.
_TAIL = 1 << 20


class Source(Protocol):
  """Bytes that are read from any place.

  Attributes:
    name: file name for messages.
    size: bytes in all; None if that is not known.
  """

  @property
  def name(self) -> str: ...

  @property
  def size(self) -> int | None: ...

  def read(self, offset: int, count: int) -> bytes:
    """Returns at most `count` bytes from `offset`; fewer at the end."""
    ...

  def read_into(self, offset: int, target: memoryview) -> bool:
    """Fills `target` from `offset`; returns whether there were enough bytes."""
    ...


class SizedSource(Source, Protocol):
  """A file or a member of an archive, whose size is known."""

  @property
  def size(self) -> int: ...


class FileSource:
  """A regular file; opened for each read, so a study of any size fits."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self.name = path.name
    self.size = path.stat().st_size

  def read(self, offset: int, count: int) -> bytes:
    """Returns at most `count` bytes from `offset`; fewer at the end."""
    count = max(0, min(count, self.size - offset))
    with open(self.path, 'rb', buffering=0) as file:
      return os.pread(file.fileno(), count, offset)

  def read_into(self, offset: int, target: memoryview) -> bool:
    """Fills `target` from `offset`; returns whether there were enough bytes."""
    with open(self.path, 'rb', buffering=0) as file:
      file.seek(offset)
      done = 0
      while done < len(target):
        count = file.readinto(target[done:])
        if not count:
          return False
        done += count
    return True


def is_nifti(start: bytes) -> bool:
  """Whether a file that starts so is one of NIfTI, packed by gzip or not.

  Args:
    start: its first 1024 bytes.
  """
  return _is_marked(start, _NIFTI_MARKS)


def is_nifti_pair(start: bytes) -> bool:
  """Whether a file that starts so is the header of a pair (.hdr, .img)."""
  return _is_marked(start, _NIFTI_PAIR_MARKS)


def _is_marked(start: bytes, marks: Iterable[tuple[int, int, bytes]]) -> bool:
  if start.startswith(GZIP):
    try:
      start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, _NIFTI_START)
    except zlib.error:
      return False
  return any(
    start[place : place + len(mark)] == mark
    and size in (int.from_bytes(start[:4], order) for order in ('little', 'big'))
    for size, place, mark in marks
  )


def leads_nowhere(path: str | os.PathLike[str]) -> bool:
  """Whether a path is a symbolic link without a file at its end."""
  return os.path.islink(path) and not os.path.exists(path)


class _CopyingSource(abc.ABC):
  """A source that cannot read in place."""

  @abc.abstractmethod
  def read(self, offset: int, count: int) -> bytes:
    """Returns at most `count` bytes from `offset`; fewer at the end."""

  def read_into(self, offset: int, target: memoryview) -> bool:
    """Fills `target` from `offset`; returns whether there were enough bytes."""
    data = self.read(offset, len(target))
    if len(data) != len(target):
      return False
    target[:] = data
    return True


class ZipSource(_CopyingSource):
  """A member of a zip archive, read without being unpacked to disk."""

  def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo):
    self._archive = archive
    self._member = member
    self.name = _inner_path(member).name
    self.size = member.file_size

  def beside(self) -> 'list[ZipSource]':
    """The members of its folder, itself among them."""
    folder = _inner_path(self._member).parent
    return [
      ZipSource(self._archive, info)
      for info in self._archive.infolist()
      if not info.is_dir() and _inner_path(info).parent == folder
    ]

  def copy_to(self, path: pathlib.Path) -> None:
    """Unpacks it, to its end, where the checksum is compared."""
    try:
      with self._archive.open(self._member) as packed, open(path, 'wb') as file:
        shutil.copyfileobj(packed, file, _TAIL)
    except OSError:
      raise
    except Exception:  # zipfile and the decompressors raise many kinds.
      raise errors.CTReadError(
        f'the zip is damaged at its member {elements.printable(self.name)}; copy '
        'it again.'
      ) from None

  def read(self, offset: int, count: int) -> bytes:
    """Returns at most `count` bytes from `offset`; fewer at the end."""
    count = max(0, min(count, self.size - offset))
    try:
      with self._archive.open(self._member) as file:
        _pass_over(file, offset)  # Its seek() leaves the checksum out.
        data = file.read(count)
        if self.size - offset - count < _TAIL:
          _pass_over(file, self.size)  # To the end, where the checksum is compared.
        return data
    except Exception:  # zipfile and the decompressors raise many kinds.
      raise errors.CTReadError(
        f'the zip is damaged at its member {elements.printable(self.name)}; copy '
        'it again.'
      ) from None


def _inner_path(member: zipfile.ZipInfo) -> pathlib.PurePosixPath:
  """Its path in the archive; some writers of Windows put backslashes there."""
  return pathlib.PurePosixPath(member.filename.replace('\\', '/'))


@contextlib.contextmanager
def on_disk(source: 'pathlib.Path | ZipSource') -> Iterator[pathlib.Path]:
  """Yields where a file lies; of a zip, a copy that is gone after the block."""
  if isinstance(source, pathlib.Path):
    yield source
    return
  with tempfile.TemporaryDirectory(prefix='covid-tf-') as folder:
    place = pathlib.Path(folder)
    # An image may lie in two files, a header and its voxels.
    for member in source.beside():
      member.copy_to(place / member.name)
    yield place / source.name


def _pass_over(file: IO[bytes], count: int) -> None:
  while count > 0 and (piece := file.read(min(count, _TAIL))):
    count -= len(piece)


class InflatedSource(_CopyingSource):
  """The data set of a deflated file (PS3.5 A.5), inflated as far as asked.

  zlib makes 1000 bytes out of one, so no more is inflated than is wanted.
  """

  def __init__(self, source: SizedSource, start: int):
    self._source = source
    self._start = start
    self.name = source.name
    self.size = None  # Known only by inflating it all.

  def read(self, offset: int, count: int) -> bytes:
    """Returns at most `count` bytes from `offset`; fewer where it is damaged."""
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    packed = self._source.read(self._start, self._source.size)
    skipped = 0
    try:
      while skipped < offset:
        piece = inflater.decompress(packed, min(_PIECE, offset - skipped))
        packed = inflater.unconsumed_tail
        if not piece:
          return b''
        skipped += len(piece)
      return inflater.decompress(packed, count) if count > 0 else b''
    except zlib.error:
      return b''


# DICOMDIR: the table of contents of a DICOM disc (PS3.10, PS3.3 annex F).

MEDIA_STORAGE_DIRECTORY = '1.2.840.10008.1.3.10'
_MOST_BYTES = 1 << 28  # A directory of a full DVD has tens of megabytes.


def is_dicomdir(source: Source) -> bool:
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
        _components(record)
        for record in directory.DirectoryRecordSequence
        if 'ReferencedFileID' in record
      ]
  except Exception:  # Any byte may be wrong, and pydicom raises what it meets.
    raise errors.CTReadError(
      'the DICOMDIR is damaged; give the folder of the images instead.'
    ) from None
  root = path.parent
  files = [_resolve(root, components) for components in file_ids]
  found = {file for file in files if file is not None}
  missing = files.count(None)
  if missing:
    raise errors.CTReadError(
      f'the DICOMDIR lists {len(files)} files and {missing} of them are not '
      'there; copy the whole disc, or give the folder of the images instead.'
    )
  return sorted(found)


def _components(record: pydicom.Dataset) -> tuple[str, ...]:
  file_id = record.ReferencedFileID
  return (file_id,) if isinstance(file_id, str) else tuple(map(str, file_id))


def _resolve(root: pathlib.Path, components: Iterable[str]) -> pathlib.Path | None:
  """The file of a File ID below `root`; discs are often copied in lower case."""
  found = root
  for name in components:
    if name in ('', '.', '..') or '/' in name or '\\' in name or '\0' in name:
      raise errors.CTReadError(
        'the DICOMDIR points outside its own folder; give the folder of the '
        'images instead.'
      )
    candidates = (found / name, found / name.lower())
    there = next((file for file in candidates if file.exists()), None)
    if there is None or there.is_symlink() and there.is_dir():
      return None
    found = there
  return found if found.is_file() else None
