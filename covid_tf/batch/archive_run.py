"""An archive from its listing to its summary; may be killed and started again."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import dataclasses
import logging
import os
import pathlib
import threading

from covid_tf import errors
from covid_tf.batch import listing
from covid_tf.batch import progress as progress_lib
from covid_tf.batch import records
from covid_tf.batch import run_configuration
from covid_tf.batch import scoring
from covid_tf.storage import files

_log = logging.getLogger(__name__)

# What an earlier run left: which studies are done, and which may not be touched.


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is to be done.

  Attributes:
    open: studies to score.
    already: status to number of studies that need nothing.
  """

  open: tuple[listing.Study, ...]
  already: Mapping[str, int]


def plan_run(
  found: Iterable[listing.Study],
  stored: Mapping[str, records.Record],
  configuration: run_configuration.Configuration,
  output: str | os.PathLike,
  *,
  redo: bool,
) -> Plan:
  """Sets aside what is done.

  A refusal stands as long as files and configuration are the same; a failure is
  tried again.

  Args:
    found: the studies of the archive.
    stored: key to record, of an earlier run.
    configuration: of this run.
    output: the folder of the results.
    redo: score again what was scored otherwise, instead of refusing to.

  Raises:
    errors.UsageError: scores of another configuration, or of other files, are
      in the way.
  """
  digest = configuration.digest
  already: collections.Counter[str] = collections.Counter()
  still_open, foreign, changed = [], [], 0
  for study in found:
    record = stored.get(study.key)
    if record is None or record.status == records.FAILED:
      still_open.append(study)
      continue
    same_files = record.fingerprint == study.fingerprint
    if record.configuration == digest and same_files:
      already[record.status] += 1
      continue
    still_open.append(study)
    if record.status == records.SCORED:
      changed += not same_files
      if record.configuration != digest:
        foreign.append(record.configuration)
  if foreign and not redo:
    difference = configuration.difference(output, foreign[0])
    raise errors.UsageError(
      f'--output {output}: results of one configuration are required, found '
      f'{len(foreign)} of another ({difference}); give --redo to score them again, '
      'or another --output.'
    )
  if changed and not redo:
    raise errors.UsageError(
      f'--output {output}: {changed} scored studies have other files now; give '
      '--redo to score them again, or another --output.'
    )
  return Plan(tuple(still_open), dict(already))


# An archive from its listing to its summary; may be killed and started again.

# Model failures one after the other: then it is not the studies.
_MOST_FAILURES_IN_A_ROW = 20
# Workers of this machine end with their parent; others may still be writing.
_LEFTOVER_AGE_ON_CLUSTER_S = 24 * 3600.0

