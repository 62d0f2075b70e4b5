"""From a case to a chest: every slice composed from wall to lungs to disease."""

import dataclasses

import numpy as np
from scipy import ndimage

from covid_tf import volume as volume_lib
from covid_tf.datasets.phantom import anatomy
from covid_tf.datasets.phantom import case as case_lib
from covid_tf.datasets.phantom import lesions
from covid_tf.datasets.phantom import mediastinum
from covid_tf.datasets.phantom import shapes

# What the scanner adds: table, blur, noise, motion, the scan circle.

_STREAM = 105


def table_share(x, y, top_mm, width):
  """float32 [H, W]: share of a pixel in the table's shell, below the back."""
  sag = (x / 215) ** 2
  shell = np.abs(y - (top_mm + 14 - 8 * sag)) - 1.2
  under = np.abs(y - (top_mm + 52 - 42 * sag)) - 1.2
  inside = np.abs(x) < 215
  return np.clip(0.5 - np.minimum(shell, under) / width, 0, 1) * inside


def acquire(hu: np.ndarray, case, grid, scan: int = 0) -> np.ndarray:
  """int16 [S, H, W]: a scan of ideal HU float32 [S, H, W] (overwritten)."""
  # The first scan keeps the noise it had before there were others.
  rng = np.random.default_rng([case.seed, _STREAM] + [scan] * bool(scan))
  pixel = grid.pixel_mm
  smooth = (0.75 - 0.35 * case.kernel_sharpness) / pixel
  falloff = 1 + 0.45 * np.exp(-(grid.x**2 + grid.y**2) / 90**2)
  circle = grid.x**2 + grid.y**2 > (len(grid.y) * pixel / 2) ** 2
  acquired = np.empty(hu.shape, np.int16)
  for index, plane in enumerate(hu):
    if case.motion_mm:
      plane = _move(plane, case.motion_mm, grid, index)
    if smooth > 0.2:
      plane = ndimage.gaussian_filter(plane, smooth)
    if case.kernel_sharpness > 0.5:
      edge = plane - ndimage.gaussian_filter(plane, 1.1 / pixel)
      plane = plane + (case.kernel_sharpness - 0.5) * edge
    plane = plane + case.noise_hu * 0.7 * falloff * _noise(
      plane.shape, case.kernel_sharpness, pixel, rng
    )
    if case.padded:
      plane[circle] = volume_lib.AIR_HU
    acquired[index] = np.clip(np.rint(plane), volume_lib.AIR_HU, 3071)
  return acquired


def _noise(shape, sharpness, pixel, rng):
  """float32 [H, W]: unit noise, correlated as a reconstruction kernel leaves it."""
  grain = rng.standard_normal(shape, np.float32)
  sigma = (1.05 - 0.45 * sharpness) / pixel
  if sigma < 0.25:
    return grain
  soft = ndimage.gaussian_filter(grain, sigma, mode='wrap')
  # The ramp of filtered backprojection leaves little of the lowest frequencies.
  soft -= 0.8 * ndimage.gaussian_filter(soft, 2.5 * sigma, mode='wrap')
  return soft / soft.std()


def _move(plane, motion_mm, grid, index):
  """Two phases of a breath in one slice: strongest in the lower half."""
  fall = 1 - index / len(grid.z)
  shift = motion_mm * fall / grid.pixel_mm
  return 0.55 * plane + 0.45 * ndimage.shift(
    plane, (-shift, 0.4 * shift), order=1, mode='nearest'
  )


# One slice of a phantom on its grid: coordinates, random fields, distances.

_FIELD_SCALES_MM = {  # Lattice step of each random field.
  'warp_x': 34,
  'warp_y': 34,
  'shape': 11,
  'broad': 9,
  'fine': 4.5,
  'reticulum': 5.5,
  'blotches': 8,
  'patch': 24,
}


class Fields:
  """The random fields of one phantom on one grid."""

  def __init__(self, case, grid):
    self._case, self._grid, self._fields = case, grid, {}

  def __call__(self, name, index):
    if name not in self._fields:  # Not every phantom needs every field.
      stream = 200 + list(_FIELD_SCALES_MM).index(name)
      self._fields[name] = shapes.SmoothField(
        self._case.seed, stream, _FIELD_SCALES_MM[name], self._grid
      )
    return self._fields[name].on_slice(index)


class Plane:
  """Coordinates, fields and distances of one slice, each [H, W]."""

  def __init__(self, chest, grid, index, fields):
    self.z = float(grid.z[index])
    self.pixel = grid.pixel_mm
    self.thickness = grid.thickness_mm
    self.field = lambda name: fields(name, index)
    # Real organs are no ellipses: coordinates bend by a few millimetres.
    self.x = grid.x + 3.0 * fields('warp_x', index)
    self.y = grid.y + 3.0 * fields('warp_y', index)
    self.polar = shapes.Polar(self.x, self.y)
    self.wall = anatomy.pleura_distance(chest, self.z, self.polar)
    self.tubes = mediastinum.near_tubes(chest, self.z, self.x, self.y)
    middle = mediastinum.mediastinum_distance(chest, self.z, self.x, self.y, self.tubes)
    self.diaphragm = anatomy.diaphragm_height(chest, self.x, self.y)
    self.lung = anatomy.lung_distance(
      chest, self.z, self.x, self.y, self.wall, middle, self.diaphragm
    )
    self.true_x, self.true_y = grid.x, grid.y


