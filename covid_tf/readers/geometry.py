"""Slice positions: their order, one even grid or why there is none, and tilt."""

from collections.abc import Iterator, Sequence
import dataclasses
import math

import numpy as np
from scipy import ndimage

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import images

# From slice positions to one even grid, or why there is none.

# A position this near the evenly spaced line is rounding; beyond the second pair
# the spacing varies; between, a warning. Share of the step, and millimetres.
_ROUNDING = (0.01, 0.01)
_VARYING = (0.02, 0.06)
# Images nearer than this lie at one place.
SAME_PLACE_MM = 0.01
_STEP_RANGE_MM = (0.05, 50.0)
# A sheared stack up to this angle is rounding of positions; scanners tilt by more.
_TILT_LIMIT_DEG = 0.5
_TILT_NOTE_DEG = 0.06
_ALL_PAIRS_UP_TO = 400
# Units that positions are rounded to by writers that keep few decimals.
_ROUNDED_TO_MM = (1.0, 0.5, 0.1, 0.05, 0.01)
# Fewer uneven steps than this may be lost slices as well as rounding.
_SURELY_ROUNDED = 3
_REMEDY = (
  'if two series were joined, export each as one of its own, else export '
  'this one again with even steps'
)
_MANY_LOST = 5  # In one gap; rather two regions than lost files.


# A direction in the patient, (x, y, z).
Vector = np.ndarray | tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Grid:
  """Where the voxels of a stack lie.

  Attributes:
    affine: float64 [4, 4], (slice, row, column, 1) to LPS millimetres. Its first
      column is not along the normal if the stack is sheared.
    tilt_deg: angle between the way from slice to slice and the normal.
    warnings: unevenness that was accepted.
  """

  affine: np.ndarray
  tilt_deg: float
  warnings: tuple[str, ...]


def heights_mm(planes: Sequence[images.Plane]) -> np.ndarray:
  """Position of each image along the normal of the first."""
  return np.array([plane.position for plane in planes]) @ planes[0].normal


def angle_deg(first: Vector, second: Vector) -> float:
  """Angle between two unit vectors, 0 to 180 degrees."""
  return math.degrees(math.acos(float(np.clip(np.dot(first, second), -1, 1))))


def even_grid(planes: Sequence[images.Plane]) -> Grid:
  """The grid of images sorted along the normal, at different places.

  Raises:
    CTReadError: fewer than two images, missing slices, or a spacing that varies.
  """
  if len(planes) < 2:
    raise errors.CTReadError(
      'at least 2 slices are required, found 1: the spacing of a single slice '
      'cannot be measured; give the folder of the whole series.'
    )
  positions = np.array([plane.position for plane in planes])
  first = planes[0]
  axes = np.stack((first.normal, first.row_direction, first.column_direction))
  along, *across = ((positions - positions[0]) @ axes.T).T
  _require_no_gap(along, positions)
  step = _slope(along)
  if not _STEP_RANGE_MM[0] <= step <= _STEP_RANGE_MM[1]:
    raise errors.CTReadError(
      f'slices must be 0.05 to 50 mm apart, found {step:.3f} mm.'
    )
  drift = [_slope(values) for values in across]
  deviation = np.sqrt(
    sum(
      _deviation(values, slope) ** 2
      for values, slope in zip((along, *across), (step, *drift))
    )
  )
  warnings = list(_judge_deviation(deviation, step, positions))
  tilt = math.degrees(math.atan2(math.hypot(*drift), step))
  if math.hypot(*drift) * (len(planes) - 1) <= _VARYING[1]:
    tilt = 0.0  # Two thin slices with rounded positions look steep.
  elif _TILT_NOTE_DEG < tilt <= _TILT_LIMIT_DEG:
    warnings.append(
      f'the slices are sheared by {tilt:.2f} degrees; the affine holds it'
    )
  affine = np.eye(4)
  affine[:3, 0] = (positions[-1] - positions[0]) / (len(planes) - 1)
  affine[:3, 1] = np.multiply(first.column_direction, first.spacing_mm[0])
  affine[:3, 2] = np.multiply(first.row_direction, first.spacing_mm[1])
  affine[:3, 3] = positions[0]
  return Grid(affine, tilt, tuple(warnings))


