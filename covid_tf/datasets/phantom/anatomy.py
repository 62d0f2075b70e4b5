"""The body of a phantom: measures drawn from the seed, chest wall and lungs."""

import dataclasses

import numpy as np
from scipy import ndimage

from covid_tf.datasets.phantom import shapes

# The measures of one chest, drawn once from the seed, in millimetres.

_STREAM = 102

RIB_COUNT = 11  # Pairs; the twelfth floats below the lungs.


@dataclasses.dataclass(frozen=True)
class Anatomy:
  """Sizes of one chest; origin at the carina, axes LPS (left, back, head).

  Attributes:
    half_width: of the rib cage's inside, side to side.
    half_depth: of the rib cage's inside, front to back.
    apex_right, apex_left: height of the lungs' apices.
    dome_right, dome_left: height of the diaphragm's domes.
    recess: how far the diaphragm falls from its domes to the chest wall.
    fat: subcutaneous fat.
    muscle: thickness of the chest wall's muscle.
    breast: extra soft tissue in front of each side; 0 for none.
    heart_centre, heart_radii: (x, y, z) of the heart's ellipsoid.
    heart_tilt: rotation of the heart in the axial plane, radians.
    aorta_radius: of the descending aorta.
    spine_y: centre of the vertebral bodies.
    rib_phase: height of a rib at the spine, modulo the rib spacing.
    rib_spacing: between neighbouring ribs at the spine.
    rib_drop: how far a rib falls from the spine to its front end.
    wobble: float64 [6], small random numbers for asymmetries, in [-1, 1].
  """

  half_width: float
  half_depth: float
  apex_right: float
  apex_left: float
  dome_right: float
  dome_left: float
  recess: float
  fat: float
  muscle: float
  breast: float
  heart_centre: tuple[float, float, float]
  heart_radii: tuple[float, float, float]
  heart_tilt: float
  aorta_radius: float
  spine_y: float
  rib_phase: float
  rib_spacing: float
  rib_drop: float
  wobble: tuple[float, ...]

  @property
  def bottom(self) -> float:
    """Lowest point of the lungs, in the recess behind the diaphragm."""
    return min(self.dome_right, self.dome_left) - self.recess

  @property
  def top(self) -> float:
    return max(self.apex_right, self.apex_left)


def draw_anatomy(case) -> Anatomy:
  """Draws the chest of a case (phantom.PhantomCase)."""
  rng = np.random.default_rng([case.seed, _STREAM])
  size = rng.normal(1, 0.05)
  female = rng.uniform() < 0.45
  size *= 0.94 if female else 1.03
  breath = case.inspiration
  half_width = size * rng.uniform(122, 136) * (0.93 + 0.07 * breath)
  half_depth = size * rng.uniform(80, 96) * (0.85 + 0.15 * breath)
  dome_right = -size * rng.uniform(82, 104) * breath + 6
  apex = size * rng.uniform(92, 116)
  heart_width = rng.uniform(0.9, 1.15)
  spine_y = half_depth - rng.uniform(20, 28)
  return Anatomy(
    half_width=half_width,
    half_depth=half_depth,
    apex_right=apex + rng.uniform(-5, 3),
    apex_left=apex + rng.uniform(-3, 5),
    dome_right=dome_right,
    dome_left=dome_right - rng.uniform(4, 20),
    recess=size * rng.uniform(45, 65) * (0.5 + 0.5 * breath),
    fat=case.fat_mm,
    muscle=rng.uniform(9, 17),
    breast=rng.uniform(12, 35) if female else 0.0,
    heart_centre=(
      rng.uniform(20, 32),
      -half_depth * rng.uniform(0.26, 0.36),
      dome_right + size * rng.uniform(24, 32),
    ),
    heart_radii=(
      size * heart_width * rng.uniform(52, 60),
      size * heart_width * rng.uniform(39, 46),
      size * rng.uniform(44, 52),
    ),
    heart_tilt=rng.uniform(0.45, 0.8),
    aorta_radius=rng.uniform(10.5, 15),
    spine_y=spine_y,
    rib_phase=rng.uniform(0, 24),
    rib_spacing=size * rng.uniform(22, 26),
    rib_drop=size * rng.uniform(85, 110),
    wobble=tuple(rng.uniform(-1, 1, 6)),
  )


# Skin, fat, muscle, ribs, shoulder blades, sternum and spine.

FAT_HU, MUSCLE_HU, SKIN_HU = -105.0, 52.0, 20.0
MARROW_HU, CORTEX_HU, CARTILAGE_HU, DISC_HU = 190.0, 620.0, 110.0, 85.0


