"""From raw HU to what the networks see: one function for training and serving.

A slice of any size is resized by two matrix products, rows then columns, whose
matrices are built in the graph from the slice's own size. The classifier's
low-pass rides along in the same matrices, so it costs nothing.
"""

import dataclasses

import tensorflow as tf

# Caffe-style normalization of keras.applications' VGG-16 and ResNet-50: channels
# in BGR order minus the ImageNet means, on a 0 to 255 scale.
_IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How Hounsfield units become a network's input.

  Attributes:
    window_hu: (low, high); HU outside are clipped to it.
    size: rows and columns of the network's input.
    low_pass_sigma: standard deviation of a Gaussian low-pass in pixels of the
      network's input; 0 for none. It takes away grain and kernel, which differ
      from scanner to scanner.
  """

  window_hu: tuple[float, float]
  size: int
  low_pass_sigma: float = 0.0


# Paper, section 2.1: window [-1000, 0]; the size is ours.
LUNGS = Preprocessing(window_hu=(-1000.0, 0.0), size=256)
# Ours: [-1000, 0] saturates consolidation. See docs/model_cards.md.
CLASSIFIER = Preprocessing(window_hu=(-1350.0, 150.0), size=224, low_pass_sigma=1.5)


def resize_matrix(
  source: tf.Tensor | int, target: tf.Tensor | int, low_pass_sigma: float = 0.0
) -> tf.Tensor:
  """Matrix that resamples a line of `source` pixels to `target` pixels.

  Bilinear with aligned pixel centres; antialiased (the triangle widens with the
  step) when it shrinks. Then, if asked, a Gaussian on the target's pixels. Every
  row sums to one, at the borders too.

  Args:
    source: pixels of the line given.
    target: pixels of the line wanted.
    low_pass_sigma: standard deviation of the Gaussian, in target pixels.

  Returns:
    float32 [target, source].
  """
  step = tf.cast(source, tf.float32) / tf.cast(target, tf.float32)
  centres = (tf.range(target, dtype=tf.float32) + 0.5) * step - 0.5
  pixels = tf.range(source, dtype=tf.float32)
  # Clamping keeps the first and last centres inside the line when it grows.
  centres = tf.clip_by_value(centres, 0.0, tf.cast(source, tf.float32) - 1.0)
  distance = tf.abs(centres[:, tf.newaxis] - pixels[tf.newaxis])
  matrix = _normalize_rows(tf.nn.relu(1.0 - distance / tf.maximum(step, 1.0)))
  if low_pass_sigma:
    lines = tf.range(target, dtype=tf.float32)
    squares = tf.square(lines[:, tf.newaxis] - lines[tf.newaxis])
    blur = _normalize_rows(tf.exp(-squares / (2.0 * low_pass_sigma**2)))
    matrix = blur @ matrix
  return matrix


def resize(
  images: tf.Tensor,
  rows: tf.Tensor | int,
  columns: tf.Tensor | int,
  low_pass_sigma: float = 0.0,
) -> tf.Tensor:
  """Resizes float32 [N, H, W] to [N, rows, columns] by `resize_matrix`."""
  shape = tf.shape(images)
  along_rows = resize_matrix(shape[1], rows, low_pass_sigma)
  along_columns = resize_matrix(shape[2], columns, low_pass_sigma)
  narrow = tf.einsum('nhw,cw->nhc', images, along_columns)
  return tf.einsum('rh,nhc->nrc', along_rows, narrow)


def network_input(hu: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
  """Windows, resizes and normalizes slices for an ImageNet backbone.

  Args:
    hu: [N, H, W] in HU, any numeric dtype.
    preprocessing: the network's constants.

  Returns:
    float32 [N, size, size, 3], BGR with the ImageNet means taken off.
  """
  low, high = preprocessing.window_hu
  clipped = tf.clip_by_value(tf.cast(hu, tf.float32), low, high)
  grey = resize(
    clipped, preprocessing.size, preprocessing.size, preprocessing.low_pass_sigma
  )
  grey = (grey - low) * (255.0 / (high - low))
  return grey[..., tf.newaxis] - tf.constant(_IMAGENET_MEAN_BGR)


def lung_input(hu: tf.Tensor) -> tf.Tensor:
  """[N, H, W] in HU to float32 [N, 256, 256, 3] for the lung U-Net."""
  return network_input(hu, LUNGS)


def classifier_input(hu: tf.Tensor) -> tf.Tensor:
  """[N, h, w] lung crops in HU to float32 [N, 224, 224, 3] for the classifier."""
  return network_input(hu, CLASSIFIER)


def _normalize_rows(matrix: tf.Tensor) -> tf.Tensor:
  return matrix / tf.reduce_sum(matrix, axis=1, keepdims=True)
