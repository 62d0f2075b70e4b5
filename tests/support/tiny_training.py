"""A whole training that takes seconds, in this process or as one of several."""

import dataclasses
import os
import pathlib
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

from covid_tf.models import preprocessing
from covid_tf.training import augmentation as augmentation_lib
from covid_tf.training import classifier_task
from covid_tf.training import loop
from covid_tf.training import pipelines
from covid_tf.training import shards
from covid_tf.training import tasks
from covid_tf.training import trainer

_CONSTANTS = preprocessing.Preprocessing((-1350.0, 150.0), 16, 0.5)
ASKED = {'network': 'tiny'}


def record(index: int, label: int) -> shards.SliceRecord:
  """A chest of 48 x 60 pixels, with an opacity where the label is 1."""
  random = np.random.default_rng(index)
  hu = np.full((48, 60), -850, np.int16)
  if label:
    hu[20:30, 20:40] = -200
  hu += random.integers(-20, 20, hu.shape).astype(np.int16)
  mask = np.zeros((48, 60), np.uint8)
  mask[8:40, 10:50] = 1
  return shards.SliceRecord(
    hu,
    mask,
    (hu > -500).astype(np.uint8) if index % 3 else None,
    (8, 10, 40, 50),
    label,
    1.5,
    f'p{index // 4}',
    's',
    index,
    'test',
  )


def write_shard(path: pathlib.Path, count: int = 24, first: int = 0) -> str:
  """Writes slices of both classes; returns the path as a pattern."""
  shards.write_shard(path, [record(i, i % 2) for i in range(first, first + count)])
  return str(path)


def batch(task: tasks.Task, folder: pathlib.Path, size: int, count: int = 6):
  """All of a shard of `count` slices as a task takes them, not augmented."""
  pattern = write_shard(folder / 'a.tfrecord', count)
  examples = pipelines.records_in_order([pattern]).map(
    lambda record, seed: task.example(record, seed, augmentation_lib.NONE, size)
  )
  return next(iter(examples.batch(count)))


class TinyTask(tasks.Task):
  """A convolution that distinguishes the two kinds of slice."""

  labelled_only = True
  augmentation = augmentation_lib.Augmentation(hu_offset=20.0, noise_hu=20.0)

  def build(self, size):
    keras.utils.set_random_seed(2)
    images = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, strides=4, activation='relu', name='body')(
      images / 128.0
    )
    return keras.Model(
      images, keras.layers.Dense(1, name='head')(keras.layers.GlobalMaxPooling2D()(x))
    )

  def freeze(self, model):
    model.get_layer('body').trainable = False

  def objective(self, model, stage):
    loss = tf.nn.sigmoid_cross_entropy_with_logits
    return lambda images, labels: tf.reduce_mean(
      loss(labels['covid'], model(images, training=True))
    )

  def example(self, record, seed, how, size):
    return pipelines.located_example(
      record, seed, how, dataclasses.replace(_CONSTANTS, size=size)
    )

  def measure(self, network, batches):
    return classifier_task.slice_figures(network, batches)

  def picture(self, network, images, labels):
    return tf.clip_by_value(images, 0.0, 1.0)


class KilledTask(TinyTask):
  """Kills its process between a checkpoint's measure and its writing."""

  def __init__(self, checkpoint: int):
    """`checkpoint` counts from 1; 0 for none."""
    self._left = checkpoint

  def measure(self, network, batches):
    figures = super().measure(network, batches)
    self._left -= 1
    if self._left == 0:
      os.kill(os.getpid(), signal.SIGKILL)
    return figures


def options(folder: pathlib.Path, *plan: str, **changes) -> tasks.Options:
  """Checkpoints every 5 steps of 8 slices."""
  given = {
    'batch': 8,
    'shuffle_buffer': 12,
    'checkpoint_every': 5,
    'tensorboard': False,
  } | changes
  return tasks.Options(
    pathlib.Path(folder), tuple(map(tasks.Stage.parse, plan)), **given
  )


def train(options_: tasks.Options, pattern: str, task_: tasks.Task, **given):
  """Trains on one pattern and measures on it."""
  sets = [shards.look_through(pattern)]
  return trainer.train(task_, options_, sets, sets, ASKED, **given)


def main(folder: str, pattern: str, choice: str, plan: str, killed_at: str) -> None:
  """As a process of its own; `killed_at` is the checkpoint of KilledTask."""
  if choice == loop.MIRRORED:
    (cpu,) = tf.config.list_physical_devices('CPU')
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
  strategy = loop.strategy(choice)
  train(options(folder, plan), pattern, KilledTask(int(killed_at)), strategy=strategy)


if __name__ == '__main__':
  main(*sys.argv[1:])
