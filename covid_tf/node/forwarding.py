"""Sends the objects of each result to their destination: all of them, each once.

One thread, one result at a time. What fails because of the destination's state is tried
again with growing pauses, for ever; what the destination rejects is recorded in words
and left to a person. Killed at any moment, the next start goes on where this one was:
what may have arrived is asked for before it is sent again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import logging
import os
import pathlib
import shutil
import threading
import time

from covid_tf import errors
from covid_tf.batch import records
from covid_tf.clinic import pacs
from covid_tf.clinic import sending
from covid_tf.node import metrics as metrics_lib
from covid_tf.node import sent as sent_lib
from covid_tf.storage.dicom import objects

_log = logging.getLogger(__name__)

# C-STORE statuses (PS3.4 B.2.3, PS3.7 C.5.20) that speak of the destination's state and
# not of the object: out of resources, resource limitation.
_PASSING = frozenset((*range(0xA700, 0xA800), 0x0213))
_STOP_S = 30.0  # For the object that is on its way when an end is asked for.


@dataclasses.dataclass(frozen=True)
class Pauses:
  """How long is waited after a failure.

  Attributes:
    first_s: after the first; doubled after each further one.
    most_s: the longest.
  """

  first_s: float = 5.0
  most_s: float = 300.0

  def after(self, failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(self.first_s * 2.0 ** min(failures - 1, 60), self.most_s)


@dataclasses.dataclass
class _Waiting:
  """A result that is to be sent.

  Attributes:
    due_s: when it may be tried, by the clock.
    failures: so far.
    reason: of the last of them; '' before the first.
  """

  due_s: float
  failures: int = 0
  reason: str = ''


class Forwarder:
  """Sends results on; a context manager, whose thread runs within the block."""

  def __init__(
    self,
    output: str | os.PathLike[str],
    connect: Callable[[], pacs.Archive],
    metrics: metrics_lib.Metrics,
    *,
    retry_rejected: bool = False,
    pauses: Pauses | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Sends nothing yet.

    Args:
      output: the folder of the results, as `batch` leaves them.
      connect: the destination, of one attempt (`pacs.Limits.attempts`): repeated here,
        where it is asked first for what has arrived.
      metrics: counts what is sent.
      retry_rejected: whether what was rejected in earlier runs is sent once more.
      pauses: between attempts.
      clock: seconds that only grow.
    """
    self._output = pathlib.Path(output)
    self._connect = connect
    self._metrics = metrics
    self._retry_rejected = retry_rejected
    self._pauses = pauses or Pauses()
    self._clock = clock
    self._changed = threading.Condition()
    self._waiting: dict[str, _Waiting] = {}
    self._rejected: dict[str, str] = {}
    self._at_work: str | None = None
    self._failures = 0  # In a row, of whichever results: the destination is away.
    self._quiet_until_s = 0.0
    self._is_stopping = False
    self._thread = threading.Thread(target=self._run, name='forwarding', daemon=True)

  def __enter__(self) -> 'Forwarder':
    self.recover()
    self._thread.start()
    return self

  def __exit__(self, *exception: object) -> None:
    with self._changed:
      self._is_stopping = True
      self._changed.notify_all()
    # What is still on its way then may be cut off: the next start asks for it.
    self._thread.join(_STOP_S)

  @property
  def is_alive(self) -> bool:
    """Whether its thread runs."""
    return self._thread.is_alive()

  def waiting(self) -> Mapping[str, str]:
    """Key of each result that is still to be sent to why it is not; '' its turn."""
    with self._changed:
      at_work = {} if self._at_work is None else {self._at_work: ''}
      return at_work | {key: each.reason for key, each in self._waiting.items()}

  def rejected(self) -> Mapping[str, str]:
    """Key of each result of which objects were rejected, to which and why."""
    with self._changed:
      return dict(self._rejected)

  def hand(self, key: str) -> None:
    """Takes a result to be sent; one that is sent already costs nothing."""
    with self._changed:
      self._waiting.setdefault(key, _Waiting(self._clock()))
      self._changed.notify_all()
      self._count()

  def recover(self) -> None:
    """Takes all that is scored and not sent; removes what a kill left half-written."""
    for left in sent_lib.folder(self._output).glob('.*'):
      shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    for record in records.read_records(self._output):
      if record.status != records.SCORED:
        continue
      known = sent_lib.read(self._output, record)
      rejected = known.rejected_of(sent_lib.identity(record))
      if rejected and self._retry_rejected:
        # On the disk, so that it is once more and not once a failure.
        known = known.without(each.sop_instance_uid for each in rejected)
        sent_lib.write(self._output, known)
      if known.ended != sent_lib.identity(record):
        self.hand(record.key)
      elif rejected:
        self._note_rejected(record.key, rejected)

  def step(self) -> float | None:
    """Sends the next result that is due, if any is.

    Returns:
      Seconds until there is something to do; None where nothing waits.
    """
    with self._changed:
      key, left_s = self._next()
      if key is None:
        return left_s
      earlier = self._waiting.pop(key)
      self._at_work = key
    reason = self._tried(key)
    with self._changed:
      self._at_work = None
      if reason is None:
        self._failures = 0
      else:
        due_s = self._clock() + self._pauses.after(earlier.failures + 1)
        self._waiting[key] = _Waiting(due_s, earlier.failures + 1, reason)
      self._count()
      self._changed.notify_all()
      return self._next()[1]

  def drain(self, limit_s: float) -> bool:
    """Waits until nothing is to be sent, or the destination fails; whether all went."""
    with self._changed:
      self._changed.wait_for(
        lambda: self._failures or not (self._waiting or self._at_work), limit_s
      )
      return not (self._waiting or self._at_work)

  def _run(self) -> None:
    while True:
      with self._changed:
        if self._is_stopping:
          return
        left_s = self._next()[1]
        if left_s != 0.0:
          self._changed.wait(left_s)
          continue
      self.step()

  def _next(self) -> tuple[str | None, float | None]:
    """The result whose turn it is, or None; and seconds until there is one."""
    if not self._waiting:
      return None, None
    key = min(self._waiting, key=lambda each: self._waiting[each].due_s)
    due_s = max(self._waiting[key].due_s, self._quiet_until_s)
    left_s = max(due_s - self._clock(), 0.0)
    return (None if left_s else key), left_s

  def _tried(self, key: str) -> str | None:
    """Sends a result; None where it is done, else why it is not."""
    try:
      self._forward(key)
      return None
    except (errors.PACSError, errors.UsageError) as error:  # No other would go either.
      reason = str(error)
      self._failures += 1
      self._quiet_until_s = self._clock() + self._pauses.after(self._failures)
    except (errors.CovidTFError, _ReplacedError) as error:
      reason = str(error)
    except Exception as error:  # Its text may hold anything of a header.
      reason = f'{type(error).__name__} while it was sent'
    self._metrics.send_failed()
    _log.warning('study %s: not sent yet: %s', key, reason)
    return reason

  def _forward(self, key: str) -> None:
    """Sends what is not sent of a result; raises what is in the way."""
    record = records.read_record(records.studies_folder(self._output) / key)
    if record is None or record.status != records.SCORED:
      self._note_rejected(key, ())  # It has gone, or the newer one has no objects.
      return
    known = sent_lib.read(self._output, record)
    if known.ended == sent_lib.identity(record):
      return
    known = _Sending(self._output, record, known, self._connect, self._metrics).run()
    rejected = known.rejected_of(known.ended)
    self._note_rejected(key, rejected)
    for each in rejected:
      _log.error('study %s: %s was rejected: %s', key, each.file_name, each.reason)
    count = sum(each.result == known.ended for each in known.answers.values())
    _log.info('study %s: %d objects are stored', key, count - len(rejected))

  def _note_rejected(self, key: str, rejected: Sequence[sent_lib.Answer]) -> None:
    with self._changed:
      self._rejected.pop(key, None)
      if rejected:
        self._rejected[key] = '; '.join(
          f'{each.file_name}: {each.reason}' for each in rejected
        )
      self._count()

  def _count(self) -> None:
    self._metrics.results_unsent(len(self._waiting) + (self._at_work is not None))
    self._metrics.results_rejected(len(self._rejected))


