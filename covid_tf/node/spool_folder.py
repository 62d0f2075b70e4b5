"""The folder of a spool: where each file lies, and by which steps it gets there.

    incoming/                                  files of running associations
    studies/STUDY/SERIES/SOP_INSTANCE.dcm      what has been acknowledged
    marks/STUDY/…                              why it may lack instances (`marks`)
    removed/                                   what is being removed

Names of what comes are on the disk before anything is written to them, and a study is
renamed before it is removed: whatever kills the process, no half of one is found.
"""

import contextlib
import os
import pathlib
import shutil
import threading
import uuid

from covid_tf.node import arrival
from covid_tf.node import marks as marks_lib
from covid_tf.readers import elements

_SUFFIX, _PART = '.dcm', '.part'
_FILES = 32  # Made at once, for instances that are to come.


class SpoolFolder:
  """Names and files of a spool; what they mean to its studies is its caller's.

  `new_file` is safe for threads; of the rest one thread at a time may change a study.
  """

  def __init__(self, folder: pathlib.Path):
    """Touches nothing; see `prepare`."""
    self._folder = folder
    self._making_files = threading.Lock()
    self._empty_files: list[pathlib.Path] = []

  def prepare(self) -> None:
    """Makes what is missing, and removes what was being removed.

    Raises:
      OSError: it cannot be written.
    """
    for name in ('incoming', 'removed', 'studies', 'marks'):
      (self._folder / name).mkdir(exist_ok=True)
    marks_lib.force_names_to_disk(self._folder)
    shutil.rmtree(self._folder / 'removed', ignore_errors=True)
    (self._folder / 'removed').mkdir()

  def new_file(self) -> pathlib.Path:
    """An empty file in `incoming` to write one instance to; its name is on the disk.

    Raises:
      OSError: the disk does not take it.
    """
    incoming = self._folder / 'incoming'
    with self._making_files:
      if not self._empty_files:
        made = [incoming / (uuid.uuid4().hex + _PART) for _ in range(_FILES)]
        for path in made:
          path.touch(exist_ok=False)
        # For all of them at once: it takes as long as for one.
        marks_lib.force_names_to_disk(incoming)
        self._empty_files = made
      return self._empty_files.pop()

  def incoming(self) -> list[pathlib.Path]:
    """Files of `new_file` that are still there, of this and earlier processes."""
    return sorted((self._folder / 'incoming').iterdir())

  def study(self, study_uid: str) -> pathlib.Path:
    """The folder of the files of a study."""
    return self._folder / 'studies' / study_uid

  def marks(self, study_uid: str) -> pathlib.Path:
    """The folder of the marks of a study."""
    return self._folder / 'marks' / study_uid

  def path_of(self, found: arrival.Identity) -> pathlib.Path:
    """The final name of an instance."""
    folder = self.study(found.study_uid) / found.series_uid
    return folder / (found.sop_instance_uid + _SUFFIX)

  def study_uids(self) -> list[str]:
    """Study Instance UIDs that have a folder."""
    return _uids(self._folder / 'studies')

  def marked_uids(self) -> list[str]:
    """Study Instance UIDs that have marks, or had."""
    return _uids(self._folder / 'marks')

  def instances(self, study_uid: str, series_uid: str) -> list[str]:
    """SOP Instance UIDs of the files of a series."""
    try:
      names = os.listdir(self.study(study_uid) / series_uid)
    except OSError:  # Removed meanwhile, or no folder.
      return []
    return [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]

  def counts(self, study_uid: str) -> dict[str, int]:
    """Series UID to number of files, of the series that have any."""
    counts = {
      path.name: len(self.instances(study_uid, path.name))
      for path in self.study(study_uid).iterdir()
      if elements.legal_uid(path.name)
    }
    return {series: count for series, count in counts.items() if count}

  def set_aside(self, study_uid: str) -> pathlib.Path:
    """Renames a study and its marks into a folder that is to be removed.

    Raises:
      OSError: they cannot be renamed.
    """
    gone = self._folder / 'removed' / uuid.uuid4().hex
    gone.mkdir()
    for folder in (self.study(study_uid), self.marks(study_uid)):
      with contextlib.suppress(FileNotFoundError):
        os.rename(folder, gone / folder.parent.name)
    return gone


def _uids(folder: pathlib.Path) -> list[str]:
  return sorted(name for name in os.listdir(folder) if elements.legal_uid(name))
