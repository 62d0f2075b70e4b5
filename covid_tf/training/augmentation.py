"""The paper's augmentation (section 2.2): rotation, horizontal flip, cropping."""

import dataclasses
import math

import tensorflow as tf

from covid_tf import volume
from covid_tf.models import preprocessing


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """How far a slice is changed; every amount is ours, the paper gives none.

  Attributes:
    rotation_degrees: largest rotation to either side.
    flip_probability: of a left-right flip.
    margin_fraction: largest shift of each side of the crop, in or out, as a
      share of the box; no shift cuts into the slice's lungs.
    hu_offset: largest offset added to all HU.
    noise_hu: largest standard deviation of white noise.
    density_hu: largest change of aerated lung's HU, either way; room air and soft
      tissue keep theirs. Lungs differ by as much with breath and emphysema.
    coarsening: largest factor by which pixels grow and shrink back, as in scans
      that somebody resampled. Without it a smooth lung is taken for room air.
    coarsening_probability: of doing so.
    blur_pixels: largest standard deviation of a Gaussian blur: soft kernels and
      thick slices.
    blur_probability: of blurring.
  """

  rotation_degrees: float = 15.0
  flip_probability: float = 0.5
  margin_fraction: float = 0.08
  hu_offset: float = 0.0
  noise_hu: float = 0.0
  density_hu: float = 0.0
  coarsening: float = 1.0
  coarsening_probability: float = 0.0
  blur_pixels: float = 0.0
  blur_probability: float = 0.0


NONE = Augmentation(0.0, 0.0, 0.0)

_LUNG_HU = -800.0  # Ours: aerated lung at rest, where the density changes most.
_RADIANS = math.pi / 180.0


