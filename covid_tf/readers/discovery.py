"""Where the files of a study are: a file, a folder, a DICOMDIR or a zip.

Our own walk: a library that follows links has read a folder twice or stopped at
a broken link half-way without an error, and opening a FIFO waits for ever.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import os
import pathlib
import stat
import zipfile

from covid_tf import errors
from covid_tf.readers import elements
from covid_tf.readers import itk_files
from covid_tf.readers import sources as sources_lib

_START = 1024  # Of a file, to know it by its content.
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
# git-annex keeps all versions of all files there.
NO_FOLDERS = frozenset(('.git',))
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
FETCH = (
  'fetch the files (git annex get, datalad get), copy them instead of the '
  'links, or remove the links.'
)


_CONVERT = 'convert it to NIfTI in Hounsfield units, or give the DICOM files'
_ONE_FILE = (
  'a folder may hold a CT and its segmentations: give the one file to read (.mha, '
  '.mhd, .nrrd or .nhdr)'
)
_PICTURE = 'pictures hold no Hounsfield units; give the DICOM files'
_UNPACK = 'unpack it and give the folder'
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
  elif kind := volume_kind(path):
    yield Found((), (path,)) if kind == NIFTI else Found((), itk=(path,))
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


def volume_kind(path: str | os.PathLike[str]) -> str | None:
  """What a file of one volume is: NIFTI, METAIMAGE or NRRD; None if it is none.

  The one rule for what such a file is, for a path that was given, a folder, a zip and
  an archive: its content decides, whatever its name; where its content is not known or
  cannot be read, its name. DICOM is never one.
  """
  try:
    with open(path, 'rb', buffering=0) as file:
      start = file.read(_START)
  except OSError:  # Said by whoever reads it.
    start = b''
  return _volume_kind(os.path.basename(path), start)


def _volume_kind(name: str, start: bytes) -> str | None:
  if start[128:132] == b'DICM':
    return None
  if sources_lib.is_nifti(start):
    return NIFTI
  if itk_files.is_nrrd(start):
    return NRRD
  if itk_files.is_metaimage(start):
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


def voxel_files(paths: Iterable[str | os.PathLike[str]]) -> set[pathlib.Path]:
  """The files that hold the voxels of headers among `paths` (.mhd, .nhdr).

  Such a file is a part of its header's study and never one of its own.
  """
  headers = (
    path for path in paths if kind_by_name(os.fspath(path)) not in (None, NIFTI)
  )
  return {data for path in headers if (data := itk_files.voxel_file(path))}


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
      if volume_kind(entry.path) == NIFTI:
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
      if may_be_image(name):
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
  refuse_dangling([file.name for file in nowhere if may_be_image(file.name)])
  return Found(
    tuple(
      map(sources_lib.FileSource, (file for file in paths if file not in set(nowhere)))
    )
  )


def may_be_image(name: str) -> bool:
  """Whether a link of this name may have been a slice; hidden files are none."""
  return not name.startswith('.') and (not name.lower().endswith(_NO_IMAGE_SUFFIXES))


def refuse_dangling(names: list[str]) -> None:
  """Raises CTReadError if there are links that lead nowhere."""
  if names:
    raise errors.CTReadError(
      f'{dangling(len(names))}, the first one {elements.printable(names[0])}; {FETCH}'
    )


def dangling(count: int) -> str:
  """What links that lead nowhere mean, in words."""
  return f'{count} symbolic link(s) lead to no file, so slices may be missing'


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
  start = source.read(0, _START)
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
    kind = _volume_kind(source.name, source.read(0, _START))
    (files if kind is None else niftis if kind == NIFTI else itk).append(source)
  return Found(
    tuple(files),
    tuple(niftis),
    tuple(itk),
    _unopened(sum(_names_zip(info.filename) for info in members), 'zip'),
  )