_TREE_STREAM = 103


@dataclasses.dataclass(frozen=True)
class Phantom:
  """A made-up chest CT with its exact truth. A phantom, not a patient.

  Attributes:
    volume: the CT, slice 0 the lowest.
    lung_mask: uint8 [S, H, W], 1 in the lungs, diseased parts included.
    lesion_mask: uint8 [S, H, W], 1 in ground glass and consolidation; a part of
      lung_mask.
    kind: 'none', 'focal' or 'diffuse'.
    case: the recipe.
    findings: where disease and look-alikes were put.
  """

  volume: volume_lib.CTVolume
  lung_mask: np.ndarray
  lesion_mask: np.ndarray
  kind: str
  case: case_lib.PhantomCase
  findings: lesions.Findings


def generate(
  case: case_lib.PhantomCase, shift_mm: float = 0.0, scan: int = 0
) -> Phantom:
  """Draws the phantom of a case; the same arguments give the same voxels.

  Args:
    case: its recipe.
    shift_mm: how far slices lie nearer to the head: the same chest, other positions.
    scan: number of the scan, each with noise of its own.
  """
  chest = anatomy.draw_anatomy(case)
  grid = shapes.make_grid(
    chest.bottom - 14 + shift_mm,
    chest.top + 12 + shift_mm,
    case.slice_spacing_mm,
    case.slice_thickness_mm,
    case.matrix,
    case.pixel_spacing_mm,
  )
  points, shape = _sample_lungs(case, chest)
  findings = lesions.place(case, chest, points, shape)
  vessels, airways = _grow_trees(case, chest, points)
  vessel_share = shapes.draw_tree(vessels, grid)
  lumen_share = shapes.draw_tree(airways, grid, smallest_mm=0.8)
  wall_share = shapes.draw_tree(airways, grid, grow_mm=0.9, smallest_mm=0.8)
  fields = Fields(case, grid)
  hu = np.empty(grid.shape, np.float32)
  lung_mask = np.zeros(grid.shape, np.uint8)
  lesion_mask = np.zeros(grid.shape, np.uint8)
  for index in range(len(grid.z)):
    plane = Plane(chest, grid, index, fields)
    hu[index] = _draw_outside(case, chest, plane)
    lung, lesion = _draw_lungs(
      hu[index],
      case,
      chest,
      plane,
      findings,
      vessel_share[index],
      lumen_share[index],
      wall_share[index],
    )
    lung_mask[index], lesion_mask[index] = lung, lesion
  return Phantom(
    volume_lib.CTVolume(acquire(hu, case, grid, scan), _affine(case, grid)),
    lung_mask,
    lesion_mask,
    case.kind,
    case,
    findings,
  )


def _sample_lungs(case, chest):
  """Points of the lungs on a fixed lattice, and the lesions' field there."""
  grid = shapes.make_grid(chest.bottom, chest.top, 6.0, 6.0, 72, 5.0)
  fields = Fields(case, grid)
  places, depth, shape = [], [], []
  for index in range(len(grid.z)):
    plane = Plane(chest, grid, index, fields)
    rows, columns = np.nonzero(plane.lung < 0)
    height = np.full(len(rows), plane.z)
    places.append(
      np.stack([grid.x[0, columns], grid.y[rows, 0], height], 1).astype(float)
    )
    depth.append(-plane.wall[rows, columns].astype(float))
    shape.append(_shape(case, plane)[rows, columns].astype(float))
  points = lesions.LungPoints(
    np.concatenate(places), np.concatenate(depth), 5.0 * 5.0 * 6.0
  )
  return points, np.concatenate(shape)


def _grow_trees(case, chest, points):
  """Arteries and veins as one tree, and the airways beside the arteries."""
  rng = np.random.default_rng([case.seed, _TREE_STREAM])
  reach = points.places[points.depth > 5]
  vessels, airways = [], []
  for hilum, side in zip(mediastinum.hila(chest), (-1, 1)):
    supplied = reach[reach[:, 0] * side > 0]
    calibre = 6.2 * case.vessel_calibre
    arteries = shapes.grow(hilum, supplied, 380, calibre, rng)
    veins = shapes.grow(hilum + (0, -2, -14), supplied, 280, calibre * 0.9, rng)
    # A bronchus runs beside its artery and is about as wide.
    beside = arteries.radius[:, :1] * 1.9 * np.array((0.55 * side, 0.7, 0.45))
    airways.append(
      shapes.Tree(
        arteries.start + beside, arteries.end + beside, arteries.radius * 0.72
      )
    )
    vessels += [arteries, veins]
  for points_, radii in mediastinum.airway_tubes(chest):
    chain = np.asarray(points_, float)
    airways.append(
      shapes.Tree(chain[:-1], chain[1:], np.stack([radii[:-1], radii[1:]], 1))
    )
  return shapes.join(vessels), shapes.join(airways)


