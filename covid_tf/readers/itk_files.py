"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr), whose voxels SimpleITK reads.

The header is read here first: SimpleITK takes a direction that is not stated for that
of the patient, voxels that are damaged for whole ones, and says the rest on standard
error (docs/adr/0190).
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import importlib.util
import math
import os
import pathlib
import re
import sys
from typing import TYPE_CHECKING
import zlib

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import elements
from covid_tf.readers import sources

if TYPE_CHECKING:
  import SimpleITK

METAIMAGE_STARTS = (b'ObjectType', b'NDims', b'Comment')
NRRD_START = b'NRRD0'
_USUAL_HEADER = 1 << 12
_LONGEST_HEADER = 1 << 20
# A blank line ends that of NRRD, the line of ElementDataFile that of MetaImage.
_HEADER_END = re.compile(rb'\r?\n\r?\n|^ElementDataFile[^\n]*\n', re.MULTILINE)
_PIECE = 1 << 20
_MOST_DEFLATED = 1100  # zlib makes at most 1032 bytes of one.
_META_TYPES = {
  'CHAR': 1,
  'UCHAR': 1,
  'SHORT': 2,
  'USHORT': 2,
  'INT': 4,
  'UINT': 4,
  'LONG': 4,
  'ULONG': 4,
  'LONG_LONG': 8,
  'ULONG_LONG': 8,
  'FLOAT': 4,
  'DOUBLE': 8,
}
_NRRD_TYPES = (  # Words that a type is written by, bytes of a number.
  (r'(un)?signed char|u?char|u?int8(_t)?', 1),
  (r'(signed |unsigned )?short( int)?|u?short|u?int16(_t)?', 2),
  (r'(signed |unsigned )?int|u?int|u?int32(_t)?|float', 4),
  (r'(signed |unsigned )?long long( int)?|u?longlong|u?int64(_t)?|double', 8),
)
_PATIENT_SPACES = (
  'left-posterior-superior',
  'right-anterior-superior',
  'left-anterior-superior',
  'lps',
  'ras',
  'las',
)
_IN_SPACE = ('domain', 'space', '???', 'none')  # Kinds of axes that are of space.


@dataclasses.dataclass(frozen=True)
class Header:
  """What a header says of the voxels.

  Attributes:
    kind: 'MetaImage' or 'NRRD'.
    reader: what SimpleITK calls the reader of it.
    sizes: voxels along the axes, the fastest first.
    itemsize: bytes of a number.
    encoding: 'raw', 'zlib', 'gzip' or 'text'.
    data: the file that holds the voxels: the header's own, or one beside it.
    start: byte at which they start there; None: at its end, after a header of its own.
    packed: bytes that they take packed; None: to the end of the file.
    notes: what was not stated and was assumed.
  """

  kind: str
  reader: str
  sizes: tuple[int, ...]
  itemsize: int
  encoding: str
  data: pathlib.Path
  start: int | None
  packed: int | None = None
  notes: tuple[str, ...] = ()

  @property
  def needed(self) -> int:
    """Bytes of all voxels, unpacked."""
    return math.prod(self.sizes) * self.itemsize


def is_metaimage(start: bytes) -> bool:
  """Whether a file that starts so is MetaImage.

  Args:
    start: its first 1024 bytes; 'NDims' is among them, which other texts with '=' in
      their first line do not have.
  """
  return (
    start.startswith(METAIMAGE_STARTS)
    and b'=' in start.split(b'\n')[0]
    and b'NDims' in start
  )


def is_nrrd(start: bytes) -> bool:
  """Whether a file that starts so is NRRD."""
  return start.startswith(NRRD_START)


def voxel_file(path: str | os.PathLike[str]) -> pathlib.Path | None:
  """The file beside a header that holds its voxels.

  None where the header's own file holds them, and of a header that is refused.
  """
  path = pathlib.Path(path)
  try:
    data = read_header(path).data
  except (errors.CTReadError, OSError):
    return None
  return None if data == path else data


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

  header = read_header(path)
  if importlib.util.find_spec('SimpleITK') is None:
    raise errors.CTReadError(
      f'{header.kind} is read by SimpleITK, found none; pip install SimpleITK (the '
      'extra [itk] of covid_tf), or convert the file to NIfTI.'
    )
  _require_whole(header)
  return arrays.from_sitk(_image(path, header), notes=header.notes, name='')


