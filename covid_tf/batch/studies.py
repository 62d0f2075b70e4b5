"""What an archive holds: studies, and the files that each is made of."""

import dataclasses
import os

from covid_tf.readers import sources


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
    names = self.names
    if names is None:
      with os.scandir(self.folder) as entries:
        names = sorted(
            entry.name for entry in entries
            if entry.is_file() or sources.leads_nowhere(entry.path))
    return [os.path.join(self.folder, name) for name in names]


@dataclasses.dataclass(frozen=True, slots=True)
class Study:
  """One study of an archive, known from headers only.

  Attributes:
    key: name of its result folder, the same in every run.
    study_uid: Study Instance UID; '' where the source has none.
    places: its DICOM files; empty for a NIfTI file or a zip.
    path: the NIfTI file or the zip; '' for DICOM files.
    series_uids: its CT series.
    series_uid: the series to read; None leaves the choice to the reader.
    copies: further places that hold the same images; their bytes are compared
      before the study is scored.
    fingerprint: digest of images and sizes; another one means other files.
    warnings: what a person should know of how it was found.
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
