"""The node's benchmark in small: twelve studies, every way of sending, one SIGKILL."""

import json
import os
import pathlib
import subprocess
import sys

_SCRIPT = (
  pathlib.Path(__file__).resolve().parents[2].joinpath('tools', 'benchmarks', 'node.py')
)


def test_a_killed_node_loses_nothing_and_does_nothing_twice():
  done = subprocess.run(
    [
      *(sys.executable, _SCRIPT, '--studies=12', '--kills=1', '--settle=3', '--json'),
      *('--spacing=40', '--matrix=96', '--processes=1'),
    ],
    capture_output=True,
    text=True,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
  )
  assert done.returncode == 0, done.stderr
  figures = json.loads(done.stdout.splitlines()[-1])
  assert figures['kills'] == 1 and figures['log_lines_with_traceback'] == 0
  # All but those that are aborted and never come back.
  assert figures['studies'] == figures['scored'] == 12 - figures['never_whole']
  assert figures['never_whole'] >= 1
  claims = ('lost', 'lost_instances', 'twice', 'partial', 'refused_instances')
  assert not any(figures[name] for name in claims)
