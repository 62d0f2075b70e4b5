r"""What the demo models are worth on the few real chests that the tests read.

  python tools/benchmarks/real_chests.py [--models DIR] [--json] [--picture FILE]

Lung Dice against the label map of cip-ct64, which no training saw; how well a lesion
implanted into that chest is separated from the chest without, and its slices called
positive as they are; the probability of single slices of COVID patients; the slices
called positive in a chest without COVID that training did see.
"""

import argparse
import json
import os
import pathlib

import nrrd
import numpy as np
import pydicom
from scipy import ndimage
from sklearn import metrics

import covid_tf
from covid_tf import results
from covid_tf import streams
from covid_tf.analysis import localization
from covid_tf.analysis import lungs
from covid_tf.datasets import judge_lesions

# COVID_TF_REAL_CT names the folder of real CT; shared/data beside the checkout else.
_DATA = pathlib.Path(
  os.environ.get('COVID_TF_REAL_CT')
  or (pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'data')
)
_ENLARGE = 4  # cip-ct64 has pixels of 4.2 mm: resampled to the usual millimetre.
_PATIENTS = 3  # Made of that chest, each with opacities of its own.
_SMALLEST_LESION_MM2 = 60.0
_SMALLEST_LUNG_MM2 = 1500.0
_COVID_SLICES = 'covid-19-ny-sbu/*-axial/*.dcm'


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--models', help='exported models; the demo models without it')
  parser.add_argument('--json', action='store_true')
  parser.add_argument('--picture', help='PNG of the single slices with their maps')
  arguments = parser.parse_args()
  with covid_tf.load_models(arguments.models) as models:
    figures = _held_out_chest(models) | _chest_without_covid(models)
    singles = _single_slices(models, arguments.picture)
    figures['covid_slice_probability'] = singles
  for name, value in figures.items():
    print(f'{name:32} {value}')
  if arguments.json:
    print(json.dumps(figures))


def _held_out_chest(models):
  """On cip-ct64: lung Dice, AUC of implanted against untouched, false alarms."""
  volume = covid_tf.read_ct(_DATA / 'cip-ct64' / 'series')
  labels, _ = nrrd.read(str(_DATA / 'cip-ct64' / 'lm-64.nrrd'))
  truth = (labels > 0).transpose(2, 1, 0)  # Stored column first.
  found = models.segment_lungs(volume.hu) > 0
  dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
  hu = np.stack([_enlarged(plane.astype(np.float32), 1) for plane in volume.hu])
  mask = np.stack([_enlarged(plane.astype(np.uint8), 0) for plane in truth])
  pixel_mm = volume.spacing_mm[1] / _ENLARGE
  spacing_mm = (volume.spacing_mm[0], pixel_mm, pixel_mm)
  box = lungs.largest_box(lungs.slice_boxes(mask))
  hu, random = hu.astype(np.int16), np.random.default_rng(77)
  large = mask.sum((1, 2)) * pixel_mm**2 >= _SMALLEST_LUNG_MM2
  lesions = []
  for _ in range(_PATIENTS):
    drawn = judge_lesions.implant(hu, mask, spacing_mm, random)
    area_mm2 = drawn.lesion_mask.sum((1, 2)) * pixel_mm**2
    lesions += list(drawn.hu[large & (area_mm2 >= _SMALLEST_LESION_MM2)])
  untouched, implanted = (
    models.grad_cam(
      np.ascontiguousarray(slices[:, box.rows, box.columns])
    ).covid_probability
    for slices in (hu, np.stack(lesions))
  )
  auc = metrics.roc_auc_score(
    [0] * large.sum() + [1] * len(implanted), [*untouched[large], *implanted]
  )
  threshold = results.Thresholds().slice_probability
  return {
    'held_out_lung_dice': round(float(dice), 4),
    'held_out_implant_auc': round(float(auc), 4),
    'held_out_positive_slices': int((untouched > threshold).sum()),
    'held_out_slices': len(hu),
  }


def _chest_without_covid(models):
  """Positive slices and the score of lung-pet-ct-dx (a tumour, no COVID)."""
  result = covid_tf.analyze(
    covid_tf.read_ct(_DATA / 'lung-pet-ct-dx-a0002-b40f'), models
  )
  return {
    'no_covid_positive_slices': len(result.positive_slices),
    'no_covid_slices': result.shape[0],
    'no_covid_corona_score_cm3': round(result.corona_score_cm3, 1),
    'no_covid_lung_volume_cm3': round(result.lung_volume_cm3, 0),
  }


def _single_slices(models, picture):
  """{slice: probability} of single slices of COVID patients; draws them if asked."""
  probabilities, rows = {}, []
  for path in sorted(_DATA.glob(_COVID_SLICES)):
    data = pydicom.dcmread(path)
    hu = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    hu = np.clip(hu, -1024, 3071).astype(np.int16)[np.newaxis]
    mask = models.segment_lungs(hu)
    box = lungs.largest_box(lungs.slice_boxes(mask))
    answer = models.grad_cam(np.ascontiguousarray(hu[:, box.rows, box.columns]))
    name = path.parent.name
    probabilities[name] = round(float(answer.covid_probability[0]), 4)
    fused = localization.fuse_scales(answer.cam_28[0], answer.cam_14[0], box.shape)
    rows.append((name, hu[0], mask[0], box, fused))
  if picture:
    _draw(rows, probabilities, picture)
  return probabilities


def _draw(rows, probabilities, path):
  import matplotlib.pyplot as plt  # Here: the figures need no picture.

  figure, axes = plt.subplots(1, len(rows), figsize=(5 * len(rows), 5), squeeze=False)
  for axis, (name, hu, mask, box, fused) in zip(axes[0], rows):
    axis.imshow(hu, cmap='gray', vmin=-1350, vmax=150)
    axis.contour(mask, [0.5], colors='cyan', linewidths=0.6)
    extent = (box.column0, box.column1, box.row1, box.row0)
    axis.imshow(fused, cmap='inferno', alpha=0.4 * (fused > 0.1), extent=extent)
    axis.set_title(f'{name}: {probabilities[name]:.2f}', fontsize=9)
    axis.axis('off')
  figure.savefig(path, dpi=80, bbox_inches='tight')


def _enlarged(plane, order):
  return ndimage.zoom(plane, _ENLARGE, order=order, mode='nearest', grid_mode=True)


if __name__ == '__main__':
  with streams.safe_streams():
    main()
