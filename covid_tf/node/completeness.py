"""When a study that is being sent counts as whole (docs/adr/0201).

Nobody can know: DICOM has no message for it. What can be known is put together here,
and each "no" has its reason in words. No clock, disk or network: a decision is a
function of what is kept, the time, the rules, and what the sender's PACS lists.
"""

from collections.abc import Mapping, Set
import dataclasses
import enum

from covid_tf import errors
from covid_tf.node import spool

_LONGEST_S = 30 * 24 * 3600.0


class State(enum.Enum):
  """What a study counts as."""

  WAITING = 'waiting'  # It may still be coming.
  INCOMPLETE = 'incomplete'  # Somebody should look; it may still be completed.
  WHOLE = 'whole'


@dataclasses.dataclass(frozen=True)
class Rules:
  """What is asked of a study.

  Attributes:
    settle_s: since its last instance, or the end of the last association that sent to
      it: 60 is what Orthanc takes for a stable study.
    incomplete_after_s: as long without news, a study that is not whole is incomplete.
    asks_source: whether the PACS that sends is asked for what it has.
  """

  settle_s: float = 60.0
  incomplete_after_s: float = 3600.0
  asks_source: bool = False

  def __post_init__(self) -> None:
    for flag, value in (
      ('--settle', self.settle_s),
      ('--incomplete-after', self.incomplete_after_s),
    ):
      if not 0 < value <= _LONGEST_S:
        raise errors.UsageError(
          f'{flag}: seconds above 0 and at most {_LONGEST_S:.0f} are required, found '
          f'{value:g}.'
        )
    if self.incomplete_after_s < self.settle_s:
      raise errors.UsageError(
        f'--incomplete-after: at least as long as --settle ({self.settle_s:g} s) is '
        f'required, found {self.incomplete_after_s:g} s.'
      )


@dataclasses.dataclass(frozen=True)
class Decision:
  """What a study counts as, and why, in words without a name; '' for a whole one."""

  state: State
  reason: str = ''


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What the PACS that sends lists of the series that we hold something of.

  Attributes:
    listed: series UID to instances that it lists; 0: it lists none.
    missing: series UID to those of them that we lack.
  """

  listed: Mapping[str, int]
  missing: Mapping[str, int]

  def confirms(self, series_uid: str) -> bool:
    """Whether it lists a series, and nothing of it that we lack."""
    return self.listed.get(series_uid, 0) > 0 and not self.missing.get(series_uid, 0)


def compare(has: Mapping[str, Set[str]], listed: Mapping[str, Set[str]]) -> Comparison:
  """What of a study's series is missing here.

  Series that the PACS lists and we hold nothing of do not count: whoever sends chooses
  series.

  Args:
    has: series UID to SOP Instance UIDs that are kept.
    listed: the same of what the PACS lists.
  """
  return Comparison(
    {series: len(listed.get(series, ())) for series in has},
    {series: len(listed.get(series, set()) - kept) for series, kept in has.items()},
  )


def is_quiet(kept: spool.Kept, now_s: float, rules: Rules) -> bool:
  """Whether a study has been without news for as long as is asked for."""
  return now_s - kept.last_activity_s >= rules.settle_s


def decide(
  kept: spool.Kept,
  now_s: float,
  rules: Rules,
  listed: Comparison | None = None,
  *,
  is_accepted: bool = False,
) -> Decision:
  """What a study counts as.

  Args:
    kept: the study.
    now_s: `time.monotonic()`.
    rules: what is asked of it.
    listed: of the PACS that sends, of the same generation; None: it is not asked, or
      has not answered.
    is_accepted: a person says that what is here is all that will come.
  """
  silent_s = now_s - kept.last_activity_s
  if not is_quiet(kept, now_s, rules):
    return Decision(
      State.WAITING,
      f'its last news came {max(silent_s, 0):.0f} s ago, {rules.settle_s:g} s are '
      'required without',
    )
  is_late = silent_s >= rules.incomplete_after_s
  late = State.INCOMPLETE if is_late else State.WAITING
  if kept.open_associations:
    return Decision(late, 'an association that has sent to it is still open')
  if is_accepted:
    return Decision(State.WHOLE)
  for series, why in kept.interrupted.items():
    if listed is None or not listed.confirms(series):
      return Decision(State.INCOMPLETE, f'series {series}: {why}')
  if not rules.asks_source:
    return Decision(State.WHOLE)
  if listed is None:
    return Decision(late, 'the PACS that sends has not said what it has of it')
  for series in kept.counts:
    if not listed.listed.get(series, 0):
      return Decision(late, f'series {series}: the PACS that sends lists none of it')
    if missing := listed.missing.get(series, 0):
      return Decision(
        late,
        f'series {series}: {missing} of {listed.listed[series]} instances that the '
        'PACS that sends lists have not come',
      )
  return Decision(State.WHOLE)
