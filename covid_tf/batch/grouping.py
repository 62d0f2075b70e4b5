"""From what folders hold to the studies of an archive, each exactly once."""

import collections
from collections.abc import Iterable
import hashlib
import os

from covid_tf.batch import folder_listing
from covid_tf.batch import studies
from covid_tf.readers import identification
from covid_tf.readers import sources


def group(
    listings: Iterable[folder_listing.FolderListing], root: str, *,
    identify: folder_listing.Identify = identification.identify
) -> list[studies.Study]:
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
    for name in listing.niftis:
      found.append(_single_file(os.path.join(listing.path, name), 'nifti', root))
    for name in listing.zips:
      found.append(_single_file(os.path.join(listing.path, name), 'zip', root))
  found.extend(_joined(key, by_uid.pop(key), identify) for key in sorted(by_uid))
  return found


def _single_file(path: str, kind: str, root: str) -> studies.Study:
  status = os.stat(path)
  return studies.Study(
      _derived(kind, path, root), '', path=path,
      fingerprint=_digest(f'{status.st_size}/{status.st_mtime_ns}'))


def _joined(key: str, parts, identify) -> studies.Study:
  parts = sorted(parts, key=lambda part: part.folder)
  first_by_digest, copies = {}, []
  for part in parts:
    if first_by_digest.setdefault((part.digest, part.images), part) is not part:
      copies.append(part)
  kept = list(first_by_digest.values())
  refusal = _contradiction(kept, identify) if len(kept) > 1 else None
  warnings = tuple(
      f'the same {part.images} images lie in a second place too; one was read'
      for part in copies)
  return studies.Study(
      key, kept[0].study_uid,
      places=tuple(studies.Place(part.folder, part.names) for part in kept),
      series_uids=tuple(sorted({uid for part in kept for uid in part.series_uids})),
      copies=tuple(studies.Place(part.folder, part.names) for part in copies),
      fingerprint=_digest(sorted((part.digest, part.images) for part in kept)),
      warnings=warnings, refusal=refusal)


def _contradiction(parts, identify) -> str | None:
  """Why folders of one study cannot be joined: an image in two versions."""
  seen = {}
  for part in parts:
    for image_uid in _image_uids(part, identify):
      other = seen.setdefault(image_uid, part)
      if other is not part:
        return (
            f'two folders hold differing copies of the study, with {other.images} and '
            f'{part.images} images; each image is required once or in equal copies: '
            'remove the copy that is not wanted.')
  return None


def _image_uids(part: folder_listing.FolderStudy, identify) -> set[str]:
  uids = set()
  for path in studies.Place(part.folder, part.names).files():
    identity = None if sources.leads_nowhere(path) else identify(path)
    if identity and identity.whole and identity.study_uid == part.study_uid and (
        identity.modality in ('CT', '')):
      uids.add(identity.image_uid)
  return uids


def _derived(kind: str, path: str, root: str) -> str:
  # Not the name itself: people name files after patients.
  return f'{kind}-{_digest(os.path.relpath(path, root))[:16]}'


def _digest(value) -> str:
  return hashlib.sha256(str(value).encode('utf-8', 'surrogateescape')).hexdigest()
