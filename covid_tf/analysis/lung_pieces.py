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
import scipy.sparse
import scipy.sparse.csgraph

# The connected pieces of a 3D mask, without a 3D label array.
#
# A labelled volume takes four bytes a voxel: twice the CT itself. Lungs are a few
# hundred thousand runs along the rows instead, joined as a sparse graph.


@dataclasses.dataclass(frozen=True)
class _Runs:
  """Stretches of set voxels along the rows, in order.

  Positions count over a grid padded by a column on both sides and a row at the
  end of every slice, so that a run ends with its row and the neighbour below or
  above is always at a fixed distance.

  Attributes:
    starts: int64 [R], first position of each run.
    ends: int64 [R], the position after its last.
    row_stride: distance to the same column of the next row.
    slice_stride: distance to the same place of the next slice.
  """

  starts: np.ndarray
  ends: np.ndarray
  row_stride: int
  slice_stride: int


@dataclasses.dataclass(frozen=True)
class Pieces:
  """The connected components of a mask; voxels are connected across faces.

  Attributes:
    sizes: int64 [N], voxels of each piece; piece i is the i-th by its first voxel.
    shape: (slices, rows, columns) of the mask.
  """

  sizes: np.ndarray
  shape: tuple[int, int, int]
  _runs: _Runs
  _labels: np.ndarray

  def largest(self, count: int) -> np.ndarray:
    """int64 [<= count]: the largest pieces; of equal ones, the first."""
    return np.argsort(-self.sizes, kind='stable')[:count]

  def sampled(self, chosen: np.ndarray, strides: tuple[int, int, int]) -> np.ndarray:
    """uint8 [slice, row, column]: 1 + place in `chosen` of every n-th voxel, or 0.

    Args:
      chosen: int [<= 127], pieces.
      strides: every how many slices, rows and columns.
    """
    places = np.zeros(len(self.sizes), np.int8)
    places[chosen] = np.arange(1, len(chosen) + 1)
    values, bounds = places[self._labels], self._slice_bounds()
    return np.stack(
      [
        _draw(
          self._runs,
          np.arange(bounds[index], bounds[index + 1]),
          index * self._runs.slice_stride,
          self.shape[1:],
          values,
        )[:: strides[1], :: strides[2]].astype(np.uint8)
        for index in range(0, self.shape[0], strides[0])
      ]
    )

  def keep(self, chosen: np.ndarray, out: np.ndarray) -> None:
    """Writes the mask of the chosen pieces.

    Args:
      chosen: int [K], pieces.
      out: uint8 [slice, row, column], the mask that the pieces were found in, or a
        copy; slices that lose nothing are left as they are.
    """
    kept = np.isin(self._labels, chosen)
    slices = self._runs.starts // self._runs.slice_stride
    bounds = self._slice_bounds()
    for index in np.unique(slices[~kept]):
      own = np.arange(bounds[index], bounds[index + 1])
      out[index] = _draw(
        self._runs,
        own[kept[own]],
        index * self._runs.slice_stride,
        self.shape[1:],
        np.ones(len(kept), np.int8),
      )

  def _slice_bounds(self) -> np.ndarray:
    slices = self._runs.starts // self._runs.slice_stride
    return np.searchsorted(slices, np.arange(self.shape[0] + 1))


def find_pieces(mask: np.ndarray) -> Pieces:
  """The connected components of a mask.

  Args:
    mask: uint8 [slice, row, column], 0 or 1.
  """
  if not mask.any():
    none = np.zeros(0, np.int64)
    runs = _Runs(
      none, none, mask.shape[2] + 2, (mask.shape[1] + 1) * (mask.shape[2] + 2)
    )
    return Pieces(none, mask.shape, runs, none.astype(np.int32))
  runs = _find_runs(mask)
  labels = _label(runs)
  sizes = np.bincount(labels, weights=runs.ends - runs.starts).astype(np.int64)
  return Pieces(sizes, mask.shape, runs, labels)


def keep_largest(
  mask: np.ndarray, count: int, out: np.ndarray | None = None
) -> np.ndarray:
  """Keeps the `count` largest connected components.

  Voxels are connected across faces. Of components of one size, that which
  starts in the lower slice comes first.

  Args:
    mask: uint8 [slice, row, column], 0 or 1.
    count: how many components may stay.
    out: where to write; may be `mask` itself, to save its memory. None: a copy.

  Returns:
    uint8 [slice, row, column], 0 or 1.
  """
  if out is None:
    out = mask.copy()
  elif out is not mask:
    out[...] = mask
  pieces = find_pieces(mask)
  pieces.keep(pieces.largest(count), out)
  return out


