"""Which of the studies that are kept is scored next, and what became of the others.

Nothing here is remembered between two starts: what is kept in the spool and what stands
in the records of the results say what is done. A study is scored again only where its
images differ from those of its record.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import threading
import time
from typing import Any

from covid_tf.batch import archive
from covid_tf.batch import engines
from covid_tf.batch import listing
from covid_tf.batch import records
from covid_tf.node import completeness
from covid_tf.node import forwarding
from covid_tf.node import retention
from covid_tf.node import source_pacs
from covid_tf.node import spool as spool_lib

_log = logging.getLogger(__name__)

ACCEPTED = 'accepted'  # Of OUTPUT: an empty file for each study that a person accepts.
_PAUSES = forwarding.Pauses(30.0, 900.0)
# Of one look: after a start, headers of all that is kept are read, some each time.
_LONGEST_LOOK_S = 2.0
# A study that fails as often as this is no sign of models that are away.
_MOST_FAILURES_OF_MODELS = 5

# What becomes of a study until it needs nothing more.
_WAITING = completeness.State.WAITING.value
_INCOMPLETE = completeness.State.INCOMPLETE.value
_QUEUED = 'queued'  # Whole, and with the engine.
_FAILED = 'failed'  # To be tried again.
_NO_MODELS = 'no models have answered yet'


@dataclasses.dataclass
class _Case:
  """What is known of one study.

  Attributes:
    done: generation that needs nothing more; None: none does.
    is_new: whether it was not compared with its record yet.
    listed: (generation, study) as the engine takes it; None: not looked at yet, or
      done.
    state, reason: what it waits for.
    failures: in a row.
    due_s: when it may be tried again.
    is_accepted: a person says that all has come.
  """

  done: int | None = None
  is_new: bool = True
  listed: tuple[int, listing.Study | None] | None = None
  state: str = _WAITING
  reason: str = ''
  failures: int = 0
  due_s: float = 0.0
  is_accepted: bool = False


class Studies:
  """All studies of a spool on their way to a result; safe for threads."""

  def __init__(
    self,
    output: str | os.PathLike[str],
    spool: spool_lib.Spool,
    rules: completeness.Rules,
    *,
    source: source_pacs.Source | None = None,
    redo: bool = False,
    pauses: forwarding.Pauses = _PAUSES,
  ):
    """Looks at nothing yet.

    Args:
      output: the folder of the results.
      spool: what is kept.
      rules: when a study is whole.
      source: the PACS that sends; None: nobody is asked.
      redo: whether a score of another configuration is made anew.
      pauses: after failures.
    """
    self.feed: engines.Feed[listing.Study] = engines.Feed()
    self._output = pathlib.Path(output)
    self._spool = spool
    self._rules = rules
    self._source = source
    self._redo = redo
    self._pauses = pauses
    self._lock = threading.Lock()
    self._cases: dict[str, _Case] = {}

  @property
  def backlog(self) -> int:
    """Studies that wait for the models: what no sender can do anything about."""
    with self._lock:
      return sum(
        case.state == _QUEUED
        or (case.done is None and case.reason == _NO_MODELS)
        or case.state == _FAILED
        and case.failures < _MOST_FAILURES_OF_MODELS
        for case in self._cases.values()
      )

  @property
  def waiting(self) -> int:
    """Studies without a result that are not incomplete."""
    return sum(map(self._count, (_WAITING, _QUEUED, _FAILED)))

  @property
  def incomplete(self) -> int:
    """Studies that lack images."""
    return self._count(_INCOMPLETE)

  def _count(self, state: str) -> int:
    with self._lock:
      return sum(
        case.done is None and case.state == state for case in self._cases.values()
      )

  def told(self) -> dict[str, dict[str, str]]:
    """State to UID to reason, of all studies that are not done."""
    found: dict[str, dict[str, str]] = {
      state: {} for state in (_WAITING, _INCOMPLETE, _QUEUED, _FAILED)
    }
    with self._lock:
      for uid, case in sorted(self._cases.items()):
        if case.done is None:
          found[case.state][uid] = case.reason
    return found

  def look(self, configuration: str) -> None:
    """Decides about every study that is kept; what is whole goes to the feed.

    Args:
      configuration: digest of the one that studies are scored with; '' where no
        models have answered yet: nothing goes to the feed then.
    """
    kept_studies = self._spool.studies()
    self._take_accepted({kept.study_uid for kept in kept_studies})
    with self._lock:
      # What retention has removed is forgotten, unless a worker has it.
      self._cases = {
        kept.study_uid: self._cases.get(kept.study_uid, _Case())
        for kept in kept_studies
      } | {uid: case for uid, case in self._cases.items() if case.state == _QUEUED}
    now_s = time.monotonic()
    undecided = [kept for kept in kept_studies if self._is_undecided(kept, now_s)]
    if self._source:
      self._source.want(
        {
          kept.study_uid: kept.generation
          for kept in undecided
          if completeness.is_quiet(kept, now_s, self._rules)
        }
      )
    # What has come last comes first: after a start, that is what is new.
    for kept in sorted(undecided, key=lambda kept: -kept.last_activity_s):
      case = self._cases[kept.study_uid]
      try:
        self._look_at(kept, case, now_s, configuration)
      except Exception as error:  # One study's files; its text may name a patient.
        self._fail(case, f'{type(error).__name__} while its images were listed')
        _log.error('study %s: %s', kept.study_uid, case.reason)
      if time.monotonic() - now_s > _LONGEST_LOOK_S:
        return

  def _is_undecided(self, kept: spool_lib.Kept, now_s: float) -> bool:
    """Whether a study is to be looked at; one that has grown is again."""
    case = self._cases[kept.study_uid]
    if case.done is not None and case.done != kept.generation:
      self._set(case, done=None, state=_WAITING, reason='', failures=0, due_s=0.0)
    return case.done is None and case.state != _QUEUED and now_s >= case.due_s

  def _look_at(
    self, kept: spool_lib.Kept, case: _Case, now_s: float, configuration: str
  ) -> None:
    decision = self._decision(kept, case, now_s)
    is_coming = decision.state is completeness.State.WAITING
    # Of what a former process has scored, at once; of the rest when all may be there.
    is_looked_into = not is_coming or (
      case.is_new and self._record_of(kept) is not None
    )
    self._set(case, is_new=False)
    if is_looked_into and not self._needs_score(kept, case, configuration):
      return
    if decision.state is not completeness.State.WHOLE:
      state = decision.state.value
      if state == _INCOMPLETE and (case.state, case.reason) != (state, decision.reason):
        _log.warning('study %s is incomplete: %s', kept.study_uid, decision.reason)
      self._set(case, state=state, reason=decision.reason)
    elif not configuration:
      self._set(case, state=_WAITING, reason=_NO_MODELS)
    elif case.listed and case.listed[1]:
      _log.info('study %s is whole: %d instances', kept.study_uid, _total(kept))
      if kept.interrupted:  # By what its PACS says, or a person.
        self._spool.accept_as_whole(kept.study_uid)
      with self._lock:
        case.state, case.reason = _QUEUED, ''
        self.feed.put(case.listed[1])

  def _decision(
    self, kept: spool_lib.Kept, case: _Case, now_s: float
  ) -> completeness.Decision:
    lacking = retention.lacking(self._output, kept)
    kept = dataclasses.replace(kept, interrupted={**kept.interrupted, **lacking})
    listed, problem = None, ''
    if self._source:
      listed = self._source.answer(kept.study_uid, kept.generation)
      problem = self._source.problem(kept.study_uid)
    decision = completeness.decide(
      kept, now_s, self._rules, listed, is_accepted=case.is_accepted
    )
    if problem and decision.state is not completeness.State.WHOLE:
      return dataclasses.replace(decision, reason=f'{decision.reason} ({problem})')
    return decision

  def _needs_score(self, kept: spool_lib.Kept, case: _Case, configuration: str) -> bool:
    """Whether the images that are kept have no end yet; `case.listed` is set then."""
    if case.listed is None or case.listed[0] != kept.generation:
      study = self.list_study(kept)
      now = self._spool.study(kept.study_uid)
      if now is None or now.generation != kept.generation:
        return False  # It has grown meanwhile; the next look sees all of it.
      self._set(case, listed=(kept.generation, study))
    study = case.listed and case.listed[1]
    if study is None:
      _log.info('study %s has no CT image: nothing to score', kept.study_uid)
      self._finish(kept.study_uid, case, kept.generation)
      return False
    record = self._record_of(kept)
    if record and self._is_end(record, study, configuration):
      for series, why in kept.interrupted.items():
        _log.warning(
          'study %s: its score stands, but series %s: %s', kept.study_uid, series, why
        )
      self._finish(kept.study_uid, case, kept.generation)
      return False
    return True

  def _record_of(self, kept: spool_lib.Kept) -> records.Record | None:
    return records.read_record(records.studies_folder(self._output) / kept.study_uid)

  def _is_end(
    self, record: records.Record, study: listing.Study, configuration: str
  ) -> bool:
    """Whether a record stands. A refusal stands for its configuration alone."""
    if record.fingerprint != study.fingerprint:
      return False
    is_same = record.configuration == configuration
    if record.status == records.SCORED:
      return is_same or not self._redo
    return record.status == records.REFUSED and is_same

  def list_study(self, kept: spool_lib.Kept) -> listing.Study | None:
    """A kept study as the engine takes it; None where it has no CT image."""
    found = archive.find_studies(kept.folder).studies
    study = next((each for each in found if each.key == kept.study_uid), None)
    if study is None:
      return None
    warnings = study.warnings
    if kept.conflicts:
      warnings += (
        f'{kept.conflicts} instances came again with other content; the first of each '
        'was read',
      )
    # Named one by one: what comes while it is read is no part of this result.
    places = tuple(
      dataclasses.replace(place, names=tuple(map(os.path.basename, place.files())))
      for place in study.places
    )
    return dataclasses.replace(study, places=places, warnings=warnings)

  def ended(self, study: listing.Study, record: records.Record) -> bool:
    """Takes back a study from the engine; whether it is done with these images."""
    with self._lock:
      case = self._cases.get(study.key)
    if case is None or case.listed is None:
      return record.status in (records.SCORED, records.REFUSED)
    if record.status in (records.SCORED, records.REFUSED):
      # Of what was handed over; what has come since is another generation.
      self._finish(study.key, case, case.listed[0])
      return True
    self._fail(case, record.reason)
    return False

  def given_up(self) -> None:
    """Takes back what the engine was given and has not answered for."""
    with self._lock:
      self.feed.clear()
      for case in self._cases.values():
        if case.state == _QUEUED:
          case.state = _WAITING

  def retry_now(self) -> None:
    """What has failed is tried at once: its reason is gone."""
    with self._lock:
      for case in self._cases.values():
        if case.state == _FAILED:
          case.due_s = 0.0

  def _fail(self, case: _Case, reason: str) -> None:
    failures = case.failures + 1
    due_s = time.monotonic() + self._pauses.after(failures)
    self._set(case, state=_FAILED, reason=reason, failures=failures, due_s=due_s)

  def _finish(self, uid: str, case: _Case, generation: int) -> None:
    self._set(
      case,
      done=generation,
      listed=None,
      state=_WAITING,
      reason='',
      failures=0,
      is_accepted=False,
    )
    self._forget_accepted(uid)

  def _forget_accepted(self, uid: str) -> None:
    with contextlib.suppress(OSError):
      self._output.joinpath(ACCEPTED, uid).unlink(missing_ok=True)

  def _set(self, case: _Case, **changes: Any) -> None:
    with self._lock:
      for name, value in changes.items():
        setattr(case, name, value)

  def _take_accepted(self, present: set[str]) -> None:
    """Looks for what a person has accepted as whole since."""
    try:
      named = os.listdir(self._output / ACCEPTED)
    except OSError:
      return
    for uid in present.intersection(named):
      with self._lock:
        case = self._cases.setdefault(uid, _Case())
      if case.done is not None:
        self._spool.accept_as_whole(uid)
        self._forget_accepted(uid)
      elif not case.is_accepted:
        _log.warning('study %s: accepted as whole', uid)
        self._spool.accept_as_whole(uid)
        self._set(case, is_accepted=True)


def _total(kept: spool_lib.Kept) -> int:
  return sum(kept.counts.values())


def accept(output: pathlib.Path, spool_folder: pathlib.Path, study_uid: str) -> bool:
  """Notes that a study counts as whole; whether anything of it is kept.

  A running node sees it within seconds, else the next one does.

  Args:
    output: the folder of the results.
    spool_folder: of the node.
    study_uid: a legal Study Instance UID.
  """
  if not spool_folder.joinpath('studies', study_uid).is_dir():
    return False
  folder = output / ACCEPTED
  folder.mkdir(parents=True, exist_ok=True)
  folder.joinpath(study_uid).touch()
  return True
