import collections

import pytest

from covid_tf import errors
from covid_tf.batch import worker_models

_SERVERS = ('one:1', 'two:2', 'three:3')


@pytest.fixture(name='clock', autouse=True)
def _clock(monkeypatch):
  """Seconds, moved by hand."""
  clock = [1000.0]
  monkeypatch.setattr(worker_models.time, 'monotonic', lambda: clock[0])
  return clock


class _Servers:
  """Answers with the server's name; counts who was asked."""

  def __init__(self, *dead):
    self.dead = dead
    self.asked = collections.Counter()

  def __call__(self, server):
    self.asked[server] += 1
    if server in self.dead:
      raise errors.ModelError(f'{server} is away')
    return server


def test_studies_are_spread_and_stay_with_their_server():
  choice = worker_models.Servers(_SERVERS)
  first = {str(key): choice.answered(str(key), _Servers()) for key in range(60)}
  assert min(collections.Counter(first.values()).values()) > 10
  assert first == {key: choice.answered(key, _Servers()) for key in first}


def test_a_dead_server_costs_one_try_every_five_minutes(clock):
  choice = worker_models.Servers(_SERVERS)
  servers = _Servers('two:2')
  for key in range(60):
    assert choice.answered(str(key), servers) != 'two:2'
  assert servers.asked['two:2'] == 1
  servers.dead = ()
  clock[0] += 301
  assert 'two:2' in {choice.answered(str(key), servers) for key in range(60)}


def test_a_study_that_fails_everywhere_blames_no_server():
  choice = worker_models.Servers(_SERVERS)
  with pytest.raises(errors.ModelError, match='is away'):
    choice.answered('odd', _Servers(*_SERVERS))
  healthy = _Servers()
  for key in range(60):
    choice.answered(str(key), healthy)
  assert sorted(healthy.asked) == sorted(_SERVERS)


def test_one_server_is_asked_once():
  alone = _Servers('one:1')
  with pytest.raises(errors.ModelError):
    worker_models.Servers(('one:1',)).answered('a', alone)
  assert alone.asked == {'one:1': 1}
