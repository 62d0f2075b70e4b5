"""tf.data pipelines from shards to batches, by the preprocessing that is exported."""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np
import tensorflow as tf

from covid_tf.models import preprocessing
from covid_tf.training import augmentation
from covid_tf.training import shards as shards_lib
from covid_tf.training import tasks

# The order in which a run sees its slices: a function of the seed and the place.
#
# There is no state to keep: a run that was killed works out where it was from the
# number of slices it has seen, and goes on with the next one.


def shuffled_records(
  shards: Sequence[str],
  seed: int,
  shuffle_buffer: int,
  *,
  labelled_only: bool = False,
  epoch: int = 0,
  skip: int = 0,
) -> tf.data.Dataset:
  """Endless serialized records in an order that seed and place alone decide.

  Each epoch has an order of its own, so an interrupted run goes on in the middle
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
      tf.constant([seed, 0], tf.int64), number
    )
    files = tf.random.experimental.stateless_shuffle(paths, order)
    examples = tf.data.Dataset.from_tensor_slices(files).interleave(
      tf.data.TFRecordDataset,
      cycle_length=min(8, len(shards)),
      num_parallel_calls=tf.data.AUTOTUNE,
      deterministic=True,
    )
    if labelled_only:
      examples = examples.filter(_is_labelled)
    examples = examples.shuffle(shuffle_buffer, seed=order[0])
    skipped = tf.where(number == epoch, tf.constant(skip, tf.int64), 0)
    return (
      examples.enumerate()
      .skip(skipped)
      .map(
        lambda place, example: (
          example,
          tf.cast(tf.random.experimental.stateless_fold_in(order, place), tf.int32),
        )
      )
    )

  return tf.data.Dataset.counter(epoch).flat_map(one_epoch)


def mixed_records(
  sets: Sequence[shards_lib.Shards],
  seed: int,
  shuffle_buffer: int,
  *,
  labelled_only: bool = False,
  first: int = 0,
) -> tf.data.Dataset:
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
    parts.append(
      shuffled_records(
        shards.paths,
        seed + number,
        -(-shuffle_buffer // len(sets)),
        labelled_only=labelled_only,
        epoch=epoch,
        skip=skip,
      )
    )
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
  return shards_lib.parse_record(example), seed


def for_worker(
  dataset: tf.data.Dataset, batch_size: int, worker: int, workers: int
) -> tf.data.Dataset:
  """One worker's part of every batch, so that all parts together are the batch."""
  if workers == 1:
    return dataset
  part = batch_size // workers
  first = worker * part
  return (
    dataset.batch(batch_size)
    .map(lambda *columns: [column[first : first + part] for column in columns])
    .unbatch()
  )


def some(dataset: tf.data.Dataset, count: int, wanted: int) -> tf.data.Dataset:
  """At most `wanted` of `count` elements, always the same ones, from everywhere.

  Drawn, since every n-th would be of one kind where kinds take turns.
  """
  if wanted >= count:
    return dataset
  is_chosen = np.zeros(count, bool)
  is_chosen[np.random.default_rng(0).choice(count, wanted, replace=False)] = True
  return (
    dataset.enumerate()
    .filter(lambda place, _: tf.gather(is_chosen, place))
    .map(lambda _, element: element)
  )


def _is_labelled(example: tf.Tensor) -> tf.Tensor:
  label = tf.io.parse_single_example(
    example, {'label': tf.io.FixedLenFeature([], tf.int64)}
  )['label']
  return label >= 0


_LESION = 2  # What a drawn lesion adds to a lung mask that carries it.


def records_in_order(shards: Sequence[str]) -> tf.data.Dataset:
  """Every record once, as written, with a constant seed: for evaluation."""
  return tf.data.TFRecordDataset(list(shards)).map(
    lambda example: (shards_lib.parse_record(example), tf.zeros(2, tf.int32))
  )


def classifier_example(
  record: dict[str, tf.Tensor],
  seed: tf.Tensor,
  limits: augmentation.Augmentation,
  constants: preprocessing.Preprocessing,
) -> tuple[tf.Tensor, tf.Tensor]:
  """A record's lung crop as (float32 [size, size, 3], float32 [1] label)."""
  image, labels = located_example(record, seed, limits, constants)
  return image, labels['covid']