def _find_runs(mask: np.ndarray) -> _Runs:
  _, rows, columns = mask.shape
  padded = np.zeros((rows + 1, columns + 2), np.uint8)
  flat = padded.reshape(-1)
  found = []
  for index, plane in enumerate(mask):
    padded[:-1, 1:-1] = plane
    found.append(np.flatnonzero(flat[1:] != flat[:-1]) + (1 + index * padded.size))
  edges = np.concatenate(found)
  return _Runs(edges[0::2], edges[1::2], columns + 2, padded.size)


def _label(runs: _Runs) -> np.ndarray:
  """int32 [R]: the component of each run, numbered from 0."""
  pairs = [_touching(runs, runs.row_stride), _touching(runs, runs.slice_stride)]
  first, second = np.concatenate(pairs, axis=1)
  graph = scipy.sparse.coo_array(
    (np.ones(len(first), np.int8), (first, second)), shape=(len(runs.starts),) * 2
  )
  return scipy.sparse.csgraph.connected_components(graph, directed=False)[1]


def _touching(runs: _Runs, stride: int) -> np.ndarray:
  """int64 [2, P]: pairs of runs that share a face `stride` positions apart."""
  begin = np.searchsorted(runs.ends, runs.starts + stride, side='right')
  counts = np.searchsorted(runs.starts, runs.ends + stride, side='left') - begin
  first = np.repeat(np.arange(len(counts)), counts)
  within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
  return np.stack((first, begin[first] + within))


def _draw(
  runs: _Runs,
  chosen: np.ndarray,
  offset: int,
  shape: tuple[int, int],
  values: np.ndarray,
) -> np.ndarray:
  """[row, column]: the values of the chosen runs of the slice at `offset`."""
  steps = np.zeros(runs.slice_stride + 1, values.dtype)
  steps[runs.starts[chosen] - offset] = values[chosen]
  steps[runs.ends[chosen] - offset] = -values[chosen]
  filled = np.cumsum(steps[:-1], dtype=values.dtype).reshape(-1, runs.row_stride)
  return filled[: shape[0], 1:-1]


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
  mask: np.ndarray, affine: np.ndarray | None = None, hu: np.ndarray | None = None
) -> np.ndarray:
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
  pieces = find_pieces(mask)
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


def _coarse_grid(
  pieces: Pieces,
  largest: np.ndarray,
  affine: np.ndarray | None,
  hu: np.ndarray | None,
) -> _Grid:
  if affine is None:
    affine = np.diag((1.0, 1, 1, 1))[[2, 1, 0, 3]]  # Slice to z, row to y, column to x.
    strides = (1, 1, 1)
  else:
    slice_mm, row_mm, column_mm = np.linalg.norm(affine[:3, :3], axis=0)
    strides = (_stride(slice_mm), _stride(row_mm), _stride(column_mm))
  orientation = orientations.io_orientation(affine)
  x, y, z = (int(axis) for axis in np.argsort(orientation[:, 0]))
  order = (z, y, x)
  flips = tuple(axis for axis in range(3) if orientation[order[axis], 1] < 0)
  labels = np.flip(np.transpose(pieces.sampled(largest, strides), order), flips)
  if hu is not None:
    hu = hu[:: strides[0], :: strides[1], :: strides[2]]
    hu = np.flip(np.transpose(hu, order), flips)
  steps_mm = np.linalg.norm(affine[:3, :3], axis=0) * strides
  return _Grid(labels, hu, steps_mm[list(order)], order, flips, strides)


def _stride(step_mm: float) -> int:
  return max(1, round(_GRID_MM / step_mm))


def _lung_pieces(sizes: np.ndarray, grid: _Grid) -> list[int]:
  """The pieces that are lung, the first lung first; `sizes` are in falling order."""
  first = _first_lung(np.flatnonzero(sizes >= _RIVAL_SHARE * sizes[0]), grid)
  chosen, lungs = [first], grid.labels == first + 1
  if not lungs.any():
    return chosen  # Too small for the grid: far below what makes lungs.
  for piece in np.flatnonzero(sizes >= _SMALLEST_SHARE * sizes[first]):
    own = grid.labels == piece + 1
    if piece != first and own.any() and _may_be_lung(own, lungs, grid):
      chosen.append(int(piece))
      lungs |= own
  return chosen


