"""A study that has no end of its own: its workers died, or its function raised."""

import dataclasses

from covid_tf import process_end

# Of one study: twice may be bad luck, three times is the study.
MOST_DEATHS = 3


@dataclasses.dataclass(frozen=True)
class Lost:
  """What an engine says of a study that it gave up.

  Attributes:
    reason: why, for people.
  """

  reason: str


def by_deaths(exit_code: int | None = None) -> Lost:
  """Of a study whose workers died again and again.

  Args:
    exit_code: of the last of them; None if it is not known, as on a cluster.
  """
  return Lost(
      f'its worker process died {MOST_DEATHS} times and {process_end.how(exit_code)} '
      f'the last time: {process_end.remedy(exit_code)}; or read the study alone with '
      'covid-tf inspect.')
