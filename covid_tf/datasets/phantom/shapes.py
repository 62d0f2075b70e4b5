"""What phantoms are made of: contours, grids, random fields and branching trees."""

import dataclasses

import numpy as np

# Contours and distances that the organs are made of; millimetres throughout.

_ANGLES = 720


def ramp(value, start, end):
  """0 below start, 1 above end, smooth between."""
  t = np.clip((value - start) / (end - start), 0, 1)
  return t * t * (3 - 2 * t)


def smooth_min(a, b, blend):
  """min(a, b) with the corner rounded over `blend`: organs that touch merge."""
  h = np.maximum(blend - np.abs(a - b), 0) / blend
  return np.minimum(a, b) - h * h * (blend / 4)


def smooth_max(a, b, blend):
  """max(a, b) with the corner rounded over `blend`."""
  return -smooth_min(-a, -b, blend)


def ellipse(x, y, centre, radii, tilt=0.0):
  """Approximate signed distance to an ellipse, negative inside."""
  dx, dy = x - centre[0], y - centre[1]
  if tilt:
    cos, sin = np.cos(tilt), np.sin(tilt)
    dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
  norm = np.sqrt((dx / radii[0]) ** 2 + (dy / radii[1]) ** 2)
  return (norm - 1) * min(radii)


def window(x, y, centre, reach):
  """(rows, columns) slices of the plane that hold centre +- reach.

  Args:
    x, y: float32 [H, W], coordinates, bent by a few millimetres at most.
    centre, reach: (x, y) in millimetres.
  """
  spans = []
  for line, middle, half in (
    (y[:, y.shape[1] // 2], centre[1], reach[1]),
    (x[x.shape[0] // 2], centre[0], reach[0]),
  ):
    first, last = np.searchsorted(line, (middle - half - 12, middle + half + 12))
    spans.append(slice(int(first), int(last)))
  return tuple(spans)


def mix(hu, value, share) -> None:
  """Moves hu towards value by share, in place: how every organ is drawn."""
  hu += (value - hu) * share


class Polar:
  """A slice in polar coordinates, for contours given by radius over angle.

  The angle is 0 at the back, positive towards the patient's left, +-pi in front.

  Attributes:
    angles: float32 [720], where a contour is tabulated.
    radius: float32 [H, W], distance from the centre.
  """

  angles = np.linspace(-np.pi, np.pi, _ANGLES, dtype=np.float32)

  def __init__(self, x, y, centre=(0.0, 0.0)):
    dx, dy = x - centre[0], y - centre[1]
    self.radius = np.hypot(dx, dy)
    angle = np.arctan2(dx, dy)
    self._index = np.rint((angle + np.pi) * ((_ANGLES - 1) / (2 * np.pi))).astype(
      np.int16
    )

  def table(self, values):
    """Values float32 [720] over the angle, spread to [H, W]."""
    return np.take(values.astype(np.float32), self._index)

  def outside(self, contour):
    """Radial distance to a contour float32 [720], negative inside."""
    return self.radius - self.table(contour)


def superellipse(half_width, half_depth, exponent):
  """float32 [720]: radius of a superellipse over the angle."""
  sin, cos = np.abs(np.sin(Polar.angles)), np.abs(np.cos(Polar.angles))
  return ((sin / half_width) ** exponent + (cos / half_depth) ** exponent) ** (
    -1 / exponent
  )


# Where voxels lie, and random fields that are the same on every grid.

REACH_MM = 260.0  # Fields cover [-REACH_MM, REACH_MM] on every axis.


@dataclasses.dataclass(frozen=True)
class Grid:
  """Voxel centres in patient millimetres (LPS), origin at the carina's level.

  Attributes:
    z: float32 [S], ascending: towards the head.
    y: float32 [H, 1], ascending: towards the back.
    x: float32 [1, W], ascending: towards the patient's left.
    thickness_mm: what a slice averages over.
  """

  z: np.ndarray
  y: np.ndarray
  x: np.ndarray
  thickness_mm: float

  @property
  def shape(self) -> tuple[int, int, int]:
    return len(self.z), self.y.shape[0], self.x.shape[1]

  @property
  def pixel_mm(self) -> float:
    return float(self.x[0, 1] - self.x[0, 0])


def make_grid(bottom_mm, top_mm, spacing_mm, thickness_mm, matrix, pixel_mm) -> Grid:
  """A centred grid whose slices cover [bottom, top]."""
  count = int(np.ceil((top_mm - bottom_mm) / spacing_mm)) + 1
  bottom_mm = round(bottom_mm, 1)  # A position that DICOM's decimal string holds.
  z = bottom_mm + spacing_mm * np.arange(count)
  in_plane = (np.arange(matrix) - (matrix - 1) / 2) * pixel_mm
  return Grid(
    z.astype(np.float32),
    in_plane.astype(np.float32)[:, np.newaxis],
    in_plane.astype(np.float32)[np.newaxis],
    float(thickness_mm),
  )


class SmoothField:
  """A random field with unit variance and one length scale, by seed.

  Coefficients on a fixed lattice, cubic B-splines between: any grid sees the
  same field. The splines separate, so a slice costs two small matrix products.
  """

  def __init__(self, seed, stream: int, scale_mm: float, grid: Grid):
    """Draws the field; `scale_mm` is the lattice step, about half a wavelength."""
    count = int(2 * REACH_MM / scale_mm) + 4
    rng = np.random.default_rng([seed, stream])
    # A B-spline's squares sum to 0.479 on average: three axes, unit variance.
    scale = np.float32(0.479**-1.5)
    self._coefficients = scale * rng.standard_normal((count,) * 3, np.float32)
    self._along_z = _basis(grid.z, scale_mm, count)
    self._along_y = _basis(grid.y[:, 0], scale_mm, count)
    self._along_x = _basis(grid.x[0], scale_mm, count)

  def on_slice(self, index: int) -> np.ndarray:
    """float32 [H, W] on one slice of the grid."""
    weights = self._along_z[index]
    near = np.flatnonzero(weights)
    lattice = np.tensordot(weights[near], self._coefficients[near], 1)
    return self._along_y @ lattice @ self._along_x.T


def _basis(position_mm, scale_mm, count):
  """float32 [positions, count]: cubic B-spline weights, four a row."""
  place = np.clip((position_mm + REACH_MM) / scale_mm, 0, count - 4 - 1e-3)
  first = place.astype(int)
  t = (place - first)[:, np.newaxis]
  weights = (
    np.concatenate(
      [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3],
      axis=1,
    )
    / 6
  )
  matrix = np.zeros((len(place), count), np.float32)
  np.put_along_axis(matrix, first[:, np.newaxis] + np.arange(4), weights, 1)
  return matrix


def soft_step(distance, width):
  """1 inside (distance < 0), 0 outside, linear over `width`: partial volume."""
  return np.clip(0.5 - distance / width, 0, 1)


# Vessels and airways of the lungs: trees that supply every part of them.


@dataclasses.dataclass(frozen=True)
class Tree:
  """Cones from a hilum to the periphery.

  Attributes:
    start, end: float64 [n, 3], millimetres (x, y, z).
    radius: float64 [n, 2], at start and end.
  """

  start: np.ndarray
  end: np.ndarray
  radius: np.ndarray


def grow(root, points, leaf_count, root_radius, rng) -> Tree:
  """Grows a tree that splits the points it supplies until few are left.

  Every node runs half way to the centre of its points, then halves them across
  their longest direction; the radius follows the supplied share (Murray's cube
  law), so branches taper as real ones do.

  Args:
    root: (x, y, z) of the hilum.
    points: float64 [n, 3], places inside the lung to be reached.
    leaf_count: about how many ends.
    root_radius: at the hilum.
    rng: numpy Generator.
  """
  smallest = max(len(points) / leaf_count, 2)
  segments, stack = [], [(np.asarray(root, float), points, root_radius)]
  while stack:
    here, supplied, radius = stack.pop()
    centre = supplied.mean(0)
    if len(supplied) < smallest:
      segments.append((here, centre, radius, radius * 0.6))
      continue
    there = here + (centre - here) * rng.uniform(0.35, 0.6)
    there += rng.normal(0, 0.06, 3) * np.linalg.norm(there - here)
    segments.append((here, there, radius, radius * 0.92))
    spread = supplied - centre
    moments = spread.T @ spread
    direction = moments @ (moments @ rng.normal(0, 1, 3))
    side = spread @ direction
    rank = int(rng.uniform(0.35, 0.65) * len(side))
    cut = np.partition(side, rank)[rank]
    for part in (supplied[side < cut], supplied[side >= cut]):
      if len(part):
        share = (len(part) / len(supplied)) ** (1 / 2.8)
        stack.append((there, part, radius * share * 0.97))
  start, end, first, last = zip(*segments)
  return Tree(np.array(start), np.array(end), np.stack([first, last], 1))


def join(trees) -> Tree:
  """One tree of several."""
  return Tree(
    *(
      np.concatenate([getattr(tree, name) for tree in trees])
      for name in ('start', 'end', 'radius')
    )
  )


def draw_tree(tree: Tree, grid: Grid, grow_mm=0.0, smallest_mm=0.0) -> np.ndarray:
  """uint8 [S, H, W]: share of every voxel inside the tree, 255 for all of it.

  A slice is thick beside a vessel: the tree is drawn on thinner sheets, which
  are averaged, so that a vessel crossing a slice fades as in a real one.

  Args:
    tree: what to draw.
    grid: where.
    grow_mm: added to every radius.
    smallest_mm: cones whose radius at the start is below it are left out.
  """
  sheets = max(1, int(np.ceil(grid.thickness_mm / 2.5)))
  step = grid.thickness_mm / sheets
  offsets = (np.arange(sheets) - (sheets - 1) / 2) * step
  heights = (grid.z[:, np.newaxis] + offsets).astype(np.float32)
  share = np.zeros((len(grid.z), sheets) + grid.shape[1:], np.uint8)
  width = max(grid.pixel_mm, 0.8)
  keep = tree.radius[:, 0] >= smallest_mm
  radius = tree.radius[keep] + grow_mm
  for a, b, (first, last) in zip(tree.start[keep], tree.end[keep], radius):
    _draw_cone(
      share,
      heights,
      grid,
      a.astype(np.float32),
      b.astype(np.float32),
      float(first),
      float(last),
      width,
      step,
    )
  if sheets == 1:
    return share[:, 0]
  return share.mean(1, dtype=np.float32).astype(np.uint8)


def _draw_cone(share, heights, grid, a, b, first, last, width, step):
  reach = max(first, last) + width
  low, high = np.minimum(a, b) - reach, np.maximum(a, b) + reach
  near = (heights[:, -1] >= low[2] - step) & (heights[:, 0] <= high[2] + step)
  slices = np.flatnonzero(near)
  columns = np.searchsorted(grid.x[0], (low[0], high[0]))
  rows = np.searchsorted(grid.y[:, 0], (low[1], high[1]))
  if not len(slices) or columns[0] == columns[1] or rows[0] == rows[1]:
    return
  box = (slice(slices[0], slices[-1] + 1), slice(None), slice(*rows), slice(*columns))
  axis = b - a
  length = max(float(axis @ axis), 1e-6)
  dx = grid.x[:, box[3]] - a[0]
  dy = grid.y[box[2]] - a[1]
  dz = (heights[box[0]] - a[2])[:, :, np.newaxis, np.newaxis]
  t = ((dx * axis[0] + dy * axis[1]) + dz * axis[2]) * np.float32(1 / length)
  np.clip(t, 0, 1, out=t)
  square = (dx - t * axis[0]) ** 2
  square += (dy - t * axis[1]) ** 2
  square += (dz - t * axis[2]) ** 2
  np.sqrt(square, out=square)
  square -= t * np.float32(last - first) + np.float32(first)
  square *= np.float32(-255 / width)
  # A vessel thinner than a pixel is fainter, not absent.
  thin = min(1.0, (2 * max(first, last) / width) ** 2)
  square += 127.5
  np.clip(square, 0, 255, out=square)
  view = share[box]
  np.maximum(view, (square * np.float32(thin)).astype(np.uint8), out=view)
