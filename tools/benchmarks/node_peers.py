"""Whom a node talks to: senders, good and broken ones, and a destination that counts.

A sender does what a modality or a PACS does: what is not acknowledged, or whose
association did not end in order, it sends again in a new association, for ever. Those
of Way.GONE abort and never come back.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import enum
import logging
import pathlib
import queue
import random
import threading
import time

import pydicom
import pynetdicom
from pynetdicom import evt
from pynetdicom import sop_class

from covid_tf.clinic import requesting

_RETRY_S = 0.3  # A modality waits longer; here it would only take time.
_ANSWER_S = 30.0

# What a node sends: segmentation, map, report, pictures.
_OBJECTS = (
  sop_class.SegmentationStorage,
  sop_class.ParametricMapStorage,
  sop_class.EnhancedSRStorage,
  sop_class.SecondaryCaptureImageStorage,
)
_SYNTAXES = [
  pydicom.uid.ExplicitVRLittleEndian,
  pydicom.uid.ImplicitVRLittleEndian,
  pydicom.uid.DeflatedExplicitVRLittleEndian,
  pydicom.uid.RLELossless,
]


class Way(enum.Enum):
  """How a study is sent."""

  WHOLE = 'one association, released'
  SINGLE = 'one association an instance'
  STALLED = 'a pause inside an association, longer than --settle'
  BACK = 'aborted after some instances, sent again later'
  GONE = 'aborted after some instances, never sent again'
  AGAIN = 'sent, and all of it sent again later'
  TOGETHER = 'two studies, slice by slice, in one association'


# Of a hundred studies.
_SHARES = {
  Way.WHOLE: 36,
  Way.SINGLE: 16,
  Way.STALLED: 10,
  Way.BACK: 10,
  Way.GONE: 12,
  Way.AGAIN: 8,
  Way.TOGETHER: 8,
}


@dataclasses.dataclass(frozen=True)
class Study:
  """One study that is sent.

  Attributes:
    uid: its Study Instance UID.
    paths: of its instances, SOP Instance UID to file.
    way: how it is sent.
  """

  uid: str
  paths: Mapping[str, pathlib.Path]
  way: Way


def read_studies(root: pathlib.Path, seed: int) -> tuple[Study, ...]:
  """The studies of the folders of an archive, each with a way by the shares above.

  Every way has a study where there are enough; those of TOGETHER are pairs.
  """
  folders = sorted(path for path in root.iterdir() if path.is_dir())
  found = []
  for folder, way in zip(folders, _ways(len(folders)), strict=True):
    paths = {}
    for path in sorted(folder.iterdir()):
      header = pydicom.dcmread(path, stop_before_pixels=True)
      paths[str(header.SOPInstanceUID)] = path
    found.append(Study(str(header.StudyInstanceUID), paths, way))
  random.Random(seed).shuffle(found)
  return tuple(found)


def _ways(count: int) -> list[Way]:
  ways = [Way.TOGETHER, Way.TOGETHER, *(way for way in Way if way is not Way.TOGETHER)]
  for way, share in _SHARES.items():
    more = round(count * share / 100) - ways.count(way)
    if way is Way.TOGETHER:
      more -= more % 2
    ways += [way] * more
  return [*ways, *[Way.WHOLE] * count][:count]


class Ledger:
  """What a node has acknowledged; thread-safe."""

  def __init__(self):
    self._lock = threading.Lock()
    self._kept: dict[str, set[str]] = collections.defaultdict(set)
    self.acknowledgements = 0

  def add(self, study_uid: str, instance_uid: str) -> None:
    """Notes the success of a C-STORE."""
    with self._lock:
      self._kept[study_uid].add(instance_uid)
      self.acknowledgements += 1

  def of(self, study_uid: str) -> frozenset[str]:
    """SOP Instance UIDs of a study that were acknowledged at least once."""
    with self._lock:
      return frozenset(self._kept.get(study_uid, ()))

  def count(self) -> int:
    """Instances, each once."""
    with self._lock:
      return sum(map(len, self._kept.values()))


class _LostError(Exception):
  """An association could not be had, or did not come to its end."""


@dataclasses.dataclass
class Sender:
  """Sends studies to a node, each in its way.

  Attributes:
    host, port, title: of the node.
    ledger: gets what is acknowledged.
    settle_s: of the node; stalls and returns are longer.
    chance: of the sender's own.
    name: its AE title.
    retries: associations that were made because one before did not end well.
    refused: instances that were answered with a failure, as (UID, status, comment).
  """

  host: str
  port: int
  title: str
  ledger: Ledger
  settle_s: float
  chance: random.Random
  name: str
  retries: int = 0
  refused: list[tuple[str, int, str]] = dataclasses.field(default_factory=list)

  def send(self, studies: Sequence[Study]) -> None:
    """Sends a study, or the two of Way.TOGETHER."""
    every = [
      (study.uid, uid, path)
      for study in studies
      for uid, path in _shuffled(study.paths, self.chance)
    ]
    match studies[0].way:
      case Way.SINGLE:
        for one in every:
          self._deliver([one])
      case Way.STALLED:
        self._deliver(every, stall_at=self.chance.randrange(1, len(every)))
      case Way.GONE:
        self._break_off(every)
      case Way.BACK:
        self._break_off(every)
        time.sleep(self.settle_s * self.chance.uniform(0.5, 3))
        self._deliver(every)
      case Way.AGAIN:
        self._deliver(every)
        time.sleep(self.settle_s * self.chance.uniform(0.5, 3))
        self._deliver(every)
      case Way.TOGETHER:
        self.chance.shuffle(every)
        self._deliver(every)
      case _:
        self._deliver(every)

  def _deliver(self, every, stall_at: int | None = None) -> None:
    """Until each instance is acknowledged and the last association released."""
    left = list(every)
    while True:
      try:
        with self._association() as association:
          while left:
            if stall_at is not None and len(every) - len(left) == stall_at:
              stall_at = None
              time.sleep(self.settle_s * 1.6)
            self._store(association, left[0])
            left.pop(0)
        return
      except _LostError:
        self.retries += 1
        # Some senders go on where they were cut off, some begin anew.
        left = left or every[-1:]
        if self.chance.random() < 0.5:
          left = list(every)
        time.sleep(_RETRY_S)

  def _break_off(self, every) -> None:
    """Aborts between two instances, before the last one."""
    for _ in range(1000):
      try:
        with self._association() as association:
          for one in every[: self.chance.randrange(1, len(every))]:
            self._store(association, one)
          association.abort()
      except _LostError:
        if not self.ledger.of(every[0][0]):
          time.sleep(_RETRY_S)
          continue  # Nothing came through: that would be no interrupted study.
      return

  def _store(self, association, one) -> None:
    study_uid, uid, path = one
    try:
      answer = association.send_c_store(pydicom.dcmread(path))
    except RuntimeError:  # It ended between two instances.
      raise _LostError from None
    if 'Status' not in answer:
      raise _LostError
    if answer.Status != 0x0000:
      self.refused.append((uid, answer.Status, answer.get('ErrorComment', '')))
      raise _LostError
    self.ledger.add(study_uid, uid)

  @contextlib.contextmanager
  def _association(self) -> Iterator[pynetdicom.association.Association]:
    entity = requesting.AE(self.name)
    entity.acse_timeout = entity.network_timeout = _ANSWER_S
    entity.dimse_timeout = _ANSWER_S
    entity.add_requested_context(
      sop_class.CTImageStorage, pydicom.uid.ExplicitVRLittleEndian
    )
    association = entity.associate(self.host, self.port, ae_title=self.title)
    if not association.is_established:
      raise _LostError
    try:
      yield association
    except BaseException:
      if association.is_established:
        association.abort()
      raise
    if association.is_aborted:
      return
    if association.is_established:
      association.release()
    if not association.is_released:
      raise _LostError


def _shuffled(paths: Mapping[str, pathlib.Path], chance: random.Random):
  """Most senders send in order; some do not."""
  items = list(paths.items())
  if chance.random() < 0.3:
    chance.shuffle(items)
  return items


def jobs_of(studies: Sequence[Study]) -> list[tuple[Study, ...]]:
  """What a sender is given at a time: one study, or two of Way.TOGETHER."""
  together = [study for study in studies if study.way is Way.TOGETHER]
  pairs = list(zip(together[::2], together[1::2], strict=False))
  jobs = [(study,) for study in studies if study.way is not Way.TOGETHER]
  step = max(1, len(jobs) // (len(pairs) + 1))
  for index, pair in enumerate(pairs):
    jobs.insert((index + 1) * step, pair)
  if len(together) % 2:
    jobs.append((together[-1],))
  return jobs


def start_senders(
  make: Callable[[int], Sender], count: int, studies: Sequence[Study]
) -> tuple[list[Sender], list[threading.Thread]]:
  """Starts `count` senders that share the studies; they end when all are sent."""
  # A sender whose own code fails ends with a traceback: its studies count as lost.
  jobs: queue.SimpleQueue[tuple[Study, ...]] = queue.SimpleQueue()
  for job in jobs_of(studies):
    jobs.put(job)
  senders = [make(number) for number in range(count)]

  def work(sender: Sender) -> None:
    with contextlib.suppress(queue.Empty):
      while True:
        sender.send(jobs.get_nowait())

  threads = [
    threading.Thread(target=work, args=(sender,), daemon=True) for sender in senders
  ]
  for thread in threads:
    thread.start()
  return senders, threads


def be_silent() -> None:
  """pynetdicom logs every association that a killed node leaves behind."""
  logging.getLogger('pynetdicom').setLevel(logging.CRITICAL + 1)


class Destination:
  """A Storage SCP that counts what arrives, and answers what it has (C-FIND).

  Attributes:
    requests: SOP Instance UID to the number of C-STORE requests that it answered.
    kept: SOP Instance UID to (study, series, SOP class) UIDs.
    port: of loopback.
  """

  TITLE = 'DESTINATION'

  def __init__(self):
    self.requests: collections.Counter[str] = collections.Counter()
    self.kept: dict[str, tuple[str, str, str]] = {}
    self.port = 0
    self._lock = threading.Lock()

  @property
  def address(self) -> str:
    """As `--to` takes it."""
    return f'{self.TITLE}@127.0.0.1:{self.port}'

  @contextlib.contextmanager
  def running(self) -> Iterator['Destination']:
    """Listens until the block ends."""
    entity = pynetdicom.AE(self.TITLE)
    # Few: pynetdicom copies them for each association, which all would take a second.
    for kind in _OBJECTS:
      entity.add_supported_context(kind, _SYNTAXES)
    entity.add_supported_context(sop_class.Verification)
    entity.add_supported_context(sop_class.StudyRootQueryRetrieveInformationModelFind)
    handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)]
    server = entity.start_server(('127.0.0.1', 0), block=False, evt_handlers=handlers)
    self.port = server.socket.getsockname()[1]
    try:
      yield self
    finally:
      server.shutdown()

  def reports_of(self, study_uid: str) -> int:
    """Structured reports of a study."""
    with self._lock:
      return sum(
        study == study_uid and kind == sop_class.EnhancedSRStorage
        for study, _, kind in self.kept.values()
      )

  def studies(self) -> frozenset[str]:
    """Study Instance UIDs of which there is a structured report."""
    with self._lock:
      return frozenset(
        study
        for study, _, kind in self.kept.values()
        if kind == sop_class.EnhancedSRStorage
      )

  def _store(self, event) -> int:
    dataset = event.dataset
    uid = str(dataset.SOPInstanceUID)
    with self._lock:
      self.requests[uid] += 1
      self.kept[uid] = (
        str(dataset.StudyInstanceUID),
        str(dataset.SeriesInstanceUID),
        str(dataset.SOPClassUID),
      )
    return 0x0000

  def _find(self, event):
    query = event.identifier
    with self._lock:
      kept = list(self.kept.items())
    for uid, (study, series, kind) in kept:
      if study != query.StudyInstanceUID:
        continue
      if query.get('SeriesInstanceUID', '') not in ('', series):
        continue
      values = {
        'StudyInstanceUID': study,
        'SeriesInstanceUID': series,
        'SOPInstanceUID': uid,
        'SOPClassUID': kind,
        'QueryRetrieveLevel': query.QueryRetrieveLevel,
      }
      answer = pydicom.Dataset()
      for element in query:
        setattr(answer, element.keyword, values.get(element.keyword, ''))
      yield 0xFF00, answer
