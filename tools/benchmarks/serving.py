"""What serving costs beside the models' own work.

  python tools/benchmarks/serving.py --json                  # the client
  python tools/benchmarks/serving.py --load --json           # many clients, swaps

Everything that is compared runs in turns on the same machine. Figures:

  official_stub_ratio   processor seconds of our client / of the official stub with
                        make_tensor_proto and make_ndarray, for a whole study
                        against a server that computes nothing
  in_process_ratio      seconds of a study over gRPC / in this process
  client_cpu_share      processor seconds of our client / of the server, real models
  import_seconds        of `covid_tf.connect` in a new interpreter, with what it
  import_mb             occupies, and whether TensorFlow came along
and with --load
  requests, failed      of all clients; restarted: asked again by a newer version
  wrong                 answers that no version would give
  throughput_ratio      slices a second, all clients together / in process
  memory_mb             of the server, median over the last third of the time
  memory_growth_mb      by how much it is above the median over the middle third
  memory_highest_mb     with the versions that requests still held
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import environment  # noqa: F401  Before TensorFlow.
import numpy as np
import serving_load
import serving_processes

from covid_tf import streams

_LUNGS_SHAPE = (512, 512)  # The usual matrix.
_CROP_SHAPE = (300, 384)  # A usual lung box in it.


def images(slices: int, shape) -> np.ndarray:
  """int16 [slices, *shape]: noise of air and tissue; its values cost nothing."""
  return (
    np.random.default_rng(0).integers(-1000, 300, (slices, *shape)).astype(np.int16)
  )


def official_stub_costs(slices: int, rounds: int) -> dict[str, float]:
  """Our client and the official stub, in turns, against the canned server."""
  import official_client

  import covid_tf

  full, crops = images(slices, _LUNGS_SHAPE), images(slices, _CROP_SHAPE)
  with (
    serving_processes.canned_server() as address,
    covid_tf.connect(address) as models,
  ):
    ours, theirs = _Costs(), _Costs()
    for index in range(rounds + 1):
      with ours.measured(), models.study() as study:
        study.segment_lungs(full)
        study.grad_cam(crops)
      with theirs.measured():
        official_client.study(address, full, crops)
      if not index:  # Connections, caches, lazy imports.
        ours, theirs = _Costs(), _Costs()
  return {
    'official_stub_ratio': ours.cpu_s() / theirs.cpu_s(),
    'official_stub_wall_ratio': ours.wall_s() / theirs.wall_s(),
    'client_ms_a_slice': 1e3 * ours.cpu_s() / slices,
    'official_ms_a_slice': 1e3 * theirs.cpu_s() / slices,
  }


def in_process_costs(models_dir, slices: int, rounds: int) -> dict[str, float]:
  """A study in this process and over gRPC, in turns, on the same models."""
  import covid_tf

  full, crops = images(slices, _LUNGS_SHAPE), images(slices, _CROP_SHAPE)
  local, remote, server_cpu = _Costs(), _Costs(), []
  with (
    covid_tf.load_models(models_dir) as loaded,
    serving_processes.local_server(models_dir) as server,
    covid_tf.connect(server.address) as served,
  ):
    _study(loaded, full[:8], crops[:8])  # Both have planned their graphs by now.
    _study(served, full[:8], crops[:8])
    for index in range(rounds):
      for models in (loaded, served) if index % 2 else (served, loaded):
        before = server.cpu_s()
        with (local if models is loaded else remote).measured():
          _study(models, full, crops)
        if models is served:
          server_cpu.append(server.cpu_s() - before)
  return {
    'in_process_ratio': remote.wall_s() / local.wall_s(),
    'client_cpu_share': remote.cpu_s() / statistics.median(server_cpu),
    'in_process_seconds': local.wall_s(),
    'grpc_seconds': remote.wall_s(),
  }


_IMPORT = """
import resource, sys, time
start = time.perf_counter()
import covid_tf
covid_tf.connect
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
      int('tensorflow' in sys.modules))
"""


def import_costs(rounds: int) -> dict[str, float]:
  """Seconds and megabytes until `covid_tf.connect` is there; the best of several."""
  found = [
    tuple(
      map(
        float,
        subprocess.run(
          [sys.executable, '-c', _IMPORT], capture_output=True, text=True, check=True
        ).stdout.split(),
      )
    )
    for _ in range(rounds)
  ]
  return {
    'import_seconds': min(row[0] for row in found),
    'import_mb': max(row[1] for row in found),
    'import_brings_tensorflow': max(row[2] for row in found),
  }


def _study(models, full, crops) -> None:
  with models.study() as study:
    study.segment_lungs(full)
    study.grad_cam(crops)


class _Costs:
  """Wall and processor seconds of several rounds."""

  def __init__(self):
    self._rounds: list[tuple[float, float]] = []

  def measured(self):
    return self

  def __enter__(self):
    self._start = time.perf_counter(), time.process_time()

  def __exit__(self, *exception):
    self._rounds.append(
      (time.perf_counter() - self._start[0], time.process_time() - self._start[1])
    )

  def wall_s(self) -> float:
    return statistics.median(wall for wall, _ in self._rounds)

  def cpu_s(self) -> float:
    return statistics.median(cpu for _, cpu in self._rounds)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--models', help='exported models (default: the demo models)')
  parser.add_argument('--slices', type=int, default=48)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument(
    '--part', default='all', choices=('all', 'import', 'stub', 'models')
  )
  parser.add_argument('--load', action='store_true', help='many clients, version swaps')
  parser.add_argument('--clients', type=int, default=32)
  parser.add_argument('--seconds', type=float, default=120)
  parser.add_argument('--swap-seconds', type=float, default=10)
  parser.add_argument('--json', action='store_true')
  args = parser.parse_args()
  figures = {}
  if not args.load and args.part in ('all', 'import'):
    figures |= import_costs(args.rounds)
  if not args.load and args.part in ('all', 'stub'):
    figures |= official_stub_costs(2 * args.slices, args.rounds)
  if args.load or args.part in ('all', 'models'):
    models_dir = args.models or serving_processes.demo_models()
    figures |= (
      serving_load.run(models_dir, args.clients, args.seconds, args.swap_seconds)
      if args.load
      else in_process_costs(models_dir, args.slices, args.rounds)
    )
  for name, value in figures.items():
    print(f'{name:26}{value:12.4g}')
  if args.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()
