"""The lungs' shape and aerated tissue."""

import numpy as np

from covid_tf.datasets.phantom import anatomy
from covid_tf.datasets.phantom import chest_wall
from covid_tf.datasets.phantom import shapes


def diaphragm_height(chest: anatomy.Anatomy, x, y):
  """Height of the diaphragm under every point of the plane, float32 [H, W]."""
  side = shapes.ramp(x, -20, 20)
  dome = chest.dome_right + side * (chest.dome_left - chest.dome_right)
  centre_x = chest.half_width * 0.45 * np.where(x < 0, -1, 1)
  across = (x - centre_x) / (chest.half_width * 0.55)
  along = (y + chest.half_depth * 0.15) / (chest.half_depth * 0.95)
  # Steeper towards the back, where the recess is deepest.
  fall = across**2 * 0.75 + along**2 * np.where(along > 0, 0.75, 0.4)
  return dome - chest.recess * np.minimum(fall, 1.6)


def pleura_distance(chest: anatomy.Anatomy, z, polar):
  """Signed radial distance to the inside of the chest wall."""
  return polar.outside(chest_wall.cage_contour(chest, z) - 1)


def lung_distance(chest: anatomy.Anatomy, z, x, y, wall, middle, diaphragm):
  """float32 [H, W]: signed distance to the lungs of one slice, negative inside.

  Args:
    chest: anatomy of the phantom.
    z: height of the slice.
    x, y: coordinates of the pixels.
    wall: distance to the inside of the chest wall.
    middle: distance to the mediastinum.
    diaphragm: height of the diaphragm.
  """
  apex = np.where(x < 0, chest.apex_right, chest.apex_left)
  centre_x = np.where(x < 0, -1, 1) * chest.half_width * 0.44
  dome = z - apex + (((x - centre_x) / 6.5)**2 + ((y - 14) / 7.5)**2) * 0.42
  distance = shapes.smooth_max(wall, -middle, 5)
  distance = shapes.smooth_max(distance, dome * 0.5, 6)
  return shapes.smooth_max(distance, (diaphragm - z) * 0.6, 5)


def parenchyma_hu(case, chest, z, x, y, depth, mottle, grain):
  """float32 [H, W]: HU of aerated lung, before vessels and disease.

  Args:
    case: phantom.PhantomCase.
    chest: anatomy of the phantom.
    z, x, y: coordinates.
    depth: distance to the pleura, positive inside.
    mottle: slowly varying random field.
    grain: fast random field.
  """
  back = np.clip((y + chest.half_depth) / (2 * chest.half_depth), 0, 1)
  air = -885 + 60 * (1.08 - case.inspiration) / 0.24
  hu = air + case.dependent_hu * back**1.5 + 11 * mottle + 14 * grain
  # Lung that rests on the chest wall at the back is denser still.
  rest = np.exp(-np.maximum(depth, 0) / 6) * np.clip(back - 0.6, 0, 1)
  hu = hu + case.dependent_hu * 2.2 * rest
  if case.emphysema:
    holes = np.clip((mottle + grain * 0.8 - 1.6 + 1.6 * case.emphysema) * 2, 0, 1)
    hu = hu - 75 * holes * shapes.ramp(z, -60, 60)
  return hu


def fissure_share(chest, z, x, y, warp, thickness):
  """float32 [H, W]: share of a pixel that the oblique fissures take."""
  height = -20 + 62 * (y - 6) / chest.half_depth + np.where(x < 0, 6, -6) + warp
  offset = np.abs(z - height) / np.hypot(1, 62 / chest.half_depth)
  return np.clip(1.6 - offset, 0, 1) * (1.2 / max(thickness, 1.2))**0.5
