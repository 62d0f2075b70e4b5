"""Skin, fat, muscle, ribs, shoulder blades, sternum and spine."""

import numpy as np
from scipy import ndimage

from covid_tf.datasets.phantom import anatomy
from covid_tf.datasets.phantom import grid
from covid_tf.datasets.phantom import shapes

FAT_HU, MUSCLE_HU, SKIN_HU = -105.0, 52.0, 20.0
MARROW_HU, CORTEX_HU, CARTILAGE_HU, DISC_HU = 190.0, 620.0, 110.0, 85.0


def cage_contour(chest: anatomy.Anatomy, z: float) -> np.ndarray:
  """float32 [720]: inside of the rib cage over the polar angle."""
  rise = np.clip((z + 60) / (chest.top + 85), 0, 0.98)
  width = chest.half_width * (1 - rise**2.6)**0.55
  depth = chest.half_depth * (1 - 0.62 * rise**2.4)
  fall = shapes.ramp(-z, 60, 200)
  contour = shapes.superellipse(width * (1 + 0.03 * fall), depth, 2.35)
  angle = shapes.Polar.angles
  # The chest is flatter in front than at the back, and never quite symmetric.
  contour *= 1 - 0.07 * np.exp(-((np.abs(angle) - np.pi) / 0.7)**2)
  contour *= 1 + 0.012 * chest.wobble[0] * np.sin(angle) + (
      0.015 * chest.wobble[1] * np.cos(2 * angle + chest.wobble[2]))
  return contour


def skin_contours(chest: anatomy.Anatomy, z: float):
  """Muscle's and skin's outer contours, float32 [720] each."""
  angle = np.abs(shapes.Polar.angles)
  cage = cage_contour(chest, z)
  shoulder = shapes.ramp(z, 25, chest.top + 25)
  pectoral = np.exp(-((angle - 2.45) / 0.42)**2) * np.exp(-((z - 35) / 55)**2)
  paraspinal = np.exp(-((angle - 0.22) / 0.26)**2)
  lateral = np.exp(-((angle - 1.15) / 0.45)**2)
  muscle = cage + 13 + chest.muscle * (
      0.35 + 1.1 * pectoral + 1.3 * paraspinal + 1.2 * lateral)
  body = shapes.superellipse(
      chest.half_width + 30 + 52 * shoulder, chest.half_depth + 24 - 4 * shoulder, 2.5)
  muscle = muscle + shoulder * np.maximum(body - muscle, 0)
  breast = chest.breast * np.exp(-((angle - 2.5) / 0.38)**2) * np.exp(
      -((z + 25) / 38)**2)
  fat = chest.fat * (0.75 + 0.45 * np.cos(2 * (angle - 1.1))**2) * (1 - 0.3 * shoulder)
  # The table presses the back flat.
  flat = back_depth(chest) / np.maximum(np.cos(shapes.Polar.angles), 0.2)
  skin = ndimage.gaussian_filter1d(muscle + fat + breast + 2, 16, mode='wrap')
  return np.minimum(muscle, flat - 5), np.minimum(skin, flat)


def back_depth(chest: anatomy.Anatomy) -> float:
  """Distance from the centre to the skin of the back, where it lies on the table."""
  return chest.half_depth + 30 + 0.9 * chest.muscle + 0.45 * chest.fat


def rib_distance(chest: anatomy.Anatomy, z: float) -> np.ndarray:
  """float32 [720]: height above or below the nearest rib's axis, over the angle."""
  angle = np.abs(shapes.Polar.angles)
  # A rib leaves the spine slightly upwards, then falls to its front end.
  path = 4 * np.sin(angle * 3) - chest.rib_drop * (
      1 - np.cos(np.minimum(angle, 2.5) * 0.95)) / 1.8
  path = path + 26 * shapes.ramp(angle, 2.35, 3.1)  # Cartilage rises again.
  offset = z - path - chest.rib_phase
  nearest = np.clip(np.round(offset / chest.rib_spacing),
                    np.floor(-120 / chest.rib_spacing),
                    np.floor((chest.top + 10) / chest.rib_spacing))
  return offset - nearest * chest.rib_spacing


def draw_wall(chest, z, polar, x, y, stripes, thickness, width) -> np.ndarray:
  """float32 [H, W] HU: air outside, the wall, and muscle everywhere inside.

  Args:
    chest: anatomy of the phantom.
    z: height of the slice.
    polar: shapes.Polar of the slice.
    x, y: float32 [H, W], warped coordinates.
    stripes: float32 [H, W], a random field for fat between muscles.
    thickness: slice thickness, over which ribs are averaged.
    width: pixel size, over which edges are soft.
  """
  muscle, skin = skin_contours(chest, z)
  outside = polar.outside(skin)
  hu = np.full(outside.shape, -1000.0, np.float32)
  shapes.mix(hu, SKIN_HU, grid.soft_step(outside, width))
  shapes.mix(hu, FAT_HU + 6 * stripes, grid.soft_step(outside + 2, width))
  depth = polar.outside(muscle)
  flesh = grid.soft_step(depth, width)
  wall = polar.outside(cage_contour(chest, z))
  shapes.mix(hu, MUSCLE_HU, flesh)
  seams = np.clip(1.2 - np.abs(stripes) * 9, 0, 1) * (wall > 14) * (depth < -3)
  shapes.mix(hu, FAT_HU + 20, 0.85 * seams)
  _draw_ribs(hu, chest, z, polar, wall, thickness, width)
  _draw_scapulae(hu, chest, z, polar, wall, thickness, width)
  _draw_clavicles(hu, chest, z, x, y, thickness, width)
  _draw_sternum(hu, chest, z, x, y, width)
  return hu


