"""What an archive holds: its folders, their studies, each exactly once."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import hashlib
import os
import pathlib
import time

from covid_tf.readers import discovery
from covid_tf.readers import formats
from covid_tf.readers import header
from covid_tf.readers import itk_headers
from covid_tf.readers import sources

# What an archive holds: studies, and the files that each is made of.


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
  """The files of one study in one folder.

  Attributes:
    folder: where they lie.
    names: of the files; None for all files and links of the folder, which keeps an
      archive of a hundred thousand studies small in memory.
  """

  folder: str
  names: tuple[str, ...] | None = None

  def files(self) -> list[str]:
    """Paths of the files, in order of name; links that lead nowhere among them.

    Raises:
      OSError: the folder cannot be listed.
    """
    names: Sequence[str] | None = self.names
    if names is None:
      with os.scandir(self.folder) as entries:
        names = sorted(
          entry.name
          for entry in entries
          if entry.is_file() or sources.leads_nowhere(entry.path)
        )
    return [os.path.join(self.folder, name) for name in names]


@dataclasses.dataclass(frozen=True, slots=True)
class Study:
  """One study of an archive, known from headers only.

  Attributes:
    key: name of its result folder, the same in every run.
    study_uid: Study Instance UID; '' where the source has none.
    places: its DICOM files; empty for a file of one volume or a zip.
    path: the file of one volume (NIfTI, MetaImage, NRRD) or the zip; '' for DICOM
      files.
    series_uids: its CT series.
    series_uid: the series to read; None leaves the choice to the reader.
    copies: further places that hold the same images; their bytes are compared
      before the study is scored.
    fingerprint: digest of images and sizes; another one means other files.
    warnings: what is unusual in how it was found.
    refusal: why it cannot be scored, known from the listing; None if it may be.
  """

  key: str
  study_uid: str
  places: tuple[Place, ...] = ()
  path: str = ''
  series_uids: tuple[str, ...] = ()
  series_uid: str | None = None
  copies: tuple[Place, ...] = ()
  fingerprint: str = ''
  warnings: tuple[str, ...] = ()
  refusal: str | None = None


@dataclasses.dataclass(frozen=True)
class Archive:
  """All studies of an archive.

  Attributes:
    studies: in order of key, each key once.
    problems: folders and files that could not be looked into, in words.
    notes: what was left aside on purpose, in words.
  """

  studies: tuple[Study, ...]
  problems: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()


# Every folder below a root with its files; always ends, reports what it left out.


@dataclasses.dataclass(frozen=True, slots=True)
class Folder:
  """A folder as the walk saw it.

  Attributes:
    path: of the folder.
    names: its regular files, sorted.
    changed_ns: modification time of the folder: another one after a file came,
      went or was renamed; 0 where that was a moment ago.
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
  root: str | os.PathLike,
  problems: list[str],
  notes: list[str],
  skip: str | None = None,
) -> Iterator[Folder]:
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
      changed_ns = _settled_ns(os.stat(path).st_mtime_ns)
      skipped = links.skipped
      names, inner = _listed(path, links)
    except OSError as error:
      problems.append(
        f'{path}: cannot be listed ({error.strerror}), so its studies are missing; '
        'make it readable and start again.'
      )
      continue
    waiting.extend(os.path.join(path, name) for name in reversed(inner))
    if names:
      yield Folder(
        path, tuple(names), changed_ns, links_skipped=links.skipped > skipped
      )
  for note in links.notes():
    notes.append(
      f'{os.fspath(root)}: {note}; list the folders that they lead to, if they matter.'
    )


# Longer than the coarsest step of a file system: 2 s, of FAT.
_TIME_STEP_NS = 3_000_000_000


def _settled_ns(changed_ns: int) -> int:
  """A modification time that another change would not repeat; else 0, which is none.

  Systems count these times in steps, of 4 ms to 2 s: what comes within the same step
  would not be seen by who compares them.
  """
  return 0 if abs(time.time_ns() - changed_ns) < _TIME_STEP_NS else changed_ns


def _listed(path: str, links: discovery.Links) -> tuple[list[str], list[str]]:
  names, inner = [], []
  with os.scandir(path) as entries:
    # In order, so that of two links to one file always the same is followed.
    for entry in sorted(entries, key=lambda entry: entry.name):
      if entry.is_symlink():
        dangling = len(links.dangling)
        if (
          links.is_file(entry.path)
          or len(links.dangling) > dangling
          or (_kind_by_name(entry.name) and sources.leads_nowhere(entry.path))
        ):
          names.append(entry.name)
      elif entry.is_dir():
        if entry.name not in discovery.NO_FOLDERS:
          inner.append(entry.name)
      elif entry.is_file():
        names.append(entry.name)
  return names, inner


