"""The connected pieces of a 3D mask, without a 3D label array.

A labelled volume takes four bytes a voxel: twice the CT itself. Lungs are a few
hundred thousand runs along the rows instead, joined as a sparse graph.
"""

import dataclasses

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph


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

  def sampled(
      self, chosen: np.ndarray, strides: tuple[int, int, int]) -> np.ndarray:
    """uint8 [slice, row, column]: 1 + place in `chosen` of every n-th voxel, or 0.

    Args:
      chosen: int [<= 127], pieces.
      strides: every how many slices, rows and columns.
    """
    places = np.zeros(len(self.sizes), np.int8)
    places[chosen] = np.arange(1, len(chosen) + 1)
    values, bounds = places[self._labels], self._slice_bounds()
    return np.stack([
        _draw(self._runs, np.arange(bounds[index], bounds[index + 1]),
              index * self._runs.slice_stride, self.shape[1:], values)
        [::strides[1], ::strides[2]].astype(np.uint8)
        for index in range(0, self.shape[0], strides[0])])

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
          self._runs, own[kept[own]], index * self._runs.slice_stride,
          self.shape[1:], np.ones(len(kept), np.int8))

  def _slice_bounds(self):
    slices = self._runs.starts // self._runs.slice_stride
    return np.searchsorted(slices, np.arange(self.shape[0] + 1))


def find_pieces(mask: np.ndarray) -> Pieces:
  """The connected components of a mask.

  Args:
    mask: uint8 [slice, row, column], 0 or 1.
  """
  if not mask.any():
    none = np.zeros(0, np.int64)
    runs = _Runs(none, none, mask.shape[2] + 2, (mask.shape[1] + 1) * (
        mask.shape[2] + 2))
    return Pieces(none, mask.shape, runs, none.astype(np.int32))
  runs = _find_runs(mask)
  labels = _label(runs)
  sizes = np.bincount(labels, weights=runs.ends - runs.starts).astype(np.int64)
  return Pieces(sizes, mask.shape, runs, labels)


def keep_largest(
    mask: np.ndarray, count: int, out: np.ndarray | None = None) -> np.ndarray:
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
  edges = []
  for index, plane in enumerate(mask):
    padded[:-1, 1:-1] = plane
    edges.append(
        np.flatnonzero(flat[1:] != flat[:-1]) + (1 + index * padded.size))
  edges = np.concatenate(edges)
  return _Runs(edges[0::2], edges[1::2], columns + 2, padded.size)


def _label(runs: _Runs) -> np.ndarray:
  """int32 [R]: the component of each run, numbered from 0."""
  pairs = [_touching(runs, runs.row_stride), _touching(runs, runs.slice_stride)]
  first, second = np.concatenate(pairs, axis=1)
  graph = scipy.sparse.coo_array(
      (np.ones(len(first), np.int8), (first, second)), shape=(len(runs.starts),) * 2)
  return scipy.sparse.csgraph.connected_components(graph, directed=False)[1]


def _touching(runs: _Runs, stride: int) -> np.ndarray:
  """int64 [2, P]: pairs of runs that share a face `stride` positions apart."""
  begin = np.searchsorted(runs.ends, runs.starts + stride, side='right')
  counts = np.searchsorted(runs.starts, runs.ends + stride, side='left') - begin
  first = np.repeat(np.arange(len(counts)), counts)
  within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
  return np.stack((first, begin[first] + within))


def _draw(
    runs: _Runs, chosen: np.ndarray, offset: int, shape: tuple[int, int],
    values: np.ndarray) -> np.ndarray:
  """[row, column]: the values of the chosen runs of the slice at `offset`."""
  steps = np.zeros(runs.slice_stride + 1, values.dtype)
  steps[runs.starts[chosen] - offset] = values[chosen]
  steps[runs.ends[chosen] - offset] = -values[chosen]
  filled = np.cumsum(steps[:-1], dtype=values.dtype).reshape(-1, runs.row_stride)
  return filled[:shape[0], 1:-1]
