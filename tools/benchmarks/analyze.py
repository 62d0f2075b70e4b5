"""Where the time of `analyze` goes, beside the networks' own time.

  python tools/benchmarks/analyze.py --slices 200            # one size
  python tools/benchmarks/analyze.py --slices 300,600 --json

Each call of a network is made twice, once for `analyze` and once for nothing but
its time, in turns: a slow minute of the machine slows both. A table says where
the seconds of each study go; the figures are

  network_ratio     analyze / the networks alone, on the same slices
  outside_share     share of analyze that is not inside the networks
  growth_ratio      seconds at the largest size / at the size before
  seconds           by size and stage
"""

import argparse
import contextlib
import json
import sys
import time
from unittest import mock

import numpy as np

from covid_tf import volume as volume_lib
from covid_tf.analysis import corona_score
from covid_tf.analysis import localization
from covid_tf.analysis import lungs
from covid_tf.analysis import pipeline
from covid_tf.commands import shared_flags
from covid_tf.datasets import phantom

_SEED = phantom.TRAINING_SEED_LIMIT + 7  # Held out, with disease.
# Function of the pipeline -> its row in the table.
_STAGES = (
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
    self.inside_s = {'segment_lungs': 0.0, 'grad_cam': 0.0}
    self.alone_s = 0.0

  def segment_lungs(self, hu):
    return self._both('segment_lungs', hu)

  def grad_cam(self, hu):
    return self._both('grad_cam', hu)

  def _both(self, name, hu):
    self._turn += 1
    if self._turn % 2:  # Which comes first alternates: caches favour the second.
      self._alone(name, hu)
    begin = time.perf_counter()
    answer = getattr(self._models, name)(hu)
    self.inside_s[name] += time.perf_counter() - begin
    if not self._turn % 2:
      self._alone(name, hu)
    return answer

  def _alone(self, name, hu):
    begin = time.perf_counter()
    getattr(self._models, name)(hu)
    self.alone_s += time.perf_counter() - begin


def study(slices: int) -> volume_lib.CTVolume:
  """A phantom of so many slices of 512 x 512, with opacities.

  Its 256 x 256 pixels are doubled and its slices repeated: networks and pipeline
  take the same time for them as for drawn ones, which would take an hour.
  """
  drawn = phantom.generate(phantom.draw_case(_SEED, 'diffuse')).volume
  nearest = np.linspace(0, drawn.shape[0] - 1, slices).round().astype(int)
  hu = drawn.hu[nearest].repeat(2, axis=1).repeat(2, axis=2)
  affine = drawn.affine.copy()
  affine[:3, 0] *= drawn.shape[0] / slices
  affine[:3, 1:3] /= 2
  return volume_lib.CTVolume(hu, affine)


def measure(volume: volume_lib.CTVolume, models) -> dict:
  """Analyzes once; seconds by stage and the two ratios."""
  timed = TimedModels(models)
  stages = {}
  with contextlib.ExitStack() as stack:
    for module, name, row in _STAGES:
      stack.enter_context(
        mock.patch.object(module, name, _timed(getattr(module, name), row, stages))
      )
    begin = time.perf_counter()
    result = pipeline.analyze(volume, timed)
    total = time.perf_counter() - begin - timed.alone_s
  inside = sum(timed.inside_s.values())
  seconds = {
    'lungs network': timed.inside_s['segment_lungs'],
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
      stages[row] = time.perf_counter() - begin

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


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  shared_flags.add_model_arguments(parser)
  parser.add_argument(
    '--slices', default='300,600', help='sizes, ascending (default 300,600)'
  )
  parser.add_argument('--json', action='store_true', help='one JSON object at the end')
  arguments = parser.parse_args()
  with shared_flags.open_models(arguments) as models:
    pipeline.analyze(study(40), models)  # The first calls also prepare the graphs.
    found = []
    for slices in map(int, arguments.slices.split(',')):
      found.append(measure(study(slices), models))
      print_table(found[-1])
      sys.stdout.flush()
  figures = {
    'network_ratio': found[0]['network_ratio'],
    'outside_share': found[0]['outside_share'],
    'seconds': {
      str(one['slices']): one['seconds'] | {'analyze': one['total_s']} for one in found
    },
  }
  if len(found) > 1:
    figures['growth_ratio'] = found[-1]['total_s'] / found[-2]['total_s']
    print(
      f'{found[-1]["slices"]} / {found[-2]["slices"]} slices: '
      f'{figures["growth_ratio"]:.3f} times the seconds'
    )
  if arguments.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  main()
