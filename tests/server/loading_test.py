"""The loader on folders of a test, with stand-ins for models: no graph is loaded."""

import logging
import os

import pytest

from covid_tf.predictors import protocol
from covid_tf.server import configuration
from covid_tf.server import loading
from covid_tf.server import predict
from covid_tf.server import registry as registry_lib
from covid_tf.sessions import refusal

_State = registry_lib.State


class _Model:
  """A stand-in for a loaded SavedModel: its file says how it behaves."""

  open_paths = set()

  def __init__(self, path):
    self.path = path
    self.words = (path / 'saved_model.pb').read_text('utf-8')
    if self.words == 'damaged':
      raise refusal.invalid_argument('damaged file')
    if self.words == 'raises':
      raise MemoryError('no memory')
    self.open_paths.add(path.name)

  def close(self):
    self.open_paths.remove(self.path.name)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  def check(model, number):
    if model.words == 'computes wrong':
      raise predict.ComputesWrongError(refusal.UNKNOWN, f'version {number} is wrong')

  monkeypatch.setattr(_Model, 'open_paths', set())
  monkeypatch.setattr(loading.servable_lib, 'Servable', _Model)
  monkeypatch.setattr(predict, 'replay_warm_up', lambda model, number: 0)
  monkeypatch.setattr(predict, 'check', check)
  return tmp_path / 'lungs'


def _write(folder, number, words='right'):
  path = folder / str(number)
  path.mkdir(parents=True, exist_ok=True)
  (path / 'saved_model.pb').write_text(words, 'utf-8')


def _loader(folder, retries=1, retry_interval_s=0.0, **options):
  registry = registry_lib.Registry(False)
  registry.accept(configuration.single_model('lungs', str(folder)))
  return registry, loading.Loader(registry, retries, retry_interval_s, **options)


def _turn(loader):
  loader.look()
  loader.load_due()
  loader.unload_superfluous()


def _states(registry):
  return {
    number: version.state
    for number, version in registry.models['lungs'].versions.items()
  }


def test_a_new_version_takes_over_before_the_old_one_goes(folder):
  _write(folder, 1)
  registry, loader = _loader(folder)
  _turn(loader)
  _write(folder, 2)
  loader.look()
  loader.load_due()
  assert _states(registry) == {1: _State.AVAILABLE, 2: _State.AVAILABLE}
  loader.unload_superfluous()
  assert _states(registry) == {1: _State.END, 2: _State.AVAILABLE}
  assert _Model.open_paths == {'2'}


def test_the_old_version_stays_while_the_new_one_is_damaged(folder):
  _write(folder, 1)
  registry, loader = _loader(folder)
  _turn(loader)
  _write(folder, 2, 'damaged')
  for _ in range(4):
    _turn(loader)
  assert registry.available() == [('lungs', 1)]
  assert registry.models['lungs'].versions[2].attempts == 2  # One, and one retry.
  assert 'damaged file' in registry.statuses('lungs')[0].status.error_message


def test_a_version_in_use_is_freed_when_its_last_request_has_ended(folder):
  _write(folder, 1)
  registry, loader = _loader(folder)
  _turn(loader)
  _write(folder, 2)
  with registry.using(protocol.ModelSpec(name='lungs')):
    _turn(loader)
    assert _states(registry)[1] is _State.UNLOADING
    assert _Model.open_paths == {'1', '2'}
    _write(folder, 3)
    _turn(loader)  # Two of them at most are in memory.
    assert _Model.open_paths == {'1', '2'}
  _turn(loader)
  _turn(loader)
  assert _Model.open_paths == {'3'} and registry.available() == [('lungs', 3)]


def test_whatever_a_model_raises_the_loader_goes_on(folder, caplog):
  _write(folder, 1, 'raises')
  registry, loader = _loader(folder, retries=0)
  with caplog.at_level(logging.WARNING):
    _turn(loader)
  assert registry.models['lungs'].has_given_up()
  assert 'MemoryError: no memory' in caplog.text and 'attempt 1 of 1' in caplog.text


def test_a_model_that_computes_wrong_is_closed_and_not_tried_again(folder):
  _write(folder, 1, 'computes wrong')
  registry, loader = _loader(folder, retries=5)
  for _ in range(3):
    _turn(loader)
  version = registry.models['lungs'].versions[1]
  assert version.attempts == 1 and version.has_failed and not _Model.open_paths
  unchecked, loader = _loader(folder, self_check=False)
  _turn(loader)
  assert unchecked.available() == [('lungs', 1)]


def test_a_retry_waits_for_its_time_unless_the_files_change(folder):
  _write(folder, 1, 'damaged')
  registry, loader = _loader(folder, retries=9, retry_interval_s=3600.0)
  for _ in range(3):
    _turn(loader)
  version = registry.models['lungs'].versions[1]
  assert version.attempts == 1 and version.waits_to_try_again
  _write(folder, 1, 'right')
  os.utime(folder / '1' / 'saved_model.pb', ns=(1, 1))
  _turn(loader)
  assert registry.available() == [('lungs', 1)]


def test_what_is_loaded_stays_while_the_folder_cannot_be_listed(folder, caplog):
  _write(folder, 1)
  registry, loader = _loader(folder)
  _turn(loader)
  folder.rename(folder.with_name('away'))
  with caplog.at_level(logging.WARNING):
    _turn(loader)
    _turn(loader)
  assert registry.available() == [('lungs', 1)]
  assert caplog.text.count('cannot be listed') == 1


def test_a_folder_without_versions_is_named_once(folder, caplog):
  (folder / 'latest').mkdir(parents=True)
  registry, loader = _loader(folder)
  with caplog.at_level(logging.WARNING):
    _turn(loader)
    _turn(loader)
  assert caplog.text.count('is the folder of each one a number?') == 1
  assert registry.available() == []


def test_a_dropped_model_is_unloaded(folder):
  _write(folder, 1)
  registry, loader = _loader(folder)
  _turn(loader)
  other = folder.with_name('classifier')
  _write(other, 7)
  registry.accept(configuration.single_model('classifier', str(other)))
  _turn(loader)
  assert registry.available() == [('classifier', 7)] and _Model.open_paths == {'7'}
  loader.unload_superfluous(everything=True)
  assert registry.available() == [] and not _Model.open_paths


def test_a_manager_starts_reloads_and_ends(folder):
  _write(folder, 1)
  manager = loading.ModelManager(configuration.ServerOptions(load_retries=0))
  try:
    manager.start(configuration.single_model('lungs', str(folder)))
    assert manager.registry.available() == [('lungs', 1)]
    broken = folder.with_name('broken')
    _write(broken, 1, 'damaged')
    with pytest.raises(refusal.Refusal, match='did not become available.*damaged'):
      manager.reload(configuration.single_model('broken', str(broken)))
    empty = folder.with_name('empty')
    empty.mkdir()
    asked = iter((True, False))
    manager.reload(
      configuration.single_model('empty', str(empty)), lambda: next(asked, False)
    )
  finally:
    manager.close()
  assert not _Model.open_paths
