r"""Encodes trained weights as the package ships them, and says what that costs.

  python tools/encode_weights.py --lungs=runs/lungs/final.weights.h5 \
      --classifier=runs/classifier/final.weights.h5 --card=runs/training.json \
      --shards='runs/held_out/test/*'

Prints the answers of the networks before and after on held-out slices.
"""

import glob
import json
import pathlib

from absl import flags
import numpy as np
import script
from sklearn import metrics

from covid_tf import files
from covid_tf.models import classifier
from covid_tf.models import demo_weights
from covid_tf.models import lung_unet
from covid_tf.models import preprocessing
from covid_tf.training import augmentation
from covid_tf.training import pipelines

_LUNGS = flags.DEFINE_string('lungs', None, 'U-Net weights.', required=True)
_CLASSIFIER = flags.DEFINE_string(
    'classifier', None, 'Classifier weights.', required=True)
_CARD = flags.DEFINE_string(
    'card', None, "JSON: what 'lungs' and 'classifier' were trained on.", required=True)
_SHARDS = flags.DEFINE_multi_string('shards', None, 'Held-out slices.', required=True)
_FOLDER = flags.DEFINE_string(
    'output', str(demo_weights.FOLDER), 'Where the encoded weights go.')
_SLICES = 192


def main():
  """Encodes, as the flags say."""
  folder = pathlib.Path(_FOLDER.value)
  unet, slices = lung_unet.build(), classifier.build()
  unet.load_weights(_LUNGS.value)
  slices.load_weights(_CLASSIFIER.value)
  before = _answers(unet, slices)
  card = json.loads(pathlib.Path(_CARD.value).read_text())
  card['lungs']['weights_sha256'] = demo_weights.save(unet, 'lungs', folder)
  card['classifier']['weights_sha256'] = demo_weights.save(slices, 'classifier', folder)
  text = json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False) + '\n'
  files.write_atomically(folder / 'training.json', text.encode())
  after = _answers(
      demo_weights.load_lung_unet(folder), demo_weights.load_classifier(folder))
  for pattern in _SHARDS.value:
    for name, value in before[pattern].items():
      print(f'{pattern} {name}: {value:.4f} before, {after[pattern][name]:.4f} after')


def _answers(unet, slices):
  """{pattern: {'AUC': ..., 'Dice': ...}} on held-out slices."""
  return {pattern: {'AUC': _auc(slices, pattern), 'Dice': _dice(unet, pattern)}
          for pattern in _SHARDS.value}


def _auc(model, pattern):
  records = pipelines.records_in_order(sorted(glob.glob(pattern)))
  batches = records.filter(lambda record, _: record['label'] >= 0).take(_SLICES).map(
      lambda record, seed: pipelines.classifier_example(
          record, seed, augmentation.NONE, preprocessing.CLASSIFIER)).batch(16)
  pairs = [(truth.numpy(), model(images, training=False).numpy())
           for images, truth in batches]
  truth, logits = (np.concatenate(column).ravel() for column in zip(*pairs))
  return metrics.roc_auc_score(truth, logits)


def _dice(model, pattern):
  batches = pipelines.records_in_order(sorted(glob.glob(pattern))).take(_SLICES).map(
      lambda record, seed: pipelines.lung_example(
          record, seed, augmentation.NONE, preprocessing.LUNGS)).batch(8)
  common = total = 0
  for images, truth in batches:
    found, lung = model(images, training=False).numpy() > 0, truth.numpy() > 0.5
    common += (found & lung).sum()
    total += found.sum() + lung.sum()
  return 2 * common / total


if __name__ == '__main__':
  script.run(main)
