"""The measures of one chest, drawn once from the seed, in millimetres."""

import dataclasses

import numpy as np

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
      half_width=half_width, half_depth=half_depth,
      apex_right=apex + rng.uniform(-5, 3), apex_left=apex + rng.uniform(-3, 5),
      dome_right=dome_right, dome_left=dome_right - rng.uniform(4, 20),
      recess=size * rng.uniform(45, 65) * (0.5 + 0.5 * breath),
      fat=case.fat_mm, muscle=rng.uniform(9, 17),
      breast=rng.uniform(12, 35) if female else 0.0,
      heart_centre=(rng.uniform(20, 32), -half_depth * rng.uniform(0.26, 0.36),
                    dome_right + size * rng.uniform(24, 32)),
      heart_radii=(size * heart_width * rng.uniform(52, 60),
                   size * heart_width * rng.uniform(39, 46),
                   size * rng.uniform(44, 52)),
      heart_tilt=rng.uniform(0.45, 0.8),
      aorta_radius=rng.uniform(10.5, 15), spine_y=spine_y,
      rib_phase=rng.uniform(0, 24), rib_spacing=size * rng.uniform(22, 26),
      rib_drop=size * rng.uniform(85, 110),
      wobble=tuple(rng.uniform(-1, 1, 6)))
