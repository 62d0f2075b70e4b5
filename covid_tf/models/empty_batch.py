"""Batches of no slices at all, which TensorFlow's CPU convolutions refuse."""

from collections.abc import Callable
import functools

import tensorflow as tf


def accept_empty(function: Callable) -> Callable:
  """Makes a function of a batch work for a batch of size 0 too.

  An empty batch gets one slice of zeros, and every output loses it again, all in
  the graph: the batch size need not be known when the function is traced.

  Args:
    function: tensor [N, ...] -> any structure of tensors [N, ...], for N > 0.

  Returns:
    The same function for N >= 0.
  """

  @functools.wraps(function)
  def wrapped(batch):
    batch = tf.convert_to_tensor(batch)
    if batch.shape[0]:  # Known, and not 0: nothing to pad.
      return function(batch)
    size = tf.shape(batch)[0]
    missing = tf.cast(tf.equal(size, 0), tf.int32)
    filling = tf.zeros(tf.concat([[missing], tf.shape(batch)[1:]], 0), batch.dtype)
    # Not tf.pad: it hides the other sizes from TensorFlow's optimizer, which fuses
    # less then.
    outputs = function(tf.concat([batch, filling], 0))
    return tf.nest.map_structure(lambda output: output[:size], outputs)

  return wrapped
