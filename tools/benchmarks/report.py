"""How long report.html and viewer.html take, and how large they get.

  python tools/benchmarks/report.py --slices 30,300,1000
  python tools/benchmarks/report.py --slices 300 --networks --json

A phantom of 512 x 512 slices with grain of 40 HU, its exact masks in the place of
the networks' answers, asked about slabs as the networks are. Figures by size, of
`write_report` and of `write_viewer`: seconds and seconds of the processor (the best of
three), megabytes of the page.

`--networks` takes the demo models instead, and adds the seconds of `analyze`, in turns
with those of the pages: `pages_ratio_300` is both pages' over it, each at its best, and
`pages_processor_ratio_300` the same of the processor, where other work runs beside.
"""

import argparse
from collections.abc import Callable
import functools
import json
import pathlib
import resource
import tempfile
import time

import numpy as np

from covid_tf import contract
from covid_tf import predictors
from covid_tf import results
from covid_tf import streams
from covid_tf import volume as volume_lib
from covid_tf.analysis import lungs
from covid_tf.analysis import pipeline
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.datasets import phantom
from covid_tf.reports import case_report
from covid_tf.reports import case_viewer

_SEED = phantom.TRAINING_SEED_LIMIT + 7  # Held out, with disease.
_GRAIN_HU = 40  # A thin slice of a usual dose: what compresses worst.
_RUNS = 3


class TrueAnswers:
  """Answers as the networks would that make no mistake, slab after slab."""

  def __init__(
    self,
    lung_mask: np.ndarray,
    lesion_mask: np.ndarray,
    volume: volume_lib.CTVolume,
  ):
    self._lungs, self._lesions = lung_mask, lesion_mask
    self._box = lungs.find_lungs(lung_mask, volume.voxel_volume_mm3).box
    thresholds = slabs_lib.as_used(results.Thresholds(), ())
    self._slabs = slabs_lib.of_study(volume, thresholds)
    self._segmented = self._explained = 0

  def segment_lungs(self, hu: np.ndarray) -> np.ndarray:
    return (self._next_lungs(len(hu)) >= 0.5).astype(np.uint8)

  def lung_probability(self, hu: np.ndarray) -> np.ndarray:
    return _cells(self._next_lungs(len(hu)), contract.LUNG_NETWORK_SIZE)

  def grad_cam(self, hu: np.ndarray) -> results.SliceExplanation:
    first, self._explained = self._explained, self._explained + len(hu)
    lesions = self._lesions[:, self._box.rows, self._box.columns]
    crops = self._average(lesions, first, len(hu))
    return results.SliceExplanation(
      np.where(crops.any(axis=(1, 2)), 0.97, 0.03).astype(np.float32),
      _shares(crops, contract.FINE_CAM_SIZE),
      _shares(crops, contract.COARSE_CAM_SIZE),
    )

  def features(self, hu: np.ndarray) -> results.SliceFeatures:
    raise NotImplementedError('no page asks for features')

  def _next_lungs(self, count: int) -> np.ndarray:
    first, self._segmented = self._segmented, self._segmented + count
    return self._average(self._lungs, first, count)

  def _average(self, mask: np.ndarray, first: int, count: int) -> np.ndarray:
    """float32 [slab, row, column]: share of the mask in each slab."""
    return np.stack(
      [
        mask[self._slabs.covered(slab)].mean(axis=0, dtype=np.float32)
        for slab in range(first, first + count)
      ]
    )


def _shares(crops: np.ndarray, size: int) -> np.ndarray:
  """float32 [N, size, size]: share of lesion in each cell, over its maximum."""
  means = _cells(crops, size)
  highest = means.max(axis=(1, 2), keepdims=True)
  return np.divide(means, highest, out=np.zeros_like(means), where=highest > 0)


def _cells(planes: np.ndarray, size: int) -> np.ndarray:
  """float32 [N, size, size]: means of the cells of a grid over each plane."""
  rows, columns = (
    np.linspace(0, length, size + 1)[:-1].astype(int) for length in planes.shape[1:]
  )
  sums = np.add.reduceat(planes.astype(np.float32), rows, axis=1)
  sums = np.add.reduceat(sums, columns, axis=2)
  heights, widths = (
    np.diff(edges, append=length)
    for edges, length in zip((rows, columns), planes.shape[1:])
  )
  return sums / (heights[:, np.newaxis] * widths)


