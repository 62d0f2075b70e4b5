"""What an earlier run left: which studies are done, and which may not be touched."""

import collections
from collections.abc import Iterable, Mapping
import dataclasses
import os

from covid_tf import errors
from covid_tf.batch import configuration as configuration_lib
from covid_tf.batch import records
from covid_tf.batch import studies


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is to be done.

  Attributes:
    open: studies to score.
    already: status to number of studies that need nothing.
  """

  open: tuple[studies.Study, ...]
  already: Mapping[str, int]


def plan(
    found: Iterable[studies.Study], stored: Mapping[str, records.Record],
    configuration: configuration_lib.Configuration, output: str | os.PathLike, *,
    redo: bool) -> Plan:
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
  still_open, already, foreign, changed = [], collections.Counter(), [], 0
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
        'or another --output.')
  if changed and not redo:
    raise errors.UsageError(
        f'--output {output}: {changed} scored studies have other files now; give '
        '--redo to score them again, or another --output.')
  return Plan(tuple(still_open), dict(already))
