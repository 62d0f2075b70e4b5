"""CPU seconds and bytes of one study by stage, and the line through them.

  python tools/benchmarks/batch_stages.py [--networks] [--json]

Studies of 512 x 512 with growing slice counts; each stage is fitted as
fixed + slope * slices. CPU time of this process, so that other load on the machine
counts little. --networks adds what both networks take for a slice of 512 x 512, in
CPU seconds of all cores together and by the clock, by the demo models in this process.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time

import batch_stub
import numpy as np

from covid_tf import predictors
from covid_tf import readers
from covid_tf import streams
from covid_tf.analysis import pipeline
from covid_tf.batch import archive
from covid_tf.batch import listing
from covid_tf.reports import case_report
from covid_tf.reports import scored_study

_SPACINGS_MM = (20.0, 6.0, 2.0)  # 14, 45 and 135 slices.
_REPEATS = 3
_STAGES = ('list', 'read', 'analyze', 'write', 'report')


def measure(root: pathlib.Path, spacing_mm: float) -> dict[str, float]:
  """CPU seconds of each stage of one study, its slices and its bytes.

  The median of some repetitions, after one that warms up.
  """
  source = batch_stub.write_archive(root / 'in', 1, spacing_mm, 512)
  models = batch_stub.OpenStub(str(source / batch_stub.PHANTOM_NAME), 0, 0)
  found = {}

  def timed(name, function):
    seconds = []
    for _ in range(1 + _REPEATS):
      start = time.process_time()
      value = function()
      seconds.append(time.process_time() - start)
    found[name] = statistics.median(seconds[1:])
    return value

  (study,) = timed('list', lambda: archive.find_studies(source)).studies
  paths = [path for place in study.places for path in place.files()]
  volume = timed('read', lambda: readers.read_files(paths, name=study.key))
  with models('') as stub:
    result = timed('analyze', lambda: pipeline.analyze(volume, stub))
  output = root / 'out'
  output.mkdir()
  timed(
    'write',
    lambda: scored_study.write_all(
      output, result, volume, demo_models=False, with_report=False
    ),
  )
  timed(
    'report',
    lambda: case_report.write_report(
      output / 'report.html', result, volume, demo_models=False
    ),
  )
  return found | {
    'slices': volume.shape[0],
    'read_bytes': _bytes(study),
    'written_bytes': sum(path.stat().st_size for path in output.iterdir()),
  }


def networks(slices: int = 16) -> dict[str, float]:
  """What both networks take for a slice: seconds of CPU and of each by the clock."""
  hu = np.random.default_rng(0).integers(-1000, 200, (slices, 512, 512), np.int16)
  crop = np.ascontiguousarray(hu[:, 100:400, 60:450])
  with predictors.load_models() as models:
    for _ in range(2):  # The first time warms up.
      cpu, start = time.process_time(), time.perf_counter()
      models.segment_lungs(hu)
      between = time.perf_counter()
      models.grad_cam(crop)
      end = time.perf_counter()
      cpu = time.process_time() - cpu
  return {
    'networks_per_slice': cpu / slices,
    'lungs_wall_per_slice': (between - start) / slices,
    'grad_cam_wall_per_slice': (end - between) / slices,
  }


def _bytes(study: listing.Study) -> int:
  return sum(
    pathlib.Path(path).stat().st_size
    for place in study.places
    for path in place.files()
  )


def main() -> None:
  """Measures, fits, prints."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--networks', action='store_true')
  parser.add_argument('--json', action='store_true')
  flags = parser.parse_args()
  rows = []
  for spacing_mm in _SPACINGS_MM:
    with tempfile.TemporaryDirectory(prefix='covid-tf-stages-') as folder:
      rows.append(measure(pathlib.Path(folder), spacing_mm))
  slices = [row['slices'] for row in rows]
  figures = {}
  for name in (*_STAGES, 'read_bytes', 'written_bytes'):
    slope, fixed = np.polyfit(slices, [row[name] for row in rows], 1)
    figures |= {f'{name}_per_slice': float(slope), f'{name}_fixed': float(fixed)}
    print(
      f'{name:14}'
      + ''.join(f'{row[name]:14.4g}' for row in rows)
      + f'   {fixed:.4g} + {slope:.4g} a slice',
      file=sys.stderr,
    )
  print('slices        ' + ''.join(f'{count:14}' for count in slices), file=sys.stderr)
  if flags.networks:
    found = networks()
    figures |= found
    print(
      '\n'.join(f'{name:24} {seconds:.4g} s' for name, seconds in found.items()),
      file=sys.stderr,
    )
  if flags.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()
