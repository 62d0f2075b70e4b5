"""What averaging slices to slabs does to scores, slices and lungs.

Parts of analyze.py: `python tools/benchmarks/analyze.py --part spread|accuracy|limit`.
"""

from collections.abc import Iterator
import dataclasses
import statistics
from unittest import mock

import numpy as np
from scipy import ndimage
from sklearn import metrics

import covid_tf
from covid_tf import readers
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import pipeline
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.datasets import phantom

_SEED = phantom.TRAINING_SEED_LIMIT + 300  # Held out.
# What slabs alone change: nothing is smoothed along the body.
_SLABS = results.Thresholds(smoothing_mm=0)
_EVERY_SLICE = results.Thresholds(every_slice=True)

# Distance between slices and how far they lie nearer to the head, in mm.
_SETTINGS = tuple(
  (distance_mm, shift) for distance_mm in (1.0, 2.5, 5.0) for shift in (0.0, 0.5)
)
_NOISE_AT_MM = 5.0  # Thickness at which a phantom's `noise_hu` holds.
_SMALLEST_CM3 = 5.0  # Scores below it are no measure of a spread.


def _drawn(seed: int, kind: str, distance_mm: float, same_dose: bool):
  """A phantom's recipe with slices of this distance.

  With the same dose in each millimetre noise falls with the root of the thickness;
  else it is as drawn, whatever the thickness.
  """
  case = phantom.draw_case(seed, kind, slice_spacing_mm=distance_mm)
  if not same_dose:
    return case
  noise_hu = case.noise_hu * (_NOISE_AT_MM / distance_mm) ** 0.5
  return dataclasses.replace(case, noise_hu=noise_hu)


def _phantoms() -> Iterator[tuple[str, float, float, volume_lib.CTVolume]]:
  for number in range(6):
    kind = ('focal', 'diffuse')[number % 2]
    for distance_mm, shift in _SETTINGS:
      drawn = phantom.generate(
        _drawn(_SEED + number, kind, distance_mm, same_dose=True),
        shift_mm=shift * distance_mm,
        scan=_SETTINGS.index((distance_mm, shift)),
      )
      yield f'phantom {number}, {kind}', distance_mm, shift, drawn.volume


def _painted(volume: volume_lib.CTVolume, lung_mask: np.ndarray) -> np.ndarray:
  """A chest with ground glass of 15 to 40 mm, painted in patient millimetres."""
  random = np.random.default_rng(20)
  lung = ndimage.binary_erosion(lung_mask, iterations=2)
  steps_mm = np.array(volume.spacing_mm)
  grids = np.ogrid[tuple(map(slice, volume.shape))]
  hu = volume.hu.astype(np.float32)
  texture = ndimage.gaussian_filter(
    random.standard_normal(volume.shape, np.float32), 3.0 / steps_mm
  )
  texture *= 40 / texture.std()
  places = np.argwhere(lung[::4, ::8, ::8]) * (4, 8, 8)
  weight = np.zeros(volume.shape, np.float32)
  for place in places[random.choice(len(places), 12, replace=False)]:
    radius_mm = random.uniform(15, 40)
    distance_mm = np.sqrt(
      sum(((grid - at) * step) ** 2 for grid, at, step in zip(grids, place, steps_mm))
    )
    np.maximum(weight, np.clip((1 - distance_mm / radius_mm) * 3, 0, 1), out=weight)
  rise = np.clip(-550 + texture - hu, 0, None)
  return np.rint(hu + weight * (lung_mask > 0) * rise).astype(np.int16)


