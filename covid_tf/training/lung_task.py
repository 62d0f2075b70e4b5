"""Training of the lung U-Net (paper section 2.1)."""

import dataclasses

import keras
import tensorflow as tf

from covid_tf import contract
from covid_tf.models import networks
from covid_tf.models import preprocessing
from covid_tf.models import rewrites
from covid_tf.models import weights as weights_lib
from covid_tf.training import augmentation
from covid_tf.training import first_weights
from covid_tf.training import pipelines
from covid_tf.training import tasks

# The crop of the whole slice stands for other fields of view; the rest for other
# lungs, kernels and archives: a smooth, emphysematous lung is no room air.
AUGMENTATION = augmentation.Augmentation(
    rotation_degrees=12.0, margin_fraction=0.2, hu_offset=30.0, noise_hu=25.0,
    density_hu=140.0, coarsening=6.0, coarsening_probability=0.5,
    blur_pixels=2.5, blur_probability=0.5)
_PICTURES = 4
_SIZE_STEP = 32  # The encoder halves its input five times, the decoder doubles it.


def task(
    weights: str | None = None, encoder_weights: str | None = None,
    compute_dtype: str = 'float32') -> tasks.Task:
  """The lungs' training.

  Args:
    weights: a previous run's folder or weights file to begin from.
    encoder_weights: 'imagenet', or a file of VGG-16's weights.
    compute_dtype: 'float32' or 'bfloat16'.
  """
  def build(size):
    model = _with_encoder(size, encoder_weights)
    if weights:
      weights_lib.load_weights(model, weights, contract.LUNGS_MODEL)
    return rewrites.with_compute_dtype(model, compute_dtype)

  return tasks.Task(
      build=build, served=_itself, freeze=freeze_encoder, objective=_objective,
      example=_example, measure=dice, picture=_picture,
      kinds=(tasks.PLAIN, tasks.FROZEN), augmentation=AUGMENTATION,
      labelled_only=False, least_size=_SIZE_STEP, size_step=_SIZE_STEP)


def freeze_encoder(model: keras.Model) -> None:
  """Fixes VGG-16's convolutions."""
  for layer in model.layers:
    if layer.name.startswith('block') and '_conv' in layer.name:
      layer.trainable = False


def dice(model: keras.Model, batches: tf.data.Dataset) -> dict[str, float]:
  """{'Dice': of all voxels together}; batches of (images, masks)."""
  common = total = 0
  for images, truth in batches:
    found, lung = model(images, training=False).numpy() > 0, truth.numpy() > 0.5
    common += (found & lung).sum()
    total += found.sum() + lung.sum()
  return {'Dice': float(2 * common / max(total, 1))}


def _with_encoder(size, encoder_weights):
  if encoder_weights == first_weights.IMAGENET:
    return first_weights.downloaded(
        lambda: networks.build_lung_unet(first_weights.IMAGENET, size=size))
  model = networks.build_lung_unet(size=size)
  if encoder_weights:
    first_weights.load_vgg16(model, encoder_weights)
  return model


def _itself(model):
  return model


def _objective(model, stage):
  del stage
  return lambda images, labels: tasks.dice_and_cross_entropy(
      labels, model(images, training=True))


def _example(record, seed, how, size):
  constants = dataclasses.replace(preprocessing.LUNGS, size=size)
  return pipelines.lung_example(record, seed, how, constants)


def _picture(model, images, truth):
  images, truth = images[:_PICTURES], truth[:_PICTURES]
  found = tf.sigmoid(model(images, training=False))
  return tasks.lung_pictures(images, found[..., 0], truth[..., 0])
