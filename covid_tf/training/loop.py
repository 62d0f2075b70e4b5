"""A resumable training loop, the same on one device or several."""

from collections.abc import Callable, Sequence
import csv
import dataclasses
import pathlib
import time

import keras
import tensorflow as tf

from covid_tf.training import stages

_CLIP_NORM = 5.0  # Ours: a network from scratch sees large gradients at first.
_BATCH_NORM_MOMENTUM = 0.95  # Ours: Keras' 0.99 lags behind runs of some hundred steps.


@dataclasses.dataclass
class Trainer:
  """Model, optimizer and place in the plan, kept in checkpoints of `directory`.

  Attributes:
    model: the network.
    objective: (images, labels) -> float32 scalar, the mean over the batch.
    directory: where checkpoints and log.csv go.
    strategy: how many devices; the default is the one at hand.
  """

  model: keras.Model
  objective: Callable
  directory: pathlib.Path
  strategy: tf.distribute.Strategy = dataclasses.field(
      default_factory=tf.distribute.get_strategy)

  def __post_init__(self):
    self.directory.mkdir(parents=True, exist_ok=True)
    for layer in self.model.layers:
      if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = _BATCH_NORM_MOMENTUM
    with self.strategy.scope():
      self.optimizer = keras.optimizers.Adam(clipnorm=_CLIP_NORM)
      self.optimizer.build(self.model.trainable_variables)
    self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
    checkpoint = tf.train.Checkpoint(
        model=self.model, optimizer=self.optimizer, step=self.step)
    self._manager = tf.train.CheckpointManager(
        checkpoint, str(self.directory / 'checkpoints'), max_to_keep=2)
    checkpoint.restore(self._manager.latest_checkpoint)

  def run_stage(
      self, stage: stages.Stage, dataset: tf.data.Dataset, *,
      on_checkpoint: Callable[[int], None], checkpoint_every: int) -> None:
    """Runs what is left of a stage."""
    train_step = self._train_step()
    batches = iter(self.strategy.experimental_distribute_dataset(dataset))
    losses, began = [], time.monotonic()
    while int(self.step) < stage.steps:
      self.optimizer.learning_rate.assign(
          stage.learning_rate_at(int(self.step)))
      losses.append(train_step(*next(batches)))
      self.step.assign_add(1)
      step = int(self.step)
      if step % 20 == 0:
        mean = float(tf.reduce_mean(losses))
        self._log(step, stage.size, mean, (time.monotonic() - began) / len(losses))
        losses, began = [], time.monotonic()
      if step % checkpoint_every == 0 or step == stage.steps:
        self._manager.save()
        on_checkpoint(step)

  def _train_step(self):
    def replica_step(images, labels):
      with tf.GradientTape() as tape:
        loss = self.objective(images, labels)
        scaled = loss / self.strategy.num_replicas_in_sync
      gradients = tape.gradient(scaled, self.model.trainable_variables)
      self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables))
      return loss

    @tf.function
    def step(images, labels):
      losses = self.strategy.run(replica_step, (images, labels))
      return self.strategy.reduce(tf.distribute.ReduceOp.MEAN, losses, axis=None)

    return step

  def _log(self, step: int, size: int, loss: float, seconds: float) -> None:
    with open(self.directory / 'log.csv', 'a', newline='') as log:
      csv.writer(log).writerow([step, size, f'{loss:.5f}', f'{seconds:.3f}'])


def of_logits(loss: Callable) -> Callable:
  """The objective of a plain stage, from a loss of (labels, logits)."""
  def objective(model, stage):
    del stage
    return lambda images, labels: loss(labels, model(images, training=True))

  return objective


def run_plan(
    plan: Sequence[stages.Stage], directory: pathlib.Path,
    build: Callable[[int], keras.Model],
    objective: Callable[[keras.Model, stages.Stage], Callable],
    dataset: Callable[[int, int], tf.data.Dataset],
    on_checkpoint: Callable[[keras.Model, stages.Stage, int], None],
    checkpoint_every: int = 100) -> keras.Model:
  """Runs stages one after the other; each starts from the weights before it.

  Args:
    plan: the stages; a run that was cut off goes on where its checkpoint stands.
    directory: of the run; stage K keeps its checkpoints in `stage<K>`.
    build: input size -> a model with the weights to begin from.
    objective: (model, stage) -> what is minimized; see `Trainer`.
    dataset: (input size, seed) -> endless batches.
    on_checkpoint: called with the model, its stage and the step done.
    checkpoint_every: steps between checkpoints.

  Returns:
    The model of the last stage.
  """
  model = None
  for number, stage in enumerate(plan):
    weights = None if model is None else model.get_weights()
    model = build(stage.size)
    if weights is not None:
      model.set_weights(weights)
    trainer = Trainer(
        model, objective(model, stage), directory / f'stage{number}')
    # A resumed run draws new slices rather than the first ones again.
    seed = 1000 * number + int(trainer.step)
    trainer.run_stage(
        stage, dataset(stage.size, seed),
        on_checkpoint=lambda step, model=model, stage=stage: on_checkpoint(
            model, stage, step),
        checkpoint_every=checkpoint_every)
  return model