def read_header(path: pathlib.Path) -> Header:
  """What the header says, and that it says enough.

  Raises:
    CTReadError: names what is missing or what is no CT.
  """
  with open(path, 'rb') as file:
    start = file.read(_USUAL_HEADER)
    if not _HEADER_END.search(start):
      start += file.read(_LONGEST_HEADER - len(start))
  if start.startswith(NRRD_START):
    return _nrrd(path, start)
  return _metaimage(path, start)


def _metaimage(path: pathlib.Path, start: bytes) -> Header:
  fields: dict[str, str] = {}
  place = 0
  while place < len(start) and 'ElementDataFile' not in fields:
    line, newline, _ = start[place:].partition(b'\n')
    place += len(line) + len(newline)
    key, equals, value = line.decode('latin-1').partition('=')
    if equals:
      fields[key.strip()] = value.strip()
  if 'ElementDataFile' not in fields:
    raise errors.CTReadError('its header has no ElementDataFile: truncated or damaged.')
  sizes = _sizes(fields.get('DimSize', ''))
  if fields.get('ElementNumberOfChannels', '1') != '1':
    raise _several(fields['ElementNumberOfChannels'])
  _require_stated(
    fields, ('TransformMatrix', 'Orientation', 'Rotation'), 'sides of the patient'
  )
  _require_stated(fields, ('ElementSpacing', 'ElementSize'), 'spacing of the voxels')
  _require_millimetres([fields.get('DistanceUnits', 'mm')])
  name = fields.get('ElementType', '').upper().removeprefix('MET_')
  if name not in _META_TYPES:
    raise _other_type(name)
  packed = _is_true(fields.get('CompressedData'))
  offset = fields.get('HeaderSize', '0')
  is_local = fields['ElementDataFile'].upper() == 'LOCAL'
  return Header(
    'MetaImage',
    'MetaImageIO',
    sizes,
    _META_TYPES[name],
    'zlib' if packed else 'raw' if _is_true(fields.get('BinaryData')) else 'text',
    path if is_local else _beside(path, fields['ElementDataFile']),
    place if is_local else int(offset) if offset.isdigit() else None,
    _number(fields.get('CompressedDataSize')) if packed else None,
    _without_origin(fields, ('Offset', 'Position', 'Origin')),
  )


def _nrrd(path: pathlib.Path, start: bytes) -> Header:
  head, blank, _ = start.replace(b'\r\n', b'\n').partition(b'\n\n')
  text = head.decode('latin-1')
  fields = {
    key.strip().lower(): value.strip()
    for key, value in re.findall(r'^([^:#\n]+):(?!=)(.*)$', text, re.MULTILINE)
  }
  data = fields.get('data file', fields.get('datafile'))
  if data is None and not blank:
    raise errors.CTReadError('its header has no end: truncated or damaged.')
  kinds = fields.get('kinds', '').lower().split()
  # 'list' is what SimpleITK calls an axis beyond three: of time, or of anything.
  if set(kinds) - {*_IN_SPACE, 'list'} or 'list' in kinds[:3]:
    raise _several(' '.join(kinds))
  sizes = _sizes(fields.get('sizes', ''))
  if fields.get('space', '').lower() not in _PATIENT_SPACES:
    raise errors.CTReadError(
      'its header does not state the sides of the patient (space: '
      'left-posterior-superior, right-anterior-superior or left-anterior-superior), '
      f'found {elements.printable(fields.get("space", "")) or "no space"}; save it '
      'again from a program that knows them, such as 3D Slicer.'
    )
  _require_stated(fields, ('space directions',), 'sides of the patient')
  _require_millimetres(re.findall(r'"([^"]*)"', fields.get('space units', '')))
  type_ = fields.get('type', '')
  itemsizes = [bytes_ for words, bytes_ in _NRRD_TYPES if re.fullmatch(words, type_)]
  if not itemsizes:
    raise _other_type(type_)
  encodings = {'raw': 'raw', 'gzip': 'gzip', 'gz': 'gzip'}
  encodings |= dict.fromkeys(('txt', 'text', 'ascii'), 'text')
  encoding = encodings.get(fields.get('encoding', '').lower())
  if encoding is None:
    raise errors.CTReadError(
      'encoding raw, gzip or text is required, found '
      f'{elements.printable(fields.get("encoding", "none"))}; save it again in one of '
      'these.'
    )
  skipped = fields.get('byte skip', fields.get('byteskip', '0'))
  skips_lines = fields.get('line skip', fields.get('lineskip', '0')) != '0'
  own_start = len(start[: _end_of_header(start)])
  return Header(
    'NRRD',
    'NrrdImageIO',
    sizes,
    itemsizes[0],
    encoding,
    path if data is None else _beside(path, data),
    None
    if skips_lines or not skipped.isdigit()
    else (own_start if data is None else 0)
    + (int(skipped) if encoding == 'raw' else 0),
    None,
    _without_origin(fields, ('space origin',)),
  )


