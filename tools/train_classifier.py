r"""Trains the slice classifier on shards of slices, helped by drawn lesions.

  python tools/train_classifier.py --output=runs/classifier \
      --shards='runs/slices/phantom_*' --shards='runs/slices/implanted_*' \
      --validation='runs/held_out/*' \
      --stage=112:500:1e-3:2e-4 --stage=224:160:3e-4:1e-5 \
      --stage=224:560:3e-4:1e-5:guided

The same command goes on after an interruption. Each --shards pattern gives an
equal share of every batch, however many slices it holds.
"""

import dataclasses
import glob
import pathlib
import time

from absl import app
from absl import flags
import keras
import numpy as np
from sklearn import metrics
import tensorflow as tf

from covid_tf import errors
from covid_tf.models import preprocessing
from covid_tf.training import augmentation
from covid_tf.training import guidance
from covid_tf.training import located_classifier
from covid_tf.training import loop
from covid_tf.training import losses
from covid_tf.training import pipelines
from covid_tf.training import stages

_OUTPUT = flags.DEFINE_string('output', None, 'Folder of the run.', required=True)
_SHARDS = flags.DEFINE_multi_string('shards', None, 'TFRecord pattern.', required=True)
_VALIDATION = flags.DEFINE_multi_string('validation', [], 'TFRecord pattern, held out.')
_STAGES = flags.DEFINE_multi_string(
    'stage', ['112:500:1e-3:2e-4', '224:160:3e-4:1e-5'],
    'size:steps:learning rate:final learning rate[:guided]; stages run in turn. A '
    'guided one draws the Grad-CAM maps to the drawn lesions.')
_WEIGHTS = flags.DEFINE_string('weights', None, 'Weights (.weights.h5) to begin from.')
_BATCH = flags.DEFINE_integer('batch', 16, 'Slices a step.')
_SEED = flags.DEFINE_integer('seed', 1, 'Order, augmentation and first weights.')

_AUGMENTATION = augmentation.Augmentation(
    rotation_degrees=12.0, margin_fraction=0.1, hu_offset=15.0, noise_hu=15.0)
_SHUFFLE_BUFFER = 600
_VALIDATION_SLICES = 256  # Enough to see the trend at a checkpoint.


def main(argv):
  del argv
  keras.utils.set_random_seed(_SEED.value)
  output = pathlib.Path(_OUTPUT.value)
  output.mkdir(parents=True, exist_ok=True)
  (output / 'flags.txt').write_text(flags.FLAGS.flags_into_string())
  model = loop.run_plan(
      [stages.Stage.parse(text) for text in _STAGES.value], output, _build,
      _objective, _dataset, lambda *now: _report(output, *now))
  located_classifier.classifier_of(model).save_weights(output / 'final.weights.h5')


def _build(size):
  model = located_classifier.build(size)
  if _WEIGHTS.value:
    located_classifier.classifier_of(model).load_weights(_WEIGHTS.value)
  return model


def _objective(model, stage):
  if stage.kind == stages.GUIDED:
    return guidance.objective(model)
  return loop.of_logits(losses.located_cross_entropy)(model, stage)


def _dataset(size, seed):
  parts = [
      pipelines.shuffled_records(
          _matches(pattern), _SEED.value + seed + number, _SHUFFLE_BUFFER)
      for number, pattern in enumerate(_SHARDS.value)]
  mixed = tf.data.Dataset.sample_from_datasets(
      [part.filter(_is_labelled) for part in parts], seed=_SEED.value + seed)
  return pipelines.batches(mixed, _example(size, _AUGMENTATION), _BATCH.value)


def _report(output, model, stage, step):
  model = located_classifier.classifier_of(model)
  model.save_weights(output / 'latest.weights.h5')
  for pattern in _VALIDATION.value:
    held_out = pipelines.records_in_order(_matches(pattern)).filter(_is_labelled)
    batches = held_out.take(_VALIDATION_SLICES).map(
        _example(stage.size, augmentation.NONE)).batch(_BATCH.value)
    labels, logits = [], []
    for images, truth in batches:
      logits.append(model(images, training=False).numpy().ravel())
      labels.append(truth['covid'].numpy().ravel() > 0)
    labels, logits = np.concatenate(labels), np.concatenate(logits)
    print(f'{time.strftime("%H:%M:%S")} size {stage.size} step {step} {pattern}: '
          f'AUC {metrics.roc_auc_score(labels, logits):.4f} '
          f'sensitivity {(logits[labels] > 0).mean():.3f} '
          f'specificity {(logits[~labels] <= 0).mean():.3f}', flush=True)


def _example(size, how):
  """Preprocessing of a stage: the low-pass spans the same millimetres at any size."""
  served = preprocessing.CLASSIFIER
  constants = dataclasses.replace(
      served, size=size, low_pass_sigma=served.low_pass_sigma * size / served.size)
  return lambda record, seed: pipelines.located_example(record, seed, how, constants)


def _is_labelled(record, seed):
  del seed
  return record['label'] >= 0


def _matches(pattern):
  found = sorted(glob.glob(pattern))
  if not found:
    raise errors.UsageError(f'--shards or --validation: no file matches {pattern!r}.')
  return found


if __name__ == '__main__':
  app.run(main)
