"""A whole training: checks, stages one after the other, logs, weights."""

from collections.abc import Callable, Mapping, Sequence
import csv
import dataclasses
import io
import pathlib

import keras
import tensorflow as tf

from covid_tf import errors
from covid_tf.models import weights
from covid_tf.storage import files
from covid_tf.training import kernel_gradients
from covid_tf.training import loop
from covid_tf.training import pipelines
from covid_tf.training import shards as shards_lib
from covid_tf.training import tasks

# Their rates would be lost at the next step, and to a run that goes on.
_SCHEDULES = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)

# What a run leaves to be looked at: log.csv, validation.csv, TensorBoard.

_LOG = ('stage', 'step', 'loss', 'learning_rate', 'seconds_per_step')
_VALIDATION = ('stage', 'step', 'figure', 'value')


class RunLog:
  """Log files of a run. A stage that starts again takes its later rows away."""

  def __init__(self, folder: pathlib.Path, tensorboard: bool = True):
    """Begins or continues the logs in `folder`."""
    self._folder = folder
    self._writer = (
      tf.summary.create_file_writer(str(folder / 'tensorboard'))
      if tensorboard
      else None
    )
    self._before = 0  # Steps of earlier stages, so that curves go on.

  def begin_stage(self, stage: int, step: int, before: int) -> None:
    """Drops what a killed process wrote after its last checkpoint.

    Args:
      stage: number of the stage.
      step: its step that the checkpoint holds.
      before: steps of all earlier stages.
    """
    self._before = before
    for name, header in (('log.csv', _LOG), ('validation.csv', _VALIDATION)):
      _keep_rows_until(self._folder / name, header, (stage, step))

  def training(
    self, stage: int, step: int, loss: float, rate: float, seconds: float
  ) -> None:
    """Adds means over the last steps."""
    self._append(
      'log.csv', (stage, step, f'{loss:.6f}', f'{rate:.3g}', f'{seconds:.3f}')
    )
    self._scalars(step, {'loss': loss, 'learning_rate': rate})

  def validation(self, stage: int, step: int, figures: Mapping[str, float]) -> None:
    """Adds the figures of a checkpoint."""
    for name, value in figures.items():
      self._append('validation.csv', (stage, step, name, f'{value:.5f}'))
    self._scalars(step, figures)

  def picture(self, step: int, name: str, images: tf.Tensor) -> None:
    """Adds pictures, float32 [N, rows, columns, 3] in [0, 1], to TensorBoard."""
    if self._writer:
      with self._writer.as_default(step=self._before + step):
        tf.summary.image(name, images, max_outputs=images.shape[0])

  def _append(self, name, row):
    with open(self._folder / name, 'a', newline='', encoding='utf-8') as log:
      csv.writer(log).writerow(row)

  def _scalars(self, step, values):
    if self._writer:
      with self._writer.as_default(step=self._before + step):
        for name, value in values.items():
          tf.summary.scalar(name, value)
      self._writer.flush()


def _keep_rows_until(path, header, last):
  rows = []
  if path.exists():
    with open(path, newline='', encoding='utf-8') as log:
      # A killed process may leave half a row at the end.
      rows = [row for row in csv.reader(log) if len(row) == len(header)][1:]
  kept = [row for row in rows if (int(row[0]), int(row[1])) <= last]
  text = io.StringIO()
  csv.writer(text).writerows([header, *kept])
  files.write_atomically(path, text.getvalue().encode())


# What is measured, drawn and written down while a stage runs.


@dataclasses.dataclass(frozen=True)
class Watcher:
  """Listens to one stage.

  Attributes:
    task: the network's parts.
    options: of the run.
    stage: the stage.
    number: of the stage, 0 the first.
    model: the network that trains.
    held_out: shards to measure on.
    log: files of the run; None in a process that writes none.
    report: takes a line of figures.
    progress: takes (stage, step, steps, loss).
  """

  task: tasks.Task
  options: tasks.Options
  stage: tasks.Stage
  number: int
  model: keras.Model
  held_out: Sequence[shards_lib.Shards]
  log: RunLog | None
  report: Callable
  progress: Callable

  def listener(self) -> loop.Listener:
    """The two methods that the loop calls."""
    return loop.Listener(self._logged, self._measured)

  def _logged(self, step, loss, rate, seconds):
    self.progress(self.number, step, self.stage.steps, loss)
    if self.log:
      self.log.training(self.number, step, loss, rate, seconds)

  def _measured(self, step):
    network = self.task.served(self.model)
    if self.log:
      weights.save_weights(network, self.options.output / weights.LATEST_WEIGHTS)
    found = []
    for shards in self.held_out:
      batches = pipelines.held_out(self.task, self.options, shards, self.stage.size)
      figures = self.task.measure(network, batches)
      found.append(figures)
      self._write(step, shards.pattern, figures, network, batches)
    # Means over the held-out patterns.
    return {
      name: sum(figures[name] for figures in found) / len(found)
      for name in (found[0] if found else ())
    }

  def _write(self, step, pattern, figures, network, batches):
    values = ' '.join(f'{name} {value:.4f}' for name, value in figures.items())
    self.report(
      f'stage {self.number} ({self.stage.size}) step {step} {pattern}: {values}'
    )
    if not self.log:
      return
    self.log.validation(
      self.number, step, {f'{name} {pattern}': v for name, v in figures.items()}
    )
    if self.options.tensorboard:
      images, labels = next(iter(batches.take(1)))
      self.log.picture(step, pattern, self.task.picture(network, images, labels))


