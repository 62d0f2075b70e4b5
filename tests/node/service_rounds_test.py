"""The engine's rounds of a node, in this process: models that go, rooms that fill."""

import contextlib
import dataclasses
import select
import socket
import threading
import time

import batch_archive
import pytest
import running_node

from covid_tf import errors
from covid_tf.batch import engines
from covid_tf.batch import records
from covid_tf.node import completeness
from covid_tf.node import forwarding
from covid_tf.node import listener
from covid_tf.node import service
from covid_tf.node import studies as studies_lib


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  """Studies are scored by the thread that asks; nobody waits long for models."""

  def map_studies(function, feed, *, processes, stop):
    del processes
    for study in feed.taken():
      if study is None:
        select.select([feed.bell], [], [])
        feed.heard()
        continue
      yield study, function(study)
      if stop.is_set():
        return

  monkeypatch.setattr(engines, 'map_studies', map_studies)
  monkeypatch.setattr(service, '_MODELS_PAUSES', forwarding.Pauses(0.05, 0.05))
  defaults = studies_lib.Studies.__init__.__kwdefaults__
  monkeypatch.setitem(defaults, 'pauses', forwarding.Pauses(3600, 3600))


class _Models:
  """What a test says of the models.

  Attributes:
    away: whether they answer to nobody.
    asked: who they are, how often.
  """

  def __init__(self, output):
    self.away = False
    self.asked = 0
    self._output = output

  def make_scorer(self):
    self.asked += 1
    self.refuse()
    return _Scorer(batch_archive.make_scorer(self._output), self)

  def refuse(self):
    if self.away:
      raise errors.ModelError('they are away')


@dataclasses.dataclass(frozen=True)
class _Scorer:
  scorer: object
  models: _Models

  def __getattr__(self, name):
    return getattr(self.scorer, name)

  def __call__(self, study):
    try:
      self.models.refuse()
    except errors.ModelError as error:
      return batch_archive.scoring.end_record(
        study, records.FAILED, str(error), self.configuration.digest, 0.0
      )
    return self.scorer(study)


@contextlib.contextmanager
def _running(tmp_path, models, **changes):
  settings = service.Settings(
    tmp_path / 'out',
    listener=listener.Settings(port=0),
    rules=completeness.Rules(settle_s=0.1),
    **{'reserve_bytes': 0, **changes},  # However full this disk is.
  )
  node = service.Node(settings, models.make_scorer)
  ports, failed = [], []

  def run():
    try:
      node.run(ports.append)
    except errors.CovidTFError as error:
      failed.append(error)

  thread = threading.Thread(target=run)
  thread.start()
  _until(lambda: ports or failed)
  if failed:
    raise failed[0]
  try:
    yield node, ports[0]
  finally:
    node.end()
    thread.join(120)
  assert not thread.is_alive() and not failed


def _until(what):
  end = time.monotonic() + 60
  while not (found := what()):
    assert time.monotonic() < end
    time.sleep(0.02)
  return found


def _send(tmp_path, port, *numbers) -> bool:
  """Whether an association was taken, of studies of three slices."""
  slices = [
    dataset
    for number in numbers
    for dataset in running_node.study(tmp_path / f'in{number}', number)[:3]
  ]
  return bool(running_node.send(port, slices))


def _ended(tmp_path) -> int:
  return sum(
    record.status in (records.SCORED, records.REFUSED)
    for record in records.read_records(tmp_path / 'out')
  )


def test_models_that_have_gone_are_waited_for(tmp_path, caplog):
  models = _Models(tmp_path / 'out')
  with _running(tmp_path, models) as (node, port):
    _until(lambda: node.state()['ready']['models'] is True)
    models.away = True
    assert _send(tmp_path, port, 1, 2, 3, 4)
    # After three failures nobody else is asked: the fourth waits.
    _until(lambda: node.state()['ready']['models'] == 'they are away')
    studies = node.state()['studies']
    assert len(studies['failed']) == 3
    assert len(studies['waiting']) + len(studies['queued']) == 1
    models.away = False
    _until(lambda: _ended(tmp_path) == 4)  # At once, not after their pauses.
    _until(lambda: not any(node.state()['studies'].values()))
  assert caplog.messages.count('studies wait: they are away') == 1


def test_a_node_starts_and_keeps_what_comes_before_models_answer(tmp_path):
  models = _Models(tmp_path / 'out')
  models.away = True
  with _running(tmp_path, models) as (node, port):
    assert _send(tmp_path, port, 1)
    uid = batch_archive.study_uid(1)
    reasons = lambda: node.state()['studies']['waiting'].get(uid)  # noqa: E731
    _until(lambda: reasons() == 'no models have answered yet')
    models.away = False
    _until(lambda: _ended(tmp_path) == 1)