# (function, studies) to (study, value or Lost), in any order.
MapStudies = Callable[[Callable, Iterator], Iterator[tuple]]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a run did.

  Attributes:
    progress: counts, reasons and slowest studies of this run.
    already: status to number of studies that an earlier run had ended.
    total: studies of the archive.
    stopped: why it ended early; None if it did not, or somebody asked for it.
  """

  progress: progress_lib.Progress
  already: Mapping[str, int]
  total: int
  stopped: errors.CovidTFError | None = None

  def count(self, status: str) -> int:
    """Studies of a status, of this run and earlier ones."""
    return self.progress.counts[status] + self.already.get(status, 0)


@contextlib.contextmanager
def exclusive(
  output: str | os.PathLike, command: str = 'covid-tf batch'
) -> Iterator[pathlib.Path]:
  """Makes the output folder and keeps a second run out of it.

  Args:
    output: the folder.
    command: what runs, for messages.

  Yields:
    The folder.

  Raises:
    errors.OutputError: it cannot be written.
    errors.UsageError: another run is at work there.
  """
  output = pathlib.Path(output)
  folder, lock_path = records.studies_folder(output), output / '.lock'
  with files.explained(output, folder / 'any'), files.explained(output, lock_path):
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(lock_path, 'ab')
  with lock:
    try:
      files.lock(lock, command, wait=False)
    except BlockingIOError:
      raise errors.UsageError(
        f'--output {output}: another covid-tf batch or node is at work there; wait for '
        'it, or give another --output.'
      ) from None
    yield output


def run(
  archive: listing.Archive,
  scorer: scoring.Scorer,
  map_studies: MapStudies,
  stop: threading.Event,
  *,
  redo: bool = False,
  on_cluster: bool = False,
) -> Outcome:
  """Scores what is not scored yet; call it inside `exclusive(scorer.output)`.

  Args:
    archive: the studies.
    scorer: what workers apply to each.
    map_studies: runs them; stops handing out once `stop` is set.
    stop: set here when going on makes no sense, and by whoever wants an end.
    redo: score again what another configuration scored.
    on_cluster: workers may outlive this process.

  Returns:
    What was done; every study that ended is on disk and in the manifest.

  Raises:
    errors.UsageError: results of another configuration are in the way.
    errors.OutputError: the manifest cannot be written.
    errors.ClusterError: the workers are gone.
  """
  output = scorer.output
  scoring.remove_leftovers(output, _LEFTOVER_AGE_ON_CLUSTER_S if on_cluster else 0)
  stored = {record.key: record for record in records.read_records(output)}
  plan = plan_run(archive.studies, stored, scorer.configuration, output, redo=redo)
  records.start_manifest(output, stored, {study.key for study in plan.open})
  scorer.configuration.save(output)
  guard = _Guard(stop)
  not_reached = {study.key for study in plan.open}
  with (
    records.Appender(output) as rows,
    progress_lib.Progress(len(plan.open)) as progress,
  ):
    try:
      for study, value in map_studies(scorer, iter(plan.open)):
        record = recorded(scorer, study, value)
        guard.see(record)
        if record.status != records.UNWRITTEN:
          not_reached.discard(study.key)
          rows.append(record)
          progress.add(record)
          _log.info(
            '%s: %s in %.1f s%s',
            record.key,
            record.status,
            record.seconds,
            f': {record.reason}' if record.reason else '',
          )
    finally:
      for key in sorted(not_reached & stored.keys()):
        rows.append(stored[key])  # What an earlier run left is still there.
  return Outcome(progress, plan.already, len(archive.studies), guard.error)


def recorded(
  scorer: scoring.Scorer, study: listing.Study, value: records.Record | records.Lost
) -> records.Record:
  """The record of a study that an engine gives back; a lost one is a failure."""
  if not isinstance(value, records.Lost):
    return value
  return scoring.store(
    scorer.output,
    scoring.end_record(
      study, records.FAILED, value.reason, scorer.configuration.digest, 0.0
    ),
  )


class _Guard:
  """Stops a run that can only fail.

  Attributes:
    error: why it was stopped; None if it was not.
  """

  def __init__(self, stop: threading.Event):
    self._stop = stop
    self._failures: collections.deque[bool] = collections.deque(
      maxlen=_MOST_FAILURES_IN_A_ROW
    )
    self.error: errors.CovidTFError | None = None

  def see(self, record: records.Record) -> None:
    """Looks at what became of a study."""
    self._failures.append(record.status == records.FAILED)
    if record.status == records.UNWRITTEN:
      self._end(errors.OutputError(record.reason))
    elif sum(self._failures) == _MOST_FAILURES_IN_A_ROW:
      self._end(
        errors.ModelError(
          f'{_MOST_FAILURES_IN_A_ROW} studies failed one after the other, the last '
          f'with: {record.reason}'
        )
      )

  def _end(self, error: errors.CovidTFError) -> None:
    self.error = self.error or error
    self._stop.set()


def summary_lines(outcome: Outcome, archive: listing.Archive) -> list[str]:
  """The end of a run in words, for a person.

  Args:
    outcome: what the run did.
    archive: what it was given.

  Returns:
    Counts, the slowest studies, refusals by reason, what was not looked into.
  """
  progress = outcome.progress
  counts = _counts(progress.counts) or 'nothing to do'
  result = [f'This run: {counts}; {progress.studies_per_hour:.0f} studies an hour.']
  if outcome.already:
    result.append(f'Earlier runs: {_counts(outcome.already)}.')
  if left := outcome.total - progress.done - sum(outcome.already.values()):
    result.append(f'Not reached: {left}.')
  if progress.slowest:
    result.append('Slowest studies:')
    result += [f'  {seconds:8.1f} s  {key}' for seconds, key in progress.slowest]
  if progress.reasons:
    result.append('Without a score, by reason (all of them are in the manifest):')
    result += map(
      _reason, sorted(progress.reasons.values(), key=lambda reason: -reason.count)
    )
  if archive.problems or archive.notes:
    result.append('Not looked into:')
    result += [f'  {line}' for line in (*archive.problems, *archive.notes)]
  return result


def _counts(counts: Mapping[str, int]) -> str:
  return ', '.join(f'{count} {status}' for status, count in sorted(counts.items()))


def _reason(reason: progress_lib.Reason) -> str:
  more = ', …' if reason.count > len(reason.keys) else ''
  return f'  {reason.count} x {reason.example} [{", ".join(reason.keys)}{more}]'
