"""Which pieces of the network's masks are lung: by size, place and gas.

Bowel under the diaphragm, the windpipe above the lungs and air beside the patient
are gas too, and a network marks some of it. A piece is never asked to be aerated: a
consolidated one is lung wherever a lung can lie. Every constant is ours; the paper
crops by the masks as they come (docs/adr/0117).
"""

from collections.abc import Iterator
import dataclasses

from nibabel import orientations
import numpy as np
from scipy import ndimage

from covid_tf import components

# Less of the largest piece changes neither box nor volume by more than noise.
_SMALLEST_SHARE = 0.01
# A piece as large as this, of the largest, may be the first lung in its place.
_RIVAL_SHARE = 0.25
# Half of a piece below: plain gas. Emphysema is denser (cip-ct64, a patient with
# COPD: median -918 HU), air and bowel gas lie about -1000.
_PLAIN_GAS_HU = -970
# Bowel under a dome ends below the middle of the lungs' height.
_LOW = 0.5
# Of the lungs' depth, and of their height: what is clearly before, behind or away.
_MARGIN = 0.1
# So much of a piece with lung behind it lies under the dome, wrapped by the recess.
_WRAPPED = 0.5
# The pieces are looked at on a grid of about this; the rules are no finer.
_GRID_MM = 4.0
# The largest pieces are looked at; lungs in more are no lungs to measure.
_MOST_PIECES = 100
# Half the width of a bridge from lung to bowel that is taken for no lung.
_NECK_MM = 5.0
# Smaller knobs, up to 1.8 cm³, hang on every lung that was looked at.
_HANGING_CM3 = 3.0


@dataclasses.dataclass(frozen=True)
class _Grid:
  """The labelled pieces on a coarse grid along the patient's axes.

  Attributes:
    labels: uint8 [z, y, x], 1 + the piece, by size, 0 for none; z to the head, y to
      the back, x to the left.
    hu: int16 [z, y, x], or None.
    steps_mm: float [3], between its voxels.
    order: the array axes of the mask that run along z, y and x.
    flips: the axes of [z, y, x] that the mask has the other way.
    strides: every how many voxels of the mask.
  """

  labels: np.ndarray
  hu: np.ndarray | None
  steps_mm: np.ndarray
  order: tuple[int, int, int]
  flips: tuple[int, ...]
  strides: tuple[int, int, int]

  def to_mask_axes(self, grid: np.ndarray) -> np.ndarray:
    """[z, y, x] to the coarse [slice, row, column] of the mask."""
    return np.transpose(np.flip(grid, self.flips), np.argsort(self.order))


@dataclasses.dataclass(frozen=True)
class _Place:
  """Where a set of voxels lies, in steps of the grid; see `_Grid` for the axes."""

  centre: np.ndarray
  low: np.ndarray
  high: np.ndarray

  @property
  def length(self) -> np.ndarray:
    return self.high - self.low + 1


def keep_lungs(
    mask: np.ndarray, affine: np.ndarray | None = None,
    hu: np.ndarray | None = None) -> np.ndarray:
  """Reduces the network's masks, in place, to what is lung.

  The first lung is the largest piece that does not lie under another large one.
  Every other piece of at least 1 % of it is lung, too, unless it is plain gas, lies
  above the lungs, before or behind them, or is bowel by its place (`_is_abdominal`).
  What hangs on a lung by a bridge narrower than 1 cm is judged as a piece of
  its own, and must in addition be plain gas or reach below the lung.

  Args:
    mask: uint8 [slice, row, column], 0 or 1.
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres. None:
      slices run to the head, rows to the back; bridges are not looked for.
    hu: int16 [slice, row, column]. None: nothing is known to be plain gas.

  Returns:
    `mask`.
  """
  pieces = components.find_pieces(mask)
  if not len(pieces.sizes):
    return mask
  largest = pieces.largest(_MOST_PIECES)
  grid = _coarse_grid(pieces, largest, affine, hu)
  chosen = _lung_pieces(pieces.sizes[largest], grid)
  pieces.keep(largest[chosen], mask)
  lungs = np.isin(grid.labels, np.array(chosen) + 1)
  if affine is not None and lungs.any():
    _cut_bridges(mask, grid, lungs)
  return mask


def _coarse_grid(pieces, largest, affine, hu) -> _Grid:
  if affine is None:
    affine = np.diag((1.0, 1, 1, 1))[[2, 1, 0, 3]]  # Slice to z, row to y, column to x.
    strides = (1, 1, 1)
  else:
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    strides = tuple(max(1, round(_GRID_MM / step)) for step in steps)
  orientation = orientations.io_orientation(affine)
  order = tuple(
      int(np.flatnonzero(orientation[:, 0] == world)[0]) for world in (2, 1, 0))
  flips = tuple(axis for axis in range(3) if orientation[order[axis], 1] < 0)
  labels = np.flip(np.transpose(pieces.sampled(largest, strides), order), flips)
  if hu is not None:
    hu = hu[::strides[0], ::strides[1], ::strides[2]]
    hu = np.flip(np.transpose(hu, order), flips)
  steps_mm = np.linalg.norm(affine[:3, :3], axis=0) * strides
  return _Grid(labels, hu, steps_mm[list(order)], order, flips, strides)


