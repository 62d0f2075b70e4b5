"""Lesion implantation: positives made from chests that have none.

A classifier trained on phantoms alone calls every real slice positive, and
labelled COVID slices are rare. Normal chests are not: an opacity is painted into
their lungs, of any size, density and texture, subpleural by preference, and
everything else about the slice stays real. Look-alikes (nodules, plates, raised
density without a lesion) go into positives and negatives alike, so that none of
them gives the answer away.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from covid_tf import volume

# Hounsfield units by tissue, from general radiological knowledge; ours.
GROUND_GLASS_HU = (-680.0, -330.0)
CONSOLIDATION_HU = (-120.0, 60.0)


@dataclasses.dataclass(frozen=True)
class Implanted:
  """A slice with what was painted into it.

  Attributes:
    hu: int16 [row, column], HU.
    lesion_mask: uint8 [row, column]; 1 where the lesion's weight is above 0.3.
  """

  hu: np.ndarray
  lesion_mask: np.ndarray


def implant_lesions(
  hu: np.ndarray, lung_mask: np.ndarray, pixel_mm: float, random: np.random.Generator
) -> Implanted:
  """Paints one to five focal opacities, or a diffuse one, inside the lungs.

  Args:
    hu: [row, column] in HU; not changed.
    lung_mask: [row, column], nonzero inside the lungs.
    pixel_mm: in-plane spacing in millimetres.
    random: source of every choice.

  Returns:
    The slice and its lesion mask, which lies inside the lung mask.

  Raises:
    ValueError: the mask holds no lung.
  """
  lung = np.asarray(lung_mask, bool)
  if not lung.any():
    raise ValueError('lung_mask holds no lung to implant a lesion into.')
  if random.random() < 0.25:
    weight = _diffuse_weight(lung, pixel_mm, random)
  else:
    weight = np.zeros(lung.shape, np.float32)
    for _ in range(1 + min(4, random.geometric(0.45))):
      np.maximum(weight, _focal_weight(lung, pixel_mm, random), out=weight)
  painted = _paint(hu, weight * lung, pixel_mm, random)
  lesion_mask = ((weight > 0.3) & lung).astype(np.uint8)
  return Implanted(_to_hu(painted), lesion_mask)


def add_look_alikes(
  hu: np.ndarray, lung_mask: np.ndarray, pixel_mm: float, random: np.random.Generator
) -> np.ndarray:
  """Adds what resembles COVID and is not: nodules, plates, aeration, grain.

  Returns:
    int16 [row, column], HU.
  """
  lung = np.asarray(lung_mask, bool)
  image = np.array(hu, np.float32)
  image = _change_aeration(image, lung, random)
  if lung.any() and random.random() < 0.3:
    for _ in range(random.integers(1, 4)):
      image = _add_nodule(image, lung, pixel_mm, random)
  if lung.any() and random.random() < 0.2:
    image = _add_plate(image, lung, pixel_mm, random)
  return _to_hu(_change_grain(image, random))


def _focal_weight(lung, pixel_mm, random):
  """float32 [row, column] in [0, 1]: one irregular opacity, soft at its edge."""
  radius_mm = float(np.exp(random.uniform(np.log(5.0), np.log(38.0))))
  row, column = _subpleural_pixel(lung, pixel_mm, random)
  rows, columns = np.ogrid[: lung.shape[0], : lung.shape[1]]
  angle = random.uniform(0, np.pi)
  stretch = random.uniform(1.0, 2.2)
  along = (rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)
  across = (columns - column) * np.cos(angle) - (rows - row) * np.sin(angle)
  distance_mm = pixel_mm * np.hypot(along / stretch**0.5, across * stretch**0.5)
  softness = random.uniform(0.08, 0.8)
  inside = 1.0 - distance_mm / radius_mm
  for share in (random.uniform(0.25, 0.7), 0.1):  # A bulged and a ragged outline.
    warp = _smooth_noise(lung.shape, share * radius_mm / pixel_mm, random)
    inside = inside + random.uniform(0.1, 0.35) * warp
  return np.clip(inside / softness, 0, 1).astype(np.float32)


def _diffuse_weight(lung, pixel_mm, random):
  """float32 [row, column] in [0, 1]: patches over much of both lungs."""
  scale = random.uniform(6.0, 22.0) / pixel_mm
  patches = _smooth_noise(lung.shape, scale, random)
  depth_mm = ndimage.distance_transform_edt(lung) * pixel_mm
  patches += random.uniform(0.0, 0.8) * np.exp(-depth_mm / 12.0)
  cut = np.quantile(patches[lung], random.uniform(0.25, 0.8))
  return np.clip((patches - cut) / random.uniform(0.15, 0.8), 0, 1).astype(np.float32)


def _paint(hu, weight, pixel_mm, random):
  """Raises density where `weight` says; what is denser already shows through."""
  image = np.array(hu, np.float32)
  if random.random() < 0.7:
    target = random.uniform(*GROUND_GLASS_HU)
  else:
    target = random.uniform(*CONSOLIDATION_HU)
  texture = _smooth_noise(image.shape, random.uniform(1.0, 6.0) / pixel_mm, random)
  target = target + random.uniform(10.0, 90.0) * texture
  if random.random() < 0.3:  # A denser core in ground glass.
    target = target + random.uniform(100.0, 400.0) * np.clip(weight - 0.6, 0, 1)
  opacity = random.uniform(0.75, 1.0)
  rise = np.clip(target - image, 0, None)
  return image + opacity * weight * rise


def _change_aeration(image, lung, random):
  """Breathing and gravity: lung density as a whole, and its slope to the back."""
  offset = random.normal(0.0, 45.0)
  slope = random.uniform(-30.0, 160.0) * (random.random() < 0.6)
  rows = np.linspace(-0.5, 0.5, image.shape[0], dtype=np.float32)[:, np.newaxis]
  edge = ndimage.gaussian_filter(lung.astype(np.float32), 1.5)
  air = np.clip(-image / 850.0, 0, 1)  # Vessels and airway walls keep their HU.
  return image + edge * air * (offset + slope * rows)


def _change_grain(image, random):
  """Another kernel and dose: blur, then noise of a random grain."""
  if random.random() < 0.5:
    image = ndimage.gaussian_filter(image, random.uniform(0.3, 1.4))
  noise = random.normal(size=image.shape).astype(np.float32)
  grain = random.uniform(0.0, 1.6)
  if grain > 0.3:
    noise = ndimage.gaussian_filter(noise, grain)
    noise /= noise.std()
  return image + random.uniform(0.0, 45.0) * noise


def _add_nodule(image, lung, pixel_mm, random):
  row, column = _any_pixel(lung, random)
  rows, columns = np.ogrid[: lung.shape[0], : lung.shape[1]]
  radius_mm = random.uniform(1.5, 4.5)
  distance_mm = pixel_mm * np.hypot(rows - row, columns - column)
  weight = np.clip((radius_mm - distance_mm) / pixel_mm + 0.5, 0, 1)
  return image + weight * np.clip(random.uniform(-100, 80) - image, 0, None)


def _add_plate(image, lung, pixel_mm, random):
  """Plate atelectasis: a thin dense line that ends at the pleura."""
  row, column = _subpleural_pixel(lung, pixel_mm, random)
  rows, columns = np.ogrid[: lung.shape[0], : lung.shape[1]]
  angle = random.uniform(0, np.pi)
  down, right = pixel_mm * (rows - row), pixel_mm * (columns - column)
  along = down * np.sin(angle) + right * np.cos(angle)
  across = down * np.cos(angle) - right * np.sin(angle)
  half_length_mm, half_width_mm = random.uniform(8, 30), random.uniform(0.6, 1.8)
  weight = (
    np.clip(half_width_mm + 0.5 - np.abs(across), 0, 1)
    * np.clip(half_length_mm - np.abs(along), 0, 1)
    * lung
  )
  return image + weight * np.clip(random.uniform(-300, 40) - image, 0, None)


def _subpleural_pixel(lung, pixel_mm, random):
  """A lung pixel, nearer to the pleura and to the back more often than not."""
  if random.random() < 0.3:
    return _any_pixel(lung, random)
  depth_mm = ndimage.distance_transform_edt(lung) * pixel_mm
  rows = np.linspace(0.4, 1.0, lung.shape[0])[:, np.newaxis]
  odds = (lung * np.exp(-depth_mm / 10.0) * rows).ravel()
  pixel = random.choice(odds.size, p=odds / odds.sum())
  return divmod(int(pixel), lung.shape[1])


def _any_pixel(lung, random):
  pixels = np.flatnonzero(lung)
  return divmod(int(random.choice(pixels)), lung.shape[1])


def _smooth_noise(shape, sigma, random):
  """float32 noise of zero mean and unit deviation, correlated over `sigma` pixels.

  Drawn on a coarse grid where the correlation is wide: as smooth, far cheaper.
  """
  step = max(1, int(sigma / 2))
  coarse = tuple(-(-side // step) + 4 for side in shape)
  noise = ndimage.gaussian_filter(
    random.normal(size=coarse).astype(np.float32), sigma / step, mode='wrap'
  )
  if step > 1:
    noise = ndimage.zoom(noise, step, order=1)
  noise = noise[: shape[0], : shape[1]]
  return (noise - noise.mean()) / max(float(noise.std()), 1e-6)


def _to_hu(image):
  clipped = np.clip(np.rint(image), volume.AIR_HU, 3071)
  return clipped.astype(np.int16)
