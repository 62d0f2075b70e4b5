r"""How far does a Corona score move where nothing changed?

  python tools/benchmarks/score_repeatability.py --chest=CHEST [--chest=CHEST ...]
      [--models DIR] [--studies 2] [--json]

Each chest without COVID is scored as it is, and with opacities of the second painter,
several times: as scanned, with two realizations of noise, with the slabs' slices begun
elsewhere, and tilted by two degrees either way. Prints each score and the repeatability
coefficient, 1.96 √2 times the deviation within a chest:

  cm3       of the chests as they are: the floor
  relative  of the chests with opacities, over their mean score; those of less than
            5 cm3 on average are left out, to which the floor applies

Both go into a classifier's card as `repeatability` (docs/model_cards.md).
"""

import argparse
import dataclasses
import json
import math

import environment  # noqa: F401  Before TensorFlow.
import numpy as np
from scipy import ndimage

import covid_tf
from covid_tf import streams
from covid_tf.datasets import judge_lesions
from covid_tf.datasets import stress
from covid_tf.datasets.collections import study

_NOISE_HU = 12.0  # About the difference of two scans of one dose.
_TILT_DEGREES = 2.0
_SMALLEST_CM3 = 5.0  # Mean scores below it are no measure of a share.


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--chest', action='append', required=True)
  parser.add_argument('--models', help='exported models; the demo models without it')
  parser.add_argument('--studies', type=int, default=2, help='with opacities, a chest')
  parser.add_argument('--json', action='store_true')
  arguments = parser.parse_args()
  with covid_tf.load_models(arguments.models) as models:
    figures = measure(arguments.chest, arguments.studies, models)
  for name, value in figures.items():
    print(f'{name}: {value}')
  if arguments.json:
    print(json.dumps(figures))


def measure(paths, studies, models) -> dict:
  """Scores of every variant, and the two coefficients."""
  floor, ill = [], []
  for path in paths:
    volume = covid_tf.read_ct(path)
    floor.append(_scores(volume, models))
    for number in range(studies):
      ill.append(_scores(_with_opacities(volume, number), models))
  spread = 1.96 * math.sqrt(2)
  within = [np.std(scores, ddof=1) for scores in floor]
  counted = [scores for scores in ill if np.mean(scores) >= _SMALLEST_CM3]
  relative = [np.std(scores, ddof=1) / np.mean(scores) for scores in counted]
  return {
    'as_they_are': [np.round(scores, 2).tolist() for scores in floor],
    'with_opacities': [np.round(scores, 1).tolist() for scores in ill],
    'cm3': round(spread * float(np.sqrt(np.mean(np.square(within)))), 2),
    'relative': (
      round(spread * float(np.sqrt(np.mean(np.square(relative)))), 3)
      if relative
      else None
    ),
    'studies': len(relative),
  }


def _with_opacities(volume, number):
  """The chest, planes as stored, with opacities painted as the networks see it."""
  chest = study.of_volume(volume, np.zeros(len(volume.hu), np.int8))
  mask = study.segment_lungs(chest.hu, chest.spacing_mm)
  painted = judge_lesions.implant(
    chest.hu, mask, chest.spacing_mm, np.random.default_rng(number)
  )
  return dataclasses.replace(volume, hu=painted.hu)


def _scores(volume, models):
  return [
    covid_tf.analyze(variant, models, progress=False).corona_score_cm3
    for variant in _variants(volume)
  ]


def _variants(volume):
  yield volume
  pixel_mm = volume.spacing_mm[1:]
  for seed in range(2):
    random = np.random.default_rng(seed)
    noisy = stress.lower_dose(volume.hu, pixel_mm, random, _NOISE_HU)
    yield dataclasses.replace(volume, hu=noisy)
  yield dataclasses.replace(volume, hu=np.ascontiguousarray(volume.hu[1:]))
  for degrees in (-_TILT_DEGREES, _TILT_DEGREES):
    yield dataclasses.replace(volume, hu=_tilted(volume, degrees))


def _tilted(volume, degrees):
  """The chest turned about the axis from right to left, on its own grid."""
  through, down, _ = volume.spacing_mm
  angle = math.radians(degrees)
  cosine, sine = math.cos(angle), math.sin(angle)
  turn = np.array([[cosine, sine * down / through], [-sine * through / down, cosine]])
  matrix = np.eye(3)
  matrix[:2, :2] = turn
  middle = (np.array(volume.shape) - 1) / 2
  turned = ndimage.affine_transform(
    volume.hu, matrix, middle - matrix @ middle, order=1, mode='nearest'
  )
  return turned.astype(np.int16)


if __name__ == '__main__':
  with streams.safe_streams():
    main()
