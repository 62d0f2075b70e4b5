"""How long report.html takes, and how large it gets.

  python tools/benchmarks/report.py --slices 30,300,1000
  python tools/benchmarks/report.py --slices 300 --json

A phantom of 512 x 512 slices with grain of 40 HU, its exact masks in the place of
the networks' answers. Figures by size: seconds of `write_report` and of the
processor in it (the best of three), megabytes of the page.
"""

import argparse
import json
import pathlib
import tempfile
import time

import numpy as np

from covid_tf import results
from covid_tf import streams
from covid_tf import volume as volume_lib
from covid_tf.analysis import lungs
from covid_tf.analysis import pipeline
from covid_tf.datasets import phantom
from covid_tf.reports import case_report

_SEED = phantom.TRAINING_SEED_LIMIT + 7  # Held out, with disease.
_GRAIN_HU = 40  # A thin slice of a usual dose: what compresses worst.
_RUNS = 3


class TrueAnswers:
  """Answers as the networks would that make no mistake, slice after slice."""

  def __init__(self, lung_mask, lesion_mask, voxel_volume_mm3):
    self._lungs, self._lesions = lung_mask, lesion_mask
    self._box = lungs.find_lungs(lung_mask, voxel_volume_mm3).box
    self._segmented = self._explained = 0

  def segment_lungs(self, hu):
    start, self._segmented = self._segmented, self._segmented + len(hu)
    return self._lungs[start : self._segmented]

  def grad_cam(self, hu):
    start, self._explained = self._explained, self._explained + len(hu)
    crops = self._lesions[start : self._explained, self._box.rows, self._box.columns]
    return results.SliceExplanation(
      np.where(crops.any(axis=(1, 2)), 0.97, 0.03).astype(np.float32),
      _shares(crops, 28),
      _shares(crops, 14),
    )


def _shares(crops, size):
  """float32 [N, size, size]: share of lesion in each cell, over its maximum."""
  rows, columns = (
    np.linspace(0, length, size + 1)[:-1].astype(int) for length in crops.shape[1:]
  )
  sums = np.add.reduceat(crops.astype(np.float32), rows, axis=1)
  sums = np.add.reduceat(sums, columns, axis=2)
  return sums / np.maximum(sums.max(axis=(1, 2), keepdims=True), 1)


def scored_study(drawn: phantom.Phantom, slices: int):
  """The phantom, its slices repeated and its pixels doubled, with its true score."""
  nearest = np.linspace(0, drawn.volume.shape[0] - 1, slices).round().astype(int)
  hu, lung_mask, lesion_mask = (
    block[nearest].repeat(2, axis=1).repeat(2, axis=2)
    for block in (drawn.volume.hu, drawn.lung_mask, drawn.lesion_mask)
  )
  rng = np.random.default_rng(0)
  for plane in hu:
    plane += rng.normal(0, _GRAIN_HU, plane.shape).astype(np.int16)
  affine = drawn.volume.affine.copy()
  affine[:3, 0] *= drawn.volume.shape[0] / slices
  affine[:3, 1:3] /= 2
  volume = volume_lib.CTVolume(np.maximum(hu, volume_lib.AIR_HU), affine)
  answers = TrueAnswers(lung_mask, lesion_mask, volume.voxel_volume_mm3)
  return volume, pipeline.analyze(volume, answers, progress=False)


def measure(volume, result) -> tuple[float, float, float]:
  """(seconds, processor seconds, megabytes) of one report."""
  seconds, processor = [], []
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'report.html'
    for _ in range(_RUNS):
      begin, processor_begin = time.perf_counter(), time.process_time()
      case_report.write_report(path, result, volume, demo_models=True)
      seconds.append(time.perf_counter() - begin)
      processor.append(time.process_time() - processor_begin)
    return min(seconds), min(processor), path.stat().st_size / 1e6


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--slices', default='30,300', help='sizes, with commas')
  parser.add_argument('--json', action='store_true', help='figures on the last line')
  arguments = parser.parse_args()
  drawn = phantom.generate(phantom.draw_case(_SEED, 'diffuse', matrix=256))
  figures = {}
  print('slices  seconds  processor      MB')
  for slices in map(int, arguments.slices.split(',')):
    volume, result = scored_study(drawn, slices)
    seconds, processor, megabytes = measure(volume, result)
    print(f'{slices:6} {seconds:8.2f} {processor:10.2f} {megabytes:7.2f}', flush=True)
    figures |= {
      f'seconds_{slices}': seconds,
      f'processor_seconds_{slices}': processor,
      f'megabytes_{slices}': megabytes,
    }
  if arguments.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()
