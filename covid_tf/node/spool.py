"""Instances that have been sent to us, on disk before they are acknowledged.

Where they lie says `spool_folder`, why a study may lack some of them `marks`.

A file is on the disk in `incoming`, with a preamble that says what it holds, before it
is acknowledged; that it then gets its final name needs no wait, since the next start
would see to it. A mark stands before the first instance of its series is acknowledged
and goes when the association is released. So what is left after an abort, a lost
connection or a killed process is a series that may lack instances (docs/adr/0200).
"""

import collections
from collections.abc import Mapping
import dataclasses
import enum
import itertools
import os
import pathlib
import re
import shutil
import threading
import time
import types

from covid_tf import errors
from covid_tf.node import arrival
from covid_tf.node import marks as marks_lib
from covid_tf.node import spool_folder
from covid_tf.storage import files

RESERVE_BYTES = 2 << 30  # Ours: about ten large studies.
# Studies of which something was begun or refused, and nothing is kept.
_MOST_EMPTY, _EMPTY_S = 1000, 30 * 86400.0
_ASSOCIATION = re.compile('[0-9A-Za-z-]{1,64}')


class Taken(enum.Enum):
  """What an instance was to the spool."""

  NEW = 'new'
  AGAIN = 'again'  # The same content, whatever file meta or transfer syntax.
  DIFFERENT = 'different'  # The same UID, other content: the first is kept.


class Ending(enum.Enum):
  """How an association ended."""

  RELEASED = 'released'
  ABORTED = 'aborted'
  LOST = 'lost'  # Connection gone, time over, or our own refusal to go on.


class InUseError(errors.CovidTFError):
  """A study that an association is sending to cannot be removed."""


@dataclasses.dataclass(frozen=True)
class Kept:
  """One study at a moment.

  Attributes:
    study_uid: Study Instance UID.
    folder: of its files.
    counts: series UID to instances kept.
    generation: another number after every new instance; of this process.
    last_activity_s: `time.monotonic()` of the last instance, or of the end of an
      association that sent to it; of the start for what was found on disk.
    open_associations: that have sent to this study and have not ended.
    interrupted: series UID to why it may lack instances, in words.
    conflicts: instances that came again with other content.
  """

  study_uid: str
  folder: pathlib.Path
  counts: Mapping[str, int]
  generation: int
  last_activity_s: float
  open_associations: int
  interrupted: Mapping[str, str]
  conflicts: int


class _Study:
  """What is known of a study without looking at the disk."""

  def __init__(self, marks: marks_lib.StudyMarks):
    self.marks = marks
    self.counts: dict[str, int] = {}
    self.generation = 0
    self.last_activity_s = time.monotonic()
    self.associations: set[str] = set()


class _Sender:
  """What an association has sent.

  Attributes:
    caller: its AE title.
    touched: study UID to UIDs of series of which something was acknowledged, or is
      about to be.
    is_doubtful: whether an instance was refused of which nobody knows what it was.
  """

  def __init__(self, caller: str):
    self.caller = caller
    self.touched: dict[str, set[str]] = collections.defaultdict(set)
    self.is_doubtful = False


