"""What a training consists of: parts of a task, stages, options, losses, pictures."""

import abc
from collections.abc import Callable, Sequence
import dataclasses
import json
import math
import pathlib
from typing import TypeAlias

import keras
import tensorflow as tf

from covid_tf import errors
from covid_tf.models import weights
from covid_tf.storage import files
from covid_tf.training import augmentation as augmentation_lib

# A stretch of training, as a flag writes it.

PLAIN, FROZEN, GUIDED = STAGE_KINDS = ('plain', 'frozen', 'guided')


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stretch of training on one input size.

  Attributes:
    size: rows and columns of the network's input.
    steps: optimizer steps.
    learning_rate: at its start; it falls to `final_learning_rate` as a cosine.
    final_learning_rate: at its end.
    kind: 'plain'; 'frozen', where the pretrained backbone stays as it is; or
      'guided', where drawn lesions draw the Grad-CAM maps (classifier only).
  """

  size: int
  steps: int
  learning_rate: float
  final_learning_rate: float
  kind: str = PLAIN

  @classmethod
  def parse(cls, text: str) -> 'Stage':
    """Reads 'size:steps:learning rate:final learning rate[:kind]'.

    Raises:
      errors.UsageError: the text is anything else.
    """
    parts = text.split(':')
    try:
      size, steps = (int(part) for part in parts[:2])
      first, last = (float(part) for part in parts[2:4])
      (kind,) = parts[4:] or [PLAIN]
    except ValueError as error:
      raise errors.UsageError(_requirement(text)) from error
    rates_fall = 0 < last <= first < math.inf
    if size < 1 or steps < 1 or not rates_fall or kind not in STAGE_KINDS:
      raise errors.UsageError(_requirement(text))
    return cls(size, steps, first, last, kind)

  def learning_rate_at(self, step: int) -> float:
    """Learning rate of a step of this stage, 0 the first."""
    progress = min(step / max(self.steps - 1, 1), 1.0)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return self.final_learning_rate + cosine * (
      self.learning_rate - self.final_learning_rate
    )

  def __str__(self) -> str:
    return (
      f'{self.size}:{self.steps}:{self.learning_rate:g}:'
      f'{self.final_learning_rate:g}:{self.kind}'
    )


def _requirement(text: str) -> str:
  return (
    'a stage must be size:steps:rate:final_rate, such as 112:1000:1e-3:2e-4, '
    f'and may end in :{" or :".join(STAGE_KINDS)}; rates are positive and never rise; '
    f'found {text!r}.'
  )


# What a training of one network consists of: the parts that a loop puts together.

# Beside an image: one tensor, or several by name.
Labels: TypeAlias = tf.Tensor | dict[str, tf.Tensor]
Objective = Callable[[tf.Tensor, Labels], tf.Tensor]


class Task(abc.ABC):
  """One network's training. Tests train tiny networks with tasks of their own.

  `labels` below are whatever `example` gives beside an image, batched; the loop only
  hands them on.

  Attributes:
    kinds: the stages it knows, of STAGE_KINDS.
    augmentation: how far training slices are changed.
    labelled_only: whether slices of unknown label are left out.
    least_size: rows and columns that the network needs.
    size_step: what rows and columns must be a multiple of.
  """

  kinds: Sequence[str] = (PLAIN, FROZEN)
  augmentation: augmentation_lib.Augmentation = augmentation_lib.NONE
  labelled_only: bool = False
  least_size: int = 1
  size_step: int = 1

  @abc.abstractmethod
  def build(self, size: int) -> keras.Model:
    """The network that trains, with its first weights.

    Args:
      size: rows and columns of its input, float32 [N, size, size, 3].

    Raises:
      errors.UsageError: the weights to begin with are of another network.
    """

  def served(self, model: keras.Model) -> keras.Model:
    """The network that is saved and exported, sharing the variables of `model`.

    `model` itself, unless the task overrides this because parts of it only train.
    """
    return model

  @abc.abstractmethod
  def freeze(self, model: keras.Model) -> None:
    """Makes the pretrained backbone untrainable, for a 'frozen' stage."""

  @abc.abstractmethod
  def objective(self, model: keras.Model, stage: Stage) -> Objective:
    """What a stage minimizes.

    Returns:
      Function from (images float32 [N, size, size, 3], labels) to the loss, a float32
      scalar: the mean over the batch. It is traced by tf.function.
    """

  @abc.abstractmethod
  def example(
    self,
    record: dict[str, tf.Tensor],
    seed: tf.Tensor,
    limits: augmentation_lib.Augmentation,
    size: int,
  ) -> tuple[tf.Tensor, Labels]:
    """One slice as the network takes it; runs inside tf.data.

    Args:
      record: as `shards.parse_record` gives it.
      seed: int32 [2], all that is random comes from it.
      limits: how far the slice is changed.
      size: rows and columns of the image.

    Returns:
      float32 [size, size, 3], and its labels.
    """

  @abc.abstractmethod
  def measure(self, network: keras.Model, batches: tf.data.Dataset) -> dict[str, float]:
    """Figures of held-out slices by name.

    Early stopping and the best weights go by the first, and more of it is better.

    Args:
      network: what `served` gives.
      batches: of (images float32 [N, size, size, 3], labels), finite.
    """

  @abc.abstractmethod
  def picture(
    self, network: keras.Model, images: tf.Tensor, labels: Labels
  ) -> tf.Tensor:
    """A few slices with what the network says of them.

    Args:
      network: what `served` gives.
      images: float32 [N, size, size, 3].
      labels: of the same N slices.

    Returns:
      float32 [M, rows, columns, 3] in [0, 1], M <= N.
    """


# How a training runs, whatever the network.


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
  stages: Sequence[Stage]
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


# What a run was asked to do, beside its weights; a folder holds one run.


def require_same_configuration(folder: pathlib.Path, configuration: dict) -> None:
  """Refuses a folder of a run that was asked to do something else.

  Args:
    folder: of the run, perhaps not there yet.
    configuration: in JSON's types.

  Raises:
    errors.UsageError: the folder belongs to a run of another configuration.
  """
  path = folder / weights.CONFIGURATION
  if not path.exists():
    return
  found = read_configuration(folder)
  differing = sorted(
    key
    for key in found.keys() | configuration.keys()
    if found.get(key) != configuration.get(key)
  )
  if differing:
    key = differing[0]
    raise errors.UsageError(
      f'{path}: this run was begun with {key} {json.dumps(found.get(key))}, found '
      f'{json.dumps(configuration.get(key))} now; give the same flags to go on, or '
      'another --output for another run.'
    )


def claim_folder(folder: pathlib.Path, configuration: dict) -> None:
  """Makes the folder that of a run, unless it is already.

  Raises:
    errors.UsageError: as in `require_same_configuration`.
    errors.OutputError: it cannot be written.
  """
  require_same_configuration(folder, configuration)
  path = folder / weights.CONFIGURATION
  if not path.exists():
    text = json.dumps(configuration, indent=2, sort_keys=True) + '\n'
    files.write_atomically(path, text.encode())


def read_configuration(folder: pathlib.Path) -> dict:
  """The configuration of a run; {} where there is none.

  Raises:
    errors.UsageError: the file is damaged.
  """
  path = folder / weights.CONFIGURATION
  if not path.is_file():
    return {}
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise errors.UsageError(
      f'{path}: the JSON of a run is required, found {error}; choose another --output.'
    ) from error
  if not isinstance(found, dict):
    raise errors.UsageError(
      f'{path}: a JSON object is required, found {type(found).__name__}; choose '
      'another --output.'
    )
  return found


# Pictures of a checkpoint: slices with what the network says painted over them.

_RED, _GREEN = (1.0, 0.15, 0.1), (0.1, 0.9, 0.2)


def lung_pictures(images: tf.Tensor, found: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
  """Slices with the found lung in red and the true one in green; both: yellowish.

  Args:
    images: float32 [N, size, size, 3], as the network takes them.
    found: float32 [N, size, size], in [0, 1].
    truth: likewise.

  Returns:
    float32 [N, size, size, 3], in [0, 1].
  """
  grey = _grey(images)
  return _painted(_painted(grey, found, _RED), truth, _GREEN)


def map_pictures(images: tf.Tensor, fused: tf.Tensor, lesion: tf.Tensor) -> tf.Tensor:
  """Slices beside the same with the fused map in red and the drawn lesion in green.

  Args:
    images: float32 [N, size, size, 3], as the network takes them.
    fused: float32 [N, size, size], in [0, 1].
    lesion: likewise; zeros where nobody has drawn it.

  Returns:
    float32 [N, size, 2 size, 3], in [0, 1].
  """
  grey = _grey(images)
  painted = _painted(_painted(grey, fused, _RED), lesion, _GREEN)
  return tf.concat([grey, painted], axis=2)


def _grey(images):
  channel = images[..., :1]
  low = tf.reduce_min(channel, axis=(1, 2), keepdims=True)
  high = tf.reduce_max(channel, axis=(1, 2), keepdims=True)
  return tf.repeat(tf.math.divide_no_nan(channel - low, high - low), 3, axis=-1)


def _painted(picture, share, color):
  weight = 0.4 * tf.cast(share, tf.float32)[..., tf.newaxis]
  return picture * (1.0 - weight) + weight * tf.constant(color)


# What training minimizes; all from logits.

# Ours: a cell of a feature map is positive from this share of lesion on. At 14x14 a
# cell is about 2 cm wide, so a lesion of 6 mm makes one.
_POSITIVE_CELL_SHARE = 0.1
_POSITIVE_CELL_WEIGHT = 3.0  # Ours: positive cells are rare.


def dice_and_cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
  """Soft Dice loss of the batch plus mean binary cross-entropy.

  Args:
    labels: float32 [N, H, W, 1], in [0, 1].
    logits: [N, H, W, 1].

  Returns:
    float32 scalar.
  """
  logits = tf.cast(logits, tf.float32)
  probability = tf.sigmoid(logits)
  common = tf.reduce_sum(probability * labels)
  total = tf.reduce_sum(probability) + tf.reduce_sum(labels)
  # The one voxel keeps a batch without any lung from dividing by zero.
  dice_loss = 1.0 - (2.0 * common + 1.0) / (total + 1.0)
  cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
  return dice_loss + tf.reduce_mean(cross_entropy)


def located_cross_entropy(
  labels: dict[str, tf.Tensor], logits: list[tf.Tensor], positive_weight: float = 1.0
) -> tf.Tensor:
  """Binary cross-entropy of the slice (the paper's loss) and, to help it, of cells.

  Args:
    labels: `covid` [N, 1], `lesion` [N, size, size], `lesion_known` [N]; as
      `pipelines.located_example` gives them, batched.
    logits: of the slice [N, 1], then of the cells of feature maps [N, h, w, 1].
    positive_weight: what a positive slice counts, a negative one being 1.

  Returns:
    float32 scalar.
  """
  covid, *cells = (tf.cast(part, tf.float32) for part in logits)
  loss = tf.reduce_mean(
    tf.nn.weighted_cross_entropy_with_logits(labels['covid'], covid, positive_weight)
  )
  for cell_logits in cells:
    share = _share_of_cells(labels['lesion'], cell_logits)[..., tf.newaxis]
    entropy = tf.nn.weighted_cross_entropy_with_logits(
      tf.cast(share > _POSITIVE_CELL_SHARE, tf.float32),
      cell_logits,
      _POSITIVE_CELL_WEIGHT,
    )
    loss += tf.reduce_mean(
      tf.reduce_mean(entropy, axis=(1, 2, 3)) * labels['lesion_known']
    )
  return loss


def map_dice(labels: dict[str, tf.Tensor], maps: Sequence[tf.Tensor]) -> tf.Tensor:
  """Dice loss of Grad-CAM maps, and of their product, against drawn lesions.

  Slices without disease, and those whose lesions nobody has drawn, have no part.

  Args:
    labels: as `located_cross_entropy` takes them.
    maps: float32 [N, side, side], in [0, 1], the finest first.

  Returns:
    float32 scalar, 0 to 1.
  """
  finest = tf.shape(maps[0])[1:]
  product = tf.ones_like(maps[0])
  for grid in maps:
    product *= tf.image.resize(grid[..., tf.newaxis], finest)[..., 0]
  parts = [*maps, product] if len(maps) > 1 else maps
  distances = [
    _dice_of_slices(grid, _map_target(labels['lesion'], grid)) for grid in parts
  ]
  drawn = labels['covid'][:, 0] * labels['lesion_known']
  mean = tf.add_n(distances) / len(parts)
  return tf.math.divide_no_nan(tf.reduce_sum(drawn * mean), tf.reduce_sum(drawn))


def _map_target(lesion: tf.Tensor, grid: tf.Tensor) -> tf.Tensor:
  """What a map should be: 1 where a cell holds half as much lesion as the fullest."""
  share = _share_of_cells(lesion, grid)
  largest = tf.reduce_max(share, axis=(1, 2), keepdims=True)
  return tf.minimum(1.0, 2.0 * tf.math.divide_no_nan(share, largest))


def _dice_of_slices(grid: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
  """1 - Dice of each slice, float32 [N], with squares in the denominator."""
  common = tf.reduce_sum(grid * target, axis=(1, 2))
  total = tf.reduce_sum(grid**2 + target**2, axis=(1, 2))
  return 1.0 - 2.0 * common / (total + 1e-3)  # Both may be empty.


def _share_of_cells(lesion: tf.Tensor, grid: tf.Tensor) -> tf.Tensor:
  """Lesion's share of each cell of a grid, float32 [N, rows, columns]."""
  rows, columns = grid.shape[1:3]
  if lesion.shape[1] % rows or lesion.shape[2] % columns:
    return tf.image.resize(lesion[..., tf.newaxis], (rows, columns), method='area')[
      ..., 0
    ]
  # The same means, which XLA has too.
  cell = (lesion.shape[1] // rows, lesion.shape[2] // columns)
  return tf.nn.avg_pool2d(lesion[..., tf.newaxis], cell, cell, 'VALID')[..., 0]
