"""Loads and unloads versions as the disk and the configuration change."""

from collections.abc import Callable
import gc
import logging
import pathlib
import threading
import time

from covid_tf.server import configuration
from covid_tf.server import predict
from covid_tf.server import registry as registry_lib
from covid_tf.sessions import refusal
from covid_tf.sessions import servable as servable_lib

_log = logging.getLogger(__name__)
_State = registry_lib.State


class Loader:
  """One step after the other, by one thread; a new version before an old one goes."""

  def __init__(
    self,
    registry: registry_lib.Registry,
    retries: int,
    retry_interval_s: float,
    self_check: bool = True,
  ):
    """Works on `registry`; a failed load is tried again so often, so much later.

    With `self_check`, a version that does not compute right is not made available.
    It is not tried again before its files change: it might be right by luck.
    """
    self._registry = registry
    self._retries = retries
    self._retry_interval_s = retry_interval_s
    self._self_check = self_check
    self._wanted: dict[str, dict[int, pathlib.Path]] = {}
    self._warned: set[str] = set()

  def look(self) -> None:
    """Compares the configuration with the disk and notes what is wanted now."""
    with self._registry.changed:
      configured = list(self._registry.config.model_config_list.config)
    wanted: dict[str, dict[int, pathlib.Path]] = {
      name: {}
      for name in self._registry.models  # Dropped models: nothing.
    }
    for model in configured:
      wanted[model.name] = self._wanted_of(model)
    with self._registry.changed:
      self._wanted = wanted
      for name, folders in wanted.items():
        self._registry.models.setdefault(name, registry_lib.ModelVersions(name)).want(
          folders
        )
      failed = [
        version
        for model in self._registry.models.values()
        for version in model.versions.values()
        if version.has_failed or version.waits_to_try_again
      ]
      self._registry.changed.notify_all()
    self._begin_again_if_mended(failed)

  def load_due(self) -> None:
    """Loads what is wanted and due, highest version first.

    Not while requests still hold an old version of that model: as in TF Serving, so
    that two of them at most are in memory, however fast new ones come.
    """
    with self._registry.changed:
      due = [
        (model, model.versions[number])
        for model in self._registry.models.values()
        if not model.is_letting_go
        for number in sorted(model.versions, reverse=True)
        if model.versions[number].is_due
      ]
    for model, version in due:
      self._load(model, version)

  def unload_superfluous(self, everything: bool = False) -> None:
    """Retires versions that nobody wants, and frees those that nobody uses."""
    with self._registry.changed:
      for name, model in self._registry.models.items():
        wanted = set() if everything else set(self._wanted.get(name, ()))
        for version in model.superfluous(wanted):
          version.state = _State.UNLOADING
      idle = [
        (model, version)
        for model in self._registry.models.values()
        for version in model.versions.values()
        if version.state is _State.UNLOADING and not version.users
      ]
    for model, version in idle:
      if version.servable is not None:
        version.servable.close()
      with self._registry.changed:
        version.servable, version.state = None, _State.END
        if not everything:  # It may have been asked for again meanwhile.
          model.want(self._wanted.get(model.name, {}))
        self._registry.changed.notify_all()
    if idle:
      gc.collect()  # A graph refers to itself; its memory is wanted back now.

  def _wanted_of(self, model) -> dict[int, pathlib.Path]:
    try:
      on_disk = servable_lib.versions_on_disk(model.base_path)
    except OSError as error:  # Maybe the share is away: what is loaded stays.
      self._warn_once(f'{model.name}: {model.base_path} cannot be listed: {error}')
      return self._wanted.get(model.name, {})
    if not on_disk:
      self._warn_once(
        f'{model.name}: no versions under {model.base_path}; '
        'is the folder of each one a number?'
      )
    wanted = servable_lib.wanted_versions(on_disk, model.model_version_policy)
    return {number: on_disk[number] for number in wanted}

  def _begin_again_if_mended(self, failed) -> None:
    # A folder that is copied in place may be seen half there, and fails. TF Serving
    # tries again after a minute; when its files have changed there is no need to wait.
    for version in failed:
      if servable_lib.fingerprint(version.path) != version.files:
        with self._registry.changed:
          version.begin_again()

  def _load(self, model, version) -> None:
    version.files = servable_lib.fingerprint(version.path)
    with self._registry.changed:
      version.state = _State.LOADING
      self._registry.changed.notify_all()
    servable, error = None, None
    try:
      servable = servable_lib.Servable(version.path)
      predict.replay_warm_up(servable, version.number)
      if self._self_check:
        predict.check(servable, version.number)
    except refusal.Refusal as failed:
      error = failed
    except Exception as failed:  # Whatever it is, the other models go on.
      error = refusal.Refusal(refusal.UNKNOWN, f'{type(failed).__name__}: {failed}')
    with self._registry.changed:
      if error is None:
        version.servable, version.state = servable, _State.AVAILABLE
      else:
        self._note_failure(model, version, error)
      self._registry.changed.notify_all()
    if error is not None and servable is not None:
      servable.close()

  def _note_failure(self, model, version, error) -> None:
    version.attempts += 1
    is_final = isinstance(error, predict.ComputesWrongError)
    if is_final or version.attempts > self._retries:
      version.state, version.error = _State.END, error
    else:
      version.next_attempt = time.monotonic() + self._retry_interval_s
    _log.warning(
      'version %d of model %s cannot be loaded, attempt %d of %d: %s',
      version.number,
      model.name,
      version.attempts,
      version.attempts if is_final else self._retries + 1,
      error,
    )

  def _warn_once(self, text: str) -> None:
    if text not in self._warned:
      self._warned.add(text)
      _log.warning('%s', text)


# The life of the models: started, replaced, stopped.

_TICK_S = 0.1  # How soon a retry, an idle old version or a waiting caller is seen.


class ModelManager:
  """Keeps the registry as configuration and disk want it, from a thread of its own.

  Attributes:
    registry: what is served; for the services.
  """

  def __init__(self, options: configuration.ServerOptions):
    """Serves nothing until `start`.

    Args:
      options: of these, how versions are looked for, loaded, checked and labelled.
    """
    self.registry = registry_lib.Registry(options.allow_labels_for_unavailable)
    self._loader = Loader(
      self.registry, options.load_retries, options.retry_interval_s, options.self_check
    )
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
          time.monotonic() + self._poll_s if self._poll_s > 0 else float('inf')
        )
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
    f'{version.error}}}'
    for version in model.versions.values()
    if version.error
  )
  return refusal.Refusal(
    refusal.UNKNOWN, f'1 model(s) did not become available: {{{reasons}}}'
  )
