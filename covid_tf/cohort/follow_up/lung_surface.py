"""The lungs of a study as points on their surface, for the alignment of two studies."""

from collections.abc import Sequence
import dataclasses

import numpy as np
from PIL import Image
from scipy import ndimage

from covid_tf import errors
from covid_tf import volume as volume_lib

# All ours (docs/adr/0171).
_GRID_MM = 3.0  # Masks are brought to about this before their surface is found.
_SMOOTHING_MM = 3.0  # Standard deviation: steps of a mask's voxels are no surface.
_MARGIN = 3  # Standard deviations around the lungs.
_POINTS = 16_000  # Kept on the surface; a quarter of it inside.
_SEED = 171

# Fewer slices show no surface, and less is no chest (analysis.lungs).
_LEAST_SLICES = 5
_LEAST_HEIGHT_MM = 60.0
_LEAST_VOLUME_CM3 = 200.0
# As analysis.coverage: lung in an end slice beyond this share of the largest slice's is
# cut off there.
_CUT_SHARE = 0.05
_CUT_SHARE_PER_MM = 0.015


class NotAlignedError(errors.UsageError):
  """Lung masks that no affine of one patient's lungs brings together."""


@dataclasses.dataclass(frozen=True)
class LungSurface:
  """The lungs of a study as points.

  Attributes:
    points_mm: float64 [K, 3], on the surface, in LPS millimetres; in random order.
    normals: float64 [K, 3], unit vectors out of the lung.
    inner_mm: float64 [N, 3], a sample of the lungs' inside.
    volume_cm3: of the mask.
    cuts: (point, outward normal) in LPS of the planes where the image ends and the
      lungs do not.
    spacing_mm: about how far neighbouring points are apart.
  """

  points_mm: np.ndarray
  normals: np.ndarray
  inner_mm: np.ndarray
  volume_cm3: float
  cuts: tuple[tuple[np.ndarray, np.ndarray], ...]
  spacing_mm: float

  @property
  def ends_mm(self) -> np.ndarray:
    """float64 [2, 3]: where right, front and feet begin, and where they end.

    All but 1 % of the lungs lie between.
    """
    return np.percentile(self.inner_mm, (1, 99), axis=0)

  def imaged(self, points_mm: np.ndarray) -> np.ndarray:
    """Whether points lie on the inner side of all cuts: bool [K]."""
    inside = np.ones(len(points_mm), bool)
    for place, normal in self.cuts:
      inside &= (points_mm - place) @ normal < 0
    return inside

  def thinned(self, count: int) -> 'LungSurface':
    """The surface with at most so many points, still spread over all of it."""
    sparser = max(1.0, len(self.points_mm) / count) ** 0.5
    return dataclasses.replace(
      self,
      points_mm=self.points_mm[:count],
      normals=self.normals[:count],
      spacing_mm=self.spacing_mm * sparser,
    )


