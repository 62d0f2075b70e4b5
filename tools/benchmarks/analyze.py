"""What `analyze` takes, by slabs and by every slice, and what slabs change.

  python tools/benchmarks/analyze.py                          # time, 300 and 600 slices
  python tools/benchmarks/analyze.py --slices 200 --json      # one size
  python tools/benchmarks/analyze.py --part spread  # accuracy, limit, lungmask

Each call of a network is made twice, once for `analyze` and once for nothing but
its time, in turns: a slow minute of the machine slows both. A table says where
the seconds of each study go; the figures of `--part time` are

  network_ratio        analyze / the networks alone, every slice as it is
  outside_share        share of analyze that is not inside the networks, the same way
  growth_ratio         seconds at the largest size / at the size before, the same way
  slab_ratio           analyze with slabs of 5 mm / every slice, slices of 1 mm
  slab_outside_share   share of analyze with slabs that is not inside the networks
  thick_ratio          30 slices of 8 mm, exports in bfloat16 / in float32; null on a
                       processor without bfloat16
  seconds              by size and stage

`spread` prints spacing_spread: one chest divided into slices in six ways, the largest
score / the smallest, median over studies. `accuracy` prints AUC, sensitivity and
specificity of slices by slabs and by every slice, and how far masks of lungs differ.
`trials` prints seconds of other batches, threads and sizes / today's, in turns.
`limit` prints at which distance of slices averages stop to pay.
`lungmask` prints lungmask_ratio: seconds of lungmask's network (R231's architecture,
random weights) / ours, for the lungs of 300 slices of 1 mm; --torch-python names a
Python that has torch.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from unittest import mock

import analyze_trials
import environment  # noqa: F401  Before TensorFlow.
import numpy as np
import slab_quality

from covid_tf import predictors
from covid_tf import results
from covid_tf import streams
from covid_tf import volume as volume_lib
from covid_tf.analysis import corona_score
from covid_tf.analysis import localization
from covid_tf.analysis import lungs
from covid_tf.analysis import pipeline
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.commands import model_flags
from covid_tf.datasets import phantom

_SEED = phantom.TRAINING_SEED_LIMIT + 7  # Held out, with disease.
_EVERY_SLICE = results.Thresholds(every_slice=True)
_TURNS = 3
# Function of the pipeline -> its row in the table.
_STAGES = (
  (slabs_lib.Averages, 'average', 'averages'),
  (lungs, 'find_lungs', 'lungs: components, box'),
  (lungs, 'find_regions', 'regions'),
  (localization, 'localize', 'localization'),
  (corona_score, 'corona_score', 'fusion and score'),
)


class TimedModels:
  """Times the calls that `analyze` makes, and repeats each for comparison.

  Attributes:
    inside_s: method to seconds of the calls for `analyze`.
    alone_s: seconds of the repeated calls.
  """

  def __init__(self, models):
    self._models = models
    self._turn = 0
    self.inside_s = {'lungs': 0.0, 'grad_cam': 0.0}
    self.alone_s = 0.0

  def segment_lungs(self, hu):
    return self._both('segment_lungs', hu, 'lungs')

  def lung_probability(self, hu):
    return self._both('lung_probability', hu, 'lungs')

  def grad_cam(self, hu):
    return self._both('grad_cam', hu, 'grad_cam')

  def _both(self, name, hu, row):
    self._turn += 1
    if self._turn % 2:  # Which comes first alternates: caches favour the second.
      self._alone(name, hu)
    begin = time.perf_counter()
    answer = getattr(self._models, name)(hu)
    self.inside_s[row] += time.perf_counter() - begin
    if not self._turn % 2:
      self._alone(name, hu)
    return answer

  def _alone(self, name, hu):
    begin = time.perf_counter()
    getattr(self._models, name)(hu)
    self.alone_s += time.perf_counter() - begin


def study(slices: int, distance_mm: float = 1.0) -> volume_lib.CTVolume:
  """A phantom of so many slices of 512 x 512, with opacities.

  Its 256 x 256 pixels are doubled and its slices repeated: networks and pipeline
  take the same time for them as for drawn ones, which would take an hour.
  """
  drawn = phantom.generate(phantom.draw_case(_SEED, 'diffuse')).volume
  nearest = np.linspace(0, drawn.shape[0] - 1, slices).round().astype(int)
  hu = drawn.hu[nearest].repeat(2, axis=1).repeat(2, axis=2)
  affine = drawn.affine.copy()
  affine[:3, 0] *= distance_mm / drawn.spacing_mm[0]
  affine[:3, 1:3] /= 2
  return volume_lib.CTVolume(hu, affine)


def measure(volume: volume_lib.CTVolume, models, thresholds=_EVERY_SLICE) -> dict:
  """Analyzes once; seconds by stage and the two ratios."""
  timed = TimedModels(models)
  stages = {}
  with contextlib.ExitStack() as stack:
    for module, name, row in _STAGES:
      stack.enter_context(
        mock.patch.object(module, name, _timed(getattr(module, name), row, stages))
      )
    begin = time.perf_counter()
    result = pipeline.analyze(volume, timed, thresholds=thresholds)
    total = time.perf_counter() - begin - timed.alone_s
  inside = sum(timed.inside_s.values())
  seconds = {
    'lungs network': timed.inside_s['lungs'],
    'classifier, Grad-CAM': timed.inside_s['grad_cam'],
  } | stages
  seconds['slices to and fro, checks'] = total - sum(seconds.values())
  return {
    'slices': volume.shape[0],
    'positive': len(result.positive_slices),
    'total_s': total,
    'networks_alone_s': timed.alone_s,
    'network_ratio': total / timed.alone_s,
    'outside_share': 1 - inside / total,
    'seconds': seconds,
  }


def _timed(function, row, stages):
  def run(*args, **options):
    begin = time.perf_counter()
    try:
      return function(*args, **options)
    finally:
      stages[row] = stages.get(row, 0) + time.perf_counter() - begin

  return run


def print_table(found: dict) -> None:
  """One study as a table."""
  print(f'{found["slices"]} slices of 512 x 512, {found["positive"]} positive')
  for row, seconds in found['seconds'].items():
    print(f'  {row:28} {seconds:8.2f} s  {seconds / found["total_s"]:6.1%}')
  print(f'  {"analyze":28} {found["total_s"]:8.2f} s')
  print(
    f'  {"the networks alone":28} {found["networks_alone_s"]:8.2f} s   '
    f'ratio {found["network_ratio"]:.3f}'
  )


def time_part(models, sizes: list[int]) -> dict:
  """The figures of `--part time`."""
  pipeline.analyze(study(40), models)  # The first calls also prepare the graphs.
  pipeline.analyze(study(40), models, thresholds=_EVERY_SLICE)
  found, slabs = [], []
  for slices in sizes:
    volume = study(slices)
    if not found:
      slabs += [measure(volume, models, results.Thresholds()) for _ in range(_TURNS)]
      print_table(slabs[-1])
    found.append(measure(volume, models))
    print_table(found[-1])
    sys.stdout.flush()
  slabs.sort(key=lambda one: one['total_s'])
  middle = slabs[_TURNS // 2]
  figures = {
    'slab_ratio': middle['total_s'] / found[0]['total_s'],
    'slab_outside_share': middle['outside_share'],
    'network_ratio': found[0]['network_ratio'],
    'outside_share': found[0]['outside_share'],
    'thick_ratio': thick_ratio(),
    'seconds': {
      str(one['slices']): one['seconds'] | {'analyze': one['total_s']} for one in found
    }
    | {'slabs': middle['seconds'] | {'analyze': middle['total_s']}},
  }
  if len(found) > 1:
    figures['growth_ratio'] = found[-1]['total_s'] / found[-2]['total_s']
  for name, value in figures.items():
    if name != 'seconds':
      print(f'{name:20} {value if value is None else format(value, ".3f")}')
  return figures


def thick_ratio() -> float | None:
  """Seconds of 30 slices of 8 mm by exports in bfloat16 / by those in float32."""
  if 'avx512_bf16' not in pathlib.Path('/proc/cpuinfo').read_text():
    print(f'thick_ratio: {platform.machine()} without bfloat16, none measured.')
    return None
  from covid_tf.models import export
  from covid_tf.models import weights

  volume = study(30, 8.0)
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    for name in ('lungs', 'classifier'):
      network, training = weights.load_network(name, weights.DEMO)
      export.export(name, network, folder, training, compute_dtype='bfloat16')
    both = [
      stack.enter_context(predictors.load_models(folder)),
      stack.enter_context(predictors.load_models()),
    ]
    seconds: list[list[float]] = [[], []]
    for turn in range(1 + _TURNS):
      for models, taken in zip(both, seconds, strict=True):
        begin = time.perf_counter()
        pipeline.analyze(volume, models, progress=False)
        if turn:  # The first calls prepare the graphs.
          taken.append(time.perf_counter() - begin)
  narrow, float32 = map(sorted, seconds)
  return narrow[_TURNS // 2] / float32[_TURNS // 2]


def lungmask_part(models, torch_python: str) -> dict:
  """Seconds of lungmask's network for 300 slices / of our lungs by slabs, in turns."""
  slices = 300
  run = f'import lungmask_network; lungmask_network.main({slices})'
  volume = study(slices)
  slabs = slabs_lib.divide(slices, volume.spacing_mm[0], slabs_lib.DEFAULT_THICKNESS_MM)
  ratios = []
  for turn in range(_TURNS):
    theirs = subprocess.run(
      [torch_python, '-c', run],
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
    )
    if theirs.returncode:
      print(f'lungmask_ratio: {torch_python} has no torch, none measured.')
      return {'lungmask_ratio': None}
    if not turn:
      pipeline.segment(study(40), models, slabs_lib.divide(40, 1.0, 5.0))
    begin = time.perf_counter()
    mask = pipeline.segment(volume, models, slabs, progress=False)
    lungs.find_lungs(mask, volume.voxel_volume_mm3, volume.affine, volume.hu)
    ours = time.perf_counter() - begin
    ratios.append(float(theirs.stdout) / ours)
    print(f'lungmask {float(theirs.stdout):.1f} s, ours {ours:.1f} s')
  return {'lungmask_ratio': sorted(ratios)[_TURNS // 2]}


def _real_chest() -> pathlib.Path | None:
  root = pathlib.Path(os.environ.get('COVID_TF_REAL_CT', '../shared/data'))
  folder = root / 'backgrounds' / 'lidc-idri-0002'
  if folder.is_dir():
    return folder
  print(f'Real CT: no {folder}, phantoms alone.')
  return None


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  model_flags.add_model_arguments(parser)
  parser.add_argument(
    '--part',
    choices=('time', 'spread', 'accuracy', 'limit', 'lungmask', 'trials'),
    default='time',
  )
  parser.add_argument(
    '--slices', default='300,600', help='sizes, ascending (default 300,600)'
  )
  parser.add_argument(
    '--every-slice', action='store_true', help='spread: every slice as it is too'
  )
  parser.add_argument(
    '--same-dose',
    action='store_true',
    help='accuracy: phantoms with the noise that 1 mm has at the dose of 5 mm',
  )
  parser.add_argument(
    '--torch-python', default=sys.executable, help='lungmask: a Python with torch'
  )
  parser.add_argument('--json', action='store_true', help='one JSON object at the end')
  arguments = parser.parse_args()
  if arguments.part == 'trials':  # They load models of their own.
    figures = analyze_trials.trials()
    if arguments.json:
      print(json.dumps(figures))
    return
  with model_flags.open_models(arguments) as models:
    if arguments.part == 'time':
      figures = time_part(models, list(map(int, arguments.slices.split(','))))
    elif arguments.part == 'spread':
      figures = slab_quality.spread(models, _real_chest(), arguments.every_slice)
    elif arguments.part == 'accuracy':
      figures = slab_quality.accuracy(models, _real_chest(), arguments.same_dose)
    elif arguments.part == 'limit':
      figures = slab_quality.limit(models)
    else:
      figures = lungmask_part(models, arguments.torch_python)
  if arguments.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()
