"""What a file is, by its content and else by its name, and what to do with it."""

import collections
from collections.abc import Sequence
import contextlib
import os
import pathlib
import zlib

from covid_tf.readers import sources as sources_lib

START_BYTES = 1024  # Of a file, to know it by its content.
_PAIR_SUFFIXES = ('.hdr', '.hdr.gz', '.img', '.img.gz')
NIFTI_SUFFIXES = ('.nii', '.nii.gz')
NIFTI, METAIMAGE, NRRD = 'nifti', 'metaimage', 'nrrd'
# How a file of one volume may be called, and what it then is unless its content says
# otherwise.
_VOLUME_SUFFIXES = {
  **dict.fromkeys(NIFTI_SUFFIXES, NIFTI),
  **dict.fromkeys(('.mha', '.mhd'), METAIMAGE),
  **dict.fromkeys(('.nrrd', '.nhdr'), NRRD),
}
VOLUME_SUFFIXES = tuple(_VOLUME_SUFFIXES)
# As 3D Slicer calls the segmentations that it saves beside a CT.
_SEGMENTATION_SUFFIXES = ('.seg.nrrd', '.seg.nhdr')
# A link of such a name that leads nowhere was no slice. DICOM files have any other
# ending, or none.
_NO_IMAGE_SUFFIXES = (
  *VOLUME_SUFFIXES,
  '.bval',
  '.bvec',
  '.cfg',
  '.csv',
  '.doc',
  '.docx',
  '.gif',
  '.htm',
  '.html',
  '.ini',
  '.jpeg',
  '.jpg',
  '.json',
  '.log',
  '.md',
  '.pdf',
  '.png',
  '.py',
  '.rst',
  '.sh',
  '.tsv',
  '.txt',
  '.xls',
  '.xlsx',
  '.xml',
  '.yaml',
  '.yml',
)


METAIMAGE_STARTS = (b'ObjectType', b'NDims', b'Comment')
NRRD_START = b'NRRD0'


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


def volume_kind(path: str | os.PathLike[str]) -> str | None:
  """What a file of one volume is: NIFTI, METAIMAGE or NRRD; None if it is none.

  The one rule for what such a file is, for a path that was given, a folder, a zip and
  an archive: its content decides, whatever its name; where its content is not known or
  cannot be read, its name. DICOM is never one.
  """
  try:
    with open(path, 'rb', buffering=0) as file:
      start = file.read(START_BYTES)
  except OSError:  # Said by whoever reads it.
    start = b''
  return kind_of_start(os.path.basename(path), start)


def kind_of_start(name: str, start: bytes) -> str | None:
  """The same of a file with this name whose first bytes are `start`."""
  if start[128:132] == b'DICM' or start.startswith(APPLE_DOUBLE):
    return None
  if sources_lib.is_nifti(start):
    return NIFTI
  if is_nrrd(start):
    return NRRD
  if is_metaimage(start):
    return METAIMAGE
  return kind_by_name(name)


def kind_by_name(name: str) -> str | None:
  """What a file of one volume is by its name; None if no volume is called so."""
  lower = name.lower()
  return next(
    (kind for suffix, kind in _VOLUME_SUFFIXES.items() if lower.endswith(suffix)), None
  )


def is_segmentation(name: str) -> bool:
  """Whether 3D Slicer calls a segmentation so, which is no CT."""
  return name.lower().endswith(_SEGMENTATION_SUFFIXES)


def is_dicom_file(path: str | os.PathLike[str]) -> bool:
  """Whether a file has DICOM's mark; False of one that cannot be read."""
  try:
    with open(path, 'rb', buffering=0) as file:
      return file.read(132)[128:] == b'DICM'
  except OSError:
    return False


def is_nifti(name: str) -> bool:
  """Whether a file name is one of NIfTI."""
  return name.lower().endswith(NIFTI_SUFFIXES)


def may_be_image(name: str) -> bool:
  """Whether a link of this name may have been a slice; hidden files are none."""
  return not name.startswith('.') and (not name.lower().endswith(_NO_IMAGE_SUFFIXES))


# Files that held a slice before something else took its place.

_DICOM_SUFFIXES = ('.dcm', '.dicom', '.dic', '.ima')
APPLE_DOUBLE = b'\0\5\x16\7'  # What macOS writes beside a file: '._name'.
_LFS_POINTER = b'version https://git-lfs.github.com/spec/'
_PACKERS = {
  b'\x1f\x8b': 'gzip',
  b'BZh': 'bzip2',
  b'\xfd7zXZ\0': 'xz',
  b'(\xb5/\xfd': 'zstd',
}
_PACKED_SUFFIXES = ('.gz', '.bz2', '.xz', '.zst')
_LFS_WORDS = 'a pointer of Git LFS stands in its place; fetch the files (git lfs pull)'
_ICLOUD = '.icloud'


def is_named_dicom(name: str) -> bool:
  """Whether a file name is one of DICOM; hidden files are none."""
  return name.lower().endswith(_DICOM_SUFFIXES) and not name.startswith('.')


def lost_image(name: str, start: bytes) -> tuple[str, str] | None:
  """Why a file that is not DICOM may stand for a slice, and what to do, in words.

  Copies that broke off leave zeros, Git LFS and iCloud leave pointers, and packed
  files are not opened: read without them, a series is short at its end in silence.

  Args:
    name: of the file.
    start: its first 1024 bytes.

  Returns:
    (reason, remedy); None of a file that was no slice.
  """
  if name.startswith('.') and name.lower().endswith(_ICLOUD):
    if is_named_dicom(name[1 : -len(_ICLOUD)]):
      return 'iCloud holds it, not this disk', 'download the files'
    return None
  if start.startswith(_LFS_POINTER) and may_be_image(name):
    reason, _, remedy = _LFS_WORDS.partition('; ')
    return reason, remedy
  if start and not any(start) and _is_called_as_images_are(name):
    return 'it holds zeros', 'copy the study again'
  packer = _packer(start)
  if packer and (_is_packed_dicom(start) or is_named_dicom(_unpacked_name(name))):
    return f'it is packed by {packer}', 'unpack the files'
  return None


