"""What training minimizes; all from logits."""

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
    labels: dict[str, tf.Tensor], logits: list[tf.Tensor]) -> tf.Tensor:
  """Binary cross-entropy of the slice (the paper's loss) and, to help it, of cells.

  Args:
    labels: `covid` [N, 1], `lesion` [N, size, size], `lesion_known` [N]; as
      `pipelines.located_example` gives them, batched.
    logits: of the slice [N, 1], then of the cells of feature maps [N, h, w, 1].

  Returns:
    float32 scalar.
  """
  covid, *cells = (tf.cast(part, tf.float32) for part in logits)
  loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(
      labels=labels['covid'], logits=covid))
  for cell_logits in cells:
    share = tf.image.resize(
        labels['lesion'][..., tf.newaxis], tf.shape(cell_logits)[1:3], method='area')
    entropy = tf.nn.weighted_cross_entropy_with_logits(
        tf.cast(share > _POSITIVE_CELL_SHARE, tf.float32), cell_logits,
        _POSITIVE_CELL_WEIGHT)
    loss += tf.reduce_mean(
        tf.reduce_mean(entropy, axis=(1, 2, 3)) * labels['lesion_known'])
  return loss
