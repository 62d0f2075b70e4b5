"""The versions of one model: their states, and who is using them."""

import dataclasses
import enum
import pathlib
import time

from covid_tf.predictors import protocol
from covid_tf.server import refusal
from covid_tf.server import servable as servable_lib


class State(enum.Enum):
  """Where a version is in its life, with TF Serving's numbers."""

  START = 10
  LOADING = 20
  AVAILABLE = 30
  UNLOADING = 40
  END = 50


@dataclasses.dataclass
class Version:
  """One version; guarded by the manager's lock.

  Attributes:
    number: its number.
    path: its folder.
    state: where it is.
    error: why it could not be loaded, while that is so.
    servable: the loaded model, while there is one.
    users: requests that are running on it.
    attempts: how often loading failed.
    next_attempt: time.monotonic() of the next try.
    files: `version_folders.fingerprint` before the last try.
  """

  number: int
  path: pathlib.Path
  state: State = State.START
  error: refusal.Refusal | None = None
  servable: servable_lib.Servable | None = None
  users: int = 0
  attempts: int = 0
  next_attempt: float = 0.0
  files: frozenset = frozenset()

  @property
  def has_failed(self) -> bool:
    """Every attempt failed; it is not tried again while it lies there."""
    return self.state is State.END and self.error is not None

  @property
  def waits_to_try_again(self) -> bool:
    """An attempt failed, another one will be made."""
    return self.state is State.LOADING and self.attempts > 0

  def begin_again(self) -> None:
    """Forgets that tries failed: its files are others now."""
    self.state, self.error = State.START, None
    self.attempts, self.next_attempt = 0, 0.0

  @property
  def is_due(self) -> bool:
    """Waits to be loaded, and the time has come."""
    return self.state in (State.START, State.LOADING) and (
        self.next_attempt <= time.monotonic())


class ModelVersions:
  """All versions of one model that were ever wanted, since the server started."""

  def __init__(self, name: str):
    """Begins with none."""
    self.name = name
    self.versions: dict[int, Version] = {}

  def want(self, wanted: dict[int, pathlib.Path]) -> None:
    """Starts what is wanted and new, forgets tries that are wanted no more."""
    for number, path in wanted.items():
      known = self.versions.get(number)
      if known is None or (known.state is State.END and not known.has_failed):
        self.versions[number] = Version(number, path)
    for number, version in self.versions.items():
      if number in wanted:
        continue
      if version.state in (State.START, State.LOADING) or version.has_failed:
        version.state, version.error = State.END, None

  def superfluous(self, wanted: set[int]) -> list[Version]:
    """What may be unloaded: the unwanted, once a wanted one can take over."""
    available = {number for number, version in self.versions.items()
                 if version.state is State.AVAILABLE}
    if wanted and not wanted & available:
      return []
    return [self.versions[number] for number in sorted(available - wanted)]

  @property
  def is_letting_go(self) -> bool:
    """A version is being unloaded; maybe requests still run on it."""
    return any(version.state is State.UNLOADING for version in self.versions.values())

  def newest(self) -> Version | None:
    """The available version of the highest number."""
    return max(
        (version for version in self.versions.values()
         if version.state is State.AVAILABLE),
        key=lambda version: version.number, default=None)

  def has_given_up(self) -> bool:
    """Nothing serves, nothing is being tried, and something failed."""
    states = [version.state for version in self.versions.values()]
    return all(state is State.END for state in states) and any(
        version.has_failed for version in self.versions.values())

  def statuses(self) -> list:
    """ModelVersionStatus messages, highest version first."""
    return [_status(self.versions[number])
            for number in sorted(self.versions, reverse=True)]


def _status(version: Version):
  status = protocol.ModelVersionStatus(
      version=version.number, state=version.state.value)
  status.status.SetInParent()
  if version.error is not None:
    status.status.error_code = version.error.code.value[0]
    status.status.error_message = version.error.text
  return status
