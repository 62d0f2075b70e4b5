"""What every PACS can do for us, whichever protocol it speaks, and what it answered.

`Archive` is the interface; `dimse.DimseArchive` and `dicomweb.WebArchive` implement it.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import enum
import filecmp
import importlib
import itertools
import logging
import os
import pathlib
import threading
import time
from typing import Any, Protocol, TypeVar

import pydicom
from pydicom import errors as pydicom_errors
from pydicom import uid as pydicom_uid

from covid_tf import errors
from covid_tf.readers import elements

_Result = TypeVar('_Result')

_FIRST_PAUSE_S = 1.0  # Between two attempts; doubled each time.
# Python writes the warnings of loggers without a handler to standard error.
_LIBRARIES = ('pynetdicom', 'dicomweb_client', 'urllib3', 'requests', 'pydicom')


@dataclasses.dataclass(frozen=True)
class Limits:
  """How long a PACS may take.

  Attributes:
    connect_s: to be reached.
    answer_s: from a question, or from what it sent last, to its next answer.
    total_s: for all of one operation, with pauses and repetitions.
    attempts: how often it is tried where that may help and is safe.
  """

  connect_s: float = 10.0
  answer_s: float = 60.0
  total_s: float = 3600.0
  attempts: int = 3

  def __post_init__(self) -> None:
    for name in ('connect_s', 'answer_s', 'total_s'):
      if not 0 < getattr(self, name) <= 1e6:
        raise errors.UsageError(
          f'--{name[:-2]}-timeout: seconds above 0 and at most 1000000 are required, '
          f'found {getattr(self, name):g}.'
        )
    if self.attempts < 1:
      raise errors.UsageError(
        f'attempts: at least 1 is required, found {self.attempts}.'
      )


@dataclasses.dataclass(frozen=True)
class Instance:
  """A DICOM file that can be sent.

  Attributes:
    path: the file.
    name: what messages call it; never more than its UIDs tell.
    sop_class_uid, sop_instance_uid, study_uid, series_uid, transfer_syntax_uid: UIDs.
    size_bytes: of the file.
  """

  path: pathlib.Path
  name: str
  sop_class_uid: str
  sop_instance_uid: str
  study_uid: str
  series_uid: str
  transfer_syntax_uid: str
  size_bytes: int


@dataclasses.dataclass(frozen=True)
class Listed:
  """An instance that a PACS says it has; `sop_class_uid` may be '' (not said)."""

  study_uid: str
  series_uid: str
  sop_instance_uid: str
  sop_class_uid: str = ''


class Outcome(enum.Enum):
  """What became of an instance that was sent."""

  STORED = 'stored'
  WARNING = 'stored with a warning'
  FAILED = 'not stored'


@dataclasses.dataclass(frozen=True)
class StoreAnswer:
  """What a PACS answered about one instance.

  Attributes:
    instance: which.
    outcome: what became of it.
    status: DIMSE status or failure reason; None where the PACS gave none.
    reason: in words; '' for what is stored without a word.
  """

  instance: Instance
  outcome: Outcome
  status: int | None = None
  reason: str = ''

  def __str__(self) -> str:
    status = '' if self.status is None else f' (0x{self.status:04X})'
    return f'{self.instance.name}: {self.outcome.value}: {self.reason}{status}'


@dataclasses.dataclass(frozen=True)
class Commitment:
  """Answer to a request for storage commitment.

  Attributes:
    committed: SOP Instance UIDs that the PACS takes responsibility for.
    refused: SOP Instance UID to the reason of those that it does not.
  """

  committed: frozenset[str]
  refused: dict[str, str]


class Archive(Protocol):
  """A PACS.

  Every method raises errors.PACSError where the PACS cannot be reached, refuses, or
  answers what it must not, and errors.UsageError where our own settings are wrong.
  """

  @property
  def name(self) -> str:
    """Its address, as messages show it."""
    ...

  def echo(self) -> float:
    """Seconds until it answered that it is there."""
    ...

  def store(
    self, instances: Sequence[Instance], on_answer: Callable[[StoreAnswer], None]
  ) -> tuple[StoreAnswer, ...]:
    """Sends instances of one study; one answer each, in their order.

    What is sent twice is stored once, so it is repeated after a failure of the network.
    """
    ...

  def find(self, study_uid: str, series_uid: str | None = None) -> tuple[Listed, ...]:
    """The instances that it has of a study, or of one series; () where none."""
    ...

  def retrieve(
    self, study_uid: str, series_uid: str | None, receiver: 'Receiver'
  ) -> None:
    """Hands all instances of a study, or of one series, to the receiver."""
    ...

  def commit(self, instances: Sequence[Instance]) -> Commitment | None:
    """Asks for storage commitment; None where it is not offered or not answered."""
    ...


class TransientError(errors.PACSError):
  """What may pass by itself: tried again where that is safe.

  Attributes:
    wait_s: how long the PACS asked to wait, or None.
  """

  def __init__(self, text: str, wait_s: float | None = None):
    super().__init__(text)
    self.wait_s = wait_s


class Deadline:
  """The end of one operation, whatever it consists of."""

  def __init__(self, name: str, limits: Limits):
    self._name = name
    self._limit_s = limits.total_s
    self._end = time.monotonic() + limits.total_s

  def left_s(self) -> float:
    """Seconds that are left.

    Raises:
      errors.PACSError: none are.
    """
    left = self._end - time.monotonic()
    if left <= 0:
      raise errors.PACSError(
        f'{self._name}: not done within {self._limit_s:g} s; give it longer '
        '(--total-timeout) or ask its administrator why it is slow.'
      )
    return left


def repeated(
  action: Callable[[Deadline], _Result],
  name: str,
  limits: Limits,
  deadline: Deadline | None = None,
) -> _Result:
  """What an action returns that may be done twice; tried again after TransientError.

  Args:
    action: gets the deadline of the whole.
    name: of the PACS, for messages.
    limits: number of attempts, and the time for all.
    deadline: of a larger operation that this is a part of.

  Raises:
    errors.PACSError: of the last attempt, or that the time is over.
  """
  deadline = deadline or Deadline(name, limits)
  for attempt in itertools.count(1):
    try:
      return action(deadline)
    except TransientError as error:
      if attempt >= limits.attempts:
        tries = f' ({attempt} attempts)' if attempt > 1 else ''
        raise errors.PACSError(f'{error}{tries}') from error
      pause_s = max(error.wait_s or 0.0, _FIRST_PAUSE_S * 2 ** (attempt - 1))
      if pause_s >= deadline.left_s():
        raise errors.PACSError(
          f'{error} (to be tried again after {pause_s:.0f} s, which is longer than '
          'the time that is left)'
        ) from error
      time.sleep(pause_s)
  raise AssertionError('unreachable')


class Receiver:
  """Takes what a PACS sends, checks it, and gives it a safe name in a folder.

  A file is `SERIES_UID/SOP_INSTANCE_UID.dcm`: both UIDs are of digits and dots, or the
  instance is refused. May be used from several threads.

  Attributes:
    listed: SOP Instance UID to what the PACS said it has.
    paths: SOP Instance UID to the file, of those that have come.
    size_bytes: of all of them.
    failure: the first error; nothing more is taken after it.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    listed: Iterable[Listed],
    on_instance: Callable[[], None] = lambda: None,
  ):
    self._folder = folder
    self.listed = {each.sop_instance_uid: each for each in listed}
    self._studies = {each.study_uid for each in self.listed.values()}
    self._on_instance = on_instance
    self._taking = threading.Lock()
    self._numbers = itertools.count()
    self.paths: dict[str, pathlib.Path] = {}
    self.size_bytes = 0
    self.failure: Exception | None = None

  @property
  def missing(self) -> tuple[str, ...]:
    """SOP Instance UIDs that were listed and have not come."""
    return tuple(uid for uid in self.listed if uid not in self.paths)

  def temporary(self) -> pathlib.Path:
    """A new name to write one instance to, in the folder."""
    with self._taking:
      return self._folder / f'.{next(self._numbers)}.part'

  def write(self, content: bytes) -> None:
    """Takes a DICOM file; remembers what fails and raises it."""
    try:
      path = self.temporary()
      path.write_bytes(content)
      self.take(path)
    except Exception as error:
      self.failure = self.failure or error
      raise

  def take(self, path: pathlib.Path) -> None:
    """Takes a file that was written under a temporary name.

    Raises:
      errors.PACSError: it is no DICOM file, or not of what was asked for.
      OSError: the disk does not take it.
    """
    series, instance = self._checked(path)
    target = self._folder / series / f'{instance}.dcm'
    with self._taking:
      if target.exists():
        if not filecmp.cmp(path, target, shallow=False):
          raise errors.PACSError(
            f'the PACS sent instance {instance} twice with different content; nothing '
            'is kept. Ask its administrator which is right.'
          )
        path.unlink()
        return
      target.parent.mkdir(exist_ok=True)
      size = path.stat().st_size
      os.replace(path, target)
      self.paths[instance] = target
      self.size_bytes += size
    self._on_instance()

  def _checked(self, path: pathlib.Path) -> tuple[str, str]:
    """Series and SOP Instance UID of what has come."""
    try:
      header = read_header(path)
    except pydicom_errors.InvalidDicomError:
      raise errors.PACSError(
        'the PACS sent something that is no DICOM file; nothing is kept.'
      ) from None
    uids = [header[keyword] for keyword in ('study', 'series', 'instance')]
    if not all(map(elements.legal_uid, uids)):
      raise errors.PACSError(
        'the PACS sent an instance with an illegal UID (digits and dots are required); '
        'nothing is kept.'
      )
    study, series, instance = uids
    if study not in self._studies:
      raise errors.PACSError(
        f'the PACS sent an instance of another study, {study}; nothing is kept.'
      )
    listed = self.listed.get(instance)
    if listed is None or listed.series_uid != series:
      raise errors.PACSError(
        f'the PACS sent instance {instance} of series {series}, which was not asked '
        'for; nothing is kept.'
      )
    return series, instance

  def require_whole(self, name: str) -> None:
    """Raises what failed, or errors.PACSError where instances are missing."""
    if self.failure:
      raise self.failure
    if missing := self.missing:
      raise errors.PACSError(
        f'{name}: {len(missing)} of {len(self.listed)} instances did not come, the '
        f'first is {missing[0]}; nothing is kept. Try again, or by the other protocol.'
      )


