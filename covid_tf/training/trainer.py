"""A whole training: checks, stages one after the other, logs, weights."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from covid_tf import errors
from covid_tf.models import trained
from covid_tf.training import configuration
from covid_tf.training import devices
from covid_tf.training import feed
from covid_tf.training import kernel_gradients
from covid_tf.training import logs
from covid_tf.training import loop
from covid_tf.training import options as options_lib
from covid_tf.training import shards as shards_lib
from covid_tf.training import stages as stages_lib
from covid_tf.training import tasks
from covid_tf.training import watcher


def check(
    task: tasks.Task, options: options_lib.Options,
    strategy: tf.distribute.Strategy) -> None:
  """Refuses what cannot be trained.

  Raises:
    errors.UsageError: a stage or a size that the network does not know, or a batch
      that the devices cannot share equally.
  """
  for stage in options.stages:
    if stage.kind not in task.kinds:
      raise errors.UsageError(
          f"stage {stage}: this network's stages are {' or '.join(task.kinds)}, "
          f'found {stage.kind}.')
    if stage.size < task.least_size or stage.size % task.size_step:
      raise errors.UsageError(
          f'stage {stage}: a size of {task.least_size} or more is required, a multiple '
          f'of {task.size_step}, found {stage.size}.')
  replicas = strategy.num_replicas_in_sync
  if options.batch % replicas:
    raise errors.UsageError(
        f'batch must be a multiple of the {replicas} devices, found {options.batch}.')


def train(
    task: tasks.Task, options: options_lib.Options, sets: Sequence[shards_lib.Shards],
    held_out: Sequence[shards_lib.Shards], asked: dict, *,
    strategy: tf.distribute.Strategy | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int, int, float], None] = lambda *now: None,
) -> keras.Model:
  """Trains a network, or goes on where the folder's last checkpoint stands.

  Args:
    task: the network's parts.
    options: how.
    sets: shards to train on; each gives an equal share of every batch.
    held_out: shards to measure on at each checkpoint.
    asked: the configuration, in JSON's types; a folder that was begun with another
      is refused.
    strategy: on which devices.
    report: takes a line of figures at each checkpoint.
    progress: takes (stage, step, steps, loss) now and then.

  Returns:
    The trained network, as it is exported; also `final.weights.h5` of the folder.

  Raises:
    errors.UsageError: something of the above, or wrong gradients on this machine,
      before training starts.
  """
  strategy = strategy or tf.distribute.get_strategy()
  check(task, options, strategy)
  configuration.require_same(options.output, asked)
  is_chief = devices.worker_number(strategy) == 0
  log, model, taken, before = None, None, 0, 0
  for number, stage in enumerate(options.stages):
    # Also when it goes on: tf.data mixes the global seed into its orders.
    keras.utils.set_random_seed(options.seed + number)
    model = _prepared(task, stage, model, strategy)
    kernel_gradients.check(model)
    if number == 0:  # Not before: weights that do not fit must leave the folder free.
      configuration.claim(options.output, asked)
      log = logs.RunLog(options.output, options.tensorboard) if is_chief else None
    trainer = loop.Trainer(
        model, task.objective(model, stage), options.output / f'stage{number}',
        strategy, options.xla)
    if log:
      log.begin_stage(number, int(trainer.step), before)
    listener = watcher.Watcher(
        task, options, stage, number, model, held_out, log, report,
        progress).listener()
    trainer.run(
        stage, feed.Feed(task, options, sets, stage.size, taken), listener,
        checkpoint_every=options.checkpoint_every, patience=options.patience)
    taken += stage.steps * options.batch
    before += stage.steps
  return _finished(task, options, model, trainer, is_chief)


def _prepared(task, stage, before, strategy):
  with strategy.scope():
    model = task.build(stage.size)
  if before is not None:
    model.set_weights(before.get_weights())
  if stage.kind == stages_lib.FROZEN:
    task.freeze(model)
  return model


def _finished(task, options, model, trainer, is_chief):
  best = trainer.directory / loop.BEST_WEIGHTS
  if options.keep_best and best.exists():
    model.load_weights(best)
  if is_chief:
    trained.save_weights(
        task.served(model), options.output / trained.FINAL_WEIGHTS)
  return task.served(model)