def cage_contour(chest: Anatomy, z: float) -> np.ndarray:
  """float32 [720]: inside of the rib cage over the polar angle."""
  rise = np.clip((z + 60) / (chest.top + 85), 0, 0.98)
  width = chest.half_width * (1 - rise**2.6) ** 0.55
  depth = chest.half_depth * (1 - 0.62 * rise**2.4)
  fall = shapes.ramp(-z, 60, 200)
  contour = shapes.superellipse(width * (1 + 0.03 * fall), depth, 2.35)
  angle = shapes.Polar.angles
  # The chest is flatter in front than at the back, and never quite symmetric.
  contour *= 1 - 0.07 * np.exp(-(((np.abs(angle) - np.pi) / 0.7) ** 2))
  contour *= (
    1
    + 0.012 * chest.wobble[0] * np.sin(angle)
    + (0.015 * chest.wobble[1] * np.cos(2 * angle + chest.wobble[2]))
  )
  return contour


def skin_contours(chest: Anatomy, z: float):
  """Muscle's and skin's outer contours, float32 [720] each."""
  angle = np.abs(shapes.Polar.angles)
  cage = cage_contour(chest, z)
  shoulder = shapes.ramp(z, 25, chest.top + 25)
  pectoral = np.exp(-(((angle - 2.45) / 0.42) ** 2)) * np.exp(-(((z - 35) / 55) ** 2))
  paraspinal = np.exp(-(((angle - 0.22) / 0.26) ** 2))
  lateral = np.exp(-(((angle - 1.15) / 0.45) ** 2))
  muscle = (
    cage
    + 13
    + chest.muscle * (0.35 + 1.1 * pectoral + 1.3 * paraspinal + 1.2 * lateral)
  )
  body = shapes.superellipse(
    chest.half_width + 30 + 52 * shoulder, chest.half_depth + 24 - 4 * shoulder, 2.5
  )
  muscle = muscle + shoulder * np.maximum(body - muscle, 0)
  breast = (
    chest.breast
    * np.exp(-(((angle - 2.5) / 0.38) ** 2))
    * np.exp(-(((z + 25) / 38) ** 2))
  )
  fat = (
    chest.fat * (0.75 + 0.45 * np.cos(2 * (angle - 1.1)) ** 2) * (1 - 0.3 * shoulder)
  )
  # The table presses the back flat.
  flat = back_depth(chest) / np.maximum(np.cos(shapes.Polar.angles), 0.2)
  skin = ndimage.gaussian_filter1d(muscle + fat + breast + 2, 16, mode='wrap')
  return np.minimum(muscle, flat - 5), np.minimum(skin, flat)


def back_depth(chest: Anatomy) -> float:
  """Distance from the centre to the skin of the back, where it lies on the table."""
  return chest.half_depth + 30 + 0.9 * chest.muscle + 0.45 * chest.fat


def rib_distance(chest: Anatomy, z: float) -> np.ndarray:
  """float32 [720]: height above or below the nearest rib's axis, over the angle."""
  angle = np.abs(shapes.Polar.angles)
  # A rib leaves the spine slightly upwards, then falls to its front end.
  path = (
    4 * np.sin(angle * 3)
    - chest.rib_drop * (1 - np.cos(np.minimum(angle, 2.5) * 0.95)) / 1.8
  )
  path = path + 26 * shapes.ramp(angle, 2.35, 3.1)  # Cartilage rises again.
  offset = z - path - chest.rib_phase
  nearest = np.clip(
    np.round(offset / chest.rib_spacing),
    np.floor(-120 / chest.rib_spacing),
    np.floor((chest.top + 10) / chest.rib_spacing),
  )
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
  shapes.mix(hu, SKIN_HU, shapes.soft_step(outside, width))
  shapes.mix(hu, FAT_HU + 6 * stripes, shapes.soft_step(outside + 2, width))
  depth = polar.outside(muscle)
  flesh = shapes.soft_step(depth, width)
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
  disc = np.exp(-(((phase - 0.5) / 0.09) ** 2))
  swell = 1 + 0.08 * np.cos(2 * np.pi * (phase - 0.5))
  size = 1 - 0.0012 * (z + 40)
  girth = size * swell
  body = shapes.ellipse(x, y, (0, chest.spine_y), (19 * girth, 15 * girth))
  canal_y = chest.spine_y + 24 * size
  arch = shapes.ellipse(x, y, (0, canal_y), (14, 13))
  spinous = shapes.ellipse(x, y, (0, canal_y + 17), (4, 12))
  sides = shapes.ellipse(np.abs(x), y, (22, canal_y + 3), (14, 5.5), 0.25)
  arch_share = 0.35 + 0.65 * shapes.ramp(abs(phase - 0.5), 0.1, 0.25)
  for distance, share in (
    (spinous, 0.9 * arch_share),
    (sides, arch_share),
    (arch, arch_share),
  ):
    shapes.mix(hu, CORTEX_HU, share * shapes.soft_step(distance, width + 0.6))
    shapes.mix(hu, MARROW_HU + 60, share * shapes.soft_step(distance + 2.2, width + 1))
  shapes.mix(hu, CORTEX_HU - 120 - 380 * disc, shapes.soft_step(body, width + 0.6))
  shapes.mix(
    hu,
    MARROW_HU + (DISC_HU - MARROW_HU) * disc,
    shapes.soft_step(body + 1.6, width + 0.8),
  )
  for value, radii in ((-20, (9.5, 8)), (32, (6, 5.5))):  # Fat around the cord.
    canal = shapes.ellipse(x, y, (0, canal_y), radii)
    shapes.mix(hu, value, shapes.soft_step(canal, width))


