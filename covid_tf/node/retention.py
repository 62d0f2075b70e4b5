"""What a node keeps, and for how long: images a while, results as long as it is told.

Only what is done is removed: images of a study whose present images are scored (or
refused) and whose objects the destination has. What an association has open, what is
not scored because it is interrupted, and what failed stays until a person decides.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import datetime
import json
import logging
import os
import pathlib
import shutil
import time

from covid_tf import errors
from covid_tf.batch import listing
from covid_tf.batch import records
from covid_tf.node import sent as sent_lib
from covid_tf.node import spool as spool_lib
from covid_tf.storage import files

_log = logging.getLogger(__name__)

_DAY_S = 86_400.0
# Of each study whose images were removed: how many there were.
_FOLDER = 'removed'
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Keep:
  """How long things are kept after they are done, in days.

  Attributes:
    studies_days: images of a study that is scored and sent. Ours: a week, in which a
      late image still completes the study and a person still asks for the images.
    refused_days: images of a study without a score, of one of whose objects the
      destination rejected, of one that was sent again and interrupted, and what holds
      no CT. Ours: a month, for who looks into it.
    results_days: results; None: for ever.
  """

  studies_days: float = 7.0
  refused_days: float = 30.0
  results_days: float | None = None

  def __post_init__(self) -> None:
    for name in ('studies_days', 'refused_days', 'results_days'):
      days = getattr(self, name)
      if days is not None and not 0 <= days <= 36_500:
        raise errors.UsageError(
          f'--keep-{name.removesuffix("_days")}: days from 0 to 36500 are required, '
          f'found {days:g}.'
        )


@dataclasses.dataclass(frozen=True)
class Swept:
  """What was removed.

  Attributes:
    study_uids: studies whose images went.
    keys: results that went.
  """

  study_uids: tuple[str, ...] = ()
  keys: tuple[str, ...] = ()


# The study of some images, as the batch engine lists it; None where there is no CT.
ListStudy = Callable[[spool_lib.Kept], listing.Study | None]


def sweep(
  output: str | os.PathLike[str],
  spool: spool_lib.Spool,
  keep: Keep,
  list_study: ListStudy,
  *,
  sends: bool,
  now_s: float | None = None,
) -> Swept:
  """Removes what is done and has been kept for long enough.

  Args:
    output: the folder of the results.
    spool: the images.
    keep: how long.
    list_study: tells the present fingerprint of a study.
    sends: whether objects go to a destination: then what is not sent is not done.
    now_s: seconds since 1970; None: of this machine's clock.

  Returns:
    What was removed. What could not be is said in the log, and tried the next time.
  """
  sweeping = _Sweep(
    pathlib.Path(output), spool, keep, sends, time.time() if now_s is None else now_s
  )
  return Swept(
    tuple(sweeping.studies(list_study)),
    () if keep.results_days is None else tuple(sweeping.results(keep.results_days)),
  )


def lacking(output: str | os.PathLike[str], kept: spool_lib.Kept) -> Mapping[str, str]:
  """What a study lacks because its images were removed after an earlier result.

  A late image of such a study comes alone: to score it alone would put a worse result
  in the place of the good one.

  Args:
    output: the folder of the results.
    kept: what has come since.

  Returns:
    Series UID to what is lacking, in words; empty for all other studies.
  """
  return {
    series_uid: (
      f'{count} images were scored and removed since, {kept.counts.get(series_uid, 0)} '
      'have come again: send the whole study again'
    )
    for series_uid, count in _counts(pathlib.Path(output), kept.study_uid).items()
    if kept.counts.get(series_uid, 0) < count
  }


class _Sweep:
  """One round over all that is kept."""

  def __init__(
    self,
    output: pathlib.Path,
    spool: spool_lib.Spool,
    keep: Keep,
    sends: bool,
    now_s: float,
  ):
    self._output = output
    self._results = records.studies_folder(output)
    self._spool = spool
    self._keep = keep
    self._sends = sends
    self._now_s = now_s

  def studies(self, list_study: ListStudy) -> Iterator[str]:
    """Removes images; yields Study Instance UIDs."""
    for kept in self._spool.studies():
      if kept.open_associations:
        continue
      record = records.read_record(self._results / kept.study_uid)
      end = self._end_of(record, kept) if record else self._end_without_ct(kept)
      if end is None or self._now_s < end:
        continue
      study = list_study(kept)
      present = '' if study is None else study.fingerprint
      if present != (record.fingerprint if record else ''):
        continue  # What has come since is not scored yet.
      with _said(kept.study_uid):
        if study is not None:
          _remember(self._output, kept, study.series_uids)
        # Unless an image has come meanwhile.
        self._spool.remove(kept.study_uid, kept.generation)
        _log.info('study %s: its images are removed', kept.study_uid)
        yield kept.study_uid

  def _end_of(self, record: records.Record, kept: spool_lib.Kept) -> float | None:
    """When the images of a study may go; None where it is not done."""
    if record.status == records.REFUSED:
      return _seconds(record.finished) + self._keep.refused_days * _DAY_S
    if record.status != records.SCORED:
      return None
    days = self._keep.refused_days if kept.interrupted else self._keep.studies_days
    if not self._sends:
      return _seconds(record.finished) + days * _DAY_S
    known = sent_lib.read(self._output, record)
    if known.ended != sent_lib.identity(record):
      return None
    last_s = max(map(_seconds, [record.finished, *_times(known)]))
    if known.rejected_of(known.ended):
      days = self._keep.refused_days
    return last_s + days * _DAY_S

  def _end_without_ct(self, kept: spool_lib.Kept) -> float | None:
    """The same of what may hold nothing to score."""
    if kept.interrupted:
      return None
    try:
      folders = [kept.folder, *(kept.folder / series for series in kept.counts)]
      last_s = max(folder.stat().st_mtime for folder in folders)
    except OSError:
      return None
    return last_s + self._keep.refused_days * _DAY_S

  def results(self, days: float) -> Iterator[str]:
    """Removes results; yields their keys."""
    for record in records.read_records(self._output):
      if record.status == records.FAILED or self._spool.study(record.study_uid):
        continue  # Without its result, a study that is here would be scored again.
      known = sent_lib.read(self._output, record)
      is_open = known.ended != sent_lib.identity(record)
      to_send = self._sends and record.status == records.SCORED
      if to_send and (is_open or known.rejected_of(known.ended)):
        continue
      last_s = max(map(_seconds, [record.finished, *_times(known)]))
      if self._now_s < last_s + days * _DAY_S:
        continue
      with _said(record.key):
        self._remove_result(record)
        _log.info('study %s: its result is removed', record.key)
        yield record.key

  def _remove_result(self, record: records.Record) -> None:
    """Renamed first: half a result is never found, and the next start removes it."""
    gone = files.temporary_name(self._results / record.key)
    os.rename(self._results / record.key, gone)
    for folder, name in ((sent_lib.FOLDER, record.key), (_FOLDER, record.study_uid)):
      self._output.joinpath(folder, f'{name}.json').unlink(missing_ok=True)
    shutil.rmtree(gone)


@contextlib.contextmanager
def _said(name: str) -> Iterator[None]:
  """What cannot be removed is said, and the next thing is looked at."""
  try:
    yield
  except (OSError, errors.CovidTFError) as error:
    reason = error.strerror if isinstance(error, OSError) else error
    _log.warning('study %s: not removed: %s', name, reason)


def _remember(
  output: pathlib.Path, kept: spool_lib.Kept, series_uids: tuple[str, ...]
) -> None:
  files.write_json(
    output / _FOLDER / f'{kept.study_uid}.json',
    {
      'format': _FORMAT,
      'study_uid': kept.study_uid,
      'images': {uid: kept.counts.get(uid, 0) for uid in series_uids},
    },
  )


def _counts(output: pathlib.Path, study_uid: str) -> dict[str, int]:
  """CT series to how many images of it were removed."""
  if not records.studies_folder(output).joinpath(study_uid).is_dir():
    return {}  # Nothing better than what comes now.
  try:
    content = json.loads((output / _FOLDER / f'{study_uid}.json').read_bytes())
    if content['format'] != _FORMAT:
      return {}
    return {str(uid): int(count) for uid, count in content['images'].items()}
  except (OSError, ValueError, TypeError, KeyError, AttributeError):
    return {}


def _times(known: sent_lib.Sent) -> list[str]:
  return [each.time for each in known.answers.values()]


def _seconds(time_: str) -> float:
  """Seconds since 1970 of a time in UTC; of the far future where it is none."""
  try:
    moment = datetime.datetime.strptime(time_, '%Y-%m-%dT%H:%M:%SZ')
  except ValueError:
    return float('inf')
  return moment.replace(tzinfo=datetime.UTC).timestamp()
