"""How fast maps are fused and scored, and how well they point at opacities.

  python tools/benchmarks/localization.py                  # both parts
  python tools/benchmarks/localization.py --cases 0        # speed only
  python tools/benchmarks/localization.py --box union      # another lung box

Speed: 300 slices into 512 x 512 (`fuse_score_s`), and scipy.ndimage.zoom on the
same maps (`zoom_ratio`), in turns. Quality: held-out phantoms with exact masks; each
scale alone, their product (the paper's), and other ways to join the two.
"""

import argparse
import json
import time

import localization_quality
import numpy as np
import scipy.ndimage

from covid_tf import results
from covid_tf import streams
from covid_tf.analysis import corona_score
from covid_tf.analysis import localization
from covid_tf.analysis import lungs as lungs_lib
from covid_tf.commands import model_flags
from covid_tf.datasets import phantom

_SLICES, _SIDE = 300, 512
_ROUNDS = 5


def speed() -> dict:
  """Seconds of fusing and scoring 300 slices of 512 x 512, all positive."""
  explanation = _smooth_maps(np.random.default_rng(0))
  shape = (_SLICES, _SIDE, _SIDE)
  box = results.LungBox(0, 0, _SIDE, _SIDE)
  mask = np.ones(shape, np.uint8)
  lungs = lungs_lib.Lungs(mask, box, mask.size, 0.0, 0.0)
  regions = lungs_lib.find_regions(mask, np.diag((0.7, 0.7, 1, 1))[[2, 1, 0, 3]])
  seconds = {'ours': [], 'zoom': []}
  for _ in range(_ROUNDS):
    begin = time.perf_counter()
    map_ = localization.localize(explanation, box, shape, slice_threshold=0.5)
    score = corona_score.corona_score(map_, lungs, regions, 1.0, 0.6)
    seconds['ours'].append(time.perf_counter() - begin)
    begin = time.perf_counter()
    zoomed = _zoomed_score(explanation)
    seconds['zoom'].append(time.perf_counter() - begin)
  if not np.isclose(zoomed, score.total_cm3, rtol=1e-4) or not zoomed:
    raise AssertionError(f'scores differ: {score.total_cm3} and {zoomed}')
  ours, zoom = (float(np.median(seconds[name])) for name in ('ours', 'zoom'))
  return {'fuse_score_s': ours, 'zoom_s': zoom, 'zoom_ratio': zoom / ours}


def _smooth_maps(rng) -> results.SliceExplanation:
  """Maps as smooth as Grad-CAM's, each divided by its maximum."""
  scales = []
  for side in (28, 14):
    maps = np.stack(
      [
        scipy.ndimage.zoom(rng.random((4, 4)), side / 4, order=1)
        for _ in range(_SLICES)
      ]
    ).astype(np.float32)
    maps -= maps.min(axis=(1, 2), keepdims=True)
    scales.append(maps / maps.max(axis=(1, 2), keepdims=True))
  return results.SliceExplanation(np.ones(_SLICES, np.float32), *scales)


def _zoomed_score(explanation) -> float:
  """Eq. 1 alone, the maps enlarged by SciPy; no lungs and no regions."""
  total = 0.0
  for fine, coarse in zip(explanation.cam_28, explanation.cam_14):
    fused = np.ones((), np.float32)
    for cam in (fine, coarse):
      fused = fused * scipy.ndimage.zoom(
        cam, _SIDE / len(cam), order=1, mode='nearest', grid_mode=True
      )
    total += fused[fused > 0.6].sum(dtype=np.float64)
  return total / 1000


def quality(models, cases: int, box: str) -> dict:
  """The table of `localization_quality` over held-out phantoms with disease."""
  tally = localization_quality.Tally()
  for index in range(cases):
    kind = ('focal', 'diffuse')[index % 2]
    drawn = phantom.generate(
      phantom.draw_case(phantom.TRAINING_SEED_LIMIT + 500 + index, kind)
    )
    localization_quality.add_case(tally, drawn, models, box)
  return tally.figures()


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  model_flags.add_model_arguments(parser)
  parser.add_argument(
    '--cases', type=int, default=12, help='phantoms for quality (default 12; 0: none)'
  )
  parser.add_argument(
    '--box',
    choices=localization_quality.BOXES,
    default='largest',
    help="lung box of the case (default: largest, the paper's)",
  )
  parser.add_argument('--json', action='store_true', help='one JSON object at the end')
  arguments = parser.parse_args()
  figures = speed()
  print(
    f'fuse + score {_SLICES} slices into {_SIDE} x {_SIDE}: '
    f'{figures["fuse_score_s"]:.2f} s; scipy.ndimage.zoom '
    f'{figures["zoom_s"]:.2f} s, {figures["zoom_ratio"]:.1f} times as long'
  )
  if arguments.cases:
    with model_flags.open_models(arguments) as models:
      figures |= quality(models, arguments.cases, arguments.box)
    localization_quality.print_table(figures)
  if arguments.json:
    print(json.dumps(figures))


if __name__ == '__main__':
  with streams.safe_streams():
    main()