def augment_slice(
  hu: tf.Tensor,
  lung_mask: tf.Tensor,
  box: tf.Tensor,
  seed: tf.Tensor,
  augmentation: Augmentation,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Changes a slice, its mask and its box by one draw.

  Args:
    hu: int16 [row, column], HU.
    lung_mask: uint8 [row, column], above 0 inside the lungs.
    box: int32 [4], row0, column0, row1, column1.
    seed: int32 [2]; the same seed gives the same change.
    augmentation: how far.

  Returns:
    float32 HU and uint8 mask of the same shape, and the box, at least 8 pixels
    a side and inside the slice. A box that was turned or moved holds all lung.
  """
  seeds = tf.unstack(tf.random.split(seed, 7))
  image = tf.cast(hu, tf.float32)
  if augmentation.rotation_degrees:
    angle = (
      tf.random.stateless_uniform([], seeds[0], -1.0, 1.0)
      * augmentation.rotation_degrees
      * _RADIANS
    )
    transform = _rotation_about(angle, box)
    image = _transform(image, transform, 'BILINEAR', float(volume.AIR_HU))
    lung_mask = _transform(lung_mask, transform, 'NEAREST', 0.0)
  if augmentation.flip_probability:
    flip = tf.random.stateless_uniform([], seeds[1]) < augmentation.flip_probability
    image, lung_mask, box = tf.cond(
      flip, lambda: _flip(image, lung_mask, box), lambda: (image, lung_mask, box)
    )
  if augmentation.margin_fraction:
    box = _jitter(box, tf.shape(image), seeds[2], augmentation.margin_fraction)
  if augmentation.rotation_degrees or augmentation.margin_fraction:
    box = _around_lungs(box, lung_mask)
  return _change_hu(image, seeds[3:], augmentation), lung_mask, box


def _change_hu(image, seeds, augmentation):
  """What changes the values and leaves everything in its place."""
  if augmentation.density_hu:
    change = tf.random.stateless_uniform([], seeds[0], -1.0, 1.0)
    image = _change_density(image, change * augmentation.density_hu)
  if augmentation.hu_offset or augmentation.noise_hu:
    offset = tf.random.stateless_uniform([2], seeds[1], -1.0, 1.0)
    noise = tf.random.stateless_normal(tf.shape(image), seeds[2])
    image += (
      offset[0] * augmentation.hu_offset
      + tf.abs(offset[1]) * augmentation.noise_hu * noise
    )
  if augmentation.coarsening_probability or augmentation.blur_probability:
    image = _soften(image, seeds[3], augmentation)
  return image


def _change_density(image: tf.Tensor, change_hu: tf.Tensor) -> tf.Tensor:
  """Moves lung's HU by a curve that keeps room air at -1000 and water at 0.

  No mask has a part in it, so the lung's outline is not given away.
  """
  from_air = (image + 1000.0) / (_LUNG_HU + 1000.0)
  from_water = image / _LUNG_HU
  return image + change_hu * tf.nn.relu(tf.minimum(from_air, from_water))


def _soften(image, seed, augmentation):
  """Coarsens and blurs, each if drawn: two matrix products for both."""
  draw = tf.random.stateless_uniform([4], seed)
  coarsened = draw[0] < augmentation.coarsening_probability
  blurred = draw[1] < augmentation.blur_probability
  factor = tf.where(coarsened, 1.0 + draw[2] * (augmentation.coarsening - 1.0), 1.0)
  sigma = tf.where(blurred, draw[3] * augmentation.blur_pixels, 0.0)

  def soften():
    rows, columns = tf.unstack(tf.shape(image))
    along_columns = _softening_matrix(columns, factor, sigma)
    return tf.matmul(
      _softening_matrix(rows, factor, sigma) @ image, along_columns, transpose_b=True
    )

  return tf.cond(coarsened | blurred, soften, lambda: image)


def _softening_matrix(pixels, factor, sigma):
  """float32 [pixels, pixels]: to coarse pixels, back, and a Gaussian."""
  coarse = tf.cast(tf.cast(pixels, tf.float32) / factor, tf.int32)
  there_and_back = preprocessing.resize_matrix(
    coarse, pixels
  ) @ preprocessing.resize_matrix(pixels, coarse)
  line = tf.range(tf.cast(pixels, tf.float32))
  distance = line[:, tf.newaxis] - line
  # At a tenth of a pixel the Gaussian is the identity, which stands for none.
  weights = tf.exp(-0.5 * tf.square(distance / tf.maximum(sigma, 0.1)))
  return weights / tf.reduce_sum(weights, axis=1, keepdims=True) @ there_and_back


def _rotation_about(angle: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
  """float32 [1, 8] projective transform: output pixel to input pixel."""
  corners = tf.cast(box, tf.float32)
  row, column = (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2
  cosine, sine = tf.cos(angle), tf.sin(angle)
  return tf.stack(
    [
      cosine,
      -sine,
      column - cosine * column + sine * row,
      sine,
      cosine,
      row - sine * column - cosine * row,
      0.0,
      0.0,
    ]
  )[tf.newaxis]


def _transform(plane, transform, interpolation, fill):
  return tf.raw_ops.ImageProjectiveTransformV3(
    images=plane[tf.newaxis, ..., tf.newaxis],
    transforms=transform,
    output_shape=tf.shape(plane),
    interpolation=interpolation,
    fill_mode='CONSTANT',
    fill_value=fill,
  )[0, ..., 0]


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


def _around_lungs(box, lung_mask):
  """The box, grown to hold all lung of the slice.

  A small opacity along the pleura lies at the crop's edge: turned or cropped away, it
  would leave a positive slice with nothing to see. All lung, not lesions alone: else
  the crop would give the answer away.
  """
  inside = lung_mask > 0
  # Two lines are searched, not the plane: this runs for every slice of every batch.
  lines = [
    tf.cast(tf.where(tf.reduce_any(inside, axis=axis))[:, 0], tf.int32)
    for axis in (1, 0)
  ]
  # The smallest of nothing is the largest number, and the other way round.
  first = tf.stack([tf.reduce_min(line) for line in lines])
  last = tf.stack([tf.reduce_max(line) for line in lines])
  # Compared before 1 is added, which the smallest and the largest number may not bear.
  return tf.concat([tf.minimum(box[:2], first), tf.maximum(box[2:] - 1, last) + 1], 0)
