"""What is measured, drawn and written down while a stage runs."""

from collections.abc import Callable, Sequence
import dataclasses

import keras

from covid_tf.models import trained
from covid_tf.training import feed
from covid_tf.training import logs
from covid_tf.training import loop
from covid_tf.training import options as options_lib
from covid_tf.training import shards as shards_lib
from covid_tf.training import stages
from covid_tf.training import tasks


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
  options: options_lib.Options
  stage: stages.Stage
  number: int
  model: keras.Model
  held_out: Sequence[shards_lib.Shards]
  log: logs.RunLog | None
  report: Callable
  progress: Callable

  def listener(self) -> loop.Listener:
    """Its two ears."""
    return loop.Listener(self._logged, self._measured)

  def _logged(self, step, loss, rate, seconds):
    self.progress(self.number, step, self.stage.steps, loss)
    if self.log:
      self.log.training(self.number, step, loss, rate, seconds)

  def _measured(self, step):
    network = self.task.served(self.model)
    if self.log:
      trained.save_weights(network, self.options.output / trained.LATEST_WEIGHTS)
    scores = []
    for shards in self.held_out:
      batches = feed.held_out(
          self.task, self.options, shards, self.stage.size)
      figures = self.task.measure(network, batches)
      scores.append(next(iter(figures.values())))
      self._write(step, shards.pattern, figures, network, batches)
    return sum(scores) / len(scores) if scores else None

  def _write(self, step, pattern, figures, network, batches):
    values = ' '.join(f'{name} {value:.4f}' for name, value in figures.items())
    self.report(f'stage {self.number} ({self.stage.size}) step {step} {pattern}: '
                f'{values}')
    if not self.log:
      return
    self.log.validation(
        self.number, step, {f'{name} {pattern}': v for name, v in figures.items()})
    if self.options.tensorboard:
      images, labels = next(iter(batches.take(1)))
      self.log.picture(step, pattern, self.task.picture(network, images, labels))