# The studies of one folder, by the headers of its files.

Identify = Callable[[str], header.FileIdentity | None]

_DIGEST_BITS = 128
# What is known of a link that leads nowhere: it may be a slice of any study.
_NOTHING = header.FileIdentity('', '', '', '', False, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class FolderStudy:
  """What one folder holds of one study.

  Attributes:
    folder: its path.
    study_uid: Study Instance UID; '' where images have none.
    series_uids: of its CT images, sorted.
    images: CT files.
    size: bytes of them.
    digest: of their image UIDs and sizes, in whatever order: equal for copies.
    names: the files, broken ones included; None for all files of the folder.
  """

  folder: str
  study_uid: str
  series_uids: tuple[str, ...]
  images: int
  size: int
  digest: int
  names: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, slots=True)
class FolderListing:
  """A folder's studies.

  Attributes:
    path: of the folder.
    changed_ns: its modification time when it was listed.
    studies: those with CT images.
    files: (name, kind) of files that are studies of their own: kinds of
      `formats.volume_kind`, and 'zip'.
    problems: in words.
    segmentations: number of files of 3D Slicer's segmentations, which are no CT.
  """

  path: str
  changed_ns: int
  studies: tuple[FolderStudy, ...] = ()
  files: tuple[tuple[str, str], ...] = ()
  problems: tuple[str, ...] = ()
  segmentations: int = 0


def list_folder(folder: Folder, identify: Identify = header.identify) -> FolderListing:
  """Groups the files of a folder by study; reads headers only.

  Args:
    folder: as the walk found it.
    identify: path of a file to its identity.

  Returns:
    What the folder holds, without its sub-folders.
  """
  images, broken, problems = collections.defaultdict(list), [], []
  dangling: list[tuple[str, header.FileIdentity]] = []
  files, names, segmentations = _study_files(folder)
  for name in names:
    path = os.path.join(folder.path, name)
    try:
      identity = identify(path)
      if identity is None:
        if kind := formats.volume_kind(path):
          files.append((name, kind))
        continue
    except OSError as error:
      if sources.leads_nowhere(path):
        dangling.append((name, _NOTHING))
        continue
      problems.append(
        f'{path}: cannot be read ({error.strerror}); its study may lack a slice.'
      )
      continue
    if not identity.whole:
      broken.append((name, identity))
    elif identity.modality in ('CT', ''):
      images[identity.study_uid].append((name, identity))
  if broken and not images:
    problems.append(
      f'{folder.path}: {len(broken)} damaged DICOM file(s) and no whole CT image.'
    )
  if dangling:
    # Also so that the listing is not kept: fetching files does not change a folder.
    problems.append(
      f'{folder.path}: {discovery.dangling(len(dangling))}; {discovery.FETCH}'
    )
  broken += [pair for pair in dangling if not _kind_by_name(pair[0])]
  studies = tuple(
    _folder_study(
      folder,
      uid,
      images[uid],
      broken,
      alone=folder.complete and not folder.links_skipped and len(images) == 1,
    )
    for uid in sorted(images)
  )
  return FolderListing(
    folder.path,
    folder.changed_ns,
    studies,
    tuple(files),
    tuple(problems),
    segmentations,
  )


def _study_files(folder: Folder) -> tuple[list[tuple[str, str]], list[str], int]:
  """Sets aside the files that are studies of their own by their names.

  Returns:
    Name and kind of each; the names of all other files, without those that hold a
    header's voxels; the number of segmentations, which are left out of a folder but
    not of a list.
  """
  paths = [pathlib.Path(folder.path, name) for name in folder.names]
  voxels = itk_headers.voxel_files(paths)
  files, others, segmentations = [], [], 0
  for path in paths:
    kind = _kind_by_name(path.name)
    if path in voxels:
      continue
    if not kind or sources.leads_nowhere(path) or formats.is_dicom_file(path):
      others.append(path.name)
    elif folder.complete and formats.is_segmentation(path.name):
      segmentations += 1
    else:
      files.append((path.name, formats.volume_kind(path) or kind))
  return files, others, segmentations


def _kind_by_name(name: str) -> str | None:
  """What a file is that is a study of its own, unless its content says otherwise."""
  return 'zip' if name.lower().endswith('.zip') else formats.kind_by_name(name)


