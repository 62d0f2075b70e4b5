"""Are the gradients of a network's own strided 1x1 convolutions right here?

TensorFlow 2.21 with oneDNN computes the gradient of the kernel of a 1x1 convolution
with strides and few channels wrongly on some processors, and on others ends the
process (docs/adr/0102). A network would learn from it without a word. So each kind
of such a convolution is tried once before a training begins, in a process of its own.
"""

from collections.abc import Iterator
import dataclasses
import os
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

from covid_tf import errors

_CHANNELS = 16  # Multiples of these were right wherever we tried: not tried again.
_BATCH = 4
_FREE_SIZE = 24  # Pixels of a side that the network leaves free.
_TRIES = 3
_TOLERANCE = 1e-2  # Of the largest entry; bfloat16 differs by less, the fault by more.
_TIMEOUT_S = 120


@dataclasses.dataclass(frozen=True)
class Convolution:
  """What the gradient of a 1x1 convolution's kernel may depend on.

  Attributes:
    channels: of its input and of its output.
    strides: of rows and columns.
    size: rows and columns of its input.
    dtype: that it computes in.
  """

  channels: tuple[int, int]
  strides: tuple[int, int]
  size: tuple[int, int]
  dtype: str


def check(model: keras.Model) -> None:
  """Refuses a network whose strided 1x1 convolutions get wrong gradients here.

  Args:
    model: about to be trained; nested models are searched as well. Convolutions with
      multiples of 16 channels need no trial.

  Raises:
    errors.UsageError: the gradient of a layer's kernel is wrong, or its computation
      ends the process.
  """
  if tf.config.list_logical_devices('GPU'):
    return  # Other kernels: the fault is the CPU's.
  tried = {}
  for layer in _doubtful(model):
    convolution = _of_layer(layer)
    if convolution not in tried:
      tried[convolution] = _found(convolution)
    if tried[convolution]:
      of, to = convolution.channels
      raise errors.UsageError(
        f'layer {layer.name} ({of} to {to} channels, 1x1, strides '
        f'{list(convolution.strides)}): the right gradient of its kernel is required '
        f'for a training, {tried[convolution]}. Set TF_ENABLE_ONEDNN_OPTS=0, or give '
        f'it multiples of {_CHANNELS} channels.'
      )


def largest_error(convolution: Convolution) -> float:
  """How far TensorFlow's gradient of a kernel is off, relative to its largest entry.

  It may end the process: call it in one of its own.
  """
  random = np.random.default_rng(0)
  of, to = convolution.channels
  images = random.normal(size=(_BATCH, *convolution.size, of)).astype(np.float32)
  rows, columns = convolution.strides
  taken = images[:, ::rows, ::columns]
  weights = random.normal(size=(*taken.shape[:3], to)).astype(np.float32)
  images, weights = (tf.cast(values, convolution.dtype) for values in (images, weights))
  right = tf.einsum(
    'nijc,nijd->cd',
    tf.cast(images[:, ::rows, ::columns], tf.float32),
    tf.cast(weights, tf.float32),
  )
  kernel = tf.ones((1, 1, of, to), convolution.dtype)
  worst = 0.0
  for _ in range(_TRIES):
    with tf.GradientTape() as tape:
      tape.watch(kernel)
      convolved = tf.nn.conv2d(images, kernel, convolution.strides, 'SAME')
    found = tape.gradient(convolved, kernel, output_gradients=weights)[0, 0]
    error = tf.reduce_max(tf.abs(tf.cast(found, tf.float32) - right))
    worst = max(worst, float(error / tf.reduce_max(tf.abs(right))))
  return worst


def _doubtful(model: keras.Model) -> Iterator[keras.layers.Conv2D]:
  for layer in model.layers:
    if isinstance(layer, keras.Model):
      yield from _doubtful(layer)
    elif (
      isinstance(layer, keras.layers.Conv2D)
      and layer.trainable
      and layer.kernel_size == (1, 1)
      and max(layer.strides) > 1
      and any(size % _CHANNELS for size in layer.kernel.shape[2:])
    ):
      yield layer


def _of_layer(layer: keras.layers.Conv2D) -> Convolution:
  rows, columns = layer.input.shape[1:3]
  size = (rows or _FREE_SIZE, columns or _FREE_SIZE)
  return Convolution(
    tuple(layer.kernel.shape[2:]), tuple(layer.strides), size, layer.compute_dtype
  )


def _found(convolution: Convolution) -> str:
  """What is wrong with it, in words; '' if nothing is."""
  program = (
    'from covid_tf.training import kernel_gradients as tried\n'
    f'print(tried.largest_error(tried.{convolution!r}))'
  )
  try:
    done = subprocess.run(
      [sys.executable, '-c', program],
      capture_output=True,
      encoding='utf-8',
      errors='replace',
      timeout=_TIMEOUT_S,
      env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
    )
  except subprocess.TimeoutExpired:
    return f'found none within {_TIMEOUT_S} s'
  if done.returncode < 0:
    return f'a process that computed it was ended by signal {-done.returncode}'
  if done.returncode or not done.stdout:
    return f'a process that computed it ended with status {done.returncode}'
  error = float(done.stdout.split()[-1])
  if not error <= _TOLERANCE:
    return f'found one that is off by {error:.2g} of its largest entry'
  return ''
