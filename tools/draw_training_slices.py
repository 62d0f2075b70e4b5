r"""Draws training slices: phantoms, and lesions implanted into normal chests.

  python tools/draw_training_slices.py --output=runs/slices --phantoms=240 \
      --backgrounds=tests/data/lung-pet-ct-dx --backgrounds=tests/data/lungmask-2slices

Writes TFRecord shards of 256x256 slices, one patient in one shard, and
manifest.csv. What is left out of training is decided here, by patient.
"""

import csv
import pathlib

from absl import app
from absl import flags
import numpy as np

from covid_tf import lungs
from covid_tf import readers
from covid_tf.datasets import implantation
from covid_tf.datasets import phantom
from covid_tf.datasets import pseudo_lungs
from covid_tf.training import records

_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the shards.', required=True)
_PHANTOMS = flags.DEFINE_integer('phantoms', 240, 'Phantom patients to draw.')
_BACKGROUNDS = flags.DEFINE_multi_string(
    'backgrounds', [], 'CT series of a normal chest to implant lesions into.')
_IMPLANTS = flags.DEFINE_integer('implants', 2400, 'Slices to draw from backgrounds.')
_SEED = flags.DEFINE_integer('seed', 0, 'Source of every draw; below 1,000,000.')

_SIZE = 256  # Rows and columns stored: near the networks' input, so fast to read.
_PHANTOMS_PER_SHARD = 12
_IMPLANTS_PER_SHARD = 300
# A positive slice shows this much lesion; one that shows less is left unlabelled.
_SMALLEST_LESION_MM2 = 60.0
_SMALLEST_LUNG_MM2 = 1500.0


def main(argv):
  del argv
  output = pathlib.Path(_OUTPUT.value)
  output.mkdir(parents=True, exist_ok=True)
  rows = []
  backgrounds = [
      background for path in _BACKGROUNDS.value for background in _read(path)]
  if backgrounds:
    for first in range(0, _IMPLANTS.value, _IMPLANTS_PER_SHARD):
      name = f'implanted_{first:06d}.tfrecord'
      random = np.random.default_rng([_SEED.value, first])
      drawn = list(_implanted_slices(
          backgrounds, min(_IMPLANTS_PER_SHARD, _IMPLANTS.value - first), random))
      rows += _write(output / name, drawn)
  for first in range(0, _PHANTOMS.value, _PHANTOMS_PER_SHARD):
    name = f'phantom_{first:06d}.tfrecord'
    count = min(_PHANTOMS_PER_SHARD, _PHANTOMS.value - first)
    seeds = range(_SEED.value + first, _SEED.value + first + count)
    rows += _write(output / name, [s for seed in seeds for s in _phantom_slices(seed)])
  with open(output / 'manifest.csv', 'w', newline='') as manifest:
    writer = csv.writer(manifest)
    writer.writerow(('shard', 'patient', 'series', 'slice_index', 'label', 'source'))
    writer.writerows(rows)
  print(f'{len(rows)} slices in {output}')


def _read(path):
  """SliceRecords of a normal chest at the stored size, with pseudo lung masks."""
  volume = readers.read_ct(path)
  mask = pseudo_lungs.segment(volume.hu, volume.spacing_mm)
  step = volume.shape[1] // _SIZE
  hu, mask = _shrink(volume.hu, step), _shrink(mask, step) > 0.5
  box = tuple(lungs.largest_box(lungs.slice_boxes(mask)).as_list())
  name = pathlib.Path(path).name
  return [
      records.SliceRecord(
          np.rint(hu[i]).astype(np.int16), mask[i].astype(np.uint8), None, box, 0,
          volume.spacing_mm[1] * step, name, name, i, 'background')
      for i in range(len(hu))]


def _shrink(stack, step):
  """Means of step x step blocks, float32."""
  slices, rows, columns = stack.shape
  blocks = stack.astype(np.float32).reshape(
      slices, rows // step, step, columns // step, step)
  return blocks.mean(axis=(2, 4))


def _implanted_slices(backgrounds, count, random):
  """Backgrounds with look-alikes; every second one with a lesion too."""
  patients = sorted({record.patient for record in backgrounds})
  for _ in range(count):
    patient = patients[min(int(random.geometric(0.7)) - 1, len(patients) - 1)]
    record = random.choice([b for b in backgrounds if b.patient == patient])
    hu = implantation.add_look_alikes(
        record.hu, record.lung_mask, record.pixel_mm, random)
    label, lesion_mask = 0, np.zeros_like(record.lung_mask)
    if _area_mm2(record.lung_mask, record.pixel_mm) < _SMALLEST_LUNG_MM2:
      label = records.UNLABELLED
    elif random.random() < 0.5:
      implanted = implantation.implant_lesions(
          hu, record.lung_mask, record.pixel_mm, random)
      hu, lesion_mask = implanted.hu, implanted.lesion_mask
      shown = _area_mm2(lesion_mask, record.pixel_mm)
      label = 1 if shown >= _SMALLEST_LESION_MM2 else records.UNLABELLED
    yield records.SliceRecord(
        hu, record.lung_mask, lesion_mask, record.box, label, record.pixel_mm,
        record.patient, record.series, record.slice_index, 'implanted')


def _phantom_slices(seed):
  """All slices of one phantom patient."""
  case = phantom.draw_case(seed, matrix=_SIZE)
  drawn = phantom.generate(case)
  pixel_mm = drawn.volume.spacing_mm[1]
  box = tuple(lungs.largest_box(lungs.slice_boxes(drawn.lung_mask)).as_list())
  name = f'phantom-{seed}'
  for i, hu in enumerate(drawn.volume.hu):
    shown = _area_mm2(drawn.lesion_mask[i], pixel_mm)
    label = 0 if not shown else 1 if shown >= _SMALLEST_LESION_MM2 else (
        records.UNLABELLED)
    yield records.SliceRecord(
        hu, drawn.lung_mask[i], drawn.lesion_mask[i], box, label, pixel_mm, name, name,
        i, 'phantom')


def _area_mm2(mask, pixel_mm):
  return float(np.count_nonzero(mask)) * pixel_mm**2


def _write(path, drawn):
  records.write_shard(path, drawn)
  return [(path.name, r.patient, r.series, r.slice_index, r.label, r.source)
          for r in drawn]


if __name__ == '__main__':
  app.run(main)