def _is_called_as_images_are(name: str) -> bool:
  """By a suffix of DICOM, none, or the last number of a UID."""
  suffix = pathlib.PurePath(name).suffix
  return not name.startswith('.') and (
    is_named_dicom(name) or not suffix or suffix[1:].isdecimal()
  )


def _packer(start: bytes) -> str | None:
  return next(
    (known for magic, known in _PACKERS.items() if start.startswith(magic)), None
  )


def _is_packed_dicom(start: bytes) -> bool:
  if not start.startswith(sources_lib.GZIP):
    return False
  try:
    inside = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, 132)
  except zlib.error:
    return False
  return inside[128:] == b'DICM'


def _unpacked_name(name: str) -> str:
  base, suffix = os.path.splitext(name)
  return base if suffix.lower() in _PACKED_SUFFIXES else name


def not_a_volume(start: bytes) -> str | None:
  """What a file is that is called as a volume and is none, in words; None: unknown.

  Args:
    start: its first 1024 bytes.
  """
  if not start:
    return 'it is empty; copy it again'
  if not any(start):
    return 'it holds zeros; copy it again'
  if start.startswith(_LFS_POINTER):
    return _LFS_WORDS
  if start.lstrip()[:1] == b'<':
    return 'it is a web page or XML, as a download without a login leaves; get it again'
  if start.startswith(b'PK\3\4'):
    return 'it is a zip; call it .zip'
  if start.startswith(sources_lib.GZIP):
    with contextlib.suppress(zlib.error):
      inside = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, 2)
      if inside == sources_lib.GZIP:
        return 'it is packed by gzip twice; unpack it once'
    return None
  packer = _packer(start)
  return f'it is packed by {packer}; unpack it' if packer else None


# Files that are no study, and how they are named in a refusal.

_CONVERT = 'convert it to NIfTI in Hounsfield units, or give the DICOM files'
_ONE_FILE = (
  'a folder may hold a CT and its segmentations: give the one file to read (.mha, '
  '.mhd, .nrrd or .nhdr)'
)
_PICTURE = 'pictures hold no Hounsfield units; give the DICOM files'
_UNPACK = 'unpack it and give the folder'
_UNPACK_IT = 'unpack the files'
# Name, what to do, how their content may begin, how their name may end.
_OTHER_FORMATS = (
  ('MetaImage', _ONE_FILE, (b'ObjectType', b'NDims'), ('.mha', '.mhd')),
  ('NRRD', _ONE_FILE, (b'NRRD0',), ('.nrrd', '.nhdr')),
  (
    'voxels without their header',
    'give the .mhd or .nhdr file beside them',
    (),
    ('.raw', '.zraw', '.raw.gz'),
  ),
  ('MGH', _CONVERT, (), ('.mgh', '.mgz')),
  ('MINC', _CONVERT, (), ('.mnc',)),
  (
    'NumPy arrays',
    'they hold no millimetres; ' + _CONVERT,
    (b'\x93NUMPY',),
    ('.npy', '.npz'),
  ),
  ('PNG pictures', _PICTURE, (b'\x89PNG',), ('.png',)),
  ('JPEG pictures', _PICTURE, (b'\xff\xd8\xff',), ('.jpg', '.jpeg')),
  ('TIFF pictures', _PICTURE, (b'II*\0', b'MM\0*'), ('.tif', '.tiff')),
  ('tar archives', _UNPACK, (), ('.tar', '.tar.gz', '.tgz', '.tar.xz', '.tar.bz2')),
  ('7z archives', _UNPACK, (b'7z\xbc\xaf\x27\x1c',), ('.7z',)),
  ('RAR archives', _UNPACK, (b'Rar!',), ('.rar',)),
  ('packed by bzip2', _UNPACK_IT, (b'BZh',), ('.bz2',)),
  ('packed by xz', _UNPACK_IT, (b'\xfd7zXZ\0',), ('.xz',)),
  ('packed by zstd', _UNPACK_IT, (b'(\xb5/\xfd',), ('.zst',)),
)


def other_format(found_sources: Sequence[sources_lib.Source]) -> str | None:
  """What files without a DICOM image are instead, in words; None if that is unknown."""
  formats = (_format(source) for source in found_sources)
  counts = collections.Counter(known for known in formats if known)
  if not counts:
    return None
  (name, remedy), count = counts.most_common(1)[0]
  read = '' if remedy == _ONE_FILE else ', which this version does not read'
  return f'{count} of {len(found_sources)} file(s) are {name}{read}; {remedy}.'


def _format(source: sources_lib.Source) -> tuple[str, str] | None:
  """(name, what to do) of a file, by its content or else by its name."""
  start = source.read(0, START_BYTES)
  name = source.name.lower()
  for known, remedy, magics, suffixes in _OTHER_FORMATS:
    if start.startswith(magics) or name.endswith(suffixes):
      return known, remedy
  if sources_lib.is_nifti_pair(start) or (
    name.endswith(_PAIR_SUFFIXES) and start[128:132] != b'DICM'
  ):
    return (
      'of a pair of NIfTI or ANALYZE (.hdr and .img)',
      'convert it to one .nii or .nii.gz file in Hounsfield units',
    )
  return None
