"""What resembles an opacity and is no infection, put into chests in millimetres.

Breathing, dependent density, plates, nodules, emphysema, motion and streaks go into
chests with and without painted opacities alike, so that none of them gives the answer
away, and into enough chests without any that a network learns to leave them alone.
"""

import numpy as np
from scipy import ndimage

from covid_tf.datasets import opacities
from covid_tf.datasets import random_fields


def add(
  hu: np.ndarray,
  lung_mask: np.ndarray,
  spacing_mm: tuple[float, float, float],
  random: np.random.Generator,
) -> np.ndarray:
  """Adds some of them, by chance.

  Args:
    hu: [slice, row, column] in HU, rows from front to back; not changed.
    lung_mask: [slice, row, column], nonzero inside the lungs.
    spacing_mm: between (slices, rows, columns), all above 0.
    random: source of every choice.

  Returns:
    float32 [slice, row, column], HU.
  """
  lung = np.asarray(lung_mask, bool)
  image = np.array(hu, np.float32)
  if not lung.any():
    return image
  # Ours: how often each is, about as often as in chests of a clinic.
  replaced = np.zeros(image.shape, np.float32)
  for odds, change in (
    (0.6, _breathing),
    (0.5, _dependent),
    (0.25, _emphysema),
    (0.25, _plates),
    (0.3, _nodules),
  ):
    if random.random() < odds:
      replaced += change(lung, spacing_mm, random)
  image += opacities.air_change(image, np.clip(replaced, -0.5, 1), spacing_mm)
  if random.random() < 0.1:
    image = _motion(image, spacing_mm, random)
  if random.random() < 0.1:
    image += _streaks(image, spacing_mm, random)
  return image


def _breathing(lung, spacing_mm, random):
  """Less or more air everywhere, a little less towards the back."""
  rows = np.linspace(-0.5, 0.5, lung.shape[1], dtype=np.float32)[:, np.newaxis]
  slope = random.uniform(0.0, 0.06) * rows
  return lung * (np.float32(random.uniform(-0.05, 0.1)) + slope)


def _dependent(lung, spacing_mm, random):
  """Density of the lowest lung of a patient on the back: even, thin, smooth."""
  rows = lung.shape[1]
  # Rows from each voxel to the most posterior lung below it in its column.
  last = rows - 1 - lung[:, ::-1].argmax(axis=1)
  smooth = (2.0, 6.0 / spacing_mm[2]) if len(lung) > 4 else (0.0, 6.0 / spacing_mm[2])
  last = ndimage.gaussian_filter(last.astype(np.float32), smooth)
  distance_mm = spacing_mm[1] * np.clip(
    last[:, np.newaxis] - np.arange(rows, dtype=np.float32)[:, np.newaxis], 0, None
  )
  amount = random.uniform(0.04, 0.3)
  return lung * amount * np.exp(-distance_mm / random.uniform(4.0, 25.0))


def _emphysema(lung, spacing_mm, random):
  field = random_fields.smooth(lung.shape, spacing_mm, random.uniform(3, 10), random)
  return lung * np.clip(random.uniform(0.3, 1.2) - field, -0.12, 0)


def _plates(lung, spacing_mm, random):
  """Plate atelectases and scars: thin lines, mostly at the bases."""
  share = np.zeros(lung.shape, np.float32)
  for _ in range(random.integers(1, 4)):
    at = _voxel(lung, random)
    normal = random.normal(size=3) * (1.5, 1.0, 0.5)
    normal /= np.linalg.norm(normal)
    offsets = _offsets(lung.shape, spacing_mm, at)
    across = sum(float(n) * part for n, part in zip(normal, offsets))
    distance = np.sqrt(sum(part**2 for part in offsets))
    half_mm = random.uniform(0.5, 1.6)
    thin = np.clip(half_mm + 0.5 - np.abs(across), 0, 1)
    share = np.maximum(share, thin * (distance < random.uniform(8, 30)))
  return lung * share * np.float32(random.uniform(0.4, 1.0))


def _nodules(lung, spacing_mm, random):
  share = np.zeros(lung.shape, np.float32)
  for _ in range(random.integers(1, 5)):
    offsets = _offsets(lung.shape, spacing_mm, _voxel(lung, random))
    distance = np.sqrt(sum(part**2 for part in offsets))
    radius_mm = np.exp(random.uniform(np.log(1.5), np.log(5.0)))
    share = np.maximum(share, np.clip(radius_mm + 0.5 - distance, 0, 1))
  return lung * share * np.float32(random.uniform(0.7, 1.0))


def _motion(image, spacing_mm, random):
  """Double contours of some slices, as from heart and breath."""
  shift = random.uniform(-2.5, 2.5, 2) / spacing_mm[1:]
  moved = ndimage.shift(image, (0, *shift), order=1, mode='nearest')
  along = random_fields.smooth((len(image),), spacing_mm[:1], 15.0, random)
  share = np.clip(along, 0, 0.5)[:, np.newaxis, np.newaxis]
  return image * (1 - share) + moved * share


def _streaks(image, spacing_mm, random):
  """Lines across the patient, as from arms or shoulders beside a chest."""
  plane = random_fields.smooth(image.shape[1:], spacing_mm[1:], 2.0, random)
  wide = ndimage.uniform_filter1d(plane, max(3, int(60 / spacing_mm[2])), axis=1)
  wide /= max(float(wide.std()), 1e-6)
  inside = image > -950  # Room air beside the patient has none.
  return inside * wide * np.float32(random.uniform(8.0, 25.0))


def _voxel(lung, random):
  voxels = np.flatnonzero(lung)
  return np.unravel_index(int(random.choice(voxels)), lung.shape)


def _offsets(shape, spacing_mm, at):
  return np.meshgrid(
    *(
      mm * (np.arange(side, dtype=np.float32) - place)
      for side, mm, place in zip(shape, spacing_mm, at)
    ),
    indexing='ij',
    sparse=True,
  )