def check(
  task: tasks.Task,
  options: tasks.Options,
  strategy: tf.distribute.Strategy,
  callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
  """Refuses what cannot be trained.

  Raises:
    errors.UsageError: a stage or a size that the network does not know, a batch that
      the devices cannot share equally, or a callback that changes learning rates.
  """
  for callback in callbacks:
    if isinstance(callback, _SCHEDULES):
      raise errors.UsageError(
        'callbacks: learning rates are those of the stages, found '
        f'{type(callback).__name__}; state first and final rate in the stages.'
      )
  for stage in options.stages:
    if stage.kind not in task.kinds:
      raise errors.UsageError(
        f"stage {stage}: this network's stages are {' or '.join(task.kinds)}, "
        f'found {stage.kind}.'
      )
    if stage.size < task.least_size or stage.size % task.size_step:
      raise errors.UsageError(
        f'stage {stage}: a size of {task.least_size} or more is required, a multiple '
        f'of {task.size_step}, found {stage.size}.'
      )
  replicas = strategy.num_replicas_in_sync
  if options.batch % replicas:
    raise errors.UsageError(
      f'batch must be a multiple of the {replicas} devices, found {options.batch}.'
    )


def train(
  task: tasks.Task,
  options: tasks.Options,
  sets: Sequence[shards_lib.Shards],
  held_out: Sequence[shards_lib.Shards],
  asked: dict,
  *,
  strategy: tf.distribute.Strategy | None = None,
  report: Callable[[str], None] = lambda line: None,
  progress: Callable[[int, int, int, float], None] = lambda *now: None,
  callbacks: Sequence[keras.callbacks.Callback] = (),
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
    callbacks: Keras', called in every process. Each stage is a training to them, and
      the steps up to a checkpoint are an epoch, numbered on over the stages. Logs hold
      `loss`, at the end of an epoch also `learning_rate` and `val_` figures, the means
      over `held_out`.

  Returns:
    The trained network, as it is exported; also `final.weights.h5` of the folder.

  Raises:
    errors.UsageError: something of the above, or wrong gradients on this machine,
      before training starts.
  """
  strategy = strategy or tf.distribute.get_strategy()
  check(task, options, strategy, callbacks)
  tasks.require_same_configuration(options.output, asked)
  is_chief = loop.worker_number(strategy) == 0
  log, model, taken, before, epochs = None, None, 0, 0, 0
  for number, stage in enumerate(options.stages):
    # Also when it goes on: tf.data mixes the global seed into its orders.
    keras.utils.set_random_seed(options.seed + number)
    model = _prepared(task, stage, model, strategy)
    kernel_gradients.check(model)
    if number == 0:  # Not before: weights that do not fit must leave the folder free.
      tasks.claim_folder(options.output, asked)
      log = RunLog(options.output, options.tensorboard) if is_chief else None
    trainer = loop.Trainer(
      model,
      task.objective(model, stage),
      options.output / f'stage{number}',
      strategy,
      xla=options.xla,
      callbacks=callbacks,
    )
    trainer.build()
    step = trainer.restore()
    if log:
      log.begin_stage(number, step, before)
    listener = Watcher(
      task, options, stage, number, model, held_out, log, report, progress
    ).listener()
    trainer.run(
      stage,
      pipelines.Feed(task, options, sets, stage.size, taken),
      listener,
      checkpoint_every=options.checkpoint_every,
      patience=options.patience,
      first_epoch=epochs,
    )
    taken += stage.steps * options.batch
    before += stage.steps
    epochs += -(-stage.steps // options.checkpoint_every)
  return _finished(task, options, model, trainer, is_chief)


def _prepared(task, stage, before, strategy):
  with strategy.scope():
    model = task.build(stage.size)
  if before is not None:
    model.set_weights(before.get_weights())
  if stage.kind == tasks.FROZEN:
    task.freeze(model)
  return model


def _finished(task, options, model, trainer, is_chief):
  best = trainer.directory / loop.BEST_WEIGHTS
  if options.keep_best and best.exists():
    model.load_weights(best)
  if is_chief:
    weights.save_weights(task.served(model), options.output / weights.FINAL_WEIGHTS)
  return task.served(model)
