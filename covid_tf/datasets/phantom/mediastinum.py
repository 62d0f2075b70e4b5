"""Heart, great vessels, trachea and what lies below the diaphragm."""

from typing import NamedTuple

import numpy as np

from covid_tf.datasets.phantom import anatomy
from covid_tf.datasets.phantom import shapes

BLOOD_HU, FAT_HU, WALL_HU = 42.0, -95.0, 35.0
LIVER_HU, SPLEEN_HU, STOMACH_HU, GAS_HU = 58.0, 48.0, 25.0, -980.0


def hila(chest: anatomy.Anatomy):
  """Right and left points where vessels and bronchi enter the lungs."""
  return (
    np.array((-34.0, 6 + 4 * chest.wobble[4], -18.0)),
    np.array((36.0, 8 + 4 * chest.wobble[4], -10.0)),
  )


def _tubes(chest: anatomy.Anatomy):
  """(points [n, 3], radii [n], HU) of the great vessels and the oesophagus."""
  heart = np.array(chest.heart_centre)
  aorta = chest.aorta_radius
  back = chest.spine_y - 20
  right, left = hila(chest)
  root = heart + (-18, 0, 22)
  arch = [
    root,
    (-16, -22, 10),
    (-9, -14, 34),
    (6, 0, 44 + 4 * chest.wobble[5]),
    (18, back * 0.55, 38),
    (22, back - 4, 18),
    (20, back, -60),
    (10, back, -240),
  ]
  trunk = heart + (-2, -4, 34)
  return (
    (
      arch,
      (aorta + 4, aorta + 4, aorta + 2, aorta + 1, aorta, aorta, aorta, aorta - 1),
      BLOOD_HU,
    ),
    ([(-24, -18, 70), (-25, -14, 0), heart + (-38, 12, 10)], (8, 10, 12), BLOOD_HU),
    ([heart + (-40, 22, -25), (-28, 5, chest.dome_right - 60)], (13, 12), BLOOD_HU),
    ([trunk, (14, -14, -12), left], (14, 13, 9), BLOOD_HU),
    ([(14, -14, -14), (-12, -6, -18), right], (13, 11, 9), BLOOD_HU),
    ([heart + (0, 30, 18), right + (0, 4, -14)], (12, 6), BLOOD_HU),
    ([heart + (8, 30, 18), left + (0, 6, -18)], (12, 6), BLOOD_HU),
    ([(-28, -20, 66), (-52, -28, 105)], (7, 6), BLOOD_HU),
    ([(-26, -24, 62), (30, -30, 72), (58, -30, 105)], (6, 6, 6), BLOOD_HU),
    ([(-6, -10, 44), (-14, -6, 80), (-22, -4, 140)], (6.5, 5.5, 4.5), BLOOD_HU),
    ([(8, -4, 46), (16, 0, 90), (20, 0, 140)], (5, 4.5, 4.5), BLOOD_HU),
    (
      [
        (4, 14, 140),
        (6, back * 0.42, 20),
        (10, back * 0.62, -70),
        (18, back * 0.3, -150),
      ],
      (7, 8, 9, 10),
      WALL_HU,
    ),
  )


def airway_tubes(chest: anatomy.Anatomy):
  """(points, radii) of the trachea and the main bronchi: their lumen."""
  right, left = hila(chest)
  return (
    ([(0, -6, 160), (-2, 0, 60), (0, 6, 0)], (8.5, 8.5, 9)),
    ([(0, 6, 2), right + (4, 3, 2)], (7, 5.5)),
    ([(0, 6, 2), left + (-2, 4, -4)], (6.5, 5)),
  )


class NearTube(NamedTuple):
  """A tube on one slice, inside a window of the plane.

  Attributes:
    window: (rows, columns) slices of the plane; the tube is far outside it.
    distance: float32 [rows, columns], signed distance in the window.
    hu: of its content.
  """

  window: tuple[slice, slice]
  distance: np.ndarray
  hu: float


def near_tubes(chest: anatomy.Anatomy, z, x, y) -> list[NearTube]:
  """The great vessels and the oesophagus on one slice, the aorta first.

  Args:
    chest: anatomy of the phantom.
    z: height of the slice.
    x, y: float32 [H, W], coordinates, bent by a few millimetres.
  """
  tubes = []
  for points, radii, value in _tubes(chest):
    points = np.asarray([tuple(point) for point in points], float)
    for i in range(len(points) - 1):
      reach = max(radii[i], radii[i + 1]) + 6
      a, b = points[i].tolist(), points[i + 1].tolist()
      if min(a[2], b[2]) - reach < z < max(a[2], b[2]) + reach:
        window = shapes.window(
          x,
          y,
          ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2),
          (abs(a[0] - b[0]) / 2 + reach, abs(a[1] - b[1]) / 2 + reach),
        )
        tubes.append(
          NearTube(
            window,
            _cone_distance(a, b, radii[i], radii[i + 1], z, x[window], y[window]),
            value,
          )
        )
  return tubes


def _cone_distance(a, b, first, last, z, x, y):
  axis = [end - start for start, end in zip(a, b)]
  length = sum(part * part for part in axis)
  dx, dy, dz = x - a[0], y - a[1], z - a[2]
  t = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / length, 0, 1)
  return np.sqrt(
    (dx - t * axis[0]) ** 2 + (dy - t * axis[1]) ** 2 + (dz - t * axis[2]) ** 2
  ) - (first + t * (last - first))


