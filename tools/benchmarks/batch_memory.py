"""Resident memory of the main process and its workers over a run."""

import dataclasses
import pathlib
import statistics
import threading

import batch_stub
import psutil

from covid_tf.batch import archive
from covid_tf.batch import archive_run
from covid_tf.batch import engines
from covid_tf.batch import records


def run(root: pathlib.Path, count: int) -> dict[str, float]:
  """Scores one phantom `count` times under as many keys, and watches the memory."""
  source = batch_stub.write_archive(root / 'in', 1, 20.0, 128)
  (study,) = archive.find_studies(source).studies
  studies = tuple(
    dataclasses.replace(study, key=f'{study.key}.{number}') for number in range(count)
  )
  megabytes = []
  stop = threading.Event()

  def watched(function, items):
    for end in engines.map_studies(function, items, processes=2, stop=stop):
      megabytes.append(_resident_mb())
      yield end

  output = root / 'out'
  with archive_run.exclusive(output):
    outcome = archive_run.run(
      dataclasses.replace(archive.find_studies(source), studies=studies),
      batch_stub.make_scorer(source, output, 0, 0),
      watched,
      stop,
    )
  if outcome.count(records.SCORED) != count:
    raise SystemExit(f'not all were scored: {outcome.progress.reasons}')
  tenth = count // 10
  return {
    'second_tenth_mb': statistics.median(megabytes[tenth : 2 * tenth]),
    'last_tenth_mb': statistics.median(megabytes[-tenth:]),
    'memory_growth': (
      statistics.median(megabytes[-tenth:])
      / statistics.median(megabytes[tenth : 2 * tenth])
    ),
  }


def _resident_mb() -> float:
  main = psutil.Process()
  return (
    sum(process.memory_info().rss for process in (main, *main.children(recursive=True)))
    / 2**20
  )
