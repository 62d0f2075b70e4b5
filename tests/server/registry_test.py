"""Versions by their states alone: which one answers, goes or is reported."""

import pathlib
import threading

import grpc
import hypothesis
from hypothesis import strategies as st
import pytest

from covid_tf.predictors import protocol
from covid_tf.server import registry as registry_lib
from covid_tf.sessions import refusal

_State = registry_lib.State
_states = st.dictionaries(st.integers(1, 6), st.sampled_from(_State), max_size=6)


def _model(states, failed=()):
  model = registry_lib.ModelVersions('lungs')
  for number, state in states.items():
    error = refusal.Refusal(refusal.UNKNOWN, 'damaged') if number in failed else None
    model.versions[number] = registry_lib.Version(
      number, pathlib.Path(str(number)), state, error, servable=f'model {number}'
    )
  return model


def _config(*names, **labels):
  config = protocol.ModelServerConfig()
  for name in names:
    entry = config.model_config_list.config.add(
      name=name, base_path=f'/models/{name}', model_platform='tensorflow'
    )
    entry.version_labels.update(labels)
  return config


def _spec(name='lungs', number=None, label=None):
  spec = protocol.ModelSpec(name=name)
  if number is not None:
    spec.version.value = number
  if label is not None:
    spec.version_label = label
  return spec


@pytest.fixture
def registry():
  made = registry_lib.Registry(allow_labels_for_unavailable=False)
  made.models['lungs'] = _model(
    {1: _State.AVAILABLE, 2: _State.AVAILABLE, 3: _State.LOADING, 4: _State.END}
  )
  return made


def _served(registry, spec):
  with registry.using(spec) as (servable, number):
    assert servable == f'model {number}'
    return number


def _refused(registry, spec, code):
  with pytest.raises(refusal.Refusal) as caught:
    with registry.using(spec):
      pass
  assert caught.value.code is code
  return caught.value.text


def test_the_newest_available_or_the_one_asked_for_answers(registry):
  assert _served(registry, _spec()) == 2
  assert _served(registry, _spec(number=1)) == 1
  assert registry.available() == [('lungs', 2)]


def test_what_is_not_served_is_refused_in_the_words_of_tf_serving(registry):
  missing = grpc.StatusCode.NOT_FOUND
  assert _refused(registry, _spec('heart'), missing).endswith('Latest(heart)')
  for number in (3, 4, 5):
    text = _refused(registry, _spec(number=number), missing)
    assert text.endswith(f'Specific(lungs, {number})')
  wrong = grpc.StatusCode.INVALID_ARGUMENT
  assert 'no name' in _refused(registry, _spec(''), wrong)
  assert 'label: stable' in _refused(registry, _spec(label='stable'), wrong)


def test_a_version_counts_its_users_also_when_they_fail(registry):
  version = registry.models['lungs'].versions[2]
  with registry.using(_spec()), registry.using(_spec()):
    assert version.users == 2
  with pytest.raises(ZeroDivisionError):
    with registry.using(_spec()):
      raise ZeroDivisionError
  assert version.users == 0


def test_who_waits_for_a_version_is_woken_when_it_is_free(registry):
  version = registry.models['lungs'].versions[2]
  free = threading.Event()

  def wait():
    with registry.changed:
      assert registry.changed.wait_for(lambda: not version.users, timeout=30)
      free.set()

  with registry.using(_spec()):
    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not free.wait(0.05)
  assert free.wait(30)
  waiting.join()


def test_labels_move_to_available_versions_only(registry):
  assert registry.accept(_config('lungs', stable=1)) == {'lungs'}
  assert _served(registry, _spec(label='stable')) == 1
  before = registry.config
  for number in (3, 4, 9):
    with pytest.raises(refusal.Refusal, match=f'version {number} of model lungs'):
      registry.accept(_config('lungs', stable=number))
    assert registry.config is before
    assert _served(registry, _spec(label='stable')) == 1
  assert registry.accept(_config('lungs', stable=2)) == set()
  assert _served(registry, _spec(label='stable')) == 2
  registry.accept(_config('lungs'))
  _refused(registry, _spec(label='stable'), grpc.StatusCode.INVALID_ARGUMENT)


def test_a_new_label_may_come_before_its_version_where_that_is_allowed():
  registry = registry_lib.Registry(allow_labels_for_unavailable=True)
  registry.accept(_config('lungs', next=1))
  _refused(registry, _spec(label='next'), grpc.StatusCode.NOT_FOUND)
  registry.models['lungs'] = _model({1: _State.AVAILABLE})
  assert _served(registry, _spec(label='next')) == 1
  with pytest.raises(refusal.Refusal, match='version 2'):  # Moved, not new.
    registry.accept(_config('lungs', next=2))


def test_a_wrong_configuration_leaves_the_one_before(registry):
  registry.accept(_config('lungs'))
  with pytest.raises(refusal.Refusal, match='multiple times'):
    registry.accept(_config('lungs', 'lungs'))
  assert registry.config == _config('lungs')
  assert registry.accept(_config('lungs', 'classifier')) == {'classifier'}


def test_statuses_name_state_and_error_highest_first():
  registry = registry_lib.Registry(False)
  registry.models['lungs'] = _model({1: _State.AVAILABLE, 2: _State.END}, failed={2})
  second, first = registry.statuses('lungs')
  assert (second.version, second.state, first.version, first.state) == (2, 50, 1, 30)
  assert (second.status.error_code, second.status.error_message) == (2, 'damaged')
  assert first.HasField('status') and first.status.error_code == 0
  assert registry.statuses('heart') == []


@hypothesis.given(_states, st.sets(st.integers(1, 6)))
def test_nothing_is_unloaded_before_a_wanted_version_can_take_over(states, wanted):
  model = _model(states)
  gone = {version.number for version in model.superfluous(wanted)}
  available = {n for n, state in states.items() if state is _State.AVAILABLE}
  assert gone <= available - wanted
  if available and wanted:
    assert available - gone  # Something still answers.
  if not wanted or wanted & available:
    assert gone == available - wanted


@hypothesis.given(_states, st.sets(st.integers(1, 6)), st.sets(st.integers(1, 6)))
def test_what_is_wanted_is_started_and_what_is_not_is_given_up(states, failed, wanted):
  failed = {number for number in failed if states.get(number) is _State.END}
  model = _model(states, failed)
  model.want({number: pathlib.Path(f'new/{number}') for number in wanted})
  for number, before in states.items():
    now = model.versions[number]
    if number in wanted:
      restarted = before is _State.END and number not in failed
      assert now.state is (_State.START if restarted else before)
      assert (now.path.parent.name == 'new') == restarted
    elif before in (_State.START, _State.LOADING, _State.END):
      assert now.state is _State.END and now.error is None
    else:
      assert now.state is before
  assert all(model.versions[n].is_due for n in wanted - set(states))


def test_given_up_means_that_all_ended_and_one_failed():
  assert _model({1: _State.END, 2: _State.END}, {2}).has_given_up()
  assert not _model({1: _State.END}).has_given_up()
  assert not _model({1: _State.END, 2: _State.LOADING}, {1}).has_given_up()
  assert not _model({}).has_given_up()