def _lung_pieces(sizes, grid) -> list[int]:
  """The pieces that are lung, the first lung first; `sizes` are in falling order."""
  first = _first_lung(np.flatnonzero(sizes >= _RIVAL_SHARE * sizes[0]), grid)
  chosen, lungs = [first], grid.labels == first + 1
  if not lungs.any():
    return chosen  # Too small for the grid: far below what makes lungs.
  for piece in np.flatnonzero(sizes >= _SMALLEST_SHARE * sizes[first]):
    own = grid.labels == piece + 1
    if piece != first and own.any() and _may_be_lung(own, lungs, grid):
      chosen.append(piece)
      lungs |= own
  return chosen


def _first_lung(rivals, grid) -> int:
  """The largest of the rivals that is neither plain gas nor bowel under another."""
  places = {piece: grid.labels == piece + 1 for piece in rivals}
  real = [piece for piece, own in places.items()
          if own.any() and not _is_plain_gas(own, grid)]
  for piece in real:
    if not any(_is_abdominal(places[piece], places[other])
               for other in real if other != piece):
      return piece
  return real[0] if real else rivals[0]


def _may_be_lung(own, lungs, grid) -> bool:
  if _is_plain_gas(own, grid) or _is_abdominal(own, lungs):
    return False
  here, there = _place(own), _place(lungs)
  margin = _MARGIN * there.length[1]
  return (here.centre[0] <= there.high[0]
          and there.low[1] - margin <= here.centre[1] <= there.high[1] + margin)


def _is_plain_gas(own, grid) -> bool:
  return grid.hu is not None and np.median(grid.hu[own]) < _PLAIN_GAS_HU


def _is_abdominal(own, lungs) -> bool:
  """Whether a piece is bowel by its place.

  It ends below the middle of the lungs' height and lies in front, where the dome
  stands and gas rises to in a supine patient, or has lung behind most of it, the
  recess that wraps the dome. What lies wholly below the lungs is lung only where a
  recess can be: near them and clearly behind their centre.
  """
  here, there = _place(own), _place(lungs)
  margin = _MARGIN * there.length
  if here.high[0] >= there.low[0] + _LOW * there.length[0]:
    return False
  backward = here.centre[1] - there.centre[1]
  if here.high[0] < there.low[0]:
    gap = there.low[0] - here.high[0] - 1
    return gap > margin[0] or backward < margin[1]
  behind = np.logical_or.accumulate(lungs[:, ::-1], axis=1)[:, ::-1]
  return backward < -margin[1] or behind[own].mean() >= _WRAPPED


def _place(own) -> _Place:
  sums = [own.any(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
  ends = [np.flatnonzero(line)[[0, -1]] for line in sums]
  counts = [own.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
  centre = [np.average(np.arange(len(line)), weights=line) for line in counts]
  low, high = np.transpose(ends)
  return _Place(np.array(centre), low, high)


def _cut_bridges(mask, grid, lungs) -> None:
  """Takes bowel that hangs on a lung by a narrow bridge out of the mask."""
  for hanging in _hanging(lungs, grid.steps_mm):
    rest = lungs & ~hanging
    if _is_abdominal(hanging, rest) and (
        _is_plain_gas(hanging, grid)
        or _place(hanging).centre[0] < _place(rest).low[0]):
      lungs = rest
      _clear(mask, grid.to_mask_axes(hanging), grid.strides)


def _hanging(lungs, steps_mm) -> Iterator[np.ndarray]:
  """bool [z, y, x]: what hangs on the lungs' upper half by narrow bridges alone."""
  place = _place(lungs)
  box = tuple(slice(max(0, low - 1), high + 2)
              for low, high in zip(place.low, place.high))
  top = int(place.low[0] + _LOW * place.length[0]) + 1
  box = (slice(box[0].start, top), *box[1:])
  part = lungs[box]
  # The lungs go on beyond the box's top: what lies outside takes nothing away.
  cores, count = ndimage.label(ndimage.binary_erosion(
      part, _ball(steps_mm, _NECK_MM), border_value=1))
  above = np.unique(cores[-1])  # These go on in the upper half.
  if np.isin(cores, above).all():  # Holds 0, what is no core.
    return
  nearest = ndimage.distance_transform_edt(
      cores == 0, steps_mm, return_distances=False, return_indices=True)
  owner = np.where(part, cores[tuple(nearest)], 0)
  volumes_cm3 = np.bincount(owner.ravel()) * np.prod(steps_mm) / 1000
  for core in range(1, count + 1):
    if core not in above and volumes_cm3[core] >= _HANGING_CM3:
      hanging = np.zeros_like(lungs)
      hanging[box] = owner == core
      yield hanging


def _ball(steps_mm, radius_mm) -> np.ndarray:
  """bool [z, y, x]: the voxels of a ball, its centre in the middle."""
  reach = [int(radius_mm / step) for step in steps_mm]
  offsets = np.meshgrid(*(
      np.arange(-many, many + 1) * step for many, step in zip(reach, steps_mm)),
                        indexing='ij')
  return np.sum(np.square(offsets), axis=0) <= radius_mm**2


def _clear(mask, coarse, strides) -> None:
  """Zeroes the voxels of `mask` whose coarse voxel is set."""
  for index in np.flatnonzero(coarse.any(axis=(1, 2))):
    plane = coarse[index].repeat(strides[1], axis=0).repeat(strides[2], axis=1)
    slices = slice(index * strides[0], (index + 1) * strides[0])
    mask[slices] &= ~plane[:mask.shape[1], :mask.shape[2]]
