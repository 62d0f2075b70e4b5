"""The four paths, who may not hold them up, and what they never tell."""

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest

from covid_tf import errors
from covid_tf.node import health as health_lib
from covid_tf.node import metrics as metrics_lib

pytest.importorskip('prometheus_client', reason='no extra clinic')

_GOOD = {
  'threads': {'listener': True, 'forwarding': True},
  'ready': {'models': True, 'disk': True},
  'studies': {'1.2.3': {'state': 'waiting', 'reason': 'quiet for 12 s of 60 s'}},
}


class _Node:
  """Something whose state a test changes."""

  def __init__(self):
    self.state = dict(_GOOD)

  def __call__(self):
    return self.state


@pytest.fixture(name='node')
def _node():
  return _Node()


@pytest.fixture(name='health')
def _health(node):
  metrics = metrics_lib.Metrics()
  with health_lib.Health('127.0.0.1', 0, metrics, node, slowest_s=600) as health:
    yield health


def _ask(health, path, method='GET', host='127.0.0.1'):
  connection = http.client.HTTPConnection(host, health.port, timeout=60)
  connection.request(method, path)
  answer = connection.getresponse()
  return answer.status, answer.headers, answer.read()


def test_the_four_paths(health):
  assert _ask(health, '/healthz')[0] == 200
  status, _, content = _ask(health, '/readyz?verbose')
  assert status == 200 and json.loads(content) == {'ready': True}
  status, headers, content = _ask(health, '/metrics')
  assert status == 200 and headers['Content-Type'].startswith('text/plain; version=')
  assert b'covid_tf_node_instances_total{outcome="new"} 0.0' in content
  status, _, content = _ask(health, '/studies')
  assert status == 200 and json.loads(content) == _GOOD['studies']


def test_a_thread_that_died_is_no_life_and_a_full_disk_is_not_ready(health, node):
  node.state = _GOOD | {'ready': {'models': True, 'disk': 'the disk is nearly full'}}
  assert _ask(health, '/healthz')[0] == 200
  status, _, content = _ask(health, '/readyz')
  assert status == 503
  assert json.loads(content) == {
    'ready': False,
    'not': {'disk': 'the disk is nearly full'},
  }
  node.state = _GOOD | {'threads': {'listener': True, 'forwarding': False}}
  status, _, content = _ask(health, '/healthz')
  assert status == 503 and json.loads(content)['not'] == {'forwarding': False}
  assert _ask(health, '/readyz')[0] == 503


@pytest.mark.parametrize(
  'path', ['/', '/healthz/', '/metrics/..', '/../etc/passwd', '/x' * 999]
)
def test_there_is_nothing_else(health, path):
  assert _ask(health, path)[0] == 404


@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'Q'])
def test_nothing_can_be_changed(health, method):
  status, _, content = _ask(health, '/studies', method)
  assert status == 405 and b'GET and HEAD' in content


def test_head_tells_the_length_alone(health):
  status, headers, content = _ask(health, '/studies', 'HEAD')
  assert status == 200 and content == b''
  assert int(headers['Content-Length']) == len(_ask(health, '/studies')[2])


def test_who_is_slow_holds_up_nobody(health):
  with contextlib.ExitStack() as stack:
    for number in range(40):
      slow = stack.enter_context(
        socket.create_connection(('127.0.0.1', health.port), 60)
      )
      if number >= 20:
        slow.send(b'GET /stud')
    assert _ask(health, '/healthz')[0] == 200  # Long before those are cut off.


def test_who_is_slow_is_cut_off(node):
  with (
    health_lib.Health(
      '127.0.0.1', 0, metrics_lib.Metrics(), node, slowest_s=0.5
    ) as health,
    socket.create_connection(('127.0.0.1', health.port), 60) as silent,
    socket.create_connection(('127.0.0.1', health.port), 60) as slow,
    pytest.raises(ConnectionError),
  ):
    assert silent.recv(1) == b''
    end = time.monotonic() + 60
    while time.monotonic() < end:  # A byte now and then buys no more time.
      slow.send(b'X')
      time.sleep(0.05)


def test_garbage_is_answered_without_a_word_on_stderr(health, capfd):
  for garbage in (
    b'\x16\x03\x01\x02\x00\x01\x00',
    b'GET\r\n\r\n',
    b'\r\n',
    b'A' * 70_000,
  ):
    with socket.create_connection(('127.0.0.1', health.port), 60) as connection:
      with contextlib.suppress(OSError):  # It may have been cut off by now.
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1000)
  with socket.create_connection(('127.0.0.1', health.port), 60) as connection:
    connection.send(b'GET /metrics HTTP/1.0\r\n\r\n')  # Leaves without the answer.
  assert _ask(health, '/healthz')[0] == 200
  assert capfd.readouterr().err == ''


def test_a_state_that_cannot_be_told_is_an_error_without_its_text(health, node, capfd):
  def fail():
    raise ValueError('Secret^Person')

  node.state = None
  health._handler.state = staticmethod(fail)
  status, _, content = _ask(health, '/readyz')
  assert status == 500 and b'ValueError' in content and b'Secret' not in content
  assert _ask(health, '/metrics')[0] == 200
  assert capfd.readouterr().err == ''


def test_a_port_in_use_is_refused_in_words(health, node):
  again = health_lib.Health('127.0.0.1', health.port, metrics_lib.Metrics(), node)
  with pytest.raises(errors.UsageError, match='--health-port .* a free port'):
    again.__enter__()
  nowhere = health_lib.Health('203.0.113.1', 0, metrics_lib.Metrics(), node)
  with pytest.raises(errors.UsageError, match='an address of this machine'):
    nowhere.__enter__()


def test_ipv6_and_an_end_without_a_thread(node):
  try:
    socket.create_server(('::1', 0), family=socket.AF_INET6).close()
  except OSError:
    pytest.skip('no IPv6 here')
  before = set(threading.enumerate())
  with health_lib.Health('::1', 0, metrics_lib.Metrics(), node) as health:
    assert health.is_alive and _ask(health, '/healthz', host='::1')[0] == 200
  end = time.monotonic() + 60
  while set(threading.enumerate()) - before and time.monotonic() < end:
    time.sleep(0.02)
  assert not set(threading.enumerate()) - before and not health.is_alive
