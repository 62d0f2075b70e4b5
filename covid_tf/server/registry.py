"""What is served now, and who may use it."""

from collections.abc import Iterator
import contextlib
import dataclasses
import enum
import pathlib
import threading
import time

from covid_tf.predictors import protocol
from covid_tf.server import configuration
from covid_tf.sessions import refusal
from covid_tf.sessions import servable as servable_lib

# The versions of one model: their states, and who is using them.


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
    files: `servable.fingerprint` before the last try.
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
      self.next_attempt <= time.monotonic()
    )


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
    available = {
      number
      for number, version in self.versions.items()
      if version.state is State.AVAILABLE
    }
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
      (
        version
        for version in self.versions.values()
        if version.state is State.AVAILABLE
      ),
      key=lambda version: version.number,
      default=None,
    )

  def has_given_up(self) -> bool:
    """Nothing serves, nothing is being tried, and something failed."""
    states = [version.state for version in self.versions.values()]
    return all(state is State.END for state in states) and any(
      version.has_failed for version in self.versions.values()
    )

  def statuses(self) -> list:
    """ModelVersionStatus messages, highest version first."""
    return [
      _status(self.versions[number]) for number in sorted(self.versions, reverse=True)
    ]


def _status(version: Version):
  status = protocol.ModelVersionStatus(
    version=version.number, state=version.state.value
  )
  status.status.SetInParent()
  if version.error is not None:
    status.status.error_code = version.error.code.value[0]
    status.status.error_message = version.error.text
  return status


# Version labels: names for versions, moved by configuration.

Labels = dict[str, dict[str, int]]


def new_labels(
  config, models: dict[str, ModelVersions], current: Labels, allow_unavailable: bool
) -> Labels:
  """Reads the labels of a new configuration.

  Args:
    config: a ModelServerConfig.
    models: what is served.
    current: the labels in force.
    allow_unavailable: a label that is new may name a version that is not
      available yet; one that moves never may.

  Returns:
    Model name to label to version.

  Raises:
    refusal.Refusal: a label names a version that is not available.
  """
  labels: Labels = {}
  for model in config.model_config_list.config:
    labels[model.name] = {}
    for label, number in sorted(model.version_labels.items()):
      moved = current.get(model.name, {}).get(label, number) != number
      if not _is_available(models.get(model.name), number) and (
        moved or not allow_unavailable
      ):
        raise refusal.failed_precondition(
          f'Request to assign label to version {number} of model {model.name}, '
          'which is not currently available for inference'
        )
      labels[model.name][label] = number
  return labels


def _is_available(model, number) -> bool:
  return (
    model is not None
    and number in model.versions
    and (model.versions[number].state is State.AVAILABLE)
  )


class Registry:
  """Configuration, versions and labels; the loader fills it, requests read it.

  Attributes:
    changed: guards everything here and is notified of every change.
    config: the ModelServerConfig in force.
    models: model name to its versions.
  """

  def __init__(self, allow_labels_for_unavailable: bool):
    """Begins empty; see `labels.new_labels` for the argument."""
    self.changed = threading.Condition()
    self.config = protocol.ModelServerConfig()
    self.models: dict[str, ModelVersions] = {}
    self._labels: Labels = {}
    self._allow_labels_for_unavailable = allow_labels_for_unavailable

  def accept(self, config) -> set[str]:
    """Puts a configuration into force.

    Args:
      config: a ModelServerConfig.

    Returns:
      Names of the models that were not in the one before.

    Raises:
      refusal.Refusal: it is wrong; the one before stays.
    """
    configuration.check_configuration(config)
    with self.changed:
      self._labels = new_labels(
        config, self.models, self._labels, self._allow_labels_for_unavailable
      )
      old = {model.name for model in self.config.model_config_list.config}
      self.config = config
      self.changed.notify_all()
    return {model.name for model in config.model_config_list.config} - old

  @contextlib.contextmanager
  def using(self, spec) -> Iterator[tuple[servable_lib.Servable, int]]:
    """Lends the version that a ModelSpec asks for; it stays loaded meanwhile.

    Args:
      spec: a ModelSpec.

    Yields:
      The servable and its version number.

    Raises:
      refusal.Refusal: nothing like that is served.
    """
    with self.changed:
      version = self._find(spec)
      assert version.servable is not None  # What is found is available.
      version.users += 1
    try:
      yield version.servable, version.number
    finally:
      with self.changed:
        version.users -= 1
        self.changed.notify_all()

  def statuses(self, name: str) -> list:
    """ModelVersionStatus of every version of a model, highest first; maybe none."""
    with self.changed:
      model = self.models.get(name)
      return [] if model is None else model.statuses()

  def available(self) -> list[tuple[str, int]]:
    """(model, newest available version), by name."""
    with self.changed:
      newest = [(name, model.newest()) for name, model in sorted(self.models.items())]
      return [(name, version.number) for name, version in newest if version]

  def _find(self, spec) -> Version:
    if not spec.name:
      raise refusal.invalid_argument('ModelSpec has no name specified.')
    choice = spec.WhichOneof('version_choice')
    model = self.models.get(spec.name)
    if choice is None:
      version = model.newest() if model else None
      if version is None:
        raise refusal.not_found(f'Servable not found for request: Latest({spec.name})')
      return version
    number = spec.version.value
    if choice == 'version_label':
      known = self._labels.get(spec.name, {})
      if spec.version_label not in known:
        raise refusal.invalid_argument(
          f'Unrecognized servable version label: {spec.version_label}'
        )
      number = known[spec.version_label]
    version = model.versions.get(number) if model else None
    if version is None or version.state is not State.AVAILABLE:
      raise refusal.not_found(
        f'Servable not found for request: Specific({spec.name}, {number})'
      )
    return version