class Spool:
  """The instances of all studies that are not done; safe for threads.

  One process at a time has a spool. Errors of the disk pass as OSError: an instance
  whose `take` raises one is not kept, and must not be acknowledged.
  """

  def __init__(
    self, folder: str | os.PathLike[str], reserve_bytes: int = RESERVE_BYTES
  ):
    """Finds out what is on disk.

    Args:
      folder: made where it is missing, for its owner only.
      reserve_bytes: less free space than this counts as nearly full.

    Raises:
      errors.UsageError: another process has it.
      errors.OutputError: it cannot be written.
    """
    self.folder = pathlib.Path(folder)
    self._reserve_bytes = reserve_bytes
    self._lock = threading.Lock()
    self._generations = itertools.count(1)
    self._studies: dict[str, _Study] = {}
    self._senders: dict[str, _Sender] = {}
    self._disk = spool_folder.SpoolFolder(self.folder)
    with files.explained(self.folder, self.folder / 'any'):
      self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
      self._stream = open(self.folder / '.lock', 'ab')
      try:
        files.lock(self._stream, 'covid-tf node', wait=False)
        self._recover()
      except BlockingIOError:
        self._stream.close()
        raise errors.UsageError(
          f'{self.folder}: another covid-tf node has this spool; stop it, or give '
          'another --spool.'
        ) from None
      except BaseException:
        self._stream.close()
        raise

  def __enter__(self) -> 'Spool':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    self.close()

  def close(self) -> None:
    """Lets another process have it; what is open stays marked."""
    self._stream.close()

  # What comes.

  def new_file(self) -> pathlib.Path:
    """An empty file to write one instance to; its name is on the disk.

    Raises:
      OSError: the disk does not take it.
    """
    return self._disk.new_file()

  def take(self, path: pathlib.Path, association: str, caller: str) -> Taken:
    """Takes a whole file; what this returns of may be acknowledged.

    Args:
      path: DICOM file of `new_file`, gone afterwards, whatever happens.
      association: a name of digits, letters and hyphens, never used before.
      caller: AE title, fit to be logged.

    Raises:
      arrival.RefusedError: something is wrong with this instance.
      OSError: the disk does not take it; the association cannot go on.
    """
    sender = self._sender(association, caller)
    try:
      found = arrival.identify(path)
      return self._take(path, found, association, sender)
    except arrival.RefusedError as error:
      with self._lock:
        if error.identity:
          self._note_lacking(error.identity, caller, str(error))
        else:
          sender.is_doubtful = True
      raise
    finally:
      path.unlink(missing_ok=True)

  def drop(self, path: pathlib.Path, association: str, caller: str) -> None:
    """Removes a file that did not come whole, and notes what is lacking now."""
    self._sender(association, caller)
    if found := arrival.identify_begun(path):
      with self._lock:
        self._note_lacking(found, caller)
    path.unlink(missing_ok=True)

  def doubt(self, association: str, caller: str) -> None:
    """Notes that an instance was refused of which nobody knows what it was."""
    sender = self._sender(association, caller)
    with self._lock:
      sender.is_doubtful = True

  def _sender(self, association: str, caller: str) -> _Sender:
    if not _ASSOCIATION.fullmatch(association):
      raise ValueError('association: digits, letters and hyphens are required')
    with self._lock:
      return self._senders.setdefault(association, _Sender(caller))

  def _take(
    self,
    path: pathlib.Path,
    found: arrival.Identity,
    association: str,
    sender: _Sender,
  ) -> Taken:
    target = self._disk.path_of(found)
    with self._lock:
      study = self._study_of(found.study_uid)
      study.associations.add(association)  # From here on nobody removes the study.
      touched = sender.touched[found.study_uid]
      changed: tuple[pathlib.Path, ...] = ()
      if not study.marks.is_open(found.series_uid, association):
        target.parent.mkdir(parents=True, exist_ok=True)
        study.marks.open(found.series_uid, association, sender.caller)
        touched.add(found.series_uid)
        changed = (study.marks.folder, study.marks.folder.parent)
      series = [each for each in study.counts if each != found.series_uid]
    others = (dataclasses.replace(found, series_uid=each) for each in series)
    named = (self._disk.path_of(other) for other in others)
    kept = next((other for other in named if other.exists()), target)
    if not kept.exists():
      arrival.seal(path)
      files.force_to_disk(path)
    for names in changed:  # After the file, whose journal often holds them too.
      marks_lib.force_names_to_disk(names)
    taken = self._keep(path, kept, found, study)
    if taken is not Taken.NEW:
      is_same = kept == target and arrival.has_same_content(path, kept)
      taken = Taken.AGAIN if is_same else Taken.DIFFERENT
    with self._lock:
      study.last_activity_s = time.monotonic()
      if taken is Taken.DIFFERENT:
        study.marks.differ(found.series_uid, found.sop_instance_uid)
    return taken

  def _keep(
    self,
    path: pathlib.Path,
    target: pathlib.Path,
    found: arrival.Identity,
    study: _Study,
  ) -> Taken | None:
    """NEW where the file stands under its final name now; None where one did."""
    with self._lock:
      if target.exists():  # Another association may have sent it meanwhile.
        return None
      os.rename(path, target)
      study.counts[found.series_uid] = study.counts.get(found.series_uid, 0) + 1
      study.generation = next(self._generations)
      study.marks.keep(found.sop_instance_uid)
      return Taken.NEW

  def _note_lacking(
    self, found: arrival.Identity, caller: str, refusal: str = ''
  ) -> None:
    if self._disk.path_of(found).exists():
      return
    if found.study_uid not in self._studies:
      empty = sum(1 for study in self._studies.values() if not study.counts)
      if empty >= _MOST_EMPTY:  # Somebody sends nothing but what is damaged.
        return
    study = self._study_of(found.study_uid)
    study.marks.lack(found.series_uid, found.sop_instance_uid, caller, refusal)

  def end(self, association: str, ending: Ending) -> None:
    """Notes that an association has ended; unknown ones have sent nothing.

    One that was released clears what earlier ones have left of the series that it sent
    to; any other leaves a mark on them. So does one that was released after an
    instance of an unknown study was refused: its sender may not care.
    """
    with self._lock:
      sender = self._senders.pop(association, None)
      if sender is None:
        return
      is_whole = ending is Ending.RELEASED and not sender.is_doubtful
      for study_uid, touched in sender.touched.items():
        study = self._studies[study_uid]
        study.associations.discard(association)
        study.last_activity_s = time.monotonic()
        for series_uid in touched:
          if is_whole:
            study.marks.complete(series_uid, association)
          else:
            study.marks.interrupt(series_uid, association, ending.value)

  # What is there.

  def studies(self) -> tuple[Kept, ...]:
    """All studies of which an instance is kept, in order of UID."""
    with self._lock:
      return tuple(
        self._snapshot(study_uid, study)
        for study_uid, study in sorted(self._studies.items())
        if study.counts
      )

  def study(self, uid: str) -> Kept | None:
    """One study, or None where nothing of it is kept."""
    with self._lock:
      study = self._studies.get(uid)
      return self._snapshot(uid, study) if study and study.counts else None

  def _snapshot(self, study_uid: str, study: _Study) -> Kept:
    return Kept(
      study_uid,
      self._disk.study(study_uid),
      types.MappingProxyType(dict(study.counts)),
      study.generation,
      study.last_activity_s,
      len(study.associations),
      types.MappingProxyType(dict(study.marks.interrupted())),
      len(study.marks.different),
    )

  def has_instances(self, study_uid: str) -> Mapping[str, frozenset[str]]:
    """Series UID to SOP Instance UIDs that are kept, from the disk."""
    kept = self.study(study_uid)
    return {
      series: frozenset(self._disk.instances(study_uid, series))
      for series in (kept.counts if kept else ())
    }

  def free_bytes(self) -> int:
    """Space on the disk of the spool that this user may fill."""
    return shutil.disk_usage(self.folder).free

  def is_nearly_full(self) -> bool:
    """Whether less space is left than is kept in reserve."""
    return self.free_bytes() < self._reserve_bytes

  # What somebody decides.

  def accept_as_whole(self, study_uid: str) -> None:
    """Forgets that associations were interrupted; for who knows that nothing lacks."""
    with self._lock:
      if study := self._studies.get(study_uid):
        study.marks.accept()

  def remove(self, study_uid: str, generation: int | None = None) -> None:
    """Removes a study; renamed first, so that half of one is never found.

    Args:
      study_uid: Study Instance UID; nothing happens where there is none of it.
      generation: of the snapshot that the decision was made on; None: of any.

    Raises:
      InUseError: an association is sending to it, or an instance has come since.
      OSError: it cannot be removed.
    """
    with self._lock:
      study = self._studies.get(study_uid)
      if study is None:
        return
      if study.associations:
        raise InUseError(
          f'study {study_uid}: no open association is required to remove it, found '
          f'{len(study.associations)}.'
        )
      if generation not in (None, study.generation):
        raise InUseError(
          f'study {study_uid}: no new instance is required to remove it, found some.'
        )
      gone = self._disk.set_aside(study_uid)
      del self._studies[study_uid]
    shutil.rmtree(gone)

  # What an earlier process has left.

  def _study_of(self, study_uid: str) -> _Study:
    if study_uid not in self._studies:
      marks = marks_lib.StudyMarks(self._disk.marks(study_uid))
      self._studies[study_uid] = _Study(marks)
    return self._studies[study_uid]

  def _recover(self) -> None:
    """Empties what was under way, and counts what is kept."""
    self._disk.prepare()
    for study_uid in self._disk.study_uids():
      self._recover_study(study_uid)
    for study_uid in self._disk.marked_uids():
      marks = self._disk.marks(study_uid)
      is_old = time.time() - marks.stat().st_mtime > _EMPTY_S
      if is_old and study_uid not in self._studies:
        shutil.rmtree(marks, ignore_errors=True)
      else:
        self._study_of(study_uid)
    for path in self._disk.incoming():
      if found := arrival.identify_begun(path):
        self._recover_incoming(path, found)
      path.unlink(missing_ok=True)

  def _recover_incoming(self, path: pathlib.Path, found: arrival.Identity) -> None:
    """Keeps what was whole, and may have been acknowledged; notes the rest."""
    target = self._disk.path_of(found)
    if not arrival.is_as_sealed(path):
      self._note_lacking(found, 'a sender')
      return
    target.parent.mkdir(parents=True, exist_ok=True)
    study = self._study_of(found.study_uid)
    is_kept = self._keep(path, target, found, study) is Taken.NEW
    if not is_kept and not arrival.has_same_content(path, target):
      study.marks.differ(found.series_uid, found.sop_instance_uid)

  def _recover_study(self, study_uid: str) -> None:
    counts = self._disk.counts(study_uid)
    if counts:
      study = self._study_of(study_uid)
      study.counts = counts
      study.generation = next(self._generations)
    else:  # Killed before the first of its instances was kept.
      shutil.rmtree(self._disk.study(study_uid), ignore_errors=True)