class _ReplacedError(Exception):
  """A newer result takes the place of the one that was to be sent."""


class _Sending:
  """One attempt at sending one result."""

  def __init__(
    self,
    output: pathlib.Path,
    record: records.Record,
    known: sent_lib.Sent,
    connect: Callable[[], pacs.Archive],
    metrics: metrics_lib.Metrics,
  ):
    self._output = output
    self._record = record
    self._result = sent_lib.identity(record)
    self._known = known
    self._connect = connect
    self._metrics = metrics
    self._put_off = ''  # What the destination said of its own state.

  def run(self) -> sent_lib.Sent:
    """Sends what has no final answer; returns what is known then.

    Raises:
      errors.CovidTFError: not everything was answered; what was is recorded.
      _ReplacedError: a newer result is there.
    """
    held = sent_lib.folder(self._output) / f'.{self._record.key}'
    try:
      instances = self._hold(held)
      self._send([each for each in instances if self._is_open(each)])
    finally:
      shutil.rmtree(held, ignore_errors=True)
    # An object that two results share belongs to the newer one.
    self._known = dataclasses.replace(
      self._known.belonging(self._result, instances), ended=self._result
    )
    sent_lib.write(self._output, self._known)
    return self._known

  def _hold(self, held: pathlib.Path) -> tuple[pacs.Instance, ...]:
    """The objects of the result, which stay while it is replaced by another.

    A late image makes a new result under the same name, also while this one is sent:
    links keep its files, so that what is answered is what was read.
    """
    result = records.studies_folder(self._output) / self._record.key
    shutil.rmtree(held, ignore_errors=True)
    held.mkdir(parents=True)
    try:
      for path in sorted(result.joinpath(objects.FOLDER).glob('*.dcm')):
        _link(path, held / path.name)
    except FileNotFoundError:
      raise _ReplacedError('a newer result is taking its place') from None
    if records.read_record(result) != self._record:
      raise _ReplacedError('a newer result took its place')
    if not any(held.iterdir()):
      _log.warning('study %s: it has no DICOM objects to send', self._record.key)
      return ()
    return tuple(
      dataclasses.replace(each, name=each.path.name)
      for each in sending.read_instances(held)
    )

  def _is_open(self, instance: pacs.Instance) -> bool:
    answer = self._known.answers.get(instance.sop_instance_uid)
    return answer is None or not answer.state.is_final

  def _send(self, instances: Sequence[pacs.Instance]) -> None:
    """Sends what is open; every answer is on the disk before the next object goes."""
    if not instances:
      return
    archive = self._connect()
    if left := self._without_those_there(archive, instances):
      self._note(self._answer(archive, each, sent_lib.State.BEGUN) for each in left)
      sending.send(left, archive, lambda answer: self._take(archive, answer))
    if self._put_off:
      raise errors.PACSError(f'{archive.name}: {self._put_off}')

  def _without_those_there(
    self, archive: pacs.Archive, instances: Sequence[pacs.Instance]
  ) -> list[pacs.Instance]:
    """What is to be sent: not what an earlier attempt has brought without an answer."""
    if not (
      self._known.is_damaged
      or any(each.sop_instance_uid in self._known.answers for each in instances)
    ):
      return list(instances)  # The first attempt.
    try:
      listed = archive.find(instances[0].study_uid)
    except errors.PACSError as error:
      if isinstance(error.__cause__, pacs.TransientError):
        raise  # Away: nothing could be sent either.
      _log.warning('study %s: sent without asking first: %s', self._record.key, error)
      return list(instances)
    there = {each.sop_instance_uid for each in listed}
    arrived = [each for each in instances if each.sop_instance_uid in there]
    if arrived:
      reason = 'it was there when asked; its answer was lost'
      self._note(
        self._answer(archive, each, sent_lib.State.STORED, reason=reason)
        for each in arrived
      )
      self._metrics.sent(len(arrived))
    return [each for each in instances if each.sop_instance_uid not in there]

  def _take(self, archive: pacs.Archive, answer: pacs.StoreAnswer) -> None:
    """Records what the destination answered about one object."""
    instance, reason = answer.instance, answer.reason
    if answer.outcome is pacs.Outcome.FAILED and answer.status in _PASSING:
      self._put_off = f'{reason} (0x{answer.status:04X})'
      self._known = self._known.without((instance.sop_instance_uid,))
      sent_lib.write(self._output, self._known)
      return
    state = {
      pacs.Outcome.STORED: sent_lib.State.STORED,
      pacs.Outcome.WARNING: sent_lib.State.WARNING,
      pacs.Outcome.FAILED: sent_lib.State.REJECTED,
    }[answer.outcome]
    self._note([self._answer(archive, instance, state, answer.status, reason)])
    if state is sent_lib.State.REJECTED:
      self._metrics.rejected(1)
    else:
      self._metrics.sent(1)

  def _note(self, answers: Iterable[sent_lib.Answer]) -> None:
    self._known = self._known.having(answers)
    sent_lib.write(self._output, self._known)

  def _answer(
    self,
    archive: pacs.Archive,
    instance: pacs.Instance,
    state: sent_lib.State,
    status: int | None = None,
    reason: str = '',
  ) -> sent_lib.Answer:
    return sent_lib.Answer(
      instance.sop_instance_uid,
      instance.name,
      self._result,
      state,
      status,
      reason,
      archive.name,
    )


def _link(path: pathlib.Path, name: pathlib.Path) -> None:
  """A second name for a file; a copy where the file system has no links."""
  try:
    os.link(path, name)
  except FileNotFoundError:
    raise
  except OSError:
    shutil.copyfile(path, name)
