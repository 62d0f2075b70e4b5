"""What the headers of MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr) say.

Read here and not left to SimpleITK, which takes a direction that is not stated for that
of the patient and a spacing below 0 for one above (docs/adr/0190).
"""

from collections.abc import Iterable, Mapping
import dataclasses
import math
import os
import pathlib
import re

import numpy as np

from covid_tf import errors
from covid_tf.readers import elements
from covid_tf.readers import formats

_USUAL_HEADER = 1 << 12
_LONGEST_HEADER = 1 << 20
# A blank line ends that of NRRD, the line of ElementDataFile that of MetaImage.
_HEADER_END = re.compile(rb'\r?\n\r?\n|^ElementDataFile[^\n]*\n', re.MULTILINE)
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
_DIRECTIONS = ('TransformMatrix', 'Orientation', 'Rotation')
_UNIT = 1e-3  # A direction of another length has the spacing in it.
_MILLIMETRES = re.compile('(mm|millimet(er|re)s?|[?]|)', re.IGNORECASE)
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
    skipped: unpacked bytes that come before the voxels.
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
  skipped: int = 0

  @property
  def needed(self) -> int:
    """Bytes of all voxels, unpacked."""
    return math.prod(self.sizes) * self.itemsize


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


def voxel_files(paths: Iterable[str | os.PathLike[str]]) -> set[pathlib.Path]:
  """The files that hold the voxels of headers among `paths` (.mhd, .nhdr).

  Such a file is a part of its header's study and never one of its own.
  """
  headers = (
    path
    for path in paths
    if formats.kind_by_name(os.fspath(path)) not in (None, formats.NIFTI)
  )
  return {data for path in headers if (data := voxel_file(path))}


def read_header(path: pathlib.Path) -> Header:
  """What the header says, and that it says enough.

  Raises:
    CTReadError: names what is missing or what is no CT.
  """
  with open(path, 'rb') as file:
    start = file.read(_USUAL_HEADER)
    if not _HEADER_END.search(start):
      start += file.read(_LONGEST_HEADER - len(start))
  if start.startswith(formats.NRRD_START):
    return _nrrd(path, start)
  if not formats.is_metaimage(start) and (cause := formats.not_a_volume(start)):
    raise errors.CTReadError(f'it is no MetaImage or NRRD: {cause}.')
  return _metaimage(path, start)


def _metaimage(path: pathlib.Path, start: bytes) -> Header:
  fields: dict[str, str] = {}
  place = 0
  while place < len(start) and 'ElementDataFile' not in fields:
    line, newline, _ = start[place:].partition(b'\n')
    place += len(line) + len(newline)
    key, equals, value = os.fsdecode(line).partition('=')
    if equals:
      fields[key.strip()] = value.strip()
  if 'ElementDataFile' not in fields:
    raise errors.CTReadError('its header has no ElementDataFile: truncated or damaged.')
  sizes = _sizes(fields.get('DimSize', ''))
  if fields.get('ElementNumberOfChannels', '1') != '1':
    raise _several(fields['ElementNumberOfChannels'])
  _require_stated(fields, _DIRECTIONS, 'sides of the patient')
  _require_stated(fields, ('ElementSpacing', 'ElementSize'), 'spacing of the voxels')
  _require_steps(fields)
  _require_millimetres([fields.get('DistanceUnits', 'mm')])
  name = fields.get('ElementType', '').upper().removeprefix('MET_')
  if name not in _META_TYPES:
    raise _other_type(name)
  packed = _is_true(fields.get('CompressedData'))
  offset = fields.get('HeaderSize', '0')
  is_local = fields['ElementDataFile'].upper() == 'LOCAL'
  if packed and is_local and 'CompressedDataSize' not in fields:
    # SimpleITK would take whatever memory held for the voxels.
    raise errors.CTReadError(
      'CompressedDataSize is required of packed voxels in the file of the header, '
      'found none; save it again from a program that writes it, such as 3D Slicer.'
    )
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


def _require_steps(fields: Mapping[str, str]) -> None:
  """Refuses spacings and directions that SimpleITK would make others of.

  Raises:
    CTReadError: not above 0, no numbers, or directions that are no unit vectors.
  """
  name = 'ElementSpacing' if 'ElementSpacing' in fields else 'ElementSize'
  spacing = _numbers(fields[name])
  if spacing is None or not (spacing > 0).all():
    raise errors.CTReadError(
      f'{name} must be millimetres above 0, found '
      f'{elements.printable(fields[name])}; correct its header.'
    )
  name = next(key for key in _DIRECTIONS if key in fields)
  matrix = _numbers(fields[name])
  side = 0 if matrix is None else math.isqrt(matrix.size)
  if matrix is None or side * side != matrix.size:
    raise errors.CTReadError(
      f'{name} must be a square matrix of numbers, found '
      f'{elements.printable(fields[name])}; correct its header.'
    )
  lengths = np.linalg.norm(matrix.reshape(side, side), axis=1)
  if abs(lengths - 1).max() > _UNIT:
    raise errors.CTReadError(
      f'{name} must have directions of length 1, found lengths '
      f'{", ".join(f"{length:.4g}" for length in lengths)}; correct its header: the '
      'spacing belongs into ElementSpacing.'
    )


def _numbers(text: str) -> np.ndarray | None:
  """Finite numbers, written with spaces between them; None of anything else."""
  try:
    found = np.array([float(word) for word in text.split()])
  except ValueError:
    return None
  return found if found.size and np.isfinite(found).all() else None


def _nrrd(path: pathlib.Path, start: bytes) -> Header:
  head, blank, _ = start.replace(b'\r\n', b'\n').partition(b'\n\n')
  text = os.fsdecode(head)
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
  has_order = 'endian' in fields or itemsizes[0] == 1 or encoding == 'text'
  if not has_order:
    raise errors.CTReadError(
      'its header does not state the order of bytes (endian: little or big); add it.'
    )
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
    int(skipped) if encoding == 'gzip' and skipped.isdigit() else 0,
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
  odd = [unit for unit in units if not _MILLIMETRES.fullmatch(unit.strip())]
  if odd:
    raise errors.CTReadError(
      f'millimetres are required, found {elements.printable(odd[0])}; save it again in '
      'millimetres.'
    )


def _without_origin(
  fields: Mapping[str, str], names: tuple[str, ...]
) -> tuple[str, ...]:
  if any(name in fields and 'nan' not in fields[name].lower() for name in names):
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
