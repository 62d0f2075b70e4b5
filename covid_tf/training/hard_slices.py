"""The slices that a classifier gets most wrong, put together to be seen more often.

Most slices are soon easy: they cost steps and teach little. A pattern of `--shards`
that holds the hard ones gives them a share of every batch of their own, as detectors
are taught by the examples that they fail at (Felzenszwalb et al., "Object Detection
with Discriminatively Trained Part-Based Models", PAMI 2010).
"""

from collections.abc import Sequence
import itertools
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from covid_tf import errors
from covid_tf.datasets import splits
from covid_tf.models import preprocessing
from covid_tf.storage import files
from covid_tf.training import augmentation
from covid_tf.training import pipelines
from covid_tf.training import shards as shards_lib

SHARD = 'hard/hard.tfrecord'
_BATCH = 16


def hardness(model: keras.Model, shards: Sequence[str]) -> np.ndarray:
  """How far each slice is on the wrong side.

  Args:
    model: the classifier; float32 images to logits [N, 1].
    shards: files, in order.

  Returns:
    float32 [slices], in the shards' order: the logit of a slice labelled 0, minus
    the logit of one labelled 1, -inf where there is no label.
  """
  ask = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
  batches = (
    pipelines.records_in_order(shards)
    .map(
      lambda record, seed: pipelines.classifier_example(
        record, seed, augmentation.NONE, preprocessing.CLASSIFIER
      )
    )
    .batch(_BATCH)
  )
  found = []
  for images, labels in batches:
    labels, logits = labels.numpy().ravel(), ask(images).numpy().ravel()
    wrong = np.where(labels > 0, -logits, logits)
    found.append(np.where(labels < 0, -np.inf, wrong))
  return np.concatenate(found)


def select(hard: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
  """The places of the hardest slices, half of each class, in order.

  Args:
    hard: float [slices], see `hardness`.
    labels: int [slices]; 1, 0, or -1 for none.
    count: how many.

  Returns:
    int [count].

  Raises:
    errors.UsageError: a class has not so many.
  """
  chosen = []
  for label, wanted in ((1, count // 2), (0, count - count // 2)):
    places = np.flatnonzero(labels == label)
    if len(places) < wanted:
      raise errors.UsageError(
        f'hard slices: {wanted} slices labelled {label} are required, found '
        f'{len(places)}; ask for fewer, or give more shards.'
      )
    # Stable: equally hard slices are taken in the shards' order.
    chosen.append(places[np.argsort(-hard[places], kind='stable')[:wanted]])
  return np.sort(np.concatenate(chosen))


def labels_of(shards: Sequence[str]) -> np.ndarray:
  """int [slices]: the label of every slice, in the shards' order."""
  dataset = tf.data.TFRecordDataset(list(shards)).map(
    lambda example: shards_lib.parse_record(example)['label']
  )
  return np.fromiter(dataset.as_numpy_iterator(), int)


def write(
  shards: Sequence[str],
  places: np.ndarray,
  output: str | os.PathLike,
  thickness_mm: float | None = None,
) -> None:
  """Copies slices, byte by byte, into one shard with its lists.

  Args:
    shards: files, in order.
    places: int, rising: which of their slices.
    output: folder to make; whole, or not at all.
    thickness_mm: of the shards, as `splits.require_one_thickness` gives it.

  Raises:
    errors.UsageError: the folder is in use.
  """
  files.require_unused(output)
  with files.replacing_directory(output) as folder:
    path = folder / SHARD
    path.parent.mkdir()
    with (
      tf.io.TFRecordWriter(str(path)) as writer,
      splits.ManifestWriter(folder) as manifest,
    ):
      for example in _taken(shards, places):
        writer.write(example)
        manifest.write([_manifest_row(example)])
    splits.write_shards(folder, {SHARD: len(places)}, thickness_mm)


def _taken(shards, places):
  examples = tf.data.TFRecordDataset(list(shards)).as_numpy_iterator()
  wanted = np.zeros(places[-1] + 1 if len(places) else 0, bool)
  wanted[places] = True
  return itertools.compress(examples, wanted)


def _manifest_row(example: bytes) -> splits.ManifestRow:
  record = {
    name: value.numpy() for name, value in shards_lib.parse_record(example).items()
  }
  low, high = record['window_hu']
  return splits.ManifestRow(
    shard=SHARD,
    set=pathlib.PurePath(SHARD).parent.name,
    patient=record['patient'].decode(),
    series=record['series'].decode(),
    slice_index=int(record['slice_index']),
    label=int(record['label']),
    source=record['source'].decode(),
    case_label=int(record['case_label']),
    severity='',
    labels_by='',
    lung_mask=record['lung_mask_kind'].decode(),
    lesion_mask=int(record['lesion_known']),
    window_hu='' if low == high else f'{low:g}..{high:g}',
  )