def large_study(
  drawn: phantom.Phantom, slices: int
) -> tuple[volume_lib.CTVolume, TrueAnswers]:
  """The phantom, its slices repeated and its pixels doubled, and its true answers."""
  nearest = np.linspace(0, drawn.volume.shape[0] - 1, slices).round().astype(int)
  hu, lung_mask, lesion_mask = (
    block[nearest].repeat(2, axis=1).repeat(2, axis=2)
    for block in (drawn.volume.hu, drawn.lung_mask, drawn.lesion_mask)
  )
  rng = np.random.default_rng(0)
  for plane in hu:
    plane += rng.normal(0, _GRAIN_HU, plane.shape).astype(np.int16)
  np.maximum(hu, volume_lib.AIR_HU, out=hu)
  affine = drawn.volume.affine.copy()
  affine[:3, 0] *= drawn.volume.shape[0] / slices
  affine[:3, 1:3] /= 2
  volume = volume_lib.CTVolume(hu, affine)
  return volume, TrueAnswers(lung_mask, lesion_mask, volume)


def timed(function: Callable[[], object]) -> tuple[float, float]:
  """(seconds, processor seconds) of one call."""
  begin, processor_begin = time.perf_counter(), time.process_time()
  function()
  return time.perf_counter() - begin, time.process_time() - processor_begin


def measure(
  volume: volume_lib.CTVolume,
  result: results.CaseResult,
  analyze: Callable[[], object] | None,
) -> dict[str, float]:
  """Name to figure of both pages, and of the analysis where one is given."""
  taken: dict[str, list[tuple[float, float]]] = {}
  with tempfile.TemporaryDirectory() as folder:
    report, viewer = (pathlib.Path(folder) / name for name in ('r.html', 'v.html'))
    steps: dict[str, Callable[[], object]] = {
      'report': lambda: case_report.write_report(report, result, volume),
      'viewer': lambda: case_viewer.write_viewer(viewer, result, volume),
    }
    if analyze:
      steps['analyze'] = analyze
    for _ in range(_RUNS):
      for name, step in steps.items():
        taken.setdefault(name, []).append(timed(step))
    figures = {
      f'{path}_megabytes': place.stat().st_size / 1e6
      for path, place in (('report', report), ('viewer', viewer))
    }
  for name, pairs in taken.items():
    figures[f'{name}_seconds'], figures[f'{name}_processor_seconds'] = map(
      min, zip(*pairs)
    )
  if analyze:
    for kind in ('', 'processor_'):
      pages = figures[f'report_{kind}seconds'] + figures[f'viewer_{kind}seconds']
      figures[f'pages_{kind}ratio'] = pages / figures[f'analyze_{kind}seconds']
  return figures


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--slices', default='30,300', help='sizes, with commas')
  parser.add_argument(
    '--networks', action='store_true', help='the demo models answer, and are timed'
  )
  parser.add_argument('--json', action='store_true', help='figures on the last line')
  arguments = parser.parse_args()
  drawn = phantom.generate(phantom.draw_case(_SEED, 'diffuse', matrix=256))
  figures: dict[str, float] = {}
  for slices in map(int, arguments.slices.split(',')):
    volume, answers = large_study(drawn, slices)
    if arguments.networks:
      with predictors.load_models() as models:
        result = pipeline.analyze(volume, models, progress=False)  # Warms up, too.
        found = measure(
          volume,
          result,
          functools.partial(pipeline.analyze, volume, models, progress=False),
        )
    else:
      result = pipeline.analyze(volume, answers, progress=False)
      del answers
      found = measure(volume, result, None)
    print(f'{slices} slices')
    for name, value in found.items():
      print(f'  {name:26}{value:8.2f}', flush=True)
    figures |= {f'{name}_{slices}': value for name, value in found.items()}
  # KiB on Linux.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(f'  peak memory, MiB          {peak:8.0f}')
  figures['peak_mebibytes'] = peak
  if arguments.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()
