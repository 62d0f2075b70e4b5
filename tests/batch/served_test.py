"""The whole command as a user starts it: worker processes, model servers, a restart."""

import csv
import os
import subprocess
import sys

import batch_archive
import fake_serving

from covid_tf.storage import result_json


def _batch(folder, *flags):
  return subprocess.run(
    [
      sys.executable,
      '-m',
      'covid_tf.cli',
      'batch',
      'in',
      '--output',
      'out',
      '--no-reports',
      '--processes',
      '1',
      *flags,
    ],
    cwd=folder,
    capture_output=True,
    text=True,
    timeout=280,
    check=False,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(map(os.path.abspath, sys.path))},
  )


def test_relative_paths_are_scored_by_two_servers_and_once(tmp_path):
  batch_archive.write_archive(tmp_path / 'in', 4)
  one, two = fake_serving.FakeServing(), fake_serving.FakeServing()
  servers = ('--server', f'{one.address},{two.address}')
  try:
    ended = _batch(tmp_path, *servers)
    assert ended.returncode == 0, ended.stderr
    assert 'This run: 4 scored' in ended.stdout
    assert one.predicted and two.predicted
    asked = len(one.predicted) + len(two.predicted)
    assert 'Earlier runs: 4 scored' in _batch(tmp_path, *servers).stdout
    assert len(one.predicted) + len(two.predicted) == asked
  finally:
    one.stop()
    two.stop()
  with open(tmp_path / 'out' / 'manifest.csv', newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert sorted(row['key'] for row in rows) == [
    batch_archive.study_uid(number) for number in range(1, 5)
  ]
  for row in rows:
    result = result_json.read_result(tmp_path / 'out' / 'studies' / row['key'])
    assert result.corona_score_cm3 == float(row['corona_score_cm3']) > 0
