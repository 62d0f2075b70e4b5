"""An archive's engine: speed-up, overhead, kills, large listings, memory.

  python tools/benchmarks/batch.py                     # all parts, some minutes
  python tools/benchmarks/batch.py --parts speedup --json

Models are a sleep of the time that a server takes (--lungs-ms, --grad-cam-ms a
slice). The defaults are a fifth of what batch_stages.py --networks measures on two
cores: a longer sleep would make every ratio better. The figures are

  two_process_speedup      wall time of the archive with 1 worker / with 2
  engine_overhead          seconds a study that the engine adds / seconds of a study
  kills, torn, missing, duplicated, different
                           after SIGKILL of the main process and of workers, against
                           an undisturbed run
  listing_s, listing_mb    100,000 studies from the walk to the plan, headers faked
  manifest_rebuild_s       of 100,000 results
  memory_growth            resident memory, last tenth of a run / second tenth
"""

import argparse
import json
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import batch_kills
import batch_large
import batch_memory
import batch_stub

from covid_tf import streams
from covid_tf.batch import engines
from covid_tf.batch import records

_PARTS = ('speedup', 'kills', 'large', 'memory')


def speedup(root: pathlib.Path, flags) -> dict[str, float]:
  """The archive with one worker and with two; and what handing out costs."""
  source = batch_stub.write_archive(root / 'in', flags.studies, 10.0, 256)
  wall = {}
  for processes in (1, 2):
    output = root / f'out{processes}'
    start = time.perf_counter()
    outcome = batch_stub.score(
      source, output, processes, flags.lungs_ms, flags.grad_cam_ms
    )
    wall[processes] = time.perf_counter() - start
    if outcome.count(records.SCORED) != flags.studies:
      raise SystemExit(f'not all studies were scored: {outcome.progress.reasons}')
  seconds = [record.seconds for record in records.read_records(root / 'out1')]
  return {
    'one_process_s': wall[1],
    'two_process_s': wall[2],
    'two_process_speedup': wall[1] / wall[2],
    'study_s': statistics.mean(seconds),
    'engine_overhead': handing_out_s() / statistics.mean(seconds),
    # With one worker the models' time is the floor: the rest is not hidden by it.
    'hidden_share': statistics.mean(seconds) * flags.studies / wall[1],
  }


def handing_out_s(count: int = 2000) -> float:
  """Seconds a study between two processes, for a function that does nothing."""
  start = None
  for _ in engines.map_studies(batch_large.made_up_record, range(count), processes=1):
    start = start or time.perf_counter()  # Not the start of the process.
  return (time.perf_counter() - start) / (count - 1)


def main() -> None:
  """Runs the parts that were asked for."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--parts', default=','.join(_PARTS))
  parser.add_argument('--studies', type=int, default=24)
  parser.add_argument('--lungs-ms', type=float, default=61.0)
  parser.add_argument('--grad-cam-ms', type=float, default=37.0)
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--large', type=int, default=100_000)
  parser.add_argument('--memory-studies', type=int, default=300)
  parser.add_argument('--json', action='store_true')
  flags = parser.parse_args()
  parts = {
    'speedup': lambda root: speedup(root, flags),
    'kills': lambda root: batch_kills.run(root, flags.kills),
    'large': lambda root: batch_large.run(root, flags.large),
    'memory': lambda root: batch_memory.run(root, flags.memory_studies),
  }
  figures = {}
  for name in flags.parts.split(','):
    root = pathlib.Path(tempfile.mkdtemp(prefix='covid-tf-batch-'))
    try:
      found = parts[name](root)
      for figure, value in found.items():
        print(f'{name:8} {figure:24} {value:12.4g}', file=sys.stderr, flush=True)
    finally:
      shutil.rmtree(root, ignore_errors=True)
    figures |= found
  if flags.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()