_KEYWORDS = {
  'class': 'SOPClassUID',
  'instance': 'SOPInstanceUID',
  'study': 'StudyInstanceUID',
  'series': 'SeriesInstanceUID',
}


def read_header(path: pathlib.Path) -> dict[str, str]:
  """UIDs of a DICOM file: `class`, `instance`, `study`, `series`, `syntax`.

  What is missing is ''. Nothing of the patient is read.

  Raises:
    pydicom.errors.InvalidDicomError: it is no DICOM file, or damaged.
    OSError: it cannot be read.
  """
  try:
    dataset = pydicom.dcmread(
      path, stop_before_pixels=True, specific_tags=list(_KEYWORDS.values())
    )
    found = {
      short: str(dataset.get(keyword) or '') for short, keyword in _KEYWORDS.items()
    }
    syntax = dataset.file_meta.get('TransferSyntaxUID') or ''
  except (OSError, pydicom_errors.InvalidDicomError):
    raise
  except Exception as error:  # Whatever pydicom meets in damaged bytes.
    raise pydicom_errors.InvalidDicomError(type(error).__name__) from error
  return {**found, 'syntax': str(syntax)}


def class_name(sop_class_uid: str) -> str:
  """The name of a SOP class, without the word Storage; its UID where it has none."""
  return pydicom_uid.UID(sop_class_uid).name.removesuffix(' Storage')


def need(module: str) -> Any:
  """A module of the extra `clinic`, quiet unless the user has set up logging.

  Raises:
    errors.UsageError: it is not installed.
  """
  for name in _LIBRARIES:
    logger = logging.getLogger(name)
    if not logger.handlers:
      logger.addHandler(logging.NullHandler())
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise errors.UsageError(
      f'{module.partition(".")[0]} is required to speak with a PACS, and not '
      f'installed: {errors.how_to_install("clinic")} ({error}).'
    ) from error
