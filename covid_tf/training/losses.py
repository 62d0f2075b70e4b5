"""What training minimizes; all from logits."""

from collections.abc import Sequence

import tensorflow as tf

# Ours: a cell of a feature map is positive from this share of lesion on. At 14x14 a
# cell is about 2 cm wide, so a lesion of 6 mm makes one.
_POSITIVE_CELL_SHARE = 0.1
_POSITIVE_CELL_WEIGHT = 3.0  # Ours: positive cells are rare.


def dice_and_cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
  """Soft Dice loss of the batch plus mean binary cross-entropy.

  Args:
    labels: float32 [N, H, W, 1], in [0, 1].
    logits: [N, H, W, 1].

  Returns:
    float32 scalar.
  """
  logits = tf.cast(logits, tf.float32)
  probability = tf.sigmoid(logits)
  common = tf.reduce_sum(probability * labels)
  total = tf.reduce_sum(probability) + tf.reduce_sum(labels)
  # The one voxel keeps a batch without any lung from dividing by zero.
  dice_loss = 1.0 - (2.0 * common + 1.0) / (total + 1.0)
  cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
  return dice_loss + tf.reduce_mean(cross_entropy)


def located_cross_entropy(
    labels: dict[str, tf.Tensor], logits: list[tf.Tensor],
    positive_weight: float = 1.0) -> tf.Tensor:
  """Binary cross-entropy of the slice (the paper's loss) and, to help it, of cells.

  Args:
    labels: `covid` [N, 1], `lesion` [N, size, size], `lesion_known` [N]; as
      `pipelines.located_example` gives them, batched.
    logits: of the slice [N, 1], then of the cells of feature maps [N, h, w, 1].
    positive_weight: what a positive slice counts, a negative one being 1.

  Returns:
    float32 scalar.
  """
  covid, *cells = (tf.cast(part, tf.float32) for part in logits)
  loss = tf.reduce_mean(tf.nn.weighted_cross_entropy_with_logits(
      labels['covid'], covid, positive_weight))
  for cell_logits in cells:
    share = _share_of_cells(labels['lesion'], cell_logits)[..., tf.newaxis]
    entropy = tf.nn.weighted_cross_entropy_with_logits(
        tf.cast(share > _POSITIVE_CELL_SHARE, tf.float32), cell_logits,
        _POSITIVE_CELL_WEIGHT)
    loss += tf.reduce_mean(
        tf.reduce_mean(entropy, axis=(1, 2, 3)) * labels['lesion_known'])
  return loss


def map_dice(labels: dict[str, tf.Tensor], maps: Sequence[tf.Tensor]) -> tf.Tensor:
  """Dice loss of Grad-CAM maps, and of their product, against drawn lesions.

  Slices without disease, and those whose lesions nobody has drawn, have no part.

  Args:
    labels: as `located_cross_entropy` takes them.
    maps: float32 [N, side, side], in [0, 1], the finest first.

  Returns:
    float32 scalar, 0 to 1.
  """
  finest = tf.shape(maps[0])[1:]
  product = tf.ones_like(maps[0])
  for grid in maps:
    product *= tf.image.resize(grid[..., tf.newaxis], finest)[..., 0]
  parts = [*maps, product] if len(maps) > 1 else maps
  distances = [_dice_of_slices(grid, _map_target(labels['lesion'], grid))
               for grid in parts]
  drawn = labels['covid'][:, 0] * labels['lesion_known']
  mean = tf.add_n(distances) / len(parts)
  return tf.math.divide_no_nan(tf.reduce_sum(drawn * mean), tf.reduce_sum(drawn))


def _map_target(lesion: tf.Tensor, grid: tf.Tensor) -> tf.Tensor:
  """What a map should be: 1 where a cell holds half as much lesion as the fullest."""
  share = _share_of_cells(lesion, grid)
  largest = tf.reduce_max(share, axis=(1, 2), keepdims=True)
  return tf.minimum(1.0, 2.0 * tf.math.divide_no_nan(share, largest))


def _dice_of_slices(grid: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
  """1 - Dice of each slice, float32 [N], with squares in the denominator."""
  common = tf.reduce_sum(grid * target, axis=(1, 2))
  total = tf.reduce_sum(grid**2 + target**2, axis=(1, 2))
  return 1.0 - 2.0 * common / (total + 1e-3)  # Both may be empty.


def _share_of_cells(lesion: tf.Tensor, grid: tf.Tensor) -> tf.Tensor:
  """Lesion's share of each cell of a grid, float32 [N, rows, columns]."""
  rows, columns = grid.shape[1:3]
  if lesion.shape[1] % rows or lesion.shape[2] % columns:
    return tf.image.resize(
        lesion[..., tf.newaxis], (rows, columns), method='area')[..., 0]
  # The same means, which XLA has too.
  cell = (lesion.shape[1] // rows, lesion.shape[2] // columns)
  return tf.nn.avg_pool2d(lesion[..., tf.newaxis], cell, cell, 'VALID')[..., 0]