def draw_spine(hu, chest, z, x, y, width) -> None:
  """Vertebral body or disc, canal, arch and processes, drawn over `hu`."""
  window = shapes.window(x, y, (0, chest.spine_y + 20), (42, 48))
  hu, x, y = hu[window], x[window], y[window]
  phase = (z / 24.0 + chest.wobble[3]) % 1.0
  disc = np.exp(-((phase - 0.5) / 0.09)**2)
  swell = 1 + 0.08 * np.cos(2 * np.pi * (phase - 0.5))
  size = 1 - 0.0012 * (z + 40)
  girth = size * swell
  body = shapes.ellipse(x, y, (0, chest.spine_y), (19 * girth, 15 * girth))
  canal_y = chest.spine_y + 24 * size
  arch = shapes.ellipse(x, y, (0, canal_y), (14, 13))
  spinous = shapes.ellipse(x, y, (0, canal_y + 17), (4, 12))
  sides = shapes.ellipse(np.abs(x), y, (22, canal_y + 3), (14, 5.5), 0.25)
  arch_share = 0.35 + 0.65 * shapes.ramp(abs(phase - 0.5), 0.1, 0.25)
  for distance, share in ((spinous, 0.9 * arch_share), (sides, arch_share),
                          (arch, arch_share)):
    shapes.mix(hu, CORTEX_HU, share * grid.soft_step(distance, width + 0.6))
    shapes.mix(hu, MARROW_HU + 60, share * grid.soft_step(distance + 2.2, width + 1))
  shapes.mix(hu, CORTEX_HU - 120 - 380 * disc, grid.soft_step(body, width + 0.6))
  shapes.mix(hu, MARROW_HU + (DISC_HU - MARROW_HU) * disc,
             grid.soft_step(body + 1.6, width + 0.8))
  for value, radii in ((-20, (9.5, 8)), (32, (6, 5.5))):  # Fat around the cord.
    canal = shapes.ellipse(x, y, (0, canal_y), radii)
    shapes.mix(hu, value, grid.soft_step(canal, width))


def _draw_ribs(hu, chest, z, polar, wall, thickness, width):
  height = np.abs(rib_distance(chest, z))
  height = np.maximum(height - thickness / 4, 0)
  norm = np.hypot(polar.table(height / 6.5), (wall - 6) / 4.2)
  cartilage = polar.table((np.abs(shapes.Polar.angles) > 2.45).astype(np.float32))
  inside = (norm - 1) * 4.2
  shapes.mix(hu, CORTEX_HU + (CARTILAGE_HU - CORTEX_HU) * cartilage,
       grid.soft_step(inside, width + 0.5))
  shapes.mix(hu, MARROW_HU + 20 + (CARTILAGE_HU - MARROW_HU - 30) * cartilage,
       grid.soft_step(inside + 1.5, width + 0.5))


def _draw_scapulae(hu, chest, z, polar, wall, thickness, width):
  share = shapes.ramp(z, -25, 5) * (1 - shapes.ramp(z, chest.top, chest.top + 15))
  if share <= 0:
    return
  angle = np.abs(shapes.Polar.angles)
  reach = 0.5 + 0.35 * shapes.ramp(z, -20, 90)
  along = np.maximum(np.abs(angle - 0.95) - reach / 2, 0) * 120
  plate = 20 + 10 * np.cos((angle - 0.95) * 2.5)
  thick = 2.6 + 4 * np.exp(-((angle - 0.95 - reach / 2) / 0.12)**2)
  norm = np.hypot(polar.table(along), wall - polar.table(plate)) - polar.table(thick)
  shapes.mix(hu, CORTEX_HU - 100, share * grid.soft_step(norm, width + 0.5))
  shapes.mix(hu, MARROW_HU, share * grid.soft_step(norm + 2, width + 0.5))


def _draw_clavicles(hu, chest, z, x, y, thickness, width):
  inner = np.array((14.0, -chest.half_depth * 0.62, chest.top - 42))
  outer = np.array((chest.half_width + 35, -chest.half_depth * 0.1, chest.top - 2))
  if not inner[2] - 12 < z < outer[2] + 12:
    return
  axis = outer - inner
  side = np.abs(x)
  dx, dy, dz = side - inner[0], y - inner[1], z - inner[2]
  t = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / (axis @ axis), 0, 1)
  norm = np.sqrt((dx - t * axis[0])**2 + (dy - t * axis[1])**2
                 + np.maximum(np.abs(dz - t * axis[2]) - thickness / 4, 0)**2) - 6.5
  shapes.mix(hu, CORTEX_HU, grid.soft_step(norm, width + 0.5))
  shapes.mix(hu, MARROW_HU, grid.soft_step(norm + 2, width + 0.5))


def _draw_sternum(hu, chest, z, x, y, width):
  if not -75 < z < chest.top - 38:
    return
  cage = cage_contour(chest, z)[0]  # The table starts in front.
  half = 15 + 11 * shapes.ramp(z, 30, 55)
  window = shapes.window(x, y, (0, -cage - 6), (30, 10))
  hu, x, y = hu[window], x[window], y[window]
  distance = shapes.ellipse(x, y, (0, -cage - 6), (half, 7))
  shapes.mix(hu, CORTEX_HU - 200, grid.soft_step(distance, width + 0.5))
  shapes.mix(hu, MARROW_HU - 50, grid.soft_step(distance + 1.7, width + 0.5))

