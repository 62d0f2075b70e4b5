"""Whether the scores of many results may be compared."""

from collections.abc import Sequence

from covid_tf import errors
from covid_tf.cohort import load_results


def require_comparable(results: Sequence[load_results.StudyResult]) -> None:
  """Refuses results whose scores do not compare.

  Raises:
    errors.UsageError: several schema versions, models or thresholds; says which.
  """
  for kind, key, in_words in (
      ('schema versions', lambda result: repr(result.schema_version),
       lambda result: str(result.schema_version)),
      ('models', lambda result: repr(sorted(result.models.items())), _models_in_words),
      ('slice and map thresholds', lambda result: repr(sorted(result.cuts.items())),
       _cuts_in_words)):
    groups = {}
    for result in results:
      groups.setdefault(key(result), []).append(result)
    if len(groups) > 1:
      found = '; '.join(
          f'{in_words(members[0])} in {len(members)} ({members[0].path}, …)'
          for members in groups.values())
      raise errors.UsageError(
          f'results of one kind are required, found {len(groups)} {kind}: {found}. '
          'Their scores do not compare: score all studies alike, or pass '
          '--allow-mixed.')


def _models_in_words(result: load_results.StudyResult) -> str:
  return ', '.join(
      f'{name} version {version or "unknown"} (card {digest[:12] or "unknown"})'
      for name, (version, digest) in sorted(result.models.items())) or 'none named'


def _cuts_in_words(result: load_results.StudyResult) -> str:
  return ', '.join(
      f'{name} {value}' for name, value in sorted(result.cuts.items())) or 'none named'
