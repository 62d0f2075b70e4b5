"""What fills the bins of normal lungs, and what densities cost.

  python tools/benchmarks/densities.py                 # a table
  python tools/benchmarks/densities.py --models DIR --json

Of the licensed chests without COVID: the share of the lungs in middle and upper bins
of both schemes, and how much of that is the rim of the lung mask (within RIM_MM of its
edge, in the plane) and how much lies inside it (vessels, bronchial walls, dependent
lung). Then the seconds that counting all voxels takes, beside those of `analyze`.
"""

import argparse
import json
import os
import pathlib
import time

import environment  # noqa: F401  Before TensorFlow.
import numpy as np
from scipy import ndimage

import covid_tf
from covid_tf import lung_measures
from covid_tf import streams
from covid_tf.analysis import densities
from covid_tf.analysis import lungs as lungs_lib

# COVID_TF_REAL_CT names the folder of real CT; shared/data beside the checkout else.
_DATA = pathlib.Path(
  os.environ.get('COVID_TF_REAL_CT')
  or (pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'data')
)
_CHESTS = ('lidc-idri-0001', 'lidc-idri-0002', 'lidc-idri-0003')
RIM_MM = 2.0
_SCHEMES = lung_measures.DensitySchemes()
_BINS = {
  'ground_glass': (-700, -300),
  'consolidation': (-300, 100),
  'poorly_aerated': (-500, -100),
  'not_aerated': (-100, 100),
  'above_100_hu': (100, 32768),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--models', help='exported models; the demo models without it')
  parser.add_argument('--json', action='store_true')
  arguments = parser.parse_args()
  figures = {}
  with covid_tf.load_models(arguments.models) as models:
    for name in _CHESTS:
      figures |= {f'{name}_{key}': value for key, value in _chest(name, models).items()}
  for name, value in figures.items():
    print(f'{name:48} {value}')
  if arguments.json:
    print(json.dumps(figures))


def _chest(name, models):
  volume = covid_tf.read_ct(_DATA / 'backgrounds' / name / 'series')
  begin = time.perf_counter()
  result = covid_tf.analyze(volume, models, progress=False)
  analyze_s = time.perf_counter() - begin
  begin = time.perf_counter()
  regions = lungs_lib.find_regions(result.lung_mask, volume.affine)
  planes_s = time.perf_counter() - begin
  begin = time.perf_counter()
  zones = densities.count_lung_voxels(volume.hu, result.lung_mask, regions)
  densities.densities(zones, densities.VoxelCounts(), volume.voxel_volume_mm3, _SCHEMES)
  densities_s = time.perf_counter() - begin
  lungs = result.densities.regions['lungs']
  acquisition = result.acquisition
  return {
    'thickness_mm': acquisition.slice_thickness_mm if acquisition else None,
    'kernel': acquisition.kernel if acquisition else None,
    'contrast': acquisition.contrast if acquisition else None,
    'lung_cm3': round(lungs.volume_cm3),
    'mean_hu': round(lungs.mean_hu, 1),
    **_shares(volume, result.lung_mask),
    'low_attenuation': round(lungs.share(lungs.low_attenuation_cm3), 4),
    'zone_score_by_density': result.zone_score_by_density.total,
    'slices': volume.shape[0],
    'analyze_s': round(analyze_s, 2),
    'find_regions_s': round(planes_s, 2),
    'densities_s': round(densities_s, 3),
    'densities_share': round(densities_s / analyze_s, 4),
  }


def _shares(volume, mask):
  """Share of the lungs in each bin: all of it, and what lies off the rim."""
  counts, inner_counts = densities.VoxelCounts(), densities.VoxelCounts()
  for hu, lung in zip(volume.hu, mask):
    depth = ndimage.distance_transform_edt(lung, sampling=volume.spacing_mm[1:])
    counts.add(hu[lung != 0])
    inner_counts.add(hu[depth > RIM_MM])
  total = counts.counts.sum()
  shares = {'rim': round(1 - float(inner_counts.counts.sum() / total), 4)}
  for name, (low, high) in _BINS.items():
    whole, inner = (
      float(part.counts[0, _within(part, low, high)].sum() / total)
      for part in (counts, inner_counts)
    )
    shares[name] = round(whole, 4)
    shares[f'{name}_off_rim'] = round(inner, 4)
  return shares


def _within(counts, low, high):
  hu = counts.lowest_hu + np.arange(counts.counts.shape[1])
  return (hu >= low) & (hu < high)


if __name__ == '__main__':
  with streams.safe_streams():
    main()
