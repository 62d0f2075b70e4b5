"""What training minimizes; all from logits."""

import tensorflow as tf


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
