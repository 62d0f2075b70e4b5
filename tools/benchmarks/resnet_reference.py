"""ResNet-50 and Grad-CAM by the papers, in float64, from nothing but the weights.

A second opinion for tools/benchmarks/grad_cam.py: it shares no code with the
package, with keras.applications' layers or with any Grad-CAM library.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

_BLOCKS = (3, 4, 6, 3)  # He et al., 2015, table 1: blocks of conv2_x to conv5_x.
_EPSILON = 1.001e-5  # As keras.applications trains it.


def grad_cam(
  weights: Mapping[str, list[np.ndarray]],
  images: np.ndarray,
  sides: Mapping[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Grad-CAM at the ends of stages conv3 and conv4.

  Args:
    weights: layer name, as keras.applications names it, to its arrays.
    images: [N, 224, 224, 3], as the network takes them.
    sides: by the name of a block's activation, on which side of 0 each unit is
      taken to be; None decides by the sign. A unit within rounding of 0 has no
      gradient of its own: with the sides of another computation this one is on
      the same linear piece of the network as that one.

  Returns:
    (logit float64 [N], maps float64 [N, 28, 28] and [N, 14, 14]).
  """
  wide = {
    name: [tf.constant(array, tf.float64) for array in arrays]
    for name, arrays in weights.items()
  }
  sides = (
    None
    if sides is None
    else {name: tf.constant(side, tf.float64) for name, side in sides.items()}
  )
  logit, *pairs = _run(wide, tf.constant(images, tf.float64), sides)
  return (logit.numpy(), *(_map(*(array.numpy() for array in pair)) for pair in pairs))


@tf.function(autograph=False)  # A graph leaves out the gradients of the kernels.
def _run(weights, images, sides):
  with tf.GradientTape() as tape:
    tape.watch(images)
    logit, fine, coarse = _forward(weights, images, sides)
  gradients = tape.gradient(logit, (fine, coarse))
  return logit, (fine, gradients[0]), (coarse, gradients[1])


def _forward(weights, x, sides):
  def convolve(x, name, stride=1, padding='VALID'):
    kernel, bias = weights[f'{name}_conv']
    x = tf.nn.conv2d(x, kernel, stride, padding) + bias
    gamma, beta, mean, variance = weights[f'{name}_bn']
    return (x - mean) / tf.sqrt(variance + _EPSILON) * gamma + beta

  def rectify(x, name):
    return x * sides[name] if sides else tf.nn.relu(x)

  x = rectify(convolve(_pad(x, 3), 'conv1', 2), 'conv1_relu')
  x = tf.nn.max_pool2d(_pad(x, 1), 3, 2, 'VALID')
  ends = {}
  for stage, count in enumerate(_BLOCKS, start=2):
    for block in range(1, count + 1):
      name = f'conv{stage}_block{block}'
      stride = 2 if block == 1 and stage > 2 else 1
      shortcut = convolve(x, f'{name}_0', stride) if block == 1 else x
      x = rectify(convolve(x, f'{name}_1', stride), f'{name}_1_relu')
      x = rectify(convolve(x, f'{name}_2', padding='SAME'), f'{name}_2_relu')
      x = rectify(convolve(x, f'{name}_3') + shortcut, f'{name}_out')
    ends[stage] = x
  kernel, bias = weights['logit']
  logit = tf.linalg.matmul(tf.reduce_mean(x, axis=(1, 2)), kernel) + bias
  return logit[:, 0], ends[3], ends[4]


def _pad(x, margin):
  return tf.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))


def _map(activations, gradients):
  evidence = np.einsum('nhwc,nc->nhw', activations, gradients.mean(axis=(1, 2)))
  positive = np.maximum(evidence, 0)
  highest = positive.max(axis=(1, 2), keepdims=True)
  return np.divide(positive, highest, out=np.zeros_like(positive), where=highest > 0)
