"""Pictures of a checkpoint: slices with what the network says painted over them."""

import tensorflow as tf

_RED, _GREEN = (1.0, 0.15, 0.1), (0.1, 0.9, 0.2)


def lungs(images: tf.Tensor, found: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
  """Slices with the found lung in red and the true one in green; both: yellowish.

  Args:
    images: float32 [N, size, size, 3], as the network takes them.
    found: float32 [N, size, size], in [0, 1].
    truth: likewise.

  Returns:
    float32 [N, size, size, 3], in [0, 1].
  """
  grey = _grey(images)
  return _painted(_painted(grey, found, _RED), truth, _GREEN)


def maps(images: tf.Tensor, fused: tf.Tensor, lesion: tf.Tensor) -> tf.Tensor:
  """Slices beside the same with the fused map in red and the drawn lesion in green.

  Args:
    images: float32 [N, size, size, 3], as the network takes them.
    fused: float32 [N, size, size], in [0, 1].
    lesion: likewise; zeros where nobody has drawn it.

  Returns:
    float32 [N, size, 2 size, 3], in [0, 1].
  """
  grey = _grey(images)
  painted = _painted(_painted(grey, fused, _RED), lesion, _GREEN)
  return tf.concat([grey, painted], axis=2)


def _grey(images):
  channel = images[..., :1]
  low = tf.reduce_min(channel, axis=(1, 2), keepdims=True)
  high = tf.reduce_max(channel, axis=(1, 2), keepdims=True)
  return tf.repeat(tf.math.divide_no_nan(channel - low, high - low), 3, axis=-1)


def _painted(picture, share, color):
  weight = 0.4 * tf.cast(share, tf.float32)[..., tf.newaxis]
  return picture * (1.0 - weight) + weight * tf.constant(color)