def require_upright(tilt_deg: float) -> None:
  """Raises CTReadError for a gantry tilt: slices shifted against each other."""
  if tilt_deg > _TILT_LIMIT_DEG:
    raise errors.CTReadError(
      f'gantry tilt: the slices are sheared by {tilt_deg:.1f} degrees against '
      f'their normal, at most {_TILT_LIMIT_DEG} is read as it is; ask for '
      'resampling (resample_tilt=True, --resample-tilt).'
    )


def _slope(values: np.ndarray) -> float:
  """Step per slice: the median of many, so that one bad slice does not move it."""
  count = len(values)
  if count > _ALL_PAIRS_UP_TO:
    half = count // 2
    return float(np.median(values[half:] - values[:-half]) / half)
  index = np.arange(count)
  low, high = np.triu_indices(count, 1)
  return float(np.median((values[high] - values[low]) / (index[high] - index[low])))


def _deviation(values: np.ndarray, slope: float) -> np.ndarray:
  """Distance of each value from the evenly spaced line."""
  rest = values - slope * np.arange(len(values))
  return rest - np.median(rest)


def _require_no_gap(along: np.ndarray, positions: np.ndarray) -> None:
  steps = np.diff(along)
  step = float(np.median(steps))
  if len(steps) < 2 or step <= 0:  # Refused as such by whoever measures the step.
    return
  limit = max(_VARYING[0] * step, _VARYING[1])
  wide = np.flatnonzero(steps > 1.5 * step)
  if not wide.size:
    return
  rounded = rounding(positions)
  if rounded and len(wide) >= _SURELY_ROUNDED:
    raise errors.CTReadError(rounded)
  lost = np.rint(steps[wide] / step).astype(int) - 1
  whole = np.abs(steps[wide] - (lost + 1) * step) <= limit * (lost + 1)
  gap = int(wide[0])
  place = f'between {_place(positions[gap])} and {_place(positions[gap + 1])}'
  if not whole.all() or lost.sum() > len(steps):
    raise errors.CTReadError(
      f'varying slice spacing: {steps.min():.2f} to {steps.max():.2f} mm, one '
      f'step is required; the first wide one ({steps[gap]:.2f} mm) is {place}; '
      f'{_REMEDY}.'
    )
  remedy = 'copy the series again'
  if rounded:
    remedy += f'. If none is missing: {rounded[:-1]}'
  elif len(wide) == 1 and lost[0] >= _MANY_LOST:
    remedy += '; if two regions were scanned, export each as a series of its own'
  raise errors.CTReadError(
    f'{lost.sum()} slice(s) missing in {len(wide)} gap(s): the slices are '
    f'{step:.2f} mm apart, but {steps[gap]:.2f} mm {place}; {remedy}.'
  )


def _judge_deviation(
  deviation: np.ndarray, step: float, positions: np.ndarray
) -> Iterator[str]:
  worst = int(np.argmax(deviation))
  off, place = deviation[worst], _place(positions[worst])
  limit = max(_VARYING[0] * step, _VARYING[1])
  if off > limit:
    rounded = rounding(positions)
    if rounded and np.count_nonzero(deviation > limit) >= _SURELY_ROUNDED:
      raise errors.CTReadError(rounded)
    remedy = f'or {rounded[:-1]}' if rounded else _REMEDY
    raise errors.CTReadError(
      f'varying slice spacing: even steps of {step:.3f} mm are required, the '
      f'slice at {place} is {off:.3f} mm off; {remedy}.'
    )
  if off > max(_ROUNDING[0] * step, _ROUNDING[1]) * (1 + 1e-6):
    yield (
      f'slice positions are up to {off:.3f} mm off even steps of '
      f'{step:.3f} mm (at {place})'
    )


