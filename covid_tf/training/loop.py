"""A resumable training loop, the same on one device or several.

Not Keras' `fit`: Keras 3 refuses it under MultiWorkerMirroredStrategy.
"""

from collections.abc import Callable, Sequence
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

NONE, MIRRORED, MULTI_WORKER = 'none', 'mirrored', 'multi_worker'
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
      f'devices must be one of {NONE}, {MIRRORED}, {MULTI_WORKER}, found {choice!r}.'
    )
  if not os.environ.get(_CLUSTER):
    raise errors.UsageError(
      f'multi_worker needs the environment variable {_CLUSTER} in every process, '
      'found none; docs/training.md shows one.'
    )
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
    measured: step -> figures by name, of which the first is to grow; {} where nothing
      is measured. Called before each checkpoint.
  """

  logged: Callable[[int, float, float, float], None]
  measured: Callable[[int], dict[str, float]]


class Trainer:
  """Model, optimizer and place in a stage, kept in checkpoints of a folder.

  `build`, `restore` and `run` are called in this order. A stage is to callbacks what a
  call of Keras' `fit` is, and the steps up to a checkpoint are an epoch.

  Attributes:
    model: the network, made in the strategy's scope.
    directory: where checkpoints go.
    step: steps of the stage that are done; after `build`.
  """

  def __init__(
    self,
    model: keras.Model,
    objective: tasks.Objective,
    directory: pathlib.Path,
    strategy: tf.distribute.Strategy | None = None,
    *,
    xla: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
  ):
    """Keeps what it is given, and does nothing yet.

    Args:
      model: the network, made in the strategy's scope.
      objective: (images, labels) -> float32 scalar, the mean over the batch.
      directory: where checkpoints go.
      strategy: which devices; None for one.
      xla: whether the step's loss and gradients are compiled by XLA.
      callbacks: called in every process, see `run`.
    """
    self.model = model
    self.directory = directory
    self._objective = objective
    self._strategy = strategy or tf.distribute.get_strategy()
    self._xla = xla
    self._callbacks = list(callbacks)

  def build(self) -> None:
    """Makes the optimizer and the counters; the model's batch norm learns faster."""
    for layer in self.model.layers:
      if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = _BATCH_NORM_MOMENTUM
    with self._strategy.scope():
      self._optimizer = keras.optimizers.Adam()
      self._optimizer.build(self.model.trainable_variables)
    # Outside the scope: every process counts for itself, and alike.
    self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
    self._best = tf.Variable(-math.inf, trainable=False)
    self._worse = tf.Variable(0, dtype=tf.int64, trainable=False)
    self._stopped = tf.Variable(False, trainable=False)  # By a callback.

  def restore(self) -> int:
    """Goes to the last checkpoint, if there is one; returns its step, or 0."""
    checkpoint = tf.train.Checkpoint(
      model=self.model,
      optimizer=self._optimizer,
      step=self.step,
      best=self._best,
      worse=self._worse,
      stopped=self._stopped,
    )
    shared, worker = self.directory / 'checkpoints', worker_number(self._strategy)
    # All workers take part in a save, and only the chief's is kept.
    own = self.directory / f'worker{worker}' if worker else shared
    self._manager = tf.train.CheckpointManager(checkpoint, str(own), max_to_keep=2)
    checkpoint.restore(tf.train.latest_checkpoint(str(shared)))
    return int(self.step)

  def run(
    self,
    stage: tasks.Stage,
    dataset: Callable,
    listener: Listener,
    *,
    checkpoint_every: int,
    patience: int = 0,
    first_epoch: int = 0,
  ) -> None:
    """Runs what is left of a stage.

    A callback that sets `model.stop_training` ends the stage, also for a process that
    goes on from the checkpoint.

    Args:
      stage: its steps and rates.
      dataset: (tf.distribute.InputContext, steps done) -> endless batches of one
        replica.
      listener: what is called meanwhile.
      checkpoint_every: steps between checkpoints.
      patience: checkpoints in a row without a better score that end the stage; 0
        for no such end.
      first_epoch: number of the stage's first epoch.
    """
    if self._is_done(stage, patience):
      return
    train_step, batches = self.train_step(), self._distributed(dataset)
    # As a model that was not compiled should have them: callbacks look at both.
    self.model.stop_training, self.model.optimizer = False, None
    callbacks = keras.callbacks.CallbackList(
      self._callbacks,
      model=self.model,
      steps=checkpoint_every,
      epochs=first_epoch + -(-stage.steps // checkpoint_every),
    )
    callbacks.on_train_begin()
    while not self._is_done(stage, patience):
      step = int(self.step)
      epoch = first_epoch + step // checkpoint_every
      end = min(step - step % checkpoint_every + checkpoint_every, stage.steps)
      callbacks.on_epoch_begin(epoch)
      logs = self._run_until(end, stage, batches, train_step, listener, callbacks)
      # First the measure, then the checkpoint that knows of it: a process that is
      # killed between them measures again.
      figures = listener.measured(int(self.step))
      self._judge(next(iter(figures.values()), None))
      logs |= {f'val_{name}': value for name, value in figures.items()}
      callbacks.on_epoch_end(epoch, logs)
      self._stopped.assign(self.model.stop_training)
      self._manager.save()
    callbacks.on_train_end(logs)

  def _distributed(self, dataset):
    """Iterator over the batches that are left, each process's share of them."""
    done = int(self.step)
    return iter(
      self._strategy.distribute_datasets_from_function(
        lambda context: dataset(context, done)
      )
    )

  def _run_until(
    self, end, stage, batches, train_step, listener, callbacks
  ) -> dict[str, float]:
    """Takes steps; returns the mean loss and the last learning rate."""
    losses, logged, began = [], 0, time.monotonic()
    for batch in range(end - int(self.step)):
      callbacks.on_train_batch_begin(batch)
      rate = stage.learning_rate_at(int(self.step))
      self._optimizer.learning_rate.assign(rate)
      losses.append(train_step(*next(batches)))
      self.step.assign_add(1)
      step = int(self.step)
      if self._callbacks:  # Else nothing waits for the device.
        callbacks.on_train_batch_end(batch, {'loss': float(losses[-1])})
      is_last = step == end or self.model.stop_training
      if step % _STEPS_A_LOG_ROW == 0 or is_last:
        recent = losses[logged:]
        listener.logged(
          step,
          float(tf.reduce_mean(recent)),
          rate,
          (time.monotonic() - began) / len(recent),
        )
        logged, began = len(losses), time.monotonic()
      if is_last:
        break
    return {'loss': float(tf.reduce_mean(losses)), 'learning_rate': rate}

  def _is_done(self, stage, patience):
    return (
      int(self.step) >= stage.steps
      or bool(self._stopped)
      or 0 < patience <= int(self._worse)
    )

  def _judge(self, score: float | None) -> None:
    if score is None:
      return
    if not score > float(self._best):  # Nor is what cannot be measured.
      self._worse.assign_add(1)
      return
    self._best.assign(score)
    self._worse.assign(0)
    if worker_number(self._strategy) == 0:
      with files.replacing(self.directory / BEST_WEIGHTS) as temporary:
        self.model.save_weights(temporary)

  def train_step(self) -> Callable:
    """Makes the function (images, labels) -> loss that takes one optimizer step."""
    variables = self.model.trainable_variables
    replicas = self._strategy.num_replicas_in_sync

    @tf.function(jit_compile=self._xla or None)
    def loss_and_gradients(images, labels):
      with tf.GradientTape() as tape:
        loss = self._objective(images, labels)
      return loss, tape.gradient(loss, variables)

    def replica_step(images, labels):
      loss, gradients = loss_and_gradients(images, labels)
      if replicas > 1:
        gradients = tf.distribute.get_replica_context().all_reduce(
          tf.distribute.ReduceOp.MEAN, gradients
        )
      # Clipped after the mean, as one device would; the optimizer then adds up what
      # the replicas give it.
      gradients = [tf.clip_by_norm(g, _CLIP_NORM) / replicas for g in gradients]
      self._optimizer.apply_gradients(zip(gradients, variables))
      return loss

    @tf.function
    def step(images, labels):
      losses = self._strategy.run(replica_step, (images, labels))
      return self._strategy.reduce(tf.distribute.ReduceOp.MEAN, losses, axis=None)

    return step
