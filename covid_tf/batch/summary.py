"""What is said when an archive's run ends."""

from collections.abc import Mapping

from covid_tf.batch import progress as progress_lib
from covid_tf.batch import run
from covid_tf.batch import studies


def lines(outcome: run.Outcome, archive: studies.Archive) -> list[str]:
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
    result += map(_reason, sorted(
        progress.reasons.values(), key=lambda reason: -reason.count))
  if archive.problems or archive.notes:
    result.append('Not looked into:')
    result += [f'  {line}' for line in (*archive.problems, *archive.notes)]
  return result


def _counts(counts: Mapping[str, int]) -> str:
  return ', '.join(f'{count} {status}' for status, count in sorted(counts.items()))


def _reason(reason: progress_lib.Reason) -> str:
  more = ', …' if reason.count > len(reason.keys) else ''
  return f'  {reason.count} x {reason.example} [{", ".join(reason.keys)}{more}]'
