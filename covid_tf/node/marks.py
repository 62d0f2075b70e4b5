"""Why a study may lack instances, noted on disk while its instances come.

    SERIES@ASSOCIATION.open      somebody is sending this series, or was cut off
    SERIES@INSTANCE.lacking      this instance was begun, and is not kept
    SERIES@INSTANCE.different    this instance came again with other content

What counts is that a name is there; what stands in the file says more to people
(docs/adr/0200).
"""

from collections.abc import Iterator, Mapping
import contextlib
import errno
import json
import os
import pathlib

from covid_tf.storage import files

_OPEN, _LACKING, _DIFFERENT = '.open', '.lacking', '.different'
_STOPPED = 'stopped'
# Some network file systems cannot confirm names, and say so.
_NOT_CONFIRMED = (errno.EINVAL, errno.ENOTSUP)


class StudyMarks:
  """The marks of one study; the caller sees to it that one thread changes them.

  Attributes:
    folder: where they lie; there only while there are any, or were.
    different: SOP Instance UIDs that came again with other content.
  """

  def __init__(self, folder: pathlib.Path):
    """Reads what an earlier process has left."""
    self.folder = folder
    self.different: set[str] = set()
    # (series, association) to caller and how it ended: None while it runs.
    self._associations: dict[tuple[str, str], tuple[str, str | None]] = {}
    self._lacking: dict[str, tuple[str, str]] = {}  # Instance to series and reason.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
      for name in os.listdir(folder):
        self._read(folder / name)

  def _read(self, path: pathlib.Path) -> None:
    series_uid, _, other = path.stem.partition('@')
    if path.suffix == _OPEN:
      found = _content(path)
      how = found.get('ended') or _STOPPED
      caller = found.get('caller') or 'a sender'
      self._associations[series_uid, other] = (caller, how)
    elif path.suffix == _LACKING:
      reason = _content(path).get('reason') or _lacking_reason('a sender')
      self._lacking[other] = (series_uid, reason)
    elif path.suffix == _DIFFERENT:
      self.different.add(other)

  def is_open(self, series_uid: str, association: str) -> bool:
    """Whether an association is marked as sending a series."""
    return (series_uid, association) in self._associations

  def open(self, series_uid: str, association: str, caller: str) -> None:
    """Marks that an association sends a series; the caller forces it to the disk.

    Raises:
      OSError: the disk does not take it.
    """
    self._associations[series_uid, association] = (caller, None)
    self._write(f'{series_uid}@{association}{_OPEN}', caller=caller)

  def interrupt(self, series_uid: str, association: str, how: str) -> None:
    """Marks that an association has ended otherwise than it should."""
    caller, _ = self._associations[series_uid, association]
    self._associations[series_uid, association] = (caller, how)
    with contextlib.suppress(OSError):  # The mark itself is there already.
      self._write(f'{series_uid}@{association}{_OPEN}', caller=caller, ended=how)

  def complete(self, series_uid: str, association: str) -> None:
    """Forgets an association that ended well, and ended ones before it."""
    for key in [
      key
      for key, (_, how) in self._associations.items()
      if key[0] == series_uid and (how or key[1] == association)
    ]:
      del self._associations[key]
      self._unlink(f'{key[0]}@{key[1]}{_OPEN}')

  def lack(
    self, series_uid: str, instance_uid: str, caller: str, refusal: str = ''
  ) -> None:
    """Marks that an instance was begun, or refused, and is not kept."""
    reason = _lacking_reason(caller, refusal)
    self._lacking[instance_uid] = (series_uid, reason)
    with contextlib.suppress(OSError):  # Its sender knows that it is not kept.
      self._write(f'{series_uid}@{instance_uid}{_LACKING}', reason=reason)

  def keep(self, instance_uid: str) -> None:
    """Forgets that an instance was lacking."""
    if found := self._lacking.pop(instance_uid, None):
      self._unlink(f'{found[0]}@{instance_uid}{_LACKING}')

  def differ(self, series_uid: str, instance_uid: str) -> None:
    """Marks that an instance came again with other content."""
    self.different.add(instance_uid)
    with contextlib.suppress(OSError):  # A warning, which does not stop the sender.
      self._write(f'{series_uid}@{instance_uid}{_DIFFERENT}')

  def accept(self) -> None:
    """Forgets all that is lacking or was interrupted; running associations stay."""
    for instance_uid in list(self._lacking):
      self.keep(instance_uid)
    for (series_uid, association), (_, how) in list(self._associations.items()):
      if how:
        del self._associations[series_uid, association]
        self._unlink(f'{series_uid}@{association}{_OPEN}')

  def interrupted(self) -> Mapping[str, str]:
    """Series UID to why it may lack instances, in words."""
    return dict(self._reasons())

  def _reasons(self) -> Iterator[tuple[str, str]]:
    for (series_uid, _), (caller, how) in self._associations.items():
      if how:
        yield series_uid, _interruption_reason(caller, how)
    yield from self._lacking.values()

  def _write(self, name: str, **content: str) -> None:
    self.folder.mkdir(exist_ok=True)
    (self.folder / name).write_text(json.dumps(content), encoding='utf-8')

  def _unlink(self, name: str) -> None:
    with contextlib.suppress(OSError):  # At worst it is there at the next start.
      (self.folder / name).unlink()


def force_names_to_disk(folder: pathlib.Path) -> None:
  """Waits until a folder's names are on the disk.

  Raises:
    OSError: they are not. A file system that has no such call (some network file
      systems) passes: nothing more can be done there.
  """
  try:
    files.force_to_disk(folder)
  except OSError as error:
    if error.errno not in _NOT_CONFIRMED:
      raise


def _content(path: pathlib.Path) -> dict[str, str]:
  """What a mark says; nothing where the machine stopped while it was written."""
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}


def _interruption_reason(caller: str, how: str) -> str:
  reasons = {
    'aborted': f'{caller} aborted the association before its end',
    'lost': f'the association of {caller} was lost',
    'released': f'an instance that {caller} sent was refused',
  }
  return reasons.get(how, f'the node was stopped while {caller} was sending')


def _lacking_reason(caller: str, refusal: str = '') -> str:
  if refusal:
    return f'an instance that {caller} sent was refused: {refusal}'
  return f'an instance that {caller} began to send did not come'
