"""How far the grades of six zones are from those of opacities whose place is known.

  python tools/benchmarks/zone_score.py                  # phantoms, and implants
  python tools/benchmarks/zone_score.py --phantoms 40 --implants 0
  python tools/benchmarks/zone_score.py --models DIR --json
  python tools/benchmarks/zone_score.py --demo demo_output   # no network is asked

With --demo the phantoms are those that `covid-tf demo` has left there, by the maps that
it has stored.

Phantoms have lungs and lesions drawn with them. Implants are opacities that
`covid_tf.datasets.judge_lesions` paints into the licensed chests without COVID; their
lungs are those that the networks find in the chest as it is. True grades are by the
true lesion voxels of each zone's true lung. Of `zone_score` (the network's map) and
`zone_score_by_density`:

  agree            share of zones with the true grade
  within_one       share of zones at most one grade away
  kappa            Cohen's, with quadratic weights
  grade_difference mean of grade minus true grade
  total_difference mean of total (0 to 24) minus true total; total_spread its SD
  share_difference mean of involved share minus true share
  untouched_total  mean total where nothing was painted

Before them a line of each case: totals and grades, true, by the map and by density.
"""

import argparse
import json
import os
import pathlib

import environment  # noqa: F401  Before TensorFlow.
import numpy as np
from sklearn import metrics

import covid_tf
from covid_tf import lung_measures
from covid_tf import streams
from covid_tf import volume as volume_lib
from covid_tf.analysis import densities
from covid_tf.analysis import lungs as lungs_lib
from covid_tf.datasets import judge_lesions
from covid_tf.datasets import phantom
from covid_tf.storage import maps

# COVID_TF_REAL_CT names the folder of real CT; shared/data beside the checkout else.
_DATA = pathlib.Path(
  os.environ.get('COVID_TF_REAL_CT')
  or (pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'data')
)
_CHESTS = ('lidc-idri-0001', 'lidc-idri-0002', 'lidc-idri-0003')
_SEED = phantom.TRAINING_SEED_LIMIT + 900  # Held out.
_AMOUNT_CM3 = (50.0, 1500.0)
_METHODS = ('zone_score', 'zone_score_by_density')


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--models', help='exported models; the demo models without it')
  parser.add_argument('--demo', type=pathlib.Path, help='folder of covid-tf demo')
  parser.add_argument('--phantoms', type=int, default=12)
  parser.add_argument('--implants', type=int, default=1, help='of each chest')
  parser.add_argument('--json', action='store_true')
  arguments = parser.parse_args()
  if arguments.demo:
    figures = _figures('phantoms', _stored(arguments.demo))
  else:
    figures = _analyzed(arguments)
  for name, value in figures.items():
    print(f'{name:52} {value}')
  if arguments.json:
    print(json.dumps(figures))


def _analyzed(arguments):
  figures = {}
  with covid_tf.load_models(arguments.models) as models:
    if arguments.phantoms:
      figures |= _figures('phantoms', _phantoms(models, arguments.phantoms))
    if arguments.implants:
      figures |= _figures('implants', _implants(models, arguments.implants))
  return figures


def _stored(folder):
  """(result, true score) of the phantoms of a demo."""
  for truth in sorted((folder / 'truth').iterdir()):
    volume = covid_tf.read_ct(folder / 'studies' / truth.name)
    lesions, lungs = (
      maps.read(truth / name)[0].astype(np.uint8)
      for name in ('lesion_mask.nii.gz', 'lung_mask.nii.gz')
    )
    result = covid_tf.rescore(folder / 'results' / truth.name, volume)
    yield result, _true_score(lesions, lungs, volume.affine)


def _phantoms(models, count):
  """(result, true score) of phantoms without, with focal and with diffuse disease."""
  for case in phantom.cohort(count, _SEED):
    made = phantom.generate(case)
    truth = _true_score(made.lesion_mask, made.lung_mask, made.volume.affine)
    yield covid_tf.analyze(made.volume, models, progress=False), truth


def _implants(models, count):
  """The same of real chests, each as it is and with opacities."""
  for number, name in enumerate(_CHESTS):
    volume = covid_tf.read_ct(_DATA / 'backgrounds' / name / 'series')
    plain = covid_tf.analyze(volume, models, progress=False)
    nothing = np.zeros_like(plain.lung_mask)
    yield plain, _true_score(nothing, plain.lung_mask, volume.affine)
    for draw in range(count):
      painted = judge_lesions.implant(
        volume.hu,
        plain.lung_mask,
        volume.spacing_mm,
        np.random.default_rng((number, draw)),
        _AMOUNT_CM3,
      )
      truth = _true_score(painted.lesion_mask, plain.lung_mask, volume.affine)
      changed = volume_lib.CTVolume(painted.hu, volume.affine)
      yield covid_tf.analyze(changed, models, progress=False), truth


def _true_score(lesion_mask, lung_mask, affine) -> lung_measures.ZoneScore:
  regions = lungs_lib.find_regions(lung_mask, affine)
  lungs = densities.count_lung_voxels(lesion_mask.astype(np.int16), lung_mask, regions)
  lesions = lungs.counts[:, 1 - lungs.lowest_hu :].sum(axis=1)
  return densities.zone_score(densities.involved_voxels(lesions, lungs))


def _figures(name, scored):
  true, found, untouched = [], {method: [] for method in _METHODS}, []
  for result, truth in scored:
    rows = (truth, *(getattr(result, method) for method in _METHODS))
    print(
      name, *(f'{row.total:2} {list(row.zones.values())}' for row in rows), flush=True
    )
    if not truth.total:
      untouched.append([getattr(result, method).total for method in _METHODS])
      continue
    true.append(_row(truth))
    for method in _METHODS:
      found[method].append(_row(getattr(result, method)))
  figures = {f'{name}_with_disease': len(true), f'{name}_without': len(untouched)}
  for place, method in enumerate(_METHODS):
    compared = _compared(np.array(found[method]), np.array(true)) if true else {}
    if untouched:
      totals = [row[place] for row in untouched]
      compared['untouched_total'] = round(float(np.mean(totals)), 2)
    figures |= {f'{name}_{method}_{key}': value for key, value in compared.items()}
  return figures


def _row(score: lung_measures.ZoneScore):
  """[2, 6]: grades and shares; nothing where a zone has no lung."""
  return [
    [part[zone] or 0 for zone in lung_measures.ZONES]
    for part in (score.zones, score.shares)
  ]


def _compared(found, true):
  """Named figures of [case, 2, zone]."""
  grades, wanted = (part[:, 0].astype(int) for part in (found, true))
  difference = grades - wanted
  totals = difference.sum(axis=1)
  return {
    key: round(float(value), 3)
    for key, value in {
      'agree': (difference == 0).mean(),
      'within_one': (abs(difference) <= 1).mean(),
      'kappa': metrics.cohen_kappa_score(
        wanted.ravel(), grades.ravel(), weights='quadratic', labels=range(5)
      ),
      'grade_difference': difference.mean(),
      'total_difference': totals.mean(),
      'total_spread': totals.std(ddof=1) if len(totals) > 1 else float('nan'),
      'share_difference': (found[:, 1] - true[:, 1]).mean(),
    }.items()
  }


if __name__ == '__main__':
  with streams.safe_streams():
    main()
