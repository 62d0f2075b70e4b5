"""SIGKILL at random moments over one archive, against an undisturbed run."""

import argparse
import contextlib
import csv
import os
import pathlib
import random
import subprocess
import sys
import time

import batch_stub
import psutil

from covid_tf import process_end
from covid_tf import streams
from covid_tf.batch import records
from covid_tf.reports import scored_study

_STUDIES = 12
_SLEEP_MS = 10.0  # A slice: a third of a second a study.
_NAMES = {*scored_study.FILE_NAMES, records.RECORD_FILE} - {'report.html'}


def run(root: pathlib.Path, kills: int) -> dict[str, float]:
  """Kills the main process or a worker `kills` times, then lets the run end.

  Whenever the archive is done early, the results of some studies are taken away.
  """
  source = batch_stub.write_archive(root / 'in', _STUDIES, 20.0, 128)
  batch_stub.score(source, root / 'calm', 2, 0, 0)
  calm, _ = _results(root / 'calm')
  chance, output, done, torn = random.Random(20), root / 'out', 0, 0
  process = _start(source, output)
  while done < kills:
    if process.poll() is not None:
      process = _start(source, output)
    done += _disturbed(process, chance)
    if process.poll() is not None:
      found, broken = _results(output)
      torn += broken
      if len(found) == _STUDIES:
        _take_away(output, chance)
  process.wait()
  code = _start(source, output).wait()
  if code:
    raise SystemExit(f'the last run {process_end.how(code)}')
  found, broken = _results(output)
  with open(output / records.MANIFEST_FILE, newline='', encoding='utf-8') as file:
    keys = [row['key'] for row in csv.DictReader(file)]
  return {
    'kills': done,
    'torn': torn + broken,
    'missing': len(set(calm) - set(found)),
    'duplicated': len(keys) - len(set(keys)) + len(set(keys) ^ set(calm)),
    'different': sum(found.get(key) != value for key, value in calm.items()),
  }


def _start(source, output) -> subprocess.Popen:
  return subprocess.Popen([sys.executable, __file__, str(source), str(output)])


def _disturbed(process, chance) -> int:
  """Waits a moment, then kills; returns how many processes it killed."""
  with contextlib.suppress(psutil.NoSuchProcess):
    workers = []
    while process.poll() is None and not workers:
      time.sleep(0.01)
      workers = [
        child
        for child in psutil.Process(process.pid).children()
        if 'spawn_main' in ' '.join(child.cmdline())
      ]
    time.sleep(chance.uniform(0, 4))
    if process.poll() is not None:
      return 0
    if workers and chance.random() < 0.5:
      chance.choice(workers).kill()
    else:
      process.kill()
      process.wait()
    return 1
  return 0


def _results(output: pathlib.Path) -> tuple[dict[str, bytes], int]:
  """(key to result.json, folders that are not whole)."""
  found, torn = {}, 0
  for folder in records.studies_folder(output).glob('[!.]*'):
    if set(os.listdir(folder)) != _NAMES or records.read_record(folder) is None:
      torn += 1
    else:
      found[folder.name] = (folder / 'result.json').read_bytes()
  return found, torn


def _take_away(output: pathlib.Path, chance) -> None:
  for folder in list(records.studies_folder(output).iterdir()):
    if chance.random() < 0.7:
      os.rename(folder, output / f'taken-{chance.random()}')


if __name__ == '__main__':
  with streams.safe_streams():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', help='the archive')
    parser.add_argument('output', help='folder of the results')
    arguments = parser.parse_args()
    batch_stub.score(arguments.source, arguments.output, 2, _SLEEP_MS, 0)
