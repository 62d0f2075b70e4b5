"""CT, map and lung mask as viewer.html carries them: cropped, compressed, bounded.

HU are exact. Where all voxels would make the page too large they are averaged in
blocks, in plane first, and what was done is stated (`ViewedVolume.in_words`).

A part is the zlib stream of four planes of bytes, each [slice, row, column]: the low
and the high byte of the CT, the map in 255ths, the lung mask. The CT is stored as what
its neighbours above and to the left do not predict, for noise does not compress but
anatomy does (`_residuals`; templates/viewer_volume.js reads it back).
"""

from collections.abc import Iterator
from concurrent import futures
import dataclasses
import functools
import math
import zlib

import numpy as np

from covid_tf import results
from covid_tf import volume as volume_lib

# Of the parts together, in the page's base64: beside NiiVue and the page's own
# scripts (2.4 MB) they keep it below 25 MB.
MAX_TEXT_BYTES = 21_000_000
# A browser holds four bytes of a voxel; above this telephones give up.
_MAX_VOXELS = 60_000_000
# Around the lungs, in plane and along the body, where not the whole CT is shown: chest
# wall, armpits and spine; the domes of the diaphragm.
_MARGIN_MM = (20.0, 40.0, 40.0)
_PART_VOXELS = 1_500_000
_SAMPLES = 4  # Slices by which a size is judged before it is made.
_MAP_LEVELS = 255


