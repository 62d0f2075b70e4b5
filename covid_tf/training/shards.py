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
    'lesion_mask': tf.io.FixedLenFeature([], tf.string),
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
    drawn: of them, those whose lesions are drawn.
  """

  pattern: str
  paths: tuple[str, ...]
  count: int
  negatives: int
  positives: int
  drawn: int

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
  slices = [found for path in paths for found in _slices(path)]
  if not slices:
    raise errors.UsageError(f'{pattern}: slices are required, found none; '
                            'write the shards again.')
  labels = [label for label, _ in slices]
  return Shards(pattern, paths, len(labels), labels.count(0), labels.count(1),
                slices.count((1, True)))


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


def require_drawn_lesions(which: str, sets: Sequence[Shards]) -> None:
  """Refuses sets from which a guided stage could learn nothing.

  Raises:
    errors.UsageError: no positive slice has its lesions drawn.
  """
  if not any(shards.drawn for shards in sets):
    raise errors.UsageError(
        f'{which}: positive slices with drawn lesions are required by a guided stage, '
        'found none; add phantoms, implanted lesions or lesion masks, or leave the '
        'stage out.')


def _slices(path: str) -> list[tuple[int, bool]]:
  """(label, whether lesions are drawn) of every record."""
  dataset = tf.data.TFRecordDataset(path).map(_asked_of)
  slices = []
  try:
    for label, is_drawn, sound in dataset.as_numpy_iterator():
      if not sound:
        raise errors.UsageError(
            f'{path}: record {len(slices)} must hold int16 HU of its stated shape, '
            'found another length; write the shard again.')
      slices.append((int(label), bool(is_drawn)))
  except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
    raise errors.UsageError(
        f'{path}: a shard of CT slices is required, found a damaged file or one of '
        f'another kind at record {len(slices)}; write it again.') from error
  return slices


def _asked_of(example):
  features = tf.io.parse_single_example(example, _ASKED)
  stated = 2 * tf.reduce_prod(features['shape'])
  length = tf.cast(tf.strings.length(features['hu']), tf.int64)
  is_drawn = tf.strings.length(features['lesion_mask']) > 0
  return features['label'], is_drawn, stated == length
