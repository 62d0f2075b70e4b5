"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr), whose voxels SimpleITK reads.

`itk_headers` reads the header first, and whether the voxels are whole is looked at
here: SimpleITK takes damaged ones for whole ones, and says the rest on standard error
(docs/adr/0190).
"""

from collections.abc import Iterator
import contextlib
import importlib.util
import math
import os
import pathlib
import sys
from typing import TYPE_CHECKING
import zlib

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import itk_headers
from covid_tf.readers import sources

if TYPE_CHECKING:
  import SimpleITK

_PIECE = 1 << 20
_MOST_DEFLATED = 1100  # zlib makes at most 1032 bytes of one.


def read(source: pathlib.Path | sources.ZipSource) -> volume.CTVolume:
  """Reads a file of MetaImage or NRRD, with the file of its voxels.

  Raises:
    CTReadError: no SimpleITK, sides or spacing not stated, not 3D, several values a
      voxel, not HU, or missing, truncated or damaged voxels.
  """
  with sources.on_disk(source) as path:
    return _read(path)


def _read(path: pathlib.Path) -> volume.CTVolume:
  # Here: `arrays` reads paths too.
  from covid_tf.readers import arrays

  header = itk_headers.read_header(path)
  if importlib.util.find_spec('SimpleITK') is None:
    raise errors.CTReadError(
      f'{header.kind} is read by SimpleITK, found none; pip install SimpleITK (the '
      'extra [itk] of covid_tf), or convert the file to NIfTI.'
    )
  _require_whole(header)
  return arrays.from_sitk(_image(path, header), notes=header.notes, name='')


# Whether the voxels are all there: SimpleITK gives what memory held for what is not.


def _require_whole(header: itk_headers.Header) -> None:
  size = header.data.stat().st_size
  if header.start is None:  # From the end of the file, or after lines of text.
    held = size
  else:
    held = max(0, size - header.start)
  if header.packed is not None and header.packed > held:
    raise _truncated(header.packed, held)
  if header.encoding == 'raw' and header.needed > held:
    raise _truncated(header.needed, held)
  if header.encoding == 'text' and math.prod(header.sizes) > held:
    raise _truncated(math.prod(header.sizes), held)
  if header.encoding in ('zlib', 'gzip'):
    if header.needed > held * _MOST_DEFLATED:
      raise _truncated(header.needed, held)
    _require_unpackable(header)


def _truncated(needed: int, held: int) -> errors.CTReadError:
  return errors.CTReadError(
    f'truncated: {needed} bytes of voxels are required, found {held}; copy the file '
    'again.'
  )


def _require_unpackable(header: itk_headers.Header) -> None:
  """Unpacks the voxels once, for their checksum: a changed bit makes other voxels."""
  unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip, as it begins.
  made = 0
  needed = header.needed + header.skipped
  # No more than SimpleITK will read.
  left = header.data.stat().st_size if header.packed is None else header.packed
  try:
    with open(header.data, 'rb') as file:
      file.seek(header.start or 0)
      while not unpacker.eof and (piece := file.read(min(_PIECE, left))):
        left -= len(piece)
        made += len(unpacker.decompress(piece))
        if made > header.needed:
          break
  except zlib.error:
    made = -1
  if made != needed or not unpacker.eof:
    raise errors.CTReadError(
      'damaged: its packed voxels are cut off, of another size, or their checksum '
      'does not match; copy the file again.'
    )


def _image(path: pathlib.Path, header: itk_headers.Header) -> 'SimpleITK.Image':
  import SimpleITK as sitk

  reader = sitk.ImageFileReader()
  reader.SetImageIO(header.reader)
  reader.SetFileName(os.fspath(path))
  warned = sitk.ProcessObject.GetGlobalWarningDisplay()
  sitk.ProcessObject.GlobalWarningDisplayOff()  # They go to standard error.
  try:
    with _silent():
      return reader.Execute()
  except RuntimeError:  # Whatever ITK meets; its text quotes the header.
    raise errors.CTReadError(
      f'SimpleITK cannot read this {header.kind}: truncated, damaged or of an unusual '
      'form; copy it again, or convert it to NIfTI.'
    ) from None
  finally:
    sitk.ProcessObject.SetGlobalWarningDisplay(warned)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
  """Within the block nothing reaches standard error, from any thread.

  ITK's reader of MetaImage writes there what is wrong with a header, past every
  setting.
  """
  try:
    before = os.dup(2)
  except OSError:  # Closed: there is nothing to keep silent.
    yield
    return
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    with contextlib.suppress(AttributeError, OSError, ValueError):
      sys.stderr.flush()
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(before, 2)
    os.close(before)
    os.close(nowhere)
