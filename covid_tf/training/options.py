"""How a training runs, whatever the network."""

from collections.abc import Sequence
import dataclasses
import pathlib

from covid_tf.training import stages as stages_lib


@dataclasses.dataclass(frozen=True)
class Options:
  """What the flags of a training say.

  Attributes:
    output: folder of the run.
    stages: in turn; each begins with the weights of the one before.
    batch: slices a step, over all devices.
    seed: of order, augmentation and first weights.
    shuffle_buffer: slices held in memory to be shuffled.
    checkpoint_every: steps between checkpoints.
    validation_slices: how many of each held-out pattern are measured there.
    patience: checkpoints without a better score that end a stage; 0 for none.
    keep_best: whether the run's weights are the best ones, not the last.
    deterministic: whether slices keep their order on the way to the batch.
    xla: whether steps are compiled by XLA.
    tensorboard: whether curves and pictures are written.
  """

  output: pathlib.Path
  stages: Sequence[stages_lib.Stage]
  batch: int
  seed: int = 1
  shuffle_buffer: int = 600
  checkpoint_every: int = 100
  validation_slices: int = 256
  patience: int = 0
  keep_best: bool = False
  deterministic: bool = True
  xla: bool = False
  tensorboard: bool = True
