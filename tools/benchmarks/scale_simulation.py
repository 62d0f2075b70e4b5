"""SIMULATED: a million studies on 1 to 1,000 workers and 1 to 64 model servers.

  python tools/benchmarks/scale_simulation.py [--studies N] [--json]

Nothing here was run on such a cluster. One scheduler hands studies to workers, two
in hand each; storage is one pipe; a server takes requests one after the other; each
study always asks the same server; a worker reads the next study while this one is
with the models. The costs of a study are those that batch_stages.py and the serving
benchmark measured (docs/scale.md); cluster figures are assumptions, by flags.
Requests are served in the order in which their studies were handed out, which
flatters no configuration by more than one study a worker.
"""

import argparse
import dataclasses
import heapq
import json
import sys

import numpy as np

from covid_tf import streams

_WORKERS = (1, 4, 16, 64, 250, 1000)
_SERVERS = (1, 4, 16, 64)


@dataclasses.dataclass(frozen=True)
class Costs:
  """Seconds and bytes of a study: fixed, and for each slice.

  Attributes:
    read_s, score_s, models_s: (fixed, a slice) of a worker's core, the same, and a
      server.
    read_bytes: (fixed, a slice) from storage.
    storage_bytes_s: that storage gives all workers together.
    dispatch_s: of the scheduler, a study.
    refused_share: studies that are read and refused.
    killed_share: of studies whose worker dies once while scoring them.
  """

  read_s: tuple[float, float]
  score_s: tuple[float, float]
  models_s: tuple[float, float]
  read_bytes: tuple[float, float]
  storage_bytes_s: float
  dispatch_s: float
  refused_share: float
  killed_share: float


@dataclasses.dataclass(frozen=True)
class Simulated:
  """What a simulated run took.

  Attributes:
    hours: until the last study ended.
    bound_by: the resource that was busy most.
    busy: share of the time that each resource was busy.
  """

  hours: float
  bound_by: str
  busy: dict[str, float]


def draw_slices(count: int, rng: np.random.Generator) -> np.ndarray:
  """Slices of studies: half thick (about 45), half thin (about 300)."""
  thick = rng.normal(45, 10, count).clip(15, 90)
  thin = rng.normal(300, 60, count).clip(120, 600)
  return np.where(rng.uniform(size=count) < 0.5, thick, thin)


def simulate(
  slices: np.ndarray, workers: int, servers: int, costs: Costs, rng: np.random.Generator
) -> Simulated:
  """Plays one run through.

  Args:
    slices: of each study.
    workers, servers: how many there are.
    costs: of a study.
    rng: for refusals, deaths and the choice of servers.
  """

  def linear(cost):
    return cost[0] + cost[1] * slices

  killed = rng.uniform(size=len(slices)) < costs.killed_share
  # A killed study is done again: everything twice, half of it on average for nothing.
  again = np.where(killed, 1.5, 1.0)
  refused = rng.uniform(size=len(slices)) < costs.refused_share
  read = linear(costs.read_s) * again
  score = np.where(refused, 0, linear(costs.score_s) * again)
  models = np.where(refused, 0, linear(costs.models_s) * again)
  storage = linear(costs.read_bytes) * again / costs.storage_bytes_s
  server = rng.integers(servers, size=len(slices))
  end = _played(
    workers,
    servers,
    costs.dispatch_s,
    *(values.tolist() for values in (read, score, models, storage, server)),
  )
  busy = {
    'scheduler': len(slices) * costs.dispatch_s / end,
    'storage': float(storage.sum()) / end,
    'workers': float((read + score).sum()) / end / workers,
    'servers': float(models.sum()) / end / servers,
  }
  return Simulated(end / 3600, max(busy, key=busy.get), busy)


def _played(
  workers, servers, dispatch_s, read, score, models, storage, server
) -> float:
  """Seconds until the last study has ended."""
  slots = [(0.0, number % workers) for number in range(2 * workers)]
  heapq.heapify(slots)
  core_free = [0.0] * workers
  turn_free = [0.0] * workers  # Of the models, within a worker.
  server_free = [0.0] * servers
  scheduler_free = storage_free = last = 0.0
  for index, home in enumerate(server):
    free, worker = heapq.heappop(slots)
    scheduler_free = max(scheduler_free, free) + dispatch_s
    storage_free = max(storage_free, scheduler_free) + storage[index]
    loaded = max(storage_free, core_free[worker]) + read[index]
    core_free[worker] = loaded
    begun = max(loaded, turn_free[worker], server_free[home])
    answered = begun + models[index]
    server_free[home] = turn_free[worker] = answered
    # The core is shared with reading the next study, which has begun meanwhile.
    ended = answered + score[index]
    core_free[worker] += score[index]
    last = max(last, ended)
    heapq.heappush(slots, (ended, worker))
  return last


def main() -> None:
  """Simulates every pair of sizes; prints a table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--studies', type=int, default=1_000_000)
  parser.add_argument('--read-s', type=float, nargs=2, default=(0.0, 0.00053))
  parser.add_argument('--score-s', type=float, nargs=2, default=(0.0044, 0.0053))
  parser.add_argument('--models-s', type=float, nargs=2, default=(0.0, 0.004))
  parser.add_argument('--slice-bytes', type=float, default=527_000)
  parser.add_argument('--storage-bytes-s', type=float, default=2e9)
  parser.add_argument('--dispatch-s', type=float, default=0.001)
  parser.add_argument('--refused-share', type=float, default=0.05)
  parser.add_argument('--killed-share', type=float, default=0.002)
  parser.add_argument('--json', action='store_true')
  flags = parser.parse_args()
  costs = Costs(
    tuple(flags.read_s),
    tuple(flags.score_s),
    tuple(flags.models_s),
    (0.0, flags.slice_bytes),
    flags.storage_bytes_s,
    flags.dispatch_s,
    flags.refused_share,
    flags.killed_share,
  )
  slices = draw_slices(flags.studies, np.random.default_rng(1))
  print(
    f'SIMULATED: hours for {flags.studies} studies of {slices.mean():.0f} slices '
    'on average; in brackets what is busy most',
    file=sys.stderr,
  )
  print(
    'workers ' + ''.join(f'{count:>9} server(s)   ' for count in _SERVERS),
    file=sys.stderr,
  )
  figures = {}
  for workers in _WORKERS:
    row = []
    for servers in _SERVERS:
      found = simulate(slices, workers, servers, costs, np.random.default_rng(2))
      figures[f'simulated_hours_{workers}_workers_{servers}_servers'] = found.hours
      row.append(f'{found.hours:10.1f} ({found.bound_by:9})')
    print(f'{workers:7} ' + ''.join(row), file=sys.stderr, flush=True)
  if flags.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()