def image_digests(identities) -> list[int]:
  """A number for each image, from its UID and size."""
  return [
    int.from_bytes(
      hashlib.blake2b(
        f'{identity.image_uid}/{identity.size}'.encode(), digest_size=_DIGEST_BITS // 8
      ).digest(),
      'big',
    )
    for identity in identities
  ]


def _folder_study(folder, study_uid, images, broken, alone: bool) -> FolderStudy:
  identities = [identity for _, identity in images]
  series = {identity.series_uid for identity in identities}
  # A damaged file without a series may be a slice of any study here; the reader
  # decides what that means.
  names = [name for name, _ in images] + [
    name for name, identity in broken if identity.series_uid in series | {''}
  ]
  return FolderStudy(
    folder=folder.path,
    study_uid=study_uid,
    series_uids=tuple(sorted(series)),
    images=len(images),
    size=sum(identity.size for identity in identities),
    digest=sum(image_digests(identities)) % (1 << _DIGEST_BITS),
    names=None if alone else tuple(sorted(names)),
  )


# From what folders hold to the studies of an archive, each exactly once.


def group_studies(
  listings: Iterable[FolderListing], root: str, *, identify: Identify = header.identify
) -> list[Study]:
  """Joins a study's folders, sets copies aside, refuses what contradicts itself.

  Args:
    listings: of all folders of an archive.
    root: of the archive: studies without a UID are named by where they lie in it.
    identify: path of a file to its identity.

  Returns:
    The studies; two of one key only if the same file was listed twice.
  """
  by_uid = collections.defaultdict(list)
  found = []
  for listing in listings:
    for part in listing.studies:
      by_uid[part.study_uid or _derived('folder', part.folder, root)].append(part)
    for name, kind in listing.files:
      found.append(_single_file(os.path.join(listing.path, name), kind, root))
  found.extend(_joined(key, by_uid.pop(key), identify) for key in sorted(by_uid))
  return found


def _single_file(path: str, kind: str, root: str) -> Study:
  paths = [pathlib.Path(path), *sorted(itk_headers.voxel_files([path]))]
  statuses = [path.stat() for path in paths]
  return Study(
    _derived(kind, path, root),
    '',
    path=path,
    fingerprint=_digest(
      '/'.join(f'{status.st_size}/{status.st_mtime_ns}' for status in statuses)
    ),
  )


def _joined(key: str, parts, identify) -> Study:
  parts = sorted(parts, key=lambda part: part.folder)
  first_by_digest: dict[tuple[str, int], FolderStudy] = {}
  copies: list[FolderStudy] = []
  for part in parts:
    if first_by_digest.setdefault((part.digest, part.images), part) is not part:
      copies.append(part)
  kept = list(first_by_digest.values())
  refusal = _contradiction(kept, identify) if len(kept) > 1 else None
  warnings = tuple(
    f'the same {part.images} images lie in a second place too; one was read'
    for part in copies
  )
  return Study(
    key,
    kept[0].study_uid,
    places=tuple(Place(part.folder, part.names) for part in kept),
    series_uids=tuple(sorted({uid for part in kept for uid in part.series_uids})),
    copies=tuple(Place(part.folder, part.names) for part in copies),
    fingerprint=_digest(sorted((part.digest, part.images) for part in kept)),
    warnings=warnings,
    refusal=refusal,
  )


def _contradiction(parts, identify) -> str | None:
  """Why folders of one study cannot be joined: an image in two versions."""
  seen: dict[str, FolderStudy] = {}
  for part in parts:
    for image_uid in _image_uids(part, identify):
      other = seen.setdefault(image_uid, part)
      if other is not part:
        return (
          f'two folders hold differing copies of the study, with {other.images} and '
          f'{part.images} images; each image is required once or in equal copies: '
          'remove the copy that is not wanted.'
        )
  return None


def _image_uids(part: FolderStudy, identify) -> set[str]:
  uids = set()
  for path in Place(part.folder, part.names).files():
    identity = None if sources.leads_nowhere(path) else identify(path)
    if (
      identity
      and identity.whole
      and identity.study_uid == part.study_uid
      and (identity.modality in ('CT', ''))
    ):
      uids.add(identity.image_uid)
  return uids


def _derived(kind: str, path: str, root: str) -> str:
  # Not the name itself: people name files after patients.
  return f'{kind}-{_digest(os.path.relpath(path, root))[:16]}'


def _digest(value) -> str:
  return hashlib.sha256(str(value).encode('utf-8', 'surrogateescape')).hexdigest()
