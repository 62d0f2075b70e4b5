"""The paper's experiments on phantoms, killed half-way and run again."""

import json
import os
import pathlib
import subprocess
import sys

import fake_serving
import pytest

_SCRIPT = (
  pathlib.Path(__file__)
  .resolve()
  .parents[2]
  .joinpath('tools', 'benchmarks', 'phantom_cohort.py')
)
_CASES = 4


@pytest.fixture(name='server')
def _server():
  server = fake_serving.FakeServing()
  server.models['classifier'].bias = 1.05  # About half of the slices are positive.
  yield server
  server.stop()


def _start(root, server):
  return subprocess.Popen(
    [
      sys.executable,
      _SCRIPT,
      '--output',
      root,
      '--cases',
      str(_CASES),
      '--matrix',
      '96',
      '--slice-spacing',
      '20',
      '--findings',
      '--json',
      '--server',
      server.address,
    ],
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
  )


def _asked(server, signature):
  return sum(slices for _, name, slices in server.predicted if name == signature)


def test_a_killed_run_goes_on_and_ends_with_findings(tmp_path, server):
  first = _start(tmp_path, server)
  for line in first.stdout:
    if line.startswith('phantom-'):
      break
  first.kill()
  first.stdout.read()  # Ends when the last of its workers has ended.
  first.wait()
  scored = len(list((tmp_path / 'results').iterdir()))
  assert 1 <= scored < _CASES
  before = _asked(server, 'grad_cam')

  second = _start(tmp_path, server)
  printed = second.communicate(timeout=600)[0]
  assert second.returncode == 0
  table, figures = printed.rsplit('\n', 2)[:2]
  figures = json.loads(figures)
  # What was scored is not asked again; what was under way is.
  assert _asked(server, 'grad_cam') - before < figures['slices']
  assert (figures['n_positive'], figures['n_negative']) == (2, 2)
  assert 'AUC of the score' in table and '0.948' in table
  assert set(figures['clusters']) == {
    row['name']
    for row in json.loads(
      (tmp_path / 'manifestations' / 'manifestations.json').read_text()
    )['clusters']
  }
  counted = sum(sum(kinds.values()) for kinds in figures['clusters'].values())
  assert counted == figures['positive_slices'] + figures['negative_slices'] > 0
  assert all(-1 <= value <= 1 for value in figures['rand_index'].values())
