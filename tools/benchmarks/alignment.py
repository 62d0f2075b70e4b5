"""How long the alignment of two studies takes (covid-tf compare --studies).

  python tools/benchmarks/alignment.py --slices 30,300
  python tools/benchmarks/alignment.py --slices 300 --json

Lung masks of a phantom on 512 x 512 pixels, the second one in another place and another
breath. Figures by size: seconds for both surfaces, seconds for the fit (the best of
three), and the error in millimetres at places inside the lungs.
"""

import argparse
import json
import time

import numpy as np

from covid_tf import streams
from covid_tf.cohort.follow_up import alignment
from covid_tf.cohort.follow_up import lung_surface
from covid_tf.datasets import phantom

_SEED = phantom.TRAINING_SEED_LIMIT + 7  # Held out.
_RUNS = 3
_BREATH, _SHIFT_MM = 1.12, (12.0, -9.0, 40.0)


def masks(drawn: phantom.Phantom, slices: int):
  """The phantom's lungs twice: (mask, affine) and (mask, affine of the moved ones)."""
  nearest = np.linspace(0, drawn.volume.shape[0] - 1, slices).round().astype(int)
  mask = drawn.lung_mask[nearest].repeat(2, axis=1).repeat(2, axis=2)
  affine = drawn.volume.affine.copy()
  affine[:3, 0] *= drawn.volume.shape[0] / slices
  affine[:3, 1:3] /= 2
  moved = affine.copy()
  moved[2] *= _BREATH
  moved[:3, 3] += _SHIFT_MM
  return mask, affine, moved


def measure(mask, affine, moved) -> tuple[float, float, float]:
  """(seconds of surfaces, seconds of the fit, largest error in mm)."""
  surface_seconds, fit_seconds = [], []
  for _ in range(_RUNS):
    begin = time.perf_counter()
    first = lung_surface.find_surface(mask, affine)
    other = lung_surface.find_surface(mask[:, ::-1, ::-1], _turned(moved, mask.shape))
    middle = time.perf_counter()
    found = alignment.align(first, other)
    surface_seconds.append(middle - begin)
    fit_seconds.append(time.perf_counter() - middle)
  wanted = first.inner_mm * (1, 1, _BREATH) + _SHIFT_MM
  error_mm = np.linalg.norm(found.to_other(first.inner_mm) - wanted, axis=1).max()
  return min(surface_seconds), min(fit_seconds), float(error_mm)


def _turned(affine, shape):
  """The affine of rows and columns stored the other way round."""
  turned = affine.copy()
  for axis in (1, 2):
    turned[:3, 3] += turned[:3, axis] * (shape[axis] - 1)
    turned[:3, axis] *= -1
  return turned


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--slices', default='30,300', help='sizes, with commas')
  parser.add_argument('--json', action='store_true', help='figures on the last line')
  arguments = parser.parse_args()
  drawn = phantom.generate(phantom.draw_case(_SEED, 'diffuse', matrix=256))
  figures = {}
  print('slices  surfaces      fit  error/mm')
  for slices in map(int, arguments.slices.split(',')):
    surfaces, fit, error_mm = measure(*masks(drawn, slices))
    print(f'{slices:6} {surfaces:9.2f} {fit:8.2f} {error_mm:9.2f}', flush=True)
    figures |= {
      f'surface_seconds_{slices}': surfaces,
      f'fit_seconds_{slices}': fit,
      f'error_mm_{slices}': error_mm,
    }
  if arguments.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()
