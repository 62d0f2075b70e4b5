"""The life of the models: started, replaced, stopped."""

from collections.abc import Callable
import dataclasses
import threading
import time

from covid_tf.server import loader as loader_lib
from covid_tf.server import refusal
from covid_tf.server import registry as registry_lib

_TICK_S = 0.1  # How soon a retry, an idle old version or a waiting caller is seen.


@dataclasses.dataclass(frozen=True)
class Options:
  """How versions are looked for and loaded.

  Attributes:
    poll_s: seconds between two looks at the disk; 0 or less: look once.
    load_retries: how often a version that fails to load is tried again.
    retry_interval_s: seconds between two tries.
    allow_labels_for_unavailable: see `labels.new_labels`.
    self_check: see `loader.Loader`.
  """

  poll_s: float = 1.0
  load_retries: int = 5
  retry_interval_s: float = 60.0
  allow_labels_for_unavailable: bool = False
  self_check: bool = True


class ModelManager:
  """Keeps the registry as configuration and disk want it, from a thread of its own.

  Attributes:
    registry: what is served; for the services.
  """

  def __init__(self, options: Options):
    """Serves nothing until `start`."""
    self.registry = registry_lib.Registry(options.allow_labels_for_unavailable)
    self._loader = loader_lib.Loader(
        self.registry, options.load_retries, options.retry_interval_s,
        options.self_check)
    self._poll_s = options.poll_s
    self._look_now = threading.Event()
    self._stopping = threading.Event()
    self._thread = threading.Thread(target=self._work, name='model-loader', daemon=True)

  def start(self, config) -> None:
    """Begins with the models of `config` and waits until each has a version.

    Raises:
      refusal.Refusal: the configuration is wrong, or a model cannot be loaded.
    """
    names = self.registry.accept(config)
    self._thread.start()
    self._wait_for(names, lambda: True)

  def reload(self, config, is_wanted: Callable[[], bool] = lambda: True) -> None:
    """Replaces the whole list of models; waits for those that are new.

    Args:
      config: a ModelServerConfig.
      is_wanted: asked while waiting; False ends the wait.

    Raises:
      refusal.Refusal: as `start`; the old list stays if the new one is wrong.
    """
    names = self.registry.accept(config)
    self._look_now.set()
    self._wait_for(names, is_wanted)

  def close(self) -> None:
    """Stops looking at the disk and frees the models."""
    self._stopping.set()
    if self._thread.is_alive():
      self._thread.join()
    self._loader.unload_superfluous(everything=True)

  def _work(self) -> None:
    next_look = 0.0
    while not self._stopping.is_set():
      if self._look_now.is_set() or time.monotonic() >= next_look:
        self._look_now.clear()
        self._loader.look()
        next_look = (
            time.monotonic() + self._poll_s if self._poll_s > 0 else float('inf'))
      self._loader.load_due()
      self._loader.unload_superfluous()
      self._look_now.wait(_TICK_S)

  def _wait_for(self, names: set[str], is_wanted: Callable[[], bool]) -> None:
    with self.registry.changed:
      for name in sorted(names):
        while is_wanted() and not self._stopping.is_set():
          model = self.registry.models.get(name)
          if model and model.newest():
            break
          if model and model.has_given_up():
            raise _not_available(model)
          self.registry.changed.wait(_TICK_S)


def _not_available(model) -> refusal.Refusal:
  reasons = ', '.join(
      f'{{{{name: {model.name} version: {version.number}}} due to error: '
      f'{version.error}}}' for version in model.versions.values() if version.error)
  return refusal.Refusal(
      refusal.UNKNOWN, f'1 model(s) did not become available: {{{reasons}}}')
