"""Vessels and airways of the lungs: trees that supply every part of them."""

import dataclasses

import numpy as np

from covid_tf.datasets.phantom import grid as grid_lib


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
        share = (len(part) / len(supplied))**(1 / 2.8)
        stack.append((there, part, radius * share * 0.97))
  start, end, first, last = zip(*segments)
  return Tree(np.array(start), np.array(end), np.stack([first, last], 1))


def join(trees) -> Tree:
  """One tree of several."""
  return Tree(*(np.concatenate([getattr(tree, name) for tree in trees])
                for name in ('start', 'end', 'radius')))


def draw_tree(tree: Tree, grid: grid_lib.Grid, grow_mm=0.0,
              smallest_mm=0.0) -> np.ndarray:
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
    _draw_cone(share, heights, grid, a.astype(np.float32), b.astype(np.float32),
               float(first), float(last), width, step)
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
  square = (dx - t * axis[0])**2
  square += (dy - t * axis[1])**2
  square += (dz - t * axis[2])**2
  np.sqrt(square, out=square)
  square -= t * np.float32(last - first) + np.float32(first)
  square *= np.float32(-255 / width)
  # A vessel thinner than a pixel is fainter, not absent.
  thin = min(1.0, (2 * max(first, last) / width)**2)
  square += 127.5
  np.clip(square, 0, 255, out=square)
  view = share[box]
  np.maximum(view, (square * np.float32(thin)).astype(np.uint8), out=view)