def located_example(
  record: dict[str, tf.Tensor],
  seed: tf.Tensor,
  limits: augmentation.Augmentation,
  constants: preprocessing.Preprocessing,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
  """A record's lung crop with its label and the place of its lesions.

  Returns:
    float32 [size, size, 3], and a dictionary: `covid` float32 [1]; `lesion`
    float32 [size, size], lesion's share of each pixel; `lesion_known` float32 [],
    0 where nobody has drawn the lesions.
  """
  # Nearest-neighbour keeps whole numbers, so one mask can carry the other.
  masks = record['lung_mask'] + _LESION * record['lesion_mask']
  hu, masks = _augmented_crop(
    record | {'lung_mask': masks}, record['box'], seed, limits
  )
  size = constants.size
  image = preprocessing.network_input(hu[tf.newaxis], constants)[0]
  lesion = preprocessing.resize(
    tf.cast(masks >= _LESION, tf.float32)[tf.newaxis], size, size
  )[0]
  return tf.ensure_shape(image, (size, size, 3)), {
    'covid': tf.cast(record['label'], tf.float32)[tf.newaxis],
    'lesion': tf.ensure_shape(lesion, (size, size)),
    'lesion_known': record['lesion_known'],
  }


def lung_example(
  record: dict[str, tf.Tensor],
  seed: tf.Tensor,
  limits: augmentation.Augmentation,
  constants: preprocessing.Preprocessing,
) -> tuple[tf.Tensor, tf.Tensor]:
  """A whole slice as (float32 [size, size, 3], float32 [size, size, 1] mask).

  The mask is resized as the slice is, so its edge holds shares between 0 and 1.
  """
  shape = tf.shape(record['hu'])
  whole = tf.stack([0, 0, shape[0], shape[1]])
  hu, mask = _augmented_crop(record, whole, seed, limits)
  image = preprocessing.network_input(hu[tf.newaxis], constants)[0]
  size = constants.size
  mask = preprocessing.resize(tf.cast(mask, tf.float32)[tf.newaxis], size, size)[0]
  return (
    tf.ensure_shape(image, (size, size, 3)),
    tf.ensure_shape(mask, (size, size))[..., tf.newaxis],
  )


def _augmented_crop(record, box, seed, limits):
  hu, mask, box = augmentation.augment_slice(
    record['hu'], record['lung_mask'], box, seed, limits
  )
  rows, columns = slice(box[0], box[2]), slice(box[1], box[3])
  return hu[rows, columns], mask[rows, columns]


def batches(
  dataset: tf.data.Dataset,
  example: Callable,
  batch_size: int,
  *,
  deterministic: bool = True,
) -> tf.data.Dataset:
  """Maps (record, seed) by `example` and batches, ahead of the training step.

  Args:
    dataset: of (record, seed).
    example: (record, seed) -> (image, labels).
    batch_size: slices a batch; the last, incomplete one is dropped.
    deterministic: False lets a slice that is ready overtake one that is not.
  """
  return (
    dataset.map(
      example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=deterministic
    )
    .batch(batch_size, drop_remainder=True)
    .prefetch(2)
  )


# The batches of a run: from shards, through augmentation, to the devices.


@dataclasses.dataclass(frozen=True)
class Feed:
  """Endless batches of one replica, from any step of a stage on.

  Attributes:
    task: the network's parts.
    options: of the run.
    sets: shards to train on.
    size: rows and columns of the network's input.
    taken: slices that earlier stages have seen.
  """

  task: tasks.Task
  options: tasks.Options
  sets: Sequence[shards_lib.Shards]
  size: int
  taken: int

  def __call__(self, context: tf.distribute.InputContext, done: int):
    options, task = self.options, self.task
    mixed = for_worker(
      mixed_records(
        self.sets,
        options.seed,
        options.shuffle_buffer,
        labelled_only=task.labelled_only,
        first=self.taken + done * options.batch,
      ),
      options.batch,
      context.input_pipeline_id,
      context.num_input_pipelines,
    )
    return batches(
      mixed.map(parsed),
      lambda record, seed: task.example(record, seed, task.augmentation, self.size),
      context.get_per_replica_batch_size(options.batch),
      deterministic=options.deterministic,
    )


def held_out(
  task: tasks.Task, options: tasks.Options, shards: shards_lib.Shards, size: int
) -> tf.data.Dataset:
  """Slices to measure on, unchanged, spread over all patients of a pattern."""
  count = shards.labelled if task.labelled_only else shards.count
  records = in_order(shards.paths, task.labelled_only)
  few = some(records, count, options.validation_slices)
  return (
    few.map(
      lambda record, seed: task.example(record, seed, augmentation.NONE, size),
      num_parallel_calls=tf.data.AUTOTUNE,
    )
    .batch(options.batch)
    .prefetch(1)
  )
