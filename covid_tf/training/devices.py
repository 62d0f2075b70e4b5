"""Where a training runs: one device, all of a machine's, or several machines'."""

import os

import tensorflow as tf

from covid_tf import errors

NONE, MIRRORED, MULTI_WORKER = CHOICES = ('none', 'mirrored', 'multi_worker')
_CLUSTER = 'TF_CONFIG'  # TensorFlow's own: JSON of all workers and of this one's place.


def strategy(choice: str) -> tf.distribute.Strategy:
  """The strategy of a choice; call it before TensorFlow does anything else.

  Args:
    choice: 'none', one device; 'mirrored', all GPUs of this machine, or all its
      logical CPU devices; 'multi_worker', the processes that TF_CONFIG lists.

  Raises:
    errors.UsageError: an unknown choice, or no TF_CONFIG for several machines.
  """
  if choice == NONE:
    return tf.distribute.get_strategy()
  if choice == MIRRORED:
    return tf.distribute.MirroredStrategy()
  if choice != MULTI_WORKER:
    raise errors.UsageError(
        f'devices must be one of {", ".join(CHOICES)}, found {choice!r}.')
  if not os.environ.get(_CLUSTER):
    raise errors.UsageError(
        f'multi_worker needs the environment variable {_CLUSTER} in every process, '
        'found none; docs/training.md shows one.')
  return tf.distribute.MultiWorkerMirroredStrategy()


def worker_number(strategy: tf.distribute.Strategy) -> int:
  """This process's number; 0 is the chief, which alone writes the run's files."""
  resolver = strategy.cluster_resolver
  return resolver.task_id if resolver and resolver.task_type else 0