@dataclasses.dataclass(frozen=True)
class Blocks:
  """Which voxels of the CT are one voxel of the viewer.

  Attributes:
    start: (slice, row, column), the first of the CT that is shown.
    stop: (slice, row, column) after the last one.
    factors: CT voxels along (slice, row, column) in one block; the last block along
      the slices may hold fewer.
  """

  start: tuple[int, int, int]
  stop: tuple[int, int, int]
  factors: tuple[int, int, int]

  @property
  def shape(self) -> tuple[int, int, int]:
    """(slices, rows, columns) of the viewer."""
    slices, rows, columns = (
      -(-(stop - start) // factor)
      for start, stop, factor in zip(self.start, self.stop, self.factors)
    )
    return slices, rows, columns

  @property
  def voxels(self) -> int:
    return math.prod(self.shape)

  def slices(self, index: int) -> slice:
    """Slices of the CT in one slice of the viewer."""
    first = self.start[0] + index * self.factors[0]
    return slice(first, min(first + self.factors[0], self.stop[0]))

  @property
  def rows(self) -> slice:
    return slice(self.start[1], self.stop[1])

  @property
  def columns(self) -> slice:
    return slice(self.start[2], self.stop[2])

  def affine(self, ct_affine: np.ndarray) -> np.ndarray:
    """float64 [4, 4]: centre of a block (slice, row, column, 1) to LPS millimetres."""
    affine = np.array(ct_affine, np.float64)
    first = np.add(self.start, (np.asarray(self.factors) - 1) / 2)
    affine[:3, 3] = ct_affine[:3, :3] @ first + ct_affine[:3, 3]
    affine[:3, :3] *= self.factors
    return affine


@dataclasses.dataclass(frozen=True)
class ViewedVolume:
  """What the viewer shows of a study.

  Attributes:
    blocks: which voxels.
    ct_shape: (slices, rows, columns) of the CT.
    parts: zlib streams, of `part_slices` slices of the viewer each, from the lowest up;
      the last one may hold fewer.
    part_slices: slices of the viewer in a part.
  """

  blocks: Blocks
  ct_shape: tuple[int, int, int]
  parts: tuple[bytes, ...]
  part_slices: int

  @property
  def is_exact(self) -> bool:
    """Whether each HU is that of one voxel of the CT."""
    return self.blocks.factors == (1, 1, 1)

  def in_words(self) -> str:
    """What is shown, and how coarsely."""
    blocks = self.blocks
    slices, rows, columns = blocks.factors
    if self.is_exact:
      fine = 'Every voxel is one of the CT, with its own HU.'
    else:
      along = f' of {slices} slices' if slices > 1 else ' of each slice'
      block = f'{rows} × {columns} pixels' if rows > 1 else 'single pixels'
      fine = (
        f'Coarsened to keep this page small: HU are averages over {block}{along}, '
        'rounded to 1 HU, and map values are the highest of the same voxels.'
      )
    whole = all(
      start == 0 and stop == length
      for start, stop, length in zip(blocks.start, blocks.stop, self.ct_shape)
    )
    if whole:
      return f'The whole CT is here. {fine}'
    (slice0, row0, column0), (slice1, row1, column1) = blocks.start, blocks.stop
    return (
      f'The lungs and what is near are here: slices {slice0} to {slice1 - 1} of 0 to '
      f'{self.ct_shape[0] - 1}, rows {row0} to {row1 - 1} of 0 to '
      f'{self.ct_shape[1] - 1}, columns {column0} to {column1 - 1} of 0 to '
      f'{self.ct_shape[2] - 1}. {fine}'
    )


def viewed_volume(
  volume: volume_lib.CTVolume,
  result: results.CaseResult,
  max_text_bytes: int = MAX_TEXT_BYTES,
) -> ViewedVolume:
  """Chooses the finest blocks whose parts fit, and packs them.

  Args:
    volume: the CT.
    result: its score, on the same grid.
    max_text_bytes: of all parts together, in base64.

  Returns:
    The whole CT where it fits, else the lungs and what is near, in blocks as small as
    fit.

  Raises:
    ValueError: the two have different grids.
  """
  if volume.shape != result.shape or not np.allclose(volume.affine, result.affine):
    raise ValueError(
      f'volume and result must share one grid, found {volume.shape} and {result.shape}.'
    )
  packer = _Packer(volume, result)
  for blocks in _candidates(volume, result):
    if blocks.voxels > _MAX_VOXELS or packer.judged_bytes(blocks) > max_text_bytes:
      continue
    part_slices = max(1, _PART_VOXELS // math.prod(blocks.shape[1:]))
    parts = packer.parts(blocks, part_slices)
    if sum(map(text_bytes, parts)) <= max_text_bytes:
      return ViewedVolume(blocks, volume.shape, parts, part_slices)
  raise AssertionError('coarse enough blocks always fit')


def text_bytes(part: bytes) -> int:
  """Length of its base64."""
  return -(-len(part) // 3) * 4


def _candidates(
  volume: volume_lib.CTVolume, result: results.CaseResult
) -> Iterator[Blocks]:
  """From the whole CT to ever coarser blocks around the lungs."""
  shape = volume.shape
  yield Blocks((0, 0, 0), shape, (1, 1, 1))
  start, stop = _around_the_lungs(result)
  along, in_plane = 1, 1
  while True:
    factors = (along, in_plane, in_plane)
    yield Blocks(start, _whole_blocks(start, stop, shape, factors), factors)
    # Slices have numbers that result.json shares: they are joined only where blocks
    # would else be flat.
    slice_mm, pixel_mm = result.spacing_mm[0], max(result.spacing_mm[1:])
    if in_plane > 1 and slice_mm * (along + 1) < pixel_mm * (in_plane + 1):
      along += 1
    else:
      in_plane += 1


def _around_the_lungs(
  result: results.CaseResult,
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
  """(first, after the last) (slice, row, column) of lungs and box, with a margin."""
  covered = np.asarray(result.lung_mask.any(axis=(1, 2)))
  covered[list(result.positive_slices)] = True
  slices = np.flatnonzero(covered)
  box = result.lung_box
  ends = ((slices[0], slices[-1] + 1), (box.row0, box.row1), (box.column0, box.column1))
  starts, stops = [], []
  for (start, stop), margin, step, length in zip(
    ends, _MARGIN_MM, result.spacing_mm, result.shape
  ):
    more = math.ceil(margin / step)
    starts.append(max(0, int(start) - more))
    stops.append(min(length, int(stop) + more))
  return (starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2])


def _whole_blocks(start, stop, shape, factors) -> tuple[int, int, int]:
  """Stops at which rows and columns are whole blocks: further out, else further in."""
  stops = [stop[0]]
  for axis in (1, 2):
    factor = factors[axis]
    count = -(-(stop[axis] - start[axis]) // factor)
    if start[axis] + count * factor > shape[axis]:
      count = max(1, count - 1)
    stops.append(start[axis] + count * factor)
  return stops[0], stops[1], stops[2]


class _Packer:
  """Makes the parts of a study."""

  def __init__(self, volume: volume_lib.CTVolume, result: results.CaseResult):
    self._volume, self._result = volume, result
    self._map_number = {
      index: number for number, index in enumerate(result.localization.slices)
    }

  def judged_bytes(self, blocks: Blocks) -> float:
    """About how long the parts' base64 is, by a few slices."""
    count = blocks.shape[0]
    sampled = np.unique(np.linspace(0, count - 1, _SAMPLES + 2).astype(int))
    sampled = sampled[1:-1] if len(sampled) > 2 else sampled
    sizes = [
      text_bytes(self._part(blocks, slice(int(index), int(index) + 1)))
      for index in sampled
    ]
    return float(np.mean(sizes)) * count

  def parts(self, blocks: Blocks, part_slices: int) -> tuple[bytes, ...]:
    """All parts, lowest first."""
    spans = [
      slice(first, min(first + part_slices, blocks.shape[0]))
      for first in range(0, blocks.shape[0], part_slices)
    ]
    # Threads: compression and sums, most of the work, leave the interpreter free.
    with futures.ThreadPoolExecutor() as pool:
      return tuple(pool.map(functools.partial(self._part, blocks), spans))

  def _part(self, blocks: Blocks, span: slice) -> bytes:
    indices = range(span.start, span.stop)
    hu = np.stack([self._averages(blocks, index) for index in indices])
    heat = np.stack([self._peaks(blocks, index) for index in indices])
    lungs = np.stack([self._lungs(blocks, index) for index in indices])
    residuals = _residuals(hu)
    planes = (residuals & 255, residuals >> 8, heat, lungs)
    # Run lengths and Huffman codes: as small as level 9 here, in a fifth of the time.
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    packed = [packer.compress(plane.astype(np.uint8).tobytes()) for plane in planes]
    return b''.join((*packed, packer.flush()))

  def _averages(self, blocks: Blocks, index: int) -> np.ndarray:
    """int16 [row, column]: mean HU of one slice of blocks."""
    hu = self._volume.hu[blocks.slices(index), blocks.rows, blocks.columns]
    if blocks.factors == (1, 1, 1):
      return hu[0]
    sums = _in_blocks(hu.sum(axis=0, dtype=np.int32), blocks).sum(axis=(1, 3))
    count = len(hu) * blocks.factors[1] * blocks.factors[2]
    return np.rint(sums / count).astype(np.int16)

  def _peaks(self, blocks: Blocks, index: int) -> np.ndarray:
    """uint8 [row, column]: highest map value of one slice of blocks."""
    box = self._result.lung_box
    planes = range(*blocks.slices(index).indices(self._volume.shape[0]))
    plane = np.zeros(self._volume.shape[1:], np.uint8)
    numbers = [self._map_number[at] for at in planes if at in self._map_number]
    for number in numbers:
      levels = map_levels(
        self._result.localization.maps[number], self._result.thresholds.map
      )
      shown = plane[box.rows, box.columns]
      np.maximum(shown, levels, out=shown)
    return _in_blocks(plane[blocks.rows, blocks.columns], blocks).max(axis=(1, 3))

  def _lungs(self, blocks: Blocks, index: int) -> np.ndarray:
    """uint8 [row, column]: 1 where at least half of the block is lung."""
    mask = self._result.lung_mask[blocks.slices(index), blocks.rows, blocks.columns]
    share = _in_blocks(mask.sum(axis=0, dtype=np.int32), blocks).sum(axis=(1, 3))
    count = len(mask) * blocks.factors[1] * blocks.factors[2]
    return (2 * share >= count).astype(np.uint8)


def map_levels(values: np.ndarray, threshold: float) -> np.ndarray:
  """uint8: a map in 255ths, each on its own side of the score's threshold.

  Args:
    values: float32, in [0, 1].
    threshold: of the score; strictly above it a voxel counts.

  Returns:
    Levels; those of voxels that count are above `255 * threshold`, and no others.
  """
  levels = np.rint(np.clip(values, 0, 1) * _MAP_LEVELS)
  below = math.floor(_MAP_LEVELS * threshold + 1e-6)
  counted = values > threshold
  levels = np.where(counted, np.maximum(levels, below + 1), np.minimum(levels, below))
  return levels.astype(np.uint8)


def _in_blocks(plane: np.ndarray, blocks: Blocks) -> np.ndarray:
  """[row, in block, column, in block] of a plane [row, column]."""
  _, rows, columns = blocks.shape
  return plane.reshape(rows, blocks.factors[1], columns, blocks.factors[2])


def _residuals(hu: np.ndarray) -> np.ndarray:
  """uint16 [slice, row, column]: what the pixels to the left and above do not predict.

  The prediction is the mean of both, rounded down; the one that is there at an edge; 0
  in the corner. Small differences of either sign become small numbers: 0, -1, 1, -2 …
  to 0, 1, 2, 3 … (modulo 65536).
  """
  whole = hu.astype(np.int32)
  predicted = np.zeros_like(whole)
  predicted[:, 0, 1:] = whole[:, 0, :-1]
  predicted[:, 1:, 0] = whole[:, :-1, 0]
  predicted[:, 1:, 1:] = (whole[:, 1:, :-1] + whole[:, :-1, 1:]) >> 1
  difference = (whole - predicted).astype(np.int16)  # Modulo 65536.
  return ((difference << 1) ^ (difference >> 15)).astype(np.uint16)
