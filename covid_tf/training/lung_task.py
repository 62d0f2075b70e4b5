"""Training of the lung U-Net (paper section 2.1)."""

import dataclasses

import keras
import tensorflow as tf

from covid_tf import contract
from covid_tf.models import networks
from covid_tf.models import preprocessing
from covid_tf.models import rewrites
from covid_tf.models import weights as weights_lib
from covid_tf.training import augmentation as augmentation_lib
from covid_tf.training import first_weights
from covid_tf.training import pipelines
from covid_tf.training import tasks

# The crop of the whole slice stands for other fields of view; the rest for other
# lungs, kernels and archives: a smooth, emphysematous lung is no room air.
AUGMENTATION = augmentation_lib.Augmentation(
  rotation_degrees=12.0,
  margin_fraction=0.2,
  hu_offset=30.0,
  noise_hu=25.0,
  density_hu=140.0,
  coarsening=6.0,
  coarsening_probability=0.5,
  blur_pixels=2.5,
  blur_probability=0.5,
)
_PICTURES = 4
_SIZE_STEP = 32  # The encoder halves its input five times, the decoder doubles it.


@dataclasses.dataclass(frozen=True)
class LungTask(tasks.Task):
  """The lungs' training. Labels: the lung mask, float32 [N, size, size, 1].

  Attributes:
    weights: a previous run's folder or weights file to begin from.
    encoder_weights: 'imagenet', or a file of VGG-16's weights.
    compute_dtype: 'float32' or 'bfloat16'.
  """

  weights: str | None = None
  encoder_weights: str | None = None
  compute_dtype: str = 'float32'

  kinds = (tasks.PLAIN, tasks.FROZEN)
  augmentation = AUGMENTATION
  least_size = size_step = _SIZE_STEP

  def build(self, size: int) -> keras.Model:
    """The U-Net."""
    model = _with_encoder(size, self.encoder_weights)
    if self.weights:
      weights_lib.load_weights(model, self.weights, contract.LUNGS_MODEL)
    return rewrites.with_compute_dtype(model, self.compute_dtype)

  def freeze(self, model: keras.Model) -> None:
    """Fixes VGG-16's convolutions."""
    for layer in model.layers:
      if layer.name.startswith('block') and '_conv' in layer.name:
        layer.trainable = False

  def objective(self, model: keras.Model, stage: tasks.Stage) -> tasks.Objective:
    """Dice and cross-entropy, in every stage."""
    del stage
    return lambda images, labels: tasks.dice_and_cross_entropy(
      labels, model(images, training=True)
    )

  def example(
    self,
    record: dict[str, tf.Tensor],
    seed: tf.Tensor,
    limits: augmentation_lib.Augmentation,
    size: int,
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """See `pipelines.lung_example`."""
    constants = dataclasses.replace(preprocessing.LUNGS, size=size)
    return pipelines.lung_example(record, seed, limits, constants)

  def measure(self, network: keras.Model, batches: tf.data.Dataset) -> dict[str, float]:
    """{'Dice': of all voxels together}."""
    common = total = 0
    for images, truth in batches:
      found, lung = network(images, training=False).numpy() > 0, truth.numpy() > 0.5
      common += (found & lung).sum()
      total += found.sum() + lung.sum()
    return {'Dice': float(2 * common / max(total, 1))}

  def picture(
    self, network: keras.Model, images: tf.Tensor, labels: tf.Tensor
  ) -> tf.Tensor:
    """See `tasks.lung_pictures`."""
    images, truth = images[:_PICTURES], labels[:_PICTURES]
    found = tf.sigmoid(network(images, training=False))
    return tasks.lung_pictures(images, found[..., 0], truth[..., 0])


def _with_encoder(size, encoder_weights):
  if encoder_weights == first_weights.IMAGENET:
    return first_weights.downloaded(
      lambda: networks.build_lung_unet(first_weights.IMAGENET, size=size)
    )
  model = networks.build_lung_unet(size=size)
  if encoder_weights:
    first_weights.load_vgg16(model, encoder_weights)
  return model