def test_flags_that_do_not_fit_the_models_end_it(tmp_path):
  models = _Models(tmp_path / 'out')

  def make_scorer():
    raise errors.UsageError('--case-threshold: of other models')

  models.make_scorer = make_scorer
  settings = service.Settings(tmp_path / 'out', listener=listener.Settings(port=0))
  with pytest.raises(errors.UsageError, match='of other models'):
    service.Node(settings, models.make_scorer).run()
  service_threads = {'decisions', 'listener', 'retention'}
  assert not service_threads & {thread.name for thread in threading.enumerate()}


def test_a_backlog_puts_senders_off_and_incomplete_studies_do_not(tmp_path):
  models = _Models(tmp_path / 'out')
  models.away = True
  with _running(tmp_path, models, most_waiting=2) as (node, port):
    slices = running_node.study(tmp_path / 'cut', 5)
    running_node.send(port, slices, abort_after=3)
    _until(lambda: node.state()['studies']['incomplete'])
    assert node.state()['ready']['room'] is True
    models.away = False
    _until(lambda: node.state()['ready']['models'] is True)
    models.away = True
    assert _send(tmp_path, port, 1, 2)
    _until(lambda: node.state()['ready']['room'] == '2 studies wait for the models')
    assert not _send(tmp_path, port, 3)
    models.away = False


def test_a_disk_that_is_nearly_full_puts_senders_off(tmp_path):
  models = _Models(tmp_path / 'out')
  with _running(tmp_path, models, reserve_bytes=1 << 60) as (node, port):
    assert not _send(tmp_path, port, 1)
    assert 'nearly full' in node.state()['ready']['room']


def test_one_output_has_one_node(tmp_path):
  models = _Models(tmp_path / 'out')
  with (
    _running(tmp_path, models),
    pytest.raises(errors.UsageError, match='at work there'),
    _running(tmp_path, models),
  ):
    pass


def test_a_port_that_is_taken_is_said_and_leaves_nothing(tmp_path):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    settings = service.Settings(
      tmp_path / 'out', listener=listener.Settings(port=taken.getsockname()[1])
    )
    node = service.Node(settings, _Models(tmp_path / 'out').make_scorer)
    with pytest.raises(errors.UsageError, match='a free port'):
      node.run()
  assert 'retention' not in {thread.name for thread in threading.enumerate()}
  with _running(tmp_path, _Models(tmp_path / 'out')):
    pass  # No lock is left.


def test_an_error_of_the_deciding_thread_is_no_end_of_it(tmp_path, monkeypatch, caplog):
  models = _Models(tmp_path / 'out')
  with _running(tmp_path, models) as (node, port):

    def fail():
      monkeypatch.undo()
      raise ValueError('Secret^Person')

    monkeypatch.setattr(node, '_tell_gauges', fail)
    _until(lambda: 'decisions: ValueError; tried again' in caplog.messages)
    assert all(node.state()['threads'].values())
    del port
  assert 'Secret' not in caplog.text


def test_what_has_been_kept_for_long_enough_goes(tmp_path, monkeypatch):
  monkeypatch.setattr(service, '_SWEEP_S', 0.1)
  models = _Models(tmp_path / 'out')
  keep = service.retention.Keep(0, 0, 0)
  with _running(tmp_path, models, keep=keep) as (node, port):
    running_node.send(port, running_node.study(tmp_path / 'in', 1))
    spooled = tmp_path / 'out' / 'spool' / 'studies' / batch_archive.study_uid(1)
    _until(lambda: _ended(tmp_path) == 1 or not spooled.exists())
    _until(lambda: not spooled.exists() and _ended(tmp_path) == 0)
    manifest = tmp_path / 'out' / records.MANIFEST_FILE
    _until(lambda: len(manifest.read_text('utf-8').splitlines()) == 1)
    assert node.state()['threads']['retention'] is True


def test_workers_that_cannot_start_end_it_in_words(tmp_path, monkeypatch, capfd):
  def map_studies(function, feed, *, processes, stop):
    del function, feed, processes, stop
    raise errors.ClusterError('worker processes must start')
    yield

  monkeypatch.setattr(engines, 'map_studies', map_studies)
  settings = service.Settings(tmp_path / 'out', listener=listener.Settings(port=0))
  node = service.Node(settings, _Models(tmp_path / 'out').make_scorer)
  with pytest.raises(errors.ClusterError, match='must start'):
    node.run()
  names = {'decisions', 'retention', 'listener'}
  assert not names & {thread.name for thread in threading.enumerate()}
  assert capfd.readouterr().err == ''
