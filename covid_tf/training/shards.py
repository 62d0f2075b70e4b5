"""TFRecord shards looked through before training, so that nothing fails hours later."""

from collections.abc import Sequence
import dataclasses
import glob

import tensorflow as tf

from covid_tf import errors

_ASKED = {
    'label': tf.io.FixedLenFeature([], tf.int64),
    'shape': tf.io.FixedLenFeature([2], tf.int64),
    'hu': tf.io.FixedLenFeature([], tf.string),
}


@dataclasses.dataclass(frozen=True)
class Shards:
  """The shards of one pattern and what they hold.

  Attributes:
    pattern: as the user wrote it.
    paths: the files, sorted.
    count: slices.
    negatives: slices labelled 0.
    positives: slices labelled 1.
  """

  pattern: str
  paths: tuple[str, ...]
  count: int
  negatives: int
  positives: int

  @property
  def labelled(self) -> int:
    """Slices whose label is known."""
    return self.negatives + self.positives


def look_through(pattern: str) -> Shards:
  """Reads every record of the files that match, with its checksum.

  Raises:
    errors.UsageError: no file matches, or one is damaged or of another kind.
  """
  paths = tuple(sorted(glob.glob(pattern)))
  if not paths:
    raise errors.UsageError(
        f'{pattern}: TFRecord shards are required, no file matches; quote the '
        'pattern and check the folder.')
  labels = [label for path in paths for label in _labels(path)]
  if not labels:
    raise errors.UsageError(f'{pattern}: slices are required, found none; '
                            'write the shards again.')
  return Shards(pattern, paths, len(labels), labels.count(0), labels.count(1))


def require_both_classes(which: str, sets: Sequence[Shards]) -> None:
  """Refuses sets that a classifier can learn nothing from, or not be judged by.

  Args:
    which: what they are for, such as '--shards'.
    sets: taken together.

  Raises:
    errors.UsageError: a class is empty.
  """
  negatives = sum(shards.negatives for shards in sets)
  positives = sum(shards.positives for shards in sets)
  if not negatives or not positives:
    patterns = ', '.join(shards.pattern for shards in sets)
    raise errors.UsageError(
        f'{which}: slices of both classes are required, found {negatives} negative '
        f'and {positives} positive in {patterns}; add shards of the other class.')


def _labels(path: str) -> list[int]:
  dataset = tf.data.TFRecordDataset(path).map(_label_and_soundness)
  labels = []
  try:
    for label, sound in dataset.as_numpy_iterator():
      if not sound:
        raise errors.UsageError(
            f'{path}: record {len(labels)} must hold int16 HU of its stated shape, '
            'found another length; write the shard again.')
      labels.append(int(label))
  except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
    raise errors.UsageError(
        f'{path}: a shard of CT slices is required, found a damaged file or one of '
        f'another kind at record {len(labels)}; write it again.') from error
  return labels


def _label_and_soundness(example):
  features = tf.io.parse_single_example(example, _ASKED)
  stated = 2 * tf.reduce_prod(features['shape'])
  length = tf.cast(tf.strings.length(features['hu']), tf.int64)
  return features['label'], stated == length