def rounding(positions: np.ndarray) -> str | None:
  """Why uneven positions are even ones that were rounded, or None if they are not.

  They are if all lie on a coarse grid, and an even step exists from which each
  coordinate is nowhere further than rounding or truncation to that grid puts it.

  Args:
    positions: [slice, 3], sorted along the normal; several may be equal.
  """
  varying = [values for values in np.transpose(positions) if np.ptp(values) > 1e-6]
  units = [unit for unit in map(_unit_mm, varying) if unit is not None]
  if not varying or len(units) < len(varying):
    return None
  ranges = [_step_range_mm(values, unit) for values, unit in zip(varying, units)]
  if not all(low <= high for low, high in ranges):
    return None
  longest = int(np.argmax([np.ptp(values) for values in varying]))
  steps = np.abs(np.diff(varying[longest]))
  low, high = sorted(np.abs(ranges[longest]))
  return (
    f'slice positions are rounded to {units[longest]:g} mm: they lie '
    f'{steps.min():.4g} to {steps.max():.4g} mm apart, as even steps of '
    f'{low:.4g} to {high:.4g} mm do after rounding; export the series again '
    'with all decimals of Image Position (Patient).'
  )


def _unit_mm(values: np.ndarray) -> float | None:
  """The coarsest unit that all values are multiples of, if it is coarse at all."""
  for unit in _ROUNDED_TO_MM:
    if np.abs(values / unit - np.rint(values / unit)).max() * unit < 1e-6:
      return unit
  return None


def _step_range_mm(values: np.ndarray, unit: float) -> tuple[float, float]:
  """Lowest and highest even step that rounding to `unit` can turn into the values.

  Two values may each be half a unit off their even place, so together they are at
  most a unit off their distance. The lowest is above the highest if there is none.
  """
  low, high = -np.inf, np.inf
  for distance in range(1, len(values)):
    differences = values[distance:] - values[:-distance]
    low = max(low, float(differences.max() - unit) / distance)
    high = min(high, float(differences.min() + unit) / distance)
  return low - 1e-6, high + 1e-6


def _place(position: np.ndarray) -> str:
  return f'z = {position[2]:.2f} mm'


# Straightening of a stack whose slices are shifted against each other.


def straightened(sheared: volume.CTVolume) -> volume.CTVolume:
  """Resamples a volume with gantry tilt so that its columns are upright.

  Each slice is shifted within its plane, by linear interpolation, and the planes
  are widened so that nothing falls out; what was not measured becomes air.

  Returns:
    The same volume if it is upright already; else one whose first affine column
    lies along the normal, with a warning that gives the angle.
  """
  steps = sheared.affine[:3, :3]
  in_plane = steps[:, 1:] / np.linalg.norm(steps[:, 1:], axis=0)
  normal = np.cross(in_plane[:, 1], in_plane[:, 0])
  normal /= np.linalg.norm(normal)
  along = float(steps[:, 0] @ normal)
  if along < 0:  # Mirrored columns: slices run to the head all the same.
    normal, along = -normal, -along
  angle = math.degrees(math.atan2(np.linalg.norm(steps[:, 0] - along * normal), along))
  # Voxels by which a slice lies further along rows and columns than the last one.
  shift = np.linalg.lstsq(steps[:, 1:], steps[:, 0] - along * normal, rcond=None)[0]
  offsets = np.arange(sheared.shape[0])[:, np.newaxis] * shift
  if np.abs(offsets).max() < 1e-3:
    return sheared
  start = np.floor(offsets.min(axis=0)).astype(int)
  end = np.ceil(offsets.max(axis=0)).astype(int)
  hu = _shifted(sheared.hu, offsets - start, (end - start).tolist())
  affine = sheared.affine.copy()
  affine[:3, 0] = along * normal
  affine[:3, 3] += steps[:, 1:] @ start
  return dataclasses.replace(
    sheared,
    hu=hu,
    affine=affine,
    warnings=(
      *sheared.warnings,
      (
        f'gantry tilt of {angle:.1f} degrees was straightened by linear '
        'interpolation: HU are resampled'
      ),
    ),
  )


def _shifted(hu: np.ndarray, offsets: np.ndarray, growth: Sequence[int]) -> np.ndarray:
  """Each slice moved by its offsets (voxels, not negative) in a larger plane."""
  count, rows, columns = hu.shape
  shape = (count, rows + growth[0], columns + growth[1])
  moved = np.full(shape, volume.AIR_HU, np.int16)
  for target, slice_hu, offset in zip(moved, hu, offsets):
    plane = np.full(shape[1:], volume.AIR_HU, np.float32)
    plane[:rows, :columns] = slice_hu
    target[...] = np.rint(
      ndimage.shift(plane, offset, order=1, mode='constant', cval=volume.AIR_HU)
    )
  return moved
