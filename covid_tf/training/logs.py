"""What a run leaves to be looked at: log.csv, validation.csv, TensorBoard."""

from collections.abc import Mapping
import csv
import io
import pathlib

import tensorflow as tf

from covid_tf import files

_LOG = ('stage', 'step', 'loss', 'learning_rate', 'seconds_per_step')
_VALIDATION = ('stage', 'step', 'figure', 'value')


class RunLog:
  """Log files of a run. A stage that starts again takes its later rows away."""

  def __init__(self, folder: pathlib.Path, tensorboard: bool = True):
    """Begins or continues the logs in `folder`."""
    self._folder = folder
    self._writer = tf.summary.create_file_writer(
        str(folder / 'tensorboard')) if tensorboard else None
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
      self, stage: int, step: int, loss: float, rate: float, seconds: float) -> None:
    """Adds means over the last steps."""
    self._append('log.csv', (stage, step, f'{loss:.6f}', f'{rate:.3g}',
                             f'{seconds:.3f}'))
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
    with open(self._folder / name, 'a', newline='') as log:
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
    with open(path, newline='') as log:
      # A killed process may leave half a row at the end.
      rows = [row for row in csv.reader(log) if len(row) == len(header)][1:]
  kept = [row for row in rows if (int(row[0]), int(row[1])) <= last]
  text = io.StringIO()
  csv.writer(text).writerows([header, *kept])
  files.write_atomically(path, text.getvalue().encode())