def _draw_outside(case, chest, plane):
  """float32 [H, W] HU of everything but the lungs."""
  blotches = plane.field('blotches')
  hu = anatomy.draw_wall(
    chest,
    plane.z,
    plane.polar,
    plane.x,
    plane.y,
    plane.field('warp_x') + 0.15 * blotches,
    plane.thickness,
    plane.pixel,
  )
  inside = shapes.soft_step(plane.wall + 1.5, plane.pixel)
  mediastinum.draw_mediastinum(
    hu, chest, plane.z, plane.x, plane.y, plane.tubes, inside, blotches, plane.pixel
  )
  # Partial volume: a thick slice sees lung and liver where the dome crosses it.
  below = inside * np.clip(0.5 + (plane.diaphragm - plane.z) / plane.thickness, 0, 1)
  if below.any():
    mediastinum.draw_abdomen(
      hu, chest, plane.x, plane.y, plane.tubes, below, blotches, plane.pixel
    )
  anatomy.draw_spine(hu, chest, plane.z, plane.x, plane.y, plane.pixel)
  back = anatomy.back_depth(chest)
  table = table_share(plane.true_x, plane.true_y, back, plane.pixel)
  hu += (-250 - hu) * table * (hu < -900)
  return hu


def _draw_lungs(hu, case, chest, plane, findings, vessels, lumen, airway_wall):
  """Draws lung, disease, vessels and airways over hu; gives both masks."""
  aerated = shapes.soft_step(plane.lung, plane.pixel)
  vessels, lumen, airway_wall = (
    share.astype(np.float32) / 255 for share in (vessels, lumen, airway_wall)
  )
  fine, broad = plane.field('fine'), plane.field('broad')
  tissue = anatomy.parenchyma_hu(
    case, chest, plane.z, plane.x, plane.y, -plane.lung, plane.field('blotches'), fine
  )
  tissue += 110 * anatomy.fissure_share(
    chest, plane.z, plane.x, plane.y, 3 * plane.field('warp_y'), plane.thickness
  )
  plates = lesions.plate_share(
    findings.plates, plane.z, plane.x, plane.y, broad, plane.pixel
  )
  if plates is not None:
    tissue += (-60 - tissue) * plates
  level = _disease_level(case, chest, plane, findings)
  lesion = np.zeros(hu.shape, bool)
  if level is not None:
    lesion = (level > 0) & (plane.lung < 0)
    septa = 0.0
    if case.crazy_paving:
      septa = np.clip(1 - np.abs(plane.field('reticulum')) * 3.2, 0, 1)
    sick = lesions.disease_hu(case, level, broad, fine, septa)
    tissue += (np.maximum(sick, tissue) - tissue) * np.clip(0.5 + level * 9, 0, 1)
  nodules = lesions.nodule_share(
    findings.nodules, plane.z, plane.x, plane.y, plane.thickness, plane.pixel
  )
  if nodules is not None:
    vessels = np.maximum(vessels, nodules)
  tissue += np.maximum(40 - tissue, 0) * np.maximum(vessels, 0.75 * airway_wall)
  hu += (tissue - hu) * aerated
  hu += (-985 - hu) * lumen
  return plane.lung < 0, lesion


def _shape(case, plane):
  """The field that roughens focal lesions, or that diffuse disease follows."""
  if case.kind == 'diffuse':  # Confluent patches with a ragged border.
    return 0.45 * plane.field('shape') + 0.9 * plane.field('patch')
  return plane.field('shape')


def _disease_level(case, chest, plane, findings):
  """Level above 0 inside lesions, or None where the slice has none."""
  if findings.diffuse_level is not None:
    return 0.6 * (
      lesions.diffuse_field(
        chest, plane.z, plane.true_y, -plane.wall, _shape(case, plane)
      )
      - findings.diffuse_level
    )
  return lesions.focal_field(
    findings.blobs, plane.z, plane.true_x, plane.true_y, plane.field('shape')
  )


def _affine(case, grid):
  """Index (slice, row, column, 1) to LPS millimetres, to a tenth of a micrometre."""
  pixel = case.pixel_spacing_mm
  corner = -(case.matrix - 1) / 2 * pixel
  affine = np.eye(4)
  affine[:3, :3] = (0, 0, pixel), (0, pixel, 0), (case.slice_spacing_mm, 0, 0)
  affine[:3, 3] = corner, corner, float(grid.z[0])
  return np.round(affine, 4)
