"""SIGKILL of the main process and of workers: nothing incomplete, nothing twice."""

import contextlib
import csv
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import batch_archive
import psutil

from covid_tf.batch import records
from covid_tf.reports import scored_study

_STUDIES = 6
_NAMES = sorted({*scored_study.FILE_NAMES, records.RECORD_FILE} - {'report.html'})


def _start(source, output):
  return subprocess.Popen(
    [sys.executable, batch_archive.__file__, str(source), str(output), '0.15'],
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
  )


def _workers(process):
  """Worker processes; the resource tracker beside them is none."""
  found = []
  for child in psutil.Process(process.pid).children():
    with contextlib.suppress(psutil.NoSuchProcess):  # It has ended meanwhile.
      if 'spawn_main' in ' '.join(child.cmdline()):
        found.append(child)
  return found


def _disturb(process, chance: random.Random) -> None:
  """Kills the main process or a worker at some moment, if it has not ended."""
  with contextlib.suppress(psutil.NoSuchProcess):
    while process.poll() is None and not _workers(process):
      time.sleep(0.01)
    time.sleep(chance.uniform(0, 3))
    if chance.random() < 0.5:
      process.kill()
    elif workers := _workers(process):
      chance.choice(workers).kill()


def _results(output: pathlib.Path):
  """Key to the numbers of each study; fails on anything that is not whole."""
  found = {}
  for folder in (output / 'studies').iterdir():
    if folder.name.startswith('.'):
      continue
    assert sorted(os.listdir(folder)) == _NAMES
    found[folder.name] = json.loads((folder / 'result.json').read_text())
  return found


def test_twice_killed_is_the_same_as_undisturbed(tmp_path):
  source = batch_archive.write_archive(tmp_path / 'in', _STUDIES)
  batch_archive.score_in_process(source, tmp_path / 'calm')
  chance = random.Random(5)
  output = tmp_path / 'out'
  for _ in range(3):
    process = _start(source, output)
    for _ in range(2):
      _disturb(process, chance)
    process.kill()
    process.wait()
    if (output / 'studies').exists():
      _results(output)
  deadline = time.monotonic() + 280
  while _start(source, output).wait(280) and time.monotonic() < deadline:
    pass
  assert _results(output) == _results(tmp_path / 'calm')
  with open(output / records.MANIFEST_FILE, newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert sorted(row['key'] for row in rows) == sorted(
    batch_archive.study_uid(number) for number in range(1, _STUDIES + 1)
  )
  assert {row['status'] for row in rows} == {'scored'}


def test_workers_do_not_outlive_a_killed_run(tmp_path):
  source = batch_archive.write_archive(tmp_path / 'in', 1)
  process = _start(source, tmp_path / 'out')
  workers = []
  deadline = time.monotonic() + 120
  while not workers and time.monotonic() < deadline and process.poll() is None:
    workers = _workers(process)
    time.sleep(0.01)
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
  assert workers
  gone, alive = psutil.wait_procs(workers, timeout=120)
  assert len(gone) == len(workers) and not alive
