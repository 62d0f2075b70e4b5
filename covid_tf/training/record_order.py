"""The order in which a run sees its slices: a function of the seed and the place.

There is no state to keep: a run that was killed works out where it was from the number
of slices it has seen, and goes on with the next one.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from covid_tf.training import records
from covid_tf.training import shards as shards_lib


def shuffled_records(
    shards: Sequence[str], seed: int, shuffle_buffer: int, *,
    labelled_only: bool = False, epoch: int = 0, skip: int = 0) -> tf.data.Dataset:
  """Endless serialized records in an order that seed and place alone decide.

  Each epoch has an order of its own, so a run that was cut off goes on in the middle
  of one without any state but its place.

  Args:
    shards: TFRecord files.
    seed: fixes the order.
    shuffle_buffer: records held at once: the bound of its memory.
    labelled_only: leaves out slices of unknown label.
    epoch: the epoch to begin with.
    skip: records of that epoch to leave out.

  Returns:
    A dataset of (serialized record, int32 [2] seed of its augmentation).
  """
  paths = tf.constant(list(shards))

  def one_epoch(number):
    order = tf.random.experimental.stateless_fold_in(
        tf.constant([seed, 0], tf.int64), number)
    files = tf.random.experimental.stateless_shuffle(paths, order)
    examples = tf.data.Dataset.from_tensor_slices(files).interleave(
        tf.data.TFRecordDataset, cycle_length=min(8, len(shards)),
        num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if labelled_only:
      examples = examples.filter(_is_labelled)
    examples = examples.shuffle(shuffle_buffer, seed=order[0])
    skipped = tf.where(number == epoch, tf.constant(skip, tf.int64), 0)
    return examples.enumerate().skip(skipped).map(
        lambda place, example: (example, tf.cast(
            tf.random.experimental.stateless_fold_in(order, place), tf.int32)))

  return tf.data.Dataset.counter(epoch).flat_map(one_epoch)


def mixed_records(
    sets: Sequence[shards_lib.Shards], seed: int, shuffle_buffer: int, *,
    labelled_only: bool = False, first: int = 0) -> tf.data.Dataset:
  """Deals from each set in turn, endlessly, however many slices it holds.

  Args:
    sets: the shards by pattern.
    seed: fixes the order.
    shuffle_buffer: records held at once, over all sets.
    labelled_only: leaves out slices of unknown label.
    first: records that an earlier part of the run has taken.

  Returns:
    As `shuffled_records`.
  """
  parts = []
  for number, shards in enumerate(sets):
    count = shards.labelled if labelled_only else shards.count
    # Set `number` has had its turn this often among the first records.
    epoch, skip = divmod((first - number + len(sets) - 1) // len(sets), count)
    parts.append(shuffled_records(
        shards.paths, seed + number, -(-shuffle_buffer // len(sets)),
        labelled_only=labelled_only, epoch=epoch, skip=skip))
  turns = tf.data.Dataset.counter(first).map(lambda place: place % len(sets))
  return tf.data.Dataset.choose_from_datasets(parts, turns)


def in_order(shards: Sequence[str], labelled_only: bool = False) -> tf.data.Dataset:
  """Every record once, parsed, as written, with a constant seed: for evaluation."""
  examples = tf.data.TFRecordDataset(list(shards))
  if labelled_only:
    examples = examples.filter(_is_labelled)
  return examples.map(lambda example: parsed(example, tf.zeros(2, tf.int32)))


def parsed(example: tf.Tensor, seed: tf.Tensor):
  """A (serialized record, seed) as a (record, seed)."""
  return records.parse(example), seed


def for_worker(
    dataset: tf.data.Dataset, batch_size: int, worker: int, workers: int
) -> tf.data.Dataset:
  """One worker's part of every batch, so that all parts together are the batch."""
  if workers == 1:
    return dataset
  part = batch_size // workers
  first = worker * part
  return dataset.batch(batch_size).map(
      lambda *columns: [column[first:first + part] for column in columns]).unbatch()


def some(dataset: tf.data.Dataset, count: int, wanted: int) -> tf.data.Dataset:
  """At most `wanted` of `count` elements, always the same ones, from everywhere.

  Drawn, since every n-th would be of one kind where kinds take turns.
  """
  if wanted >= count:
    return dataset
  is_chosen = np.zeros(count, bool)
  is_chosen[np.random.default_rng(0).choice(count, wanted, replace=False)] = True
  return dataset.enumerate().filter(
      lambda place, _: tf.gather(is_chosen, place)).map(lambda _, element: element)


def _is_labelled(example: tf.Tensor) -> tf.Tensor:
  label = tf.io.parse_single_example(
      example, {'label': tf.io.FixedLenFeature([], tf.int64)})['label']
  return label >= 0
