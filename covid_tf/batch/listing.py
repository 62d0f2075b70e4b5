"""The studies of one folder, by the headers of its files."""

import collections
from collections.abc import Callable
import dataclasses
import hashlib
import os

from covid_tf.batch import walk
from covid_tf.readers import discovery
from covid_tf.readers import identification
from covid_tf.readers import sources

Identify = Callable[[str], identification.FileIdentity | None]

_DIGEST_BITS = 128
# What is known of a link that leads nowhere: it may be a slice of any study.
_NOTHING = identification.FileIdentity('', '', '', '', False, 0)


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
    zips, niftis: names of files that are studies of their own.
    problems: in words.
  """

  path: str
  changed_ns: int
  studies: tuple[FolderStudy, ...] = ()
  zips: tuple[str, ...] = ()
  niftis: tuple[str, ...] = ()
  problems: tuple[str, ...] = ()


def list_folder(
    folder: walk.Folder, identify: Identify = identification.identify
) -> FolderListing:
  """Groups the files of a folder by study; reads headers only.

  Args:
    folder: as the walk found it.
    identify: path of a file to its identity.

  Returns:
    What the folder holds, without its sub-folders.
  """
  niftis = tuple(name for name in folder.names if is_nifti(name))
  zips = tuple(name for name in folder.names if name.lower().endswith('.zip'))
  aside = {*niftis, *zips}
  images, broken, problems = collections.defaultdict(list), [], []
  dangling = []
  for name in folder.names:
    if name in aside:
      continue
    try:
      identity = identify(os.path.join(folder.path, name))
    except OSError as error:
      if sources.leads_nowhere(os.path.join(folder.path, name)):
        dangling.append((name, _NOTHING))
        continue
      problems.append(f'{os.path.join(folder.path, name)}: cannot be read '
                      f'({error.strerror}); its study may lack a slice.')
      continue
    if identity is None:
      continue
    if not identity.whole:
      broken.append((name, identity))
    elif identity.modality in ('CT', ''):
      images[identity.study_uid].append((name, identity))
  if broken and not images:
    problems.append(f'{folder.path}: {len(broken)} damaged DICOM file(s) and no whole '
                    'CT image.')
  if dangling:
    # Also so that the listing is not kept: fetching files does not change a folder.
    problems.append(f'{folder.path}: {discovery.dangling(len(dangling))}; '
                    f'{discovery.FETCH}')
  broken += dangling
  studies = tuple(
      _folder_study(folder, uid, images[uid], broken,
                    alone=folder.complete and not folder.links_skipped
                    and len(images) == 1)
      for uid in sorted(images))
  return FolderListing(
      folder.path, folder.changed_ns, studies, zips, niftis, tuple(problems))


def is_nifti(name: str) -> bool:
  """Whether a file name is one of NIfTI."""
  return name.lower().endswith(('.nii', '.nii.gz'))


def image_digests(identities) -> list[int]:
  """A number for each image, from its UID and size."""
  return [
      int.from_bytes(hashlib.blake2b(
          f'{identity.image_uid}/{identity.size}'.encode(),
          digest_size=_DIGEST_BITS // 8).digest(), 'big')
      for identity in identities]


def _folder_study(folder, study_uid, images, broken, alone: bool) -> FolderStudy:
  identities = [identity for _, identity in images]
  series = {identity.series_uid for identity in identities}
  # A damaged file without a series may be a slice of any study here; the reader
  # decides what that means.
  names = [name for name, _ in images] + [
      name for name, identity in broken if identity.series_uid in series | {''}]
  return FolderStudy(
      folder=folder.path, study_uid=study_uid, series_uids=tuple(sorted(series)),
      images=len(images), size=sum(identity.size for identity in identities),
      digest=sum(image_digests(identities)) % (1 << _DIGEST_BITS),
      names=None if alone else tuple(sorted(names)))
