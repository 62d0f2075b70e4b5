"""The batches of a run: from shards, through augmentation, to the devices."""

from collections.abc import Sequence
import dataclasses

import tensorflow as tf

from covid_tf.training import augmentation
from covid_tf.training import options as options_lib
from covid_tf.training import pipelines
from covid_tf.training import record_order
from covid_tf.training import shards as shards_lib
from covid_tf.training import tasks


@dataclasses.dataclass(frozen=True)
class Feed:
  """Endless batches of one replica, from any step of a stage on.

  Attributes:
    task: the network's parts.
    options: of the run.
    sets: shards to train on.
    size: rows and columns of the network's input.
    taken: slices that earlier stages have seen.
  """

  task: tasks.Task
  options: options_lib.Options
  sets: Sequence[shards_lib.Shards]
  size: int
  taken: int

  def __call__(self, context: tf.distribute.InputContext, done: int):
    options, task = self.options, self.task
    mixed = record_order.for_worker(
        record_order.mixed_records(
            self.sets, options.seed, options.shuffle_buffer,
            labelled_only=task.labelled_only, first=self.taken + done * options.batch),
        options.batch, context.input_pipeline_id, context.num_input_pipelines)
    return pipelines.batches(
        mixed.map(record_order.parsed),
        lambda record, seed: task.example(record, seed, task.augmentation, self.size),
        context.get_per_replica_batch_size(options.batch),
        deterministic=options.deterministic)


def held_out(
    task: tasks.Task, options: options_lib.Options, shards: shards_lib.Shards,
    size: int) -> tf.data.Dataset:
  """Slices to measure on, unchanged, spread over all patients of a pattern."""
  count = shards.labelled if task.labelled_only else shards.count
  records = record_order.in_order(shards.paths, task.labelled_only)
  few = record_order.some(records, count, options.validation_slices)
  return few.map(
      lambda record, seed: task.example(record, seed, augmentation.NONE, size),
      num_parallel_calls=tf.data.AUTOTUNE).batch(options.batch).prefetch(1)