def find_surface(mask: np.ndarray, affine: np.ndarray) -> LungSurface:
  """Points on the surface of the lungs, with their normals.

  The mask is averaged to voxels of about 3 mm and smoothed; where the image cuts the
  lungs off there is no surface.

  Args:
    mask: uint8 [slice, row, column], 0 or 1.
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres.

  Raises:
    NotAlignedError: the mask holds too little lung; the text says what was found.
  """
  volume = volume_lib.CTVolume(np.zeros((1, 1, 1), np.int16), affine)  # Its geometry.
  areas = np.array([np.count_nonzero(plane) for plane in mask.view(bool)])
  slices = np.flatnonzero(areas)
  volume_cm3 = float(areas.sum()) * volume.voxel_volume_mm3 / 1000
  _require_lungs(slices, volume.spacing_mm[0], volume_cm3)
  least = max(_CUT_SHARE, _CUT_SHARE_PER_MM * volume.spacing_mm[0]) * areas.max()
  cut = bool(areas[0] > least), bool(areas[-1] > least)
  share, coarse = _reduced(mask, volume, cut, slices)
  points, normals = _crossings(share, coarse)
  inner = np.argwhere(share > 0.5) @ coarse[:3, :3].T + coarse[:3, 3]
  cuts = _cut_planes(len(mask), affine, cut)
  whole = LungSurface(points, normals, inner, volume_cm3, cuts, _GRID_MM)
  imaged, inside = whole.imaged(points), whole.imaged(inner)
  # Mixed, so that the first of them are a sample of all.
  rng = np.random.default_rng(_SEED)
  order = rng.permutation(np.flatnonzero(imaged))
  within = rng.permutation(np.flatnonzero(inside))[: _POINTS // 4]
  return dataclasses.replace(
    whole, points_mm=points[order], normals=normals[order], inner_mm=inner[within]
  ).thinned(_POINTS)


def _require_lungs(slices: np.ndarray, step_mm: float, volume_cm3: float) -> None:
  height_mm = (slices[-1] - slices[0] + 1) * step_mm if len(slices) else 0.0
  if (
    len(slices) < _LEAST_SLICES
    or height_mm < _LEAST_HEIGHT_MM
    or volume_cm3 < _LEAST_VOLUME_CM3
  ):
    raise NotAlignedError(
      f'a lung mask of at least {_LEAST_SLICES} slices, {_LEAST_HEIGHT_MM:.0f} mm of '
      f'height and {_LEAST_VOLUME_CM3:.0f} cm³ is required, found {len(slices)} '
      f'slice(s) with lung, {height_mm:.0f} mm and {volume_cm3:.0f} cm³'
    )


def _cut_planes(
  slices: int, affine: np.ndarray, cut: tuple[bool, bool]
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
  """Planes through the end slices where lungs go on beyond them."""
  normal = np.cross(affine[:3, 1], affine[:3, 2])
  normal *= np.sign(normal @ affine[:3, 0]) / np.linalg.norm(normal)
  return tuple(
    (affine[:3, 3] + affine[:3, 0] * index, sign * normal)
    for is_cut, index, sign in zip(cut, (0, slices - 1), (-1, 1), strict=True)
    if is_cut
  )


def _reduced(
  mask: np.ndarray,
  volume: volume_lib.CTVolume,
  cut: tuple[bool, bool],
  slices: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Share of lung in voxels of about _GRID_MM around the lungs, and their affine.

  Beyond an end slice that cuts the lungs off they go on as they are there.
  """
  plane = np.asarray(mask.any(axis=0))
  steps_mm = np.asarray(volume.spacing_mm)
  blocks = np.maximum(1, np.rint(_GRID_MM / steps_mm)).astype(int)
  margins = np.ceil(_MARGIN * _SMOOTHING_MM / (steps_mm * blocks)).astype(int) * blocks
  ends = [slices, np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))]
  starts = [int(held[0]) - int(more) for held, more in zip(ends, margins)]
  lengths = [
    int(-(-(held[-1] + 1 + more - start) // block) * block)
    for held, more, start, block in zip(ends, margins, starts, blocks)
  ]
  planes = np.empty((lengths[0], *np.floor_divide(lengths[1:], blocks[1:])), np.float32)
  for number in range(lengths[0]):
    index = starts[0] + number
    beyond = cut[0] if index < 0 else cut[1] if index >= len(mask) else True
    source = mask[min(max(index, 0), len(mask) - 1)] if beyond else None
    planes[number] = _blocks(source, starts[1:], lengths[1:], blocks[1:])
  share = planes.reshape(-1, blocks[0], *planes.shape[1:]).mean(axis=1) / 255
  coarse = volume.affine.copy()
  coarse[:3, 3] = volume.index_to_lps_mm(starts + (blocks - 1) / 2)
  coarse[:3, :3] *= blocks
  sigma = _SMOOTHING_MM / (steps_mm * blocks)
  return ndimage.gaussian_filter(share, sigma, mode='nearest'), coarse


def _blocks(
  plane: np.ndarray | None,
  starts: Sequence[int],
  lengths: Sequence[int],
  blocks: np.ndarray,
) -> np.ndarray:
  """A slice's share of lung, 0 to 255, in blocks of a part that may reach beyond it."""
  part = np.zeros(lengths, np.uint8)
  if plane is not None:
    taken, places = [], []
    for start, length, size in zip(starts, lengths, plane.shape):
      first, last = max(start, 0), min(start + length, size)
      taken.append(slice(first, last))
      places.append(slice(first - start, last - start))
    part[tuple(places)] = plane[tuple(taken)]
    part *= 255
  rows, columns = blocks.tolist()
  return np.asarray(Image.fromarray(part).reduce((columns, rows)))


def _crossings(share: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Where the share of lung crosses one half along each axis, and which way is out."""
  gradient = np.stack(np.gradient(share), axis=-1)
  places, slopes = [], []
  for axis in range(3):
    low, high = (
      share.take(range(first, share.shape[axis] - 1 + first), axis) for first in (0, 1)
    )
    index = np.argwhere((low > 0.5) != (high > 0.5))
    step = np.eye(3, dtype=int)[axis]
    before, after = tuple(index.T), tuple((index + step).T)
    part = ((0.5 - share[before]) / (share[after] - share[before]))[:, np.newaxis]
    places.append(index + step * part)
    slopes.append(gradient[before] * (1 - part) + gradient[after] * part)
  # A gradient by index is one by millimetres through the inverse of the affine.
  out = -np.concatenate(slopes) @ np.linalg.inv(affine[:3, :3])
  out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
  return np.concatenate(places) @ affine[:3, :3].T + affine[:3, 3], out