def _draw_ribs(hu, chest, z, polar, wall, thickness, width):
  height = np.abs(rib_distance(chest, z))
  height = np.maximum(height - thickness / 4, 0)
  norm = np.hypot(polar.table(height / 6.5), (wall - 6) / 4.2)
  cartilage = polar.table((np.abs(shapes.Polar.angles) > 2.45).astype(np.float32))
  inside = (norm - 1) * 4.2
  shapes.mix(
    hu,
    CORTEX_HU + (CARTILAGE_HU - CORTEX_HU) * cartilage,
    shapes.soft_step(inside, width + 0.5),
  )
  shapes.mix(
    hu,
    MARROW_HU + 20 + (CARTILAGE_HU - MARROW_HU - 30) * cartilage,
    shapes.soft_step(inside + 1.5, width + 0.5),
  )


def _draw_scapulae(hu, chest, z, polar, wall, thickness, width):
  share = shapes.ramp(z, -25, 5) * (1 - shapes.ramp(z, chest.top, chest.top + 15))
  if share <= 0:
    return
  angle = np.abs(shapes.Polar.angles)
  reach = 0.5 + 0.35 * shapes.ramp(z, -20, 90)
  along = np.maximum(np.abs(angle - 0.95) - reach / 2, 0) * 120
  plate = 20 + 10 * np.cos((angle - 0.95) * 2.5)
  thick = 2.6 + 4 * np.exp(-(((angle - 0.95 - reach / 2) / 0.12) ** 2))
  norm = np.hypot(polar.table(along), wall - polar.table(plate)) - polar.table(thick)
  shapes.mix(hu, CORTEX_HU - 100, share * shapes.soft_step(norm, width + 0.5))
  shapes.mix(hu, MARROW_HU, share * shapes.soft_step(norm + 2, width + 0.5))


def _draw_clavicles(hu, chest, z, x, y, thickness, width):
  inner = np.array((14.0, -chest.half_depth * 0.62, chest.top - 42))
  outer = np.array((chest.half_width + 35, -chest.half_depth * 0.1, chest.top - 2))
  if not inner[2] - 12 < z < outer[2] + 12:
    return
  axis = outer - inner
  side = np.abs(x)
  dx, dy, dz = side - inner[0], y - inner[1], z - inner[2]
  t = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / (axis @ axis), 0, 1)
  norm = (
    np.sqrt(
      (dx - t * axis[0]) ** 2
      + (dy - t * axis[1]) ** 2
      + np.maximum(np.abs(dz - t * axis[2]) - thickness / 4, 0) ** 2
    )
    - 6.5
  )
  shapes.mix(hu, CORTEX_HU, shapes.soft_step(norm, width + 0.5))
  shapes.mix(hu, MARROW_HU, shapes.soft_step(norm + 2, width + 0.5))


def _draw_sternum(hu, chest, z, x, y, width):
  if not -75 < z < chest.top - 38:
    return
  cage = cage_contour(chest, z)[0]  # The table starts in front.
  half = 15 + 11 * shapes.ramp(z, 30, 55)
  window = shapes.window(x, y, (0, -cage - 6), (30, 10))
  hu, x, y = hu[window], x[window], y[window]
  distance = shapes.ellipse(x, y, (0, -cage - 6), (half, 7))
  shapes.mix(hu, CORTEX_HU - 200, shapes.soft_step(distance, width + 0.5))
  shapes.mix(hu, MARROW_HU - 50, shapes.soft_step(distance + 1.7, width + 0.5))


# The lungs' shape and aerated tissue.


def diaphragm_height(chest: Anatomy, x, y):
  """Height of the diaphragm under every point of the plane, float32 [H, W]."""
  side = shapes.ramp(x, -20, 20)
  dome = chest.dome_right + side * (chest.dome_left - chest.dome_right)
  centre_x = chest.half_width * 0.45 * np.where(x < 0, -1, 1)
  across = (x - centre_x) / (chest.half_width * 0.55)
  along = (y + chest.half_depth * 0.15) / (chest.half_depth * 0.95)
  # Steeper towards the back, where the recess is deepest.
  fall = across**2 * 0.75 + along**2 * np.where(along > 0, 0.75, 0.4)
  return dome - chest.recess * np.minimum(fall, 1.6)


def pleura_distance(chest: Anatomy, z, polar):
  """Signed radial distance to the inside of the chest wall."""
  return polar.outside(cage_contour(chest, z) - 1)


def lung_distance(chest: Anatomy, z, x, y, wall, middle, diaphragm):
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
  dome = z - apex + (((x - centre_x) / 6.5) ** 2 + ((y - 14) / 7.5) ** 2) * 0.42
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
  return np.clip(1.6 - offset, 0, 1) * (1.2 / max(thickness, 1.2)) ** 0.5