def _first_lung(rivals: np.ndarray, grid: _Grid) -> int:
  """The largest of the rivals that is neither plain gas nor bowel under another."""
  places = {piece: grid.labels == piece + 1 for piece in rivals.tolist()}
  real = [
    piece for piece, own in places.items() if own.any() and not _is_plain_gas(own, grid)
  ]
  for piece in real:
    if not any(
      _is_abdominal(places[piece], places[other]) for other in real if other != piece
    ):
      return piece
  return real[0] if real else int(rivals[0])


def _may_be_lung(own: np.ndarray, lungs: np.ndarray, grid: _Grid) -> bool:
  if _is_plain_gas(own, grid) or _is_abdominal(own, lungs):
    return False
  here, there = _place(own), _place(lungs)
  margin = _MARGIN * there.length[1]
  return (
    here.centre[0] <= there.high[0]
    and there.low[1] - margin <= here.centre[1] <= there.high[1] + margin
  )


def _is_plain_gas(own: np.ndarray, grid: _Grid) -> bool:
  return grid.hu is not None and bool(np.median(grid.hu[own]) < _PLAIN_GAS_HU)


def _is_abdominal(own: np.ndarray, lungs: np.ndarray) -> bool:
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


def _place(own: np.ndarray) -> _Place:
  sums = [own.any(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
  ends = [np.flatnonzero(line)[[0, -1]] for line in sums]
  counts = [own.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
  centre = [np.average(np.arange(len(line)), weights=line) for line in counts]
  low, high = np.transpose(ends)
  return _Place(np.array(centre), low, high)


def _cut_bridges(mask: np.ndarray, grid: _Grid, lungs: np.ndarray) -> None:
  """Takes bowel that hangs on a lung by a narrow bridge out of the mask."""
  for hanging in _hanging(lungs, grid.steps_mm):
    rest = lungs & ~hanging
    if _is_abdominal(hanging, rest) and (
      _is_plain_gas(hanging, grid) or _place(hanging).centre[0] < _place(rest).low[0]
    ):
      lungs = rest
      _clear(mask, grid.to_mask_axes(hanging), grid.strides)


def _hanging(lungs: np.ndarray, steps_mm: np.ndarray) -> Iterator[np.ndarray]:
  """bool [z, y, x]: what hangs on the lungs' upper half by narrow bridges alone."""
  place = _place(lungs)
  box = tuple(
    slice(max(0, low - 1), high + 2) for low, high in zip(place.low, place.high)
  )
  top = int(place.low[0] + _LOW * place.length[0]) + 1
  box = (slice(box[0].start, top), *box[1:])
  part = lungs[box]
  # The lungs go on beyond the box's top: what lies outside takes nothing away.
  cores, count = ndimage.label(
    ndimage.binary_erosion(part, _ball(steps_mm, _NECK_MM), border_value=1)
  )
  above = np.unique(cores[-1])  # These go on in the upper half.
  if np.isin(cores, above).all():  # Holds 0, what is no core.
    return
  nearest = ndimage.distance_transform_edt(
    cores == 0, steps_mm, return_distances=False, return_indices=True
  )
  owner = np.where(part, cores[tuple(nearest)], 0)
  volumes_cm3 = np.bincount(owner.ravel()) * np.prod(steps_mm) / 1000
  for core in range(1, count + 1):
    if core not in above and volumes_cm3[core] >= _HANGING_CM3:
      hanging = np.zeros_like(lungs)
      hanging[box] = owner == core
      yield hanging


def _ball(steps_mm: np.ndarray, radius_mm: float) -> np.ndarray:
  """bool [z, y, x]: the voxels of a ball, its centre in the middle."""
  reach = [int(radius_mm / step) for step in steps_mm]
  offsets = np.meshgrid(
    *(np.arange(-many, many + 1) * step for many, step in zip(reach, steps_mm)),
    indexing='ij',
  )
  return np.sum(np.square(offsets), axis=0) <= radius_mm**2


def _clear(mask: np.ndarray, coarse: np.ndarray, strides: tuple[int, int, int]) -> None:
  """Zeroes the voxels of `mask` whose coarse voxel is set."""
  for index in np.flatnonzero(coarse.any(axis=(1, 2))):
    plane = coarse[index].repeat(strides[1], axis=0).repeat(strides[2], axis=1)
    slices = slice(index * strides[0], (index + 1) * strides[0])
    mask[slices] &= ~plane[: mask.shape[1], : mask.shape[2]]
