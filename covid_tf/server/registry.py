"""What is served now, and who may use it."""

from collections.abc import Iterator
import contextlib
import threading

from covid_tf.predictors import protocol
from covid_tf.server import labels
from covid_tf.server import model_config
from covid_tf.server import model_versions
from covid_tf.server import refusal
from covid_tf.server import servable as servable_lib


class Registry:
  """Configuration, versions and labels; the loader fills it, requests read it.

  Attributes:
    changed: guards everything here and tells of every change.
    config: the ModelServerConfig in force.
    models: model name to its versions.
  """

  def __init__(self, allow_labels_for_unavailable: bool):
    """Begins empty; see `labels.new_labels` for the argument."""
    self.changed = threading.Condition()
    self.config = protocol.ModelServerConfig()
    self.models: dict[str, model_versions.ModelVersions] = {}
    self._labels: labels.Labels = {}
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
    model_config.check(config)
    with self.changed:
      self._labels = labels.new_labels(
          config, self.models, self._labels, self._allow_labels_for_unavailable)
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

  def _find(self, spec) -> model_versions.Version:
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
            f'Unrecognized servable version label: {spec.version_label}')
      number = known[spec.version_label]
    version = model.versions.get(number) if model else None
    if version is None or version.state is not model_versions.State.AVAILABLE:
      raise refusal.not_found(
          f'Servable not found for request: Specific({spec.name}, {number})')
    return version
