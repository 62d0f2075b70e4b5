"""Opacities with known extent, and the benign findings that look like them."""

import dataclasses

import numpy as np

from covid_tf.datasets.phantom import shapes

_STREAM = 104
GROUND_GLASS_LOW_HU, GROUND_GLASS_HIGH_HU = -700.0, -330.0
CONSOLIDATION_HU = 30.0


@dataclasses.dataclass(frozen=True)
class LungPoints:
  """Sample points inside the lungs on a lattice of its own, whatever the grid.

  Attributes:
    places: float64 [n, 3], (x, y, z).
    depth: float64 [n], distance to the chest wall's inside.
    cell_mm3: volume that one point stands for.
  """

  places: np.ndarray
  depth: np.ndarray
  cell_mm3: float


@dataclasses.dataclass(frozen=True)
class Findings:
  """What was put into the lungs, in millimetres.

  Attributes:
    blobs: float64 [n, 6], centres (x, y, z) and radii of focal opacities.
    diffuse_level: threshold of the diffuse field; None without diffuse disease.
    nodules: float64 [n, 4], centres and radii.
    plates: float64 [n, 8], plate atelectases: centre, unit normal, radius,
      half thickness.
  """

  blobs: np.ndarray
  diffuse_level: float | None
  nodules: np.ndarray
  plates: np.ndarray


def place(case, chest, points: LungPoints, shape_at_points) -> Findings:
  """Draws where disease and look-alikes are.

  Args:
    case: phantom.PhantomCase.
    chest: anatomy of the phantom.
    points: samples of the lungs.
    shape_at_points: float64 [n], the lesions' shape field at the points, against
      which the load is set.
  """
  rng = np.random.default_rng([case.seed, _STREAM])
  nodules = _draw_nodules(case, points, rng)
  plates = _draw_plates(case, chest, points, rng)
  blobs, level = np.zeros((0, 6)), None
  if case.kind == 'focal':
    blobs = _draw_blobs(case, chest, points, shape_at_points, rng)
  elif case.kind == 'diffuse':
    field = diffuse_field(
      chest, points.places[:, 2], points.places[:, 1], points.depth, shape_at_points
    )
    level = float(np.quantile(field, 1 - case.lesion_fraction))
  return Findings(blobs, level, nodules, plates)


def diffuse_field(chest, z, y, depth, shape):
  """Where diffuse disease goes first: outer, lower and posterior lung."""
  basal = (chest.top - z) / (chest.top - chest.bottom)
  posterior = (y + chest.half_depth) / (2 * chest.half_depth)
  return 0.75 * shape + 1.5 * np.exp(-depth / 18) + 1.1 * basal + 0.9 * posterior


def focal_field(blobs, z, x, y, shape):
  """Level above 0 inside focal opacities; None on slices that none reaches."""
  best = None
  for blob in blobs:
    dz = (z - blob[2]) / blob[5]
    if abs(dz) > 1.45:
      continue
    norm = np.sqrt(
      ((x - blob[0]) / blob[3]) ** 2 + ((y - blob[1]) / blob[4]) ** 2 + dz * dz
    )
    level = 1 - norm + 0.24 * shape
    best = level if best is None else np.maximum(best, level)
  return best


def disease_hu(case, level, broad, fine, reticulum):
  """float32 [H, W]: HU of diseased lung, ground glass to consolidation.

  Args:
    case: phantom.PhantomCase.
    level: how far inside the lesion, above 0 inside.
    broad, fine: random fields.
    reticulum: float32 [H, W], thickened septa in [0, 1].
  """
  dense = np.clip(0.42 + 0.3 * np.clip(level, 0, 1) + 0.17 * broad + 0.09 * fine, 0, 1)
  hu = GROUND_GLASS_LOW_HU + (GROUND_GLASS_HIGH_HU - GROUND_GLASS_LOW_HU) * dense
  hu = hu + 260 * case.crazy_paving * reticulum
  amount = case.consolidation * 2.2 - 0.9
  solid = np.clip(
    (np.clip(level, 0, 1) * 1.3 + 0.45 * broad + 0.15 * fine + amount - 0.9) * 3, 0, 1
  )
  return hu + (CONSOLIDATION_HU + 10 * fine - hu) * solid


def nodule_share(nodules, z, x, y, thickness, width):
  """float32 [H, W] or None: share of each pixel inside solid nodules."""
  share = None
  for nodule in nodules:
    dz = abs(z - nodule[2])
    radius = nodule[3]
    overlap = np.clip((radius - dz + thickness / 2) / thickness, 0, 1)
    overlap = min(overlap, 2 * radius / thickness)
    if overlap <= 0:
      continue
    norm = np.hypot(x - nodule[0], y - nodule[1]) - radius
    here = overlap * shapes.soft_step(norm, width)
    share = here if share is None else np.maximum(share, here)
  return share


def plate_share(plates, z, x, y, warp, width):
  """float32 [H, W] or None: share of each pixel inside plate atelectases."""
  share = None
  for plate in plates:
    dx, dy, dz = x - plate[0], y - plate[1], z - plate[2]
    if abs(dz) > plate[6]:
      continue
    off = np.abs(dx * plate[3] + dy * plate[4] + dz * plate[5] + 1.5 * warp)
    within = np.sqrt(dx * dx + dy * dy + dz * dz) - plate[6]
    here = shapes.soft_step(off - plate[7], width + 1) * shapes.soft_step(within, 8)
    share = here if share is None else np.maximum(share, here)
  return share


def _draw_blobs(case, chest, points, shape, rng):
  """Focal opacities whose joint volume meets the case's load."""
  places = points.places
  basal = shapes.ramp(-places[:, 2], -chest.top, -chest.bottom)
  posterior = shapes.ramp(places[:, 1], -chest.half_depth, chest.half_depth)
  weight = np.exp(-points.depth / 9) * (0.25 + basal) * (0.3 + posterior)
  count = int(rng.integers(1, 4 + int(60 * case.lesion_fraction)))
  chosen = rng.choice(len(places), count, p=weight / weight.sum())
  size = rng.lognormal(0, 0.35, (count, 1)) * rng.uniform(0.7, 1.3, (count, 3))
  wanted = case.lesion_fraction * len(places)
  low, high = 2.0, 90.0
  for _ in range(18):  # Bisection on one factor: every lesion keeps its form.
    factor = np.sqrt(low * high)
    inside = np.zeros(len(places), bool)
    for centre, radii in zip(places[chosen], size * factor):
      norm = np.sqrt((((places - centre) / radii) ** 2).sum(1))
      inside |= 1 - norm + 0.24 * shape > 0
    low, high = (factor, high) if inside.sum() < wanted else (low, factor)
  return np.concatenate([places[chosen], size * factor], 1)


def _draw_nodules(case, points, rng):
  chosen = rng.integers(0, len(points.places), case.nodules)
  return np.concatenate(
    [points.places[chosen], rng.uniform(1.5, 4, (case.nodules, 1))], 1
  )


def _draw_plates(case, chest, points, rng):
  low = points.places[:, 2] < chest.bottom + 0.45 * (chest.top - chest.bottom)
  basal = points.places[low & (points.depth > 4) & (points.depth < 35)]
  count = case.plate_atelectases
  centres = basal[rng.integers(0, len(basal), count)]
  normals = rng.normal(size=(count, 3)) * (0.6, 0.8, 0.7)
  normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
  return np.concatenate(
    [
      centres,
      normals,
      rng.uniform(14, 32, (count, 1)),
      rng.uniform(0.8, 2.2, (count, 1)),
    ],
    1,
  )