def heart_distance(chest: anatomy.Anatomy, z, x, y):
  """Signed distance to the heart; None on slices that miss it."""
  rise = (z - chest.heart_centre[2]) / chest.heart_radii[2]
  if abs(rise) >= 1.15:
    return None
  scale = np.sqrt(max(1.15**2 - rise * rise, 0) / 1.15**2)
  # Its axis leans: the apex lies lower and further left than the base.
  centre = (chest.heart_centre[0] - 10 * rise, chest.heart_centre[1] - 4 * rise)
  return shapes.ellipse(
    x,
    y,
    centre,
    (chest.heart_radii[0] * scale + 1, chest.heart_radii[1] * scale + 1),
    chest.heart_tilt,
  )


def mediastinum_distance(chest: anatomy.Anatomy, z, x, y, tubes):
  """float32 [H, W]: signed distance to everything between the lungs."""
  whole = np.full(x.shape, 99.0, np.float32)
  window = shapes.window(x, y, (20, 0), (95, chest.half_depth + 25))
  whole[window] = _core_distance(chest, z, x[window], y[window])
  for tube in tubes:
    whole[tube.window] = shapes.smooth_min(whole[tube.window], tube.distance - 3, 8)
  return whole


def _core_distance(chest, z, x, y):
  """Heart, spine and the fat that joins them, without the vessels."""
  front = -chest.half_depth * 0.9
  narrow = 1 - 0.55 * np.exp(-(((z - 5) / 45) ** 2))
  slab = shapes.ellipse(x, y, (0, front * 0.45), (24, chest.half_depth * 0.75))
  anterior = shapes.ellipse(x, y, (0, front), (26 * narrow + 4, 16))
  spine = shapes.ellipse(x, y, (0, chest.spine_y + 14), (27, 30))
  core = shapes.ellipse(x, y, (2, 8), (27 - 4 * (z > 30), 26))
  distance = shapes.smooth_min(core, spine, 14)
  distance = shapes.smooth_min(
    distance, slab + 14 * (1 - shapes.ramp(np.abs(z), -40, 60)) - 8, 10
  )
  distance = shapes.smooth_min(distance, anterior, 10)
  heart = heart_distance(chest, z, x, y)
  if heart is not None:
    distance = shapes.smooth_min(distance, heart - 4, 12)
  return distance


def draw_mediastinum(hu, chest, z, x, y, tubes, inside, blotches, width) -> None:
  """Fat, heart and great vessels over `hu` where `inside` (share) says so."""
  # Above the lungs the neck's muscles take the place of the fat.
  neck = shapes.ramp(z, chest.top - 45, chest.top + 5)
  strands = np.clip(1 - np.abs(blotches) * 4, 0, 1) * 45
  fill = FAT_HU + 12 * blotches + strands
  shapes.mix(hu, fill + (WALL_HU + 15 - fill) * neck * (blotches < 0.9), inside)
  heart = heart_distance(chest, z, x, y)
  if heart is not None:
    shapes.mix(hu, BLOOD_HU, inside * shapes.soft_step(heart, width))
    # A seam of fat between atria and ventricles.
    groove = np.abs(
      (x - chest.heart_centre[0]) * 0.75
      + (y - chest.heart_centre[1]) * 0.65
      - 2
      + 3 * blotches
    )
    hu -= 75 * inside * np.clip(2.5 - groove, 0, 1) * (heart < -2) * (heart > -20)
  for tube in tubes:
    shapes.mix(
      hu[tube.window],
      tube.hu,
      inside[tube.window] * shapes.soft_step(tube.distance, width),
    )


def draw_abdomen(hu, chest, x, y, tubes, below, blotches, width) -> None:
  """Liver, spleen, stomach and fat where `below` (share) lies under the diaphragm."""
  hu += (FAT_HU - hu) * below
  liver = shapes.ellipse(
    x,
    y,
    (-chest.half_width * 0.45, -4),
    (chest.half_width * 0.62, chest.half_depth * 0.93),
    0.1,
  )
  lobe = shapes.ellipse(
    x, y, (10, -chest.half_depth * 0.45), (60, chest.half_depth * 0.36), 0.2
  )
  spleen = shapes.ellipse(
    x, y, (chest.half_width * 0.66, chest.half_depth * 0.42), (34, 45), -0.5
  )
  stomach = shapes.ellipse(
    x, y, (chest.half_width * 0.42, -chest.half_depth * 0.22), (44, 40), 0.2
  )
  crus = np.abs(y - chest.half_depth * 0.5) + np.abs(x) * 0.4
  shapes.mix(
    hu,
    LIVER_HU + 3 * blotches,
    below * shapes.soft_step(shapes.smooth_min(liver, lobe, 20), width),
  )
  shapes.mix(hu, SPLEEN_HU, below * shapes.soft_step(spleen + 2 * blotches, width))
  shapes.mix(hu, STOMACH_HU + 15, below * shapes.soft_step(stomach, width))
  shapes.mix(hu, STOMACH_HU, below * shapes.soft_step(stomach + 4, width))
  gas = shapes.smooth_max(stomach + 4, y + chest.half_depth * 0.3, 2)
  shapes.mix(hu, GAS_HU, below * shapes.soft_step(gas, width))
  shapes.mix(hu, 45, 0.6 * below * np.clip(1 - crus / 30, 0, 1))
  for tube in tubes:  # Down here: the descending aorta, the cava, the gullet.
    shapes.mix(
      hu[tube.window],
      tube.hu,
      below[tube.window] * shapes.soft_step(tube.distance, width),
    )