def _real(folder) -> Iterator[tuple[str, float, float, volume_lib.CTVolume]]:
  volume = readers.read_ct(folder)
  from covid_tf.predictors import in_process

  with covid_tf.load_models(in_process.demo_models()) as models:
    mask = pipeline.analyze(volume, models, thresholds=_EVERY_SLICE).lung_mask
  hu = _painted(volume, mask)
  for together in (1, 2, 4):
    for shift in sorted({0, max(1, together // 2)}):
      count = (len(hu) - shift) // together
      part = hu[shift : shift + count * together]
      averages = part.reshape(count, together, *hu.shape[1:]).mean(axis=1)
      affine = volume.affine.copy()
      affine[:3, 3] += affine[:3, 0] * (shift + (together - 1) / 2)
      affine[:3, 0] *= together
      distance_mm = volume.spacing_mm[0] * together
      yield (
        folder.name,
        distance_mm,
        shift / together,
        volume_lib.CTVolume(np.rint(averages).astype(np.int16), affine),
      )


def spread(models, real_chest, every_slice: bool) -> dict:
  """Scores of one chest, divided into slices in several ways.

  Args:
    models: the networks.
    real_chest: folder of a chest without disease, or None.
    every_slice: score every slice as it is too, for comparison.

  Returns:
    `spacing_spread`, median over studies of the largest ÷ the smallest score.
  """
  ways = {'slabs': _SLABS} | ({'every slice': _EVERY_SLICE} if every_slice else {})
  scores: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
  studies = [_phantoms()] + ([_real(real_chest)] if real_chest else [])
  for study in studies:
    for name, distance_mm, shift, volume in study:
      found = {
        way: pipeline.analyze(volume, models, thresholds=thresholds, progress=False)
        for way, thresholds in ways.items()
      }
      for way, result in found.items():
        scores[way].setdefault(name, []).append(result.corona_score_cm3)
      words = ', '.join(
        f'{way} {result.corona_score_cm3:6.1f} cm³, lungs {result.lung_volume_cm3:4.0f}'
        for way, result in found.items()
      )
      print(f'{name:20} {distance_mm:4.2f} mm, shift {shift:4.2f}: {words}', flush=True)
  figures = {}
  for way, studies_of in scores.items():
    ratios = {
      name: max(found) / min(found)
      for name, found in studies_of.items()
      if min(found) > _SMALLEST_CM3
    }
    name = 'spacing_spread' if way == 'slabs' else 'spacing_spread_every_slice'
    figures[name] = statistics.median(ratios.values()) if ratios else None
    print(
      f'{way}: {len(ratios)} of {len(studies_of)} studies count; largest ÷ smallest'
    )
    print('  ' + ', '.join(f'{name} {ratio:.3f}' for name, ratio in ratios.items()))
  return figures


def limit(models) -> dict:
  """Near which distance averaging to 5 mm changes more than it saves.

  Args:
    models: the networks.

  Returns:
    By distance in mm: slabs ÷ slices, what the networks are asked; and the median over
    phantoms of how far scores of slabs, and of slices as they are, lie from those of
    slices of 5 mm; 'off_…' as a share of these.
  """
  distances = (2.5, 3.0, 3.5, 4.0, 4.5)
  off: dict[str, dict[float, list[float]]] = {'slabs': {}, 'every_slice': {}}
  asked = {}
  for number in range(3):
    kind = ('focal', 'diffuse')[number % 2]

    def score(distance_mm, thresholds, number=number, kind=kind):
      case = _drawn(_SEED + 100 + number, kind, distance_mm, same_dose=True)
      volume = phantom.generate(case).volume
      # Averages at any distance: whether they help is the question.
      with mock.patch.object(slabs_lib, 'NEAR_ENOUGH', 1.0):
        slabs = slabs_lib.divide(len(volume.hu), distance_mm, thresholds.thickness_mm)
        asked[distance_mm] = slabs.count / slabs.slices
        return pipeline.analyze(volume, models, thresholds=thresholds, progress=False)

    wanted = score(5.0, _EVERY_SLICE).corona_score_cm3
    if wanted < _SMALLEST_CM3:
      continue
    for distance_mm in distances:
      for way, thresholds in (
        ('every_slice', _EVERY_SLICE),
        ('slabs', results.Thresholds(thickness_mm=5.0, smoothing_mm=0)),
      ):
        found = score(distance_mm, thresholds).corona_score_cm3
        off[way].setdefault(distance_mm, []).append(abs(found / wanted - 1))
  figures = {}
  for distance_mm in distances:
    figures[f'asked_{distance_mm}'] = asked[distance_mm]
    for way, shares in off.items():
      figures[f'off_{way}_{distance_mm}'] = statistics.median(shares[distance_mm])
    print(
      f'{distance_mm} mm: {asked[distance_mm]:.2f} of the slices asked; off by '
      + ', '.join(f'{way} {figures[f"off_{way}_{distance_mm}"]:.1%}' for way in off)
    )
  return figures


def _dice(first: np.ndarray, second: np.ndarray) -> float:
  common = np.count_nonzero(first & second)
  return float(2 * common / (first.sum() + second.sum()))


def accuracy(models, real_chest, same_dose: bool) -> dict:
  """Slices of phantoms of 1 mm, and lungs, by slabs and by every slice.

  Args:
    models: the networks.
    real_chest: folder of a chest, for its lungs; or None.
    same_dose: noise of thin slices, more than twice that of 5 mm; else as drawn.

  Returns:
    AUC, sensitivity and specificity of slices by both ways, and how lungs differ.
  """
  truth: list[np.ndarray] = []
  answers: dict[str, list[np.ndarray]] = {'slabs': [], 'every_slice': []}
  dice, volumes = [], []
  to_truth: dict[str, list[float]] = {'slabs': [], 'every_slice': []}

  def both(name, volume, lung_mask=None):
    slabs, whole = (
      pipeline.analyze(volume, models, thresholds=thresholds, progress=False)
      for thresholds in (_SLABS, _EVERY_SLICE)
    )
    dice.append(_dice(slabs.lung_mask, whole.lung_mask))
    if lung_mask is not None:
      to_truth['slabs'].append(_dice(slabs.lung_mask, lung_mask))
      to_truth['every_slice'].append(_dice(whole.lung_mask, lung_mask))
    volumes.append(slabs.lung_volume_cm3 / whole.lung_volume_cm3 - 1)
    print(
      f'{name:20} score {whole.corona_score_cm3:6.1f} to {slabs.corona_score_cm3:6.1f} '
      f'cm³, lungs: Dice {dice[-1]:.4f}, volume {volumes[-1]:+.2%}',
      flush=True,
    )
    return slabs.slice_probability, whole.slice_probability

  for number in range(10):
    kind = ('focal', 'none', 'diffuse', 'none', 'focal')[number % 5]
    drawn = phantom.generate(_drawn(_SEED + 50 + number, kind, 1.0, same_dose))
    found = both(f'phantom {number}, {kind}', drawn.volume, drawn.lung_mask)
    for way, probability in zip(answers, found, strict=True):
      answers[way].append(probability)
    truth.append(drawn.lesion_mask.any(axis=(1, 2)))
  if real_chest:
    both(real_chest.name, readers.read_ct(real_chest))
  is_ill = np.concatenate(truth)
  figures = {
    'lung_dice_min': min(dice),
    'lung_volume_difference_max': max(map(abs, volumes)),
  }
  for way, parts in answers.items():
    figures[f'lung_dice_to_truth_{way}'] = statistics.mean(to_truth[way])
    probability = np.concatenate(parts)
    figures[f'auc_{way}'] = float(metrics.roc_auc_score(is_ill, probability))
    figures[f'sensitivity_{way}'] = float((probability[is_ill] > 0.5).mean())
    figures[f'specificity_{way}'] = float((probability[~is_ill] <= 0.5).mean())
  for name, value in figures.items():
    print(f'{name:28} {value:.4f}')
  return figures
