"""Loads and unloads versions as the disk and the configuration change."""

import gc
import logging
import pathlib
import time

from covid_tf.server import model_versions
from covid_tf.server import refusal
from covid_tf.server import registry as registry_lib
from covid_tf.server import servable as servable_lib
from covid_tf.server import version_folders
from covid_tf.server import warm_up

_log = logging.getLogger(__name__)
_State = model_versions.State


class Loader:
  """One step after the other, by one thread; a new version before an old one goes."""

  def __init__(self, registry: registry_lib.Registry, retries: int,
               retry_interval_s: float, self_check: bool = True):
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
    wanted = {name: {} for name in self._registry.models}  # Dropped models: nothing.
    for model in configured:
      wanted[model.name] = self._wanted_of(model)
    with self._registry.changed:
      self._wanted = wanted
      for name, folders in wanted.items():
        self._registry.models.setdefault(
            name, model_versions.ModelVersions(name)).want(folders)
      failed = [version for model in self._registry.models.values()
                for version in model.versions.values()
                if version.has_failed or version.waits_to_try_again]
      self._registry.changed.notify_all()
    self._begin_again_if_mended(failed)

  def load_due(self) -> None:
    """Loads what is wanted and due, highest version first.

    Not while requests still hold an old version of that model: as in TF Serving, so
    that two of them at most are in memory, however fast new ones come.
    """
    with self._registry.changed:
      due = [(model, model.versions[number])
             for model in self._registry.models.values()
             if not model.is_letting_go
             for number in sorted(model.versions, reverse=True)
             if model.versions[number].is_due]
    for model, version in due:
      self._load(model, version)

  def unload_superfluous(self, everything: bool = False) -> None:
    """Retires versions that nobody wants, and frees those that nobody uses."""
    with self._registry.changed:
      for name, model in self._registry.models.items():
        wanted = set() if everything else set(self._wanted.get(name, ()))
        for version in model.superfluous(wanted):
          version.state = _State.UNLOADING
      idle = [(model, version) for model in self._registry.models.values()
              for version in model.versions.values()
              if version.state is _State.UNLOADING and not version.users]
    for model, version in idle:
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
      on_disk = version_folders.versions_on_disk(model.base_path)
    except OSError as error:  # Maybe the share is away: what is loaded stays.
      self._warn_once(f'{model.name}: {model.base_path} cannot be listed: {error}')
      return self._wanted.get(model.name, {})
    if not on_disk:
      self._warn_once(f'{model.name}: no versions under {model.base_path}; '
                      'is the folder of each one a number?')
    wanted = version_folders.wanted_versions(on_disk, model.model_version_policy)
    return {number: on_disk[number] for number in wanted}

  def _begin_again_if_mended(self, failed) -> None:
    # A folder that is copied in place may be seen half there, and fails. TF Serving
    # tries again after a minute; when its files have changed there is no need to wait.
    for version in failed:
      if version_folders.fingerprint(version.path) != version.files:
        with self._registry.changed:
          version.begin_again()

  def _load(self, model, version) -> None:
    version.files = version_folders.fingerprint(version.path)
    with self._registry.changed:
      version.state = _State.LOADING
      self._registry.changed.notify_all()
    servable, error = None, None
    try:
      servable = servable_lib.Servable(version.path)
      warm_up.replay(servable, version.number)
      if self._self_check:
        warm_up.check(servable, version.number)
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
    is_final = isinstance(error, warm_up.ComputesWrongError)
    if is_final or version.attempts > self._retries:
      version.state, version.error = _State.END, error
    else:
      version.next_attempt = time.monotonic() + self._retry_interval_s
    _log.warning(
        'version %d of model %s cannot be loaded, attempt %d of %d: %s',
        version.number, model.name, version.attempts,
        version.attempts if is_final else self._retries + 1, error)

  def _warn_once(self, text: str) -> None:
    if text not in self._warned:
      self._warned.add(text)
      _log.warning('%s', text)
