"""The paper's augmentation (section 2.2): rotation, horizontal flip, cropping."""

import dataclasses

import tensorflow as tf

from covid_tf import volume as ct_volume
from covid_tf.models import preprocessing


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """How far a slice is changed; every amount is ours, the paper gives none.

  Attributes:
    rotation_degrees: largest rotation to either side.
    flip_probability: of a left-right flip.
    margin_fraction: largest shift of each side of the crop, in or out, as a
      share of the box.
    hu_offset: largest offset added to all HU.
    noise_hu: largest standard deviation of white noise.
    coarsening: largest factor by which pixels grow and shrink back, as in scans
      that somebody resampled. Without it a smooth lung is taken for room air.
    coarsening_probability: of doing so.
  """

  rotation_degrees: float = 15.0
  flip_probability: float = 0.5
  margin_fraction: float = 0.08
  hu_offset: float = 0.0
  noise_hu: float = 0.0
  coarsening: float = 1.0
  coarsening_probability: float = 0.0


NONE = Augmentation(0.0, 0.0, 0.0)


def augment_slice(
    hu: tf.Tensor, lung_mask: tf.Tensor, box: tf.Tensor, seed: tf.Tensor,
    augmentation: Augmentation) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Changes a slice, its mask and its box by one draw.

  Args:
    hu: int16 [row, column], HU.
    lung_mask: uint8 [row, column].
    box: int32 [4], row0, column0, row1, column1.
    seed: int32 [2]; the same seed gives the same change.
    augmentation: how far.

  Returns:
    float32 HU and uint8 mask of the same shape, and the box, at least 8 pixels
    a side and inside the slice.
  """
  seeds = tf.unstack(tf.random.split(seed, 6))
  image = tf.cast(hu, tf.float32)
  if augmentation.rotation_degrees:
    angle = tf.random.stateless_uniform(
        [], seeds[0], -1.0, 1.0) * augmentation.rotation_degrees * 0.017453293
    transform = _rotation_about(angle, box)
    image = _transform(image, transform, 'BILINEAR', float(ct_volume.AIR_HU))
    lung_mask = _transform(lung_mask, transform, 'NEAREST', 0.0)
  if augmentation.flip_probability:
    flip = tf.random.stateless_uniform(
        [], seeds[1]) < augmentation.flip_probability
    image, lung_mask, box = tf.cond(
        flip, lambda: _flip(image, lung_mask, box), lambda: (image, lung_mask, box))
  if augmentation.margin_fraction:
    box = _jitter(box, tf.shape(image), seeds[2], augmentation.margin_fraction)
  if augmentation.hu_offset or augmentation.noise_hu:
    offset = tf.random.stateless_uniform([2], seeds[3], -1.0, 1.0)
    noise = tf.random.stateless_normal(tf.shape(image), seeds[4])
    image += (offset[0] * augmentation.hu_offset
              + tf.abs(offset[1]) * augmentation.noise_hu * noise)
  if augmentation.coarsening_probability:
    image = _coarsen(image, seeds[5], augmentation)
  return image, lung_mask, box


def _coarsen(image, seed, augmentation):
  draw = tf.random.stateless_uniform([2], seed)
  factor = 1.0 + draw[0] * (augmentation.coarsening - 1.0)
  shape = tf.shape(image)
  coarse = tf.cast(tf.cast(shape, tf.float32) / factor, tf.int32)

  def there_and_back():
    small = preprocessing.resize(image[tf.newaxis], coarse[0], coarse[1])
    return preprocessing.resize(small, shape[0], shape[1])[0]

  return tf.cond(
      draw[1] < augmentation.coarsening_probability, there_and_back, lambda: image)


def _rotation_about(angle: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
  """float32 [1, 8] projective transform: output pixel to input pixel."""
  corners = tf.cast(box, tf.float32)
  row, column = (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2
  cosine, sine = tf.cos(angle), tf.sin(angle)
  return tf.stack([
      cosine, -sine, column - cosine * column + sine * row,
      sine, cosine, row - sine * column - cosine * row, 0.0, 0.0])[tf.newaxis]


def _transform(plane, transform, interpolation, fill):
  return tf.raw_ops.ImageProjectiveTransformV3(
      images=plane[tf.newaxis, ..., tf.newaxis], transforms=transform,
      output_shape=tf.shape(plane), interpolation=interpolation,
      fill_mode='CONSTANT', fill_value=fill)[0, ..., 0]


def _flip(image, lung_mask, box):
  columns = tf.shape(image)[1]
  flipped = tf.stack([box[0], columns - box[3], box[2], columns - box[1]])
  return image[:, ::-1], lung_mask[:, ::-1], flipped


def _jitter(box, shape, seed, fraction):
  sides = tf.cast(tf.stack([box[2] - box[0], box[3] - box[1]]), tf.float32)
  shift = tf.random.stateless_uniform([4], seed, -fraction, fraction)
  moved = tf.cast(box, tf.float32) + shift * tf.tile(sides, [2])
  moved = tf.cast(tf.round(moved), tf.int32)
  first = tf.clip_by_value(moved[:2], 0, shape - 8)
  last = tf.clip_by_value(moved[2:], first + 8, shape)
  return tf.concat([first, last], 0)
