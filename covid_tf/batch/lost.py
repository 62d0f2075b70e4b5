"""A study that has no end of its own: its workers died, or its function raised."""

import dataclasses

# Of one study: twice may be bad luck, three times is the study.
MOST_DEATHS = 3


@dataclasses.dataclass(frozen=True)
class Lost:
  """What an engine says of a study that it gave up.

  Attributes:
    reason: why, for people.
  """

  reason: str


def by_deaths() -> Lost:
  """Of a study whose workers died again and again."""
  return Lost(
      f'its worker process died {MOST_DEATHS} times (out of memory, or killed); give '
      'workers more memory, or read the study alone with covid-tf inspect.')
