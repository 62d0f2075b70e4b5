r"""Encodes trained weights as the package ships them, and says what that costs.

  python tools/encode_weights.py --lungs=runs/lungs --classifier=runs/classifier \
      --card=runs/training.json --shards='runs/held_out/test/*'

One network alone leaves the other's file and card as they are. Prints what is reached
on held-out slices before and after.
"""

import pathlib

from absl import flags
import numpy as np
import script
from sklearn import metrics

from covid_tf import contract
from covid_tf import errors
from covid_tf.models import preprocessing
from covid_tf.models import signatures
from covid_tf.models import weights
from covid_tf.training import augmentation
from covid_tf.training import pipelines
from covid_tf.training import shards as shards_lib

_LUNGS = flags.DEFINE_string('lungs', None, "U-Net: a run's folder or a weights file.")
_CLASSIFIER = flags.DEFINE_string('classifier', None, 'Classifier: likewise.')
_CARD = flags.DEFINE_string(
  'card', None, "JSON: what 'lungs', 'classifier' were trained on.", required=True
)
_SHARDS = flags.DEFINE_multi_string('shards', None, 'Held-out slices.', required=True)
_FOLDER = flags.DEFINE_string(
  'output', str(weights.DEMO_FOLDER), 'Where the encoded weights go.'
)
_LOGIT_SHIFT = flags.DEFINE_float(
  'logit_shift',
  None,
  "Added to the bias of the classifier's logit before it is encoded, so that its "
  'operating point lies at 0.5; tools/choose_shift.py chooses it.',
)
_LOGIT_SHIFT_SOURCE = flags.DEFINE_string(
  'logit_shift_source', '', 'Where it was chosen, for the card.'
)
_SLICES = 192


def main():
  """Encodes, as the flags say."""
  sources = {
    name: source
    for name, source in (
      (contract.LUNGS_MODEL, _LUNGS.value),
      (contract.CLASSIFIER_MODEL, _CLASSIFIER.value),
    )
    if source
  }
  if not sources:
    raise errors.UsageError(
      '--lungs or --classifier (or both) is required, found none.'
    )
  script.check_shift(_LOGIT_SHIFT, _LOGIT_SHIFT_SOURCE, _CLASSIFIER)
  given = signatures.read_training_card(_CARD.value)
  if missing := sources.keys() - given:
    raise errors.UsageError(
      f'{_CARD.value}: an entry for {min(missing)!r} is required, found '
      f'{sorted(given)}; say what the network was trained on.'
    )
  patterns = [shards_lib.look_through(pattern) for pattern in _SHARDS.value]
  folder = pathlib.Path(_FOLDER.value)
  for name, source in sources.items():
    _encode(name, source, given[name], folder, patterns)


def _encode(name, source, card, folder, patterns):
  reached = _REACHED[name]
  model, _ = weights.load_network(name, source)
  if name == contract.CLASSIFIER_MODEL and _LOGIT_SHIFT.value is not None:
    card = weights.shift_logit(
      model, card, _LOGIT_SHIFT.value, _LOGIT_SHIFT_SOURCE.value
    )
  before = [reached(model, shards.paths) for shards in patterns]
  weights.save_demo_weights(model, name, card, folder)
  weights.assign_demo_weights(model, name, folder)
  for shards, value in zip(patterns, before, strict=True):
    after = reached(model, shards.paths)
    print(f'{name} {shards.pattern}: {value:.4f} before, {after:.4f} after')


def _auc(model, paths):
  """Of slices, by a classifier."""
  records = pipelines.records_in_order(paths)
  batches = (
    records.filter(lambda record, _: record['label'] >= 0)
    .take(_SLICES)
    .map(
      lambda record, seed: pipelines.classifier_example(
        record, seed, augmentation.NONE, preprocessing.CLASSIFIER
      )
    )
    .batch(16)
  )
  pairs = [
    (truth.numpy(), model(images, training=False).numpy()) for images, truth in batches
  ]
  truth, logits = (np.concatenate(column).ravel() for column in zip(*pairs))
  return metrics.roc_auc_score(truth, logits)


def _dice(model, paths):
  """Of all slices together, by a lung network."""
  batches = (
    pipelines.records_in_order(paths)
    .take(_SLICES)
    .map(
      lambda record, seed: pipelines.lung_example(
        record, seed, augmentation.NONE, preprocessing.LUNGS
      )
    )
    .batch(8)
  )
  common = total = 0
  for images, truth in batches:
    found, lung = model(images, training=False).numpy() > 0, truth.numpy() > 0.5
    common += (found & lung).sum()
    total += found.sum() + lung.sum()
  return 2 * common / total


_REACHED = {contract.LUNGS_MODEL: _dice, contract.CLASSIFIER_MODEL: _auc}


if __name__ == '__main__':
  script.run(main)
