"""A resumable training loop, the same on one device or several.

Not Keras' `fit`: Keras 3 refuses it under MultiWorkerMirroredStrategy.
"""

from collections.abc import Callable
import dataclasses
import math
import os
import pathlib
import time

import keras
import tensorflow as tf

from covid_tf import errors
from covid_tf.storage import files
from covid_tf.training import tasks

# Where a training runs: one device, all of a machine's, or several machines'.

NONE, MIRRORED, MULTI_WORKER = DEVICE_CHOICES = ('none', 'mirrored', 'multi_worker')
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
        f'devices must be one of {", ".join(DEVICE_CHOICES)}, found {choice!r}.')
  if not os.environ.get(_CLUSTER):
    raise errors.UsageError(
        f'multi_worker needs the environment variable {_CLUSTER} in every process, '
        'found none; docs/training.md shows one.')
  return tf.distribute.MultiWorkerMirroredStrategy()


def worker_number(strategy: tf.distribute.Strategy) -> int:
  """This process's number; 0 is the chief, which alone writes the run's files."""
  resolver = strategy.cluster_resolver
  return resolver.task_id if resolver and resolver.task_type else 0


BEST_WEIGHTS = 'best.weights.h5'
_CLIP_NORM = 5.0  # Ours: a network from scratch sees large gradients at first.
_BATCH_NORM_MOMENTUM = 0.95  # Ours: Keras' 0.99 lags behind runs of some hundred steps.
_STEPS_A_LOG_ROW = 20


@dataclasses.dataclass(frozen=True)
class Listener:
  """What is called while a stage runs.

  Attributes:
    logged: (step, mean loss, learning rate, seconds a step), now and then.
    measured: step -> the score that is to grow, or None where nothing is measured;
      called before each checkpoint.
  """

  logged: Callable[[int, float, float, float], None]
  measured: Callable[[int], float | None]


@dataclasses.dataclass
class Trainer:
  """Model, optimizer and place in a stage, kept in checkpoints of `directory`.

  Attributes:
    model: the network, made in the strategy's scope.
    objective: (images, labels) -> float32 scalar, the mean over the batch.
    directory: where checkpoints go.
    strategy: how many devices.
    xla: whether the step's loss and gradients are compiled by XLA.
  """

  model: keras.Model
  objective: Callable
  directory: pathlib.Path
  strategy: tf.distribute.Strategy = dataclasses.field(
      default_factory=tf.distribute.get_strategy)
  xla: bool = False

  def __post_init__(self):
    for layer in self.model.layers:
      if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = _BATCH_NORM_MOMENTUM
    with self.strategy.scope():
      self.optimizer = keras.optimizers.Adam()
      self.optimizer.build(self.model.trainable_variables)
    # Outside the scope: every process counts for itself, and alike.
    self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
    self.best = tf.Variable(-math.inf, trainable=False)
    self.worse = tf.Variable(0, dtype=tf.int64, trainable=False)
    self.is_chief = worker_number(self.strategy) == 0
    checkpoint = tf.train.Checkpoint(
        model=self.model, optimizer=self.optimizer, step=self.step, best=self.best,
        worse=self.worse)
    shared = self.directory / 'checkpoints'
    # All workers take part in a save, and only the chief's is kept.
    own = shared if self.is_chief else self.directory / (
        f'worker{worker_number(self.strategy)}')
    self._manager = tf.train.CheckpointManager(checkpoint, str(own), max_to_keep=2)
    checkpoint.restore(tf.train.latest_checkpoint(str(shared)))

  def run(
      self, stage: tasks.Stage, dataset: Callable, listener: Listener, *,
      checkpoint_every: int, patience: int = 0) -> None:
    """Runs what is left of a stage.

    Args:
      stage: its steps and rates.
      dataset: (tf.distribute.InputContext, steps done) -> endless batches of one
        replica.
      listener: what is called meanwhile.
      checkpoint_every: steps between checkpoints.
      patience: checkpoints in a row without a better score that end the stage; 0
        for no such end.
    """
    if self._is_done(stage, patience):
      return
    train_step = self.train_step()
    done = int(self.step)
    batches = iter(self.strategy.distribute_datasets_from_function(
        lambda context: dataset(context, done)))
    losses, began = [], time.monotonic()
    while not self._is_done(stage, patience):
      rate = stage.learning_rate_at(int(self.step))
      self.optimizer.learning_rate.assign(rate)
      losses.append(train_step(*next(batches)))
      self.step.assign_add(1)
      step = int(self.step)
      at_checkpoint = step % checkpoint_every == 0 or step == stage.steps
      if step % _STEPS_A_LOG_ROW == 0 or at_checkpoint:
        mean = float(tf.reduce_mean(losses))
        listener.logged(step, mean, rate, (time.monotonic() - began) / len(losses))
        losses, began = [], time.monotonic()
      if at_checkpoint:
        # First the measure, then the checkpoint that knows of it: a process that is
        # killed between them measures again.
        self._judge(listener.measured(step))
        self._manager.save()
        began = time.monotonic()

  def _is_done(self, stage, patience):
    return int(self.step) >= stage.steps or 0 < patience <= int(self.worse)

  def _judge(self, score: float | None) -> None:
    if score is None:
      return
    if not score > float(self.best):  # Nor is what cannot be measured.
      self.worse.assign_add(1)
      return
    self.best.assign(score)
    self.worse.assign(0)
    if self.is_chief:
      with files.replacing(self.directory / BEST_WEIGHTS) as temporary:
        self.model.save_weights(temporary)

  def train_step(self) -> Callable:
    """Makes the function (images, labels) -> loss that takes one optimizer step."""
    variables = self.model.trainable_variables
    replicas = self.strategy.num_replicas_in_sync

    @tf.function(jit_compile=self.xla or None)
    def loss_and_gradients(images, labels):
      with tf.GradientTape() as tape:
        loss = self.objective(images, labels)
      return loss, tape.gradient(loss, variables)

    def replica_step(images, labels):
      loss, gradients = loss_and_gradients(images, labels)
      if replicas > 1:
        gradients = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.MEAN, gradients)
      # Clipped after the mean, as one device would; the optimizer then adds up what
      # the replicas give it.
      gradients = [tf.clip_by_norm(g, _CLIP_NORM) / replicas for g in gradients]
      self.optimizer.apply_gradients(zip(gradients, variables))
      return loss

    @tf.function
    def step(images, labels):
      losses = self.strategy.run(replica_step, (images, labels))
      return self.strategy.reduce(tf.distribute.ReduceOp.MEAN, losses, axis=None)

    return step