def _end_of_header(start: bytes) -> int:
  found = re.search(rb'\r?\n\r?\n', start)
  return found.end() if found else len(start)


def _sizes(text: str) -> tuple[int, ...]:
  if not re.fullmatch(r'\d{1,9}(\s+\d{1,9})*', text):
    raise errors.CTReadError('its header states no sizes: truncated or damaged.')
  sizes = tuple(map(int, text.split()))
  while len(sizes) > 3 and sizes[-1] == 1:
    sizes = sizes[:-1]
  if len(sizes) != 3 or min(sizes) < 2:
    raise _not_3d(tuple(map(int, text.split())))
  return sizes


def _not_3d(sizes: tuple[int, ...]) -> errors.CTReadError:
  more = ' (a time axis?)' if len(sizes) > 3 else ''
  return errors.CTReadError(
    f'three axes of 2 voxels or more are required, found {sizes}{more}; give one '
    'volume.'
  )


def _several(found: str) -> errors.CTReadError:
  return errors.CTReadError(
    'one number a voxel and three axes of space are required, found several '
    f'({elements.printable(found)}): colours, vectors or a time axis; give the CT '
    'itself.'
  )


def _other_type(found: str) -> errors.CTReadError:
  return errors.CTReadError(
    'integers or floating-point numbers are required, found '
    f'{elements.printable(found) or "no type"}.'
  )


def _require_stated(
  fields: Mapping[str, str], names: tuple[str, ...], what: str
) -> None:
  if not any(name in fields for name in names):
    raise errors.CTReadError(
      f'its header does not state the {what} ({names[0]}); save it again from a '
      'program that knows them, such as 3D Slicer.'
    )


def _require_millimetres(units: list[str]) -> None:
  # '?' is how MetaImage says that nobody stated one; both formats mean millimetres.
  odd = [unit for unit in units if unit.lower() not in ('mm', '?', '')]
  if odd:
    raise errors.CTReadError(
      f'millimetres are required, found {elements.printable(odd[0])}; save it again in '
      'millimetres.'
    )


def _without_origin(
  fields: Mapping[str, str], names: tuple[str, ...]
) -> tuple[str, ...]:
  if any(name in fields for name in names):
    return ()
  return ('no origin given, 0 assumed: its place, not its sides, is unknown',)


def _is_true(text: str | None) -> bool:
  return text is not None and text[:1].upper() in ('T', '1', 'Y')


def _number(text: str | None) -> int | None:
  if text is None:
    return None
  if not text.isdigit():
    raise errors.CTReadError('its header has a size that is no number: damaged.')
  return int(text)


def _beside(path: pathlib.Path, name: str) -> pathlib.Path:
  """The file of the voxels, which must lie with its header."""
  if name.upper().startswith('LIST') or '%' in name:
    raise errors.CTReadError(
      'voxels in one file are required, found a list of files; save it again as one '
      'file, or convert it to NIfTI.'
    )
  parts = pathlib.PurePosixPath(name.replace('\\', '/'))
  if parts.is_absolute() or '..' in parts.parts or ':' in name or '\0' in name:
    raise errors.CTReadError(
      'voxels in the folder of the header are required, found a path that leads '
      'elsewhere; put both into one folder and name the file alone.'
    )
  data = path.parent / parts
  if not data.is_file():
    raise errors.CTReadError(
      f'the file of its voxels, {elements.printable(parts.name)}, is required beside '
      'the header, found none; copy both files.'
    )
  return data


# Whether the voxels are all there: SimpleITK gives what memory held for what is not.


def _require_whole(header: Header) -> None:
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


def _require_unpackable(header: Header) -> None:
  """Unpacks the voxels once, for their checksum: a changed bit makes other voxels."""
  unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip, as it begins.
  made = 0
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
  if made != header.needed or not unpacker.eof:
    raise errors.CTReadError(
      'damaged: its packed voxels are cut off, of another size, or their checksum '
      'does not match; copy the file again.'
    )


def _image(path: pathlib.Path, header: Header) -> 'SimpleITK.Image':
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
