"""tf.data pipelines from shards to batches, by the preprocessing that is exported."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from covid_tf.models import preprocessing
from covid_tf.training import augmentation
from covid_tf.training import records

_LESION = 2  # What a drawn lesion adds to a lung mask that carries it.


def records_in_order(shards: Sequence[str]) -> tf.data.Dataset:
  """Every record once, as written, with a constant seed: for evaluation."""
  return tf.data.TFRecordDataset(list(shards)).map(
      lambda example: (records.parse(example), tf.zeros(2, tf.int32)))


def classifier_example(
    record: dict[str, tf.Tensor], seed: tf.Tensor,
    how: augmentation.Augmentation, constants: preprocessing.Preprocessing
) -> tuple[tf.Tensor, tf.Tensor]:
  """A record's lung crop as (float32 [size, size, 3], float32 [1] label)."""
  image, labels = located_example(record, seed, how, constants)
  return image, labels['covid']


def located_example(
    record: dict[str, tf.Tensor], seed: tf.Tensor,
    how: augmentation.Augmentation, constants: preprocessing.Preprocessing
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
  """A record's lung crop with its label and the place of its lesions.

  Returns:
    float32 [size, size, 3], and a dictionary: `covid` float32 [1]; `lesion`
    float32 [size, size], lesion's share of each pixel; `lesion_known` float32 [],
    0 where nobody has drawn the lesions.
  """
  # Nearest-neighbour keeps whole numbers, so one mask can carry the other.
  masks = record['lung_mask'] + _LESION * record['lesion_mask']
  hu, masks = _augmented_crop(record | {'lung_mask': masks}, record['box'], seed, how)
  size = constants.size
  image = preprocessing.network_input(hu[tf.newaxis], constants)[0]
  lesion = preprocessing.resize(
      tf.cast(masks >= _LESION, tf.float32)[tf.newaxis], size, size)[0]
  return tf.ensure_shape(image, (size, size, 3)), {
      'covid': tf.cast(record['label'], tf.float32)[tf.newaxis],
      'lesion': tf.ensure_shape(lesion, (size, size)),
      'lesion_known': record['lesion_known']}


def lung_example(
    record: dict[str, tf.Tensor], seed: tf.Tensor,
    how: augmentation.Augmentation, constants: preprocessing.Preprocessing
) -> tuple[tf.Tensor, tf.Tensor]:
  """A whole slice as (float32 [size, size, 3], float32 [size, size, 1] mask).

  The mask is resized as the slice is, so its edge holds shares between 0 and 1.
  """
  shape = tf.shape(record['hu'])
  whole = tf.stack([0, 0, shape[0], shape[1]])
  hu, mask = _augmented_crop(record, whole, seed, how)
  image = preprocessing.network_input(hu[tf.newaxis], constants)[0]
  size = constants.size
  mask = preprocessing.resize(tf.cast(mask, tf.float32)[tf.newaxis], size, size)[0]
  return (tf.ensure_shape(image, (size, size, 3)),
          tf.ensure_shape(mask, (size, size))[..., tf.newaxis])


def _augmented_crop(record, box, seed, how):
  hu, mask, box = augmentation.augment_slice(
      record['hu'], record['lung_mask'], box, seed, how)
  rows, columns = slice(box[0], box[2]), slice(box[1], box[3])
  return hu[rows, columns], mask[rows, columns]


def batches(
    dataset: tf.data.Dataset, example: Callable, batch_size: int, *,
    deterministic: bool = True) -> tf.data.Dataset:
  """Maps (record, seed) by `example` and batches, ahead of the training step.

  Args:
    dataset: of (record, seed).
    example: (record, seed) -> (image, labels).
    batch_size: slices a batch; the last, incomplete one is dropped.
    deterministic: False lets a slice that is ready overtake one that is not.
  """
  return dataset.map(
      example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=deterministic
  ).batch(batch_size, drop_remainder=True).prefetch(2)
