"""The largest connected pieces of a 3D mask, without a 3D label array.

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
  if not mask.any():
    return out
  runs = _find_runs(mask)
  labels = _label(runs)
  sizes = np.bincount(labels, weights=runs.ends - runs.starts)
  largest = np.argsort(-sizes, kind='stable')[:count]
  kept = np.isin(labels, largest)
  slices = runs.starts // runs.slice_stride
  bounds = np.searchsorted(slices, np.arange(len(mask) + 1))
  for index in np.unique(slices[~kept]):
    chosen = np.arange(bounds[index], bounds[index + 1])
    chosen = chosen[kept[chosen]]
    out[index] = _draw(runs, chosen, index * runs.slice_stride, mask.shape[1:])
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
    runs: _Runs, chosen: np.ndarray, offset: int, shape: tuple[int, int]) -> np.ndarray:
  """uint8 [row, column]: the chosen runs of the slice that starts at `offset`."""
  steps = np.zeros(runs.slice_stride + 1, np.int8)
  steps[runs.starts[chosen] - offset] = 1
  steps[runs.ends[chosen] - offset] = -1
  filled = np.cumsum(steps[:-1], dtype=np.int8).reshape(-1, runs.row_stride)
  return filled[:shape[0], 1:-1]
