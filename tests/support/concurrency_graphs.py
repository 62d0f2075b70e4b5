"""Small graphs with an addition behind a convolution, and threads that ask them.

As a script it asks one of them so many times from two threads and prints how many
answers were wrong; where the graph meets TensorFlow's fault, the process may die:

  python tests/concurrency_graphs.py KIND COUNT
"""

import dataclasses
import sys
import threading

import numpy as np
import tensorflow as tf

_SHAPE = (4, 28, 28, 64)
v1 = tf.compat.v1


@dataclasses.dataclass(frozen=True)
class Small:
  """A graph, the tensors to fetch, and the one to feed."""

  graph: tf.Graph
  fetches: list
  images: tf.Tensor


def build(kind: str) -> Small:
  """Makes the graph of one of KINDS."""
  random = np.random.default_rng(0)
  with tf.Graph().as_default() as graph:
    images = v1.placeholder(tf.float32, (None, *_SHAPE[1:]), 'images')
    kernel = tf.constant(random.normal(0, 0.1, (3, 3, 64, 64)), tf.float32)
    bias = tf.constant(random.normal(0, 0.1, 64), tf.float32)

    def convolve(tensor):
      return tf.nn.bias_add(tf.nn.conv2d(tensor, kernel, 1, 'SAME'), bias)

    shortcut = tf.nn.relu(convolve(images))
    return Small(graph, KINDS[kind](convolve, shortcut), images)


def ask(run, batches: list, threads: int, count: int) -> int:
  """Asks for some batches so many times; how many differ from the first answer."""
  wanted = [[np.array(value) for value in run(batch)] for batch in batches]
  wrong = []

  def repeat(first):
    for turn in range(first, count, threads):
      found = run(batches[turn % len(batches)])
      if not all(map(np.array_equal, found, wanted[turn % len(batches)])):
        wrong.append(turn)

  workers = [threading.Thread(target=repeat, args=(k,)) for k in range(threads)]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join()
  return len(wrong)


def _read_again(block, shortcut):
  return [
    tf.reduce_sum(block, (1, 2)),
    tf.reduce_sum(shortcut * tf.cast(block > 0, tf.float32), (1, 2)),
  ]


def _added(convolve, shortcut):
  return _read_again(tf.nn.relu(convolve(shortcut) + shortcut), shortcut)


def _added_n(convolve, shortcut):
  return _read_again(tf.nn.relu(tf.add_n([shortcut, convolve(shortcut)])), shortcut)


def _no_activation(convolve, shortcut):
  return _read_again(convolve(shortcut) + shortcut, shortcut)


def _convolved_itself(convolve, shortcut):
  return [tf.nn.relu(convolve(shortcut) + shortcut)]


def _fetched(convolve, shortcut):
  return [tf.nn.relu(convolve(convolve(shortcut)) + shortcut), shortcut]


def _reshaped(convolve, shortcut):
  same = tf.reshape(shortcut, tf.shape(shortcut))
  block = tf.nn.relu(convolve(shortcut) + shortcut)
  return [tf.reduce_sum(block, (1, 2)), tf.reduce_sum(same * 2.0, (1, 2))]


def _in_three_dimensions(convolve, shortcut):
  del convolve
  deep = tf.nn.relu(tf.reshape(shortcut, (-1, 4, 7, 28, 64)) - 0.1)
  kernel = tf.fill((3, 3, 3, 64, 64), 0.01)
  block = tf.nn.relu(
    tf.nn.bias_add(tf.nn.conv3d(deep, kernel, [1] * 5, 'SAME'), tf.ones(64)) + deep
  )
  return [tf.reduce_sum(block * deep, (1, 2))]


def _read_before(convolve, shortcut):
  return [tf.nn.relu(convolve(convolve(shortcut)) + shortcut)]


def _apart(convolve, shortcut):
  apart = tf.raw_ops.Snapshot(input=convolve(shortcut))
  return _read_again(tf.nn.relu(apart + shortcut), shortcut)


def _bias_on_the_other_side(convolve, shortcut):
  kernel = tf.fill((3, 3, 64, 64), 0.01)
  return _read_again(
    tf.nn.relu(
      tf.nn.conv2d(shortcut, kernel, 1, 'SAME') + tf.nn.bias_add(shortcut, tf.ones(64))
    ),
    shortcut,
  )


UNSAFE = {
  'added': _added,
  'added_n': _added_n,
  'no_activation': _no_activation,
  'convolved_itself': _convolved_itself,
  'fetched': _fetched,
  'reshaped': _reshaped,
  'in_three_dimensions': _in_three_dimensions,
}
SAFE = {
  'read_before': _read_before,
  'apart': _apart,
  'bias_on_the_other_side': _bias_on_the_other_side,
}
KINDS = UNSAFE | SAFE


def main(kind: str, count: str) -> None:
  small = build(kind)
  random = np.random.default_rng(1)
  batches = [random.normal(0, 1, _SHAPE).astype(np.float32) for _ in range(4)]
  with v1.Session(graph=small.graph) as session:
    print(
      ask(
        lambda batch: session.run(small.fetches, {small.images: batch}),
        batches,
        2,
        int(count),
      )
    )


if __name__ == '__main__':
  main(*sys.argv[1:])
