"""From slice positions to one even grid, or why there is none."""

import dataclasses
import math

import numpy as np

from covid_tf import errors
from covid_tf.readers import images

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


def heights_mm(planes: list[images.Plane]) -> np.ndarray:
  """Position of each image along the normal of the first."""
  return np.array([plane.position for plane in planes]) @ planes[0].normal


def grid(planes: list[images.Plane]) -> Grid:
  """The grid of images sorted along the normal, at different places.

  Raises:
    CTReadError: fewer than two images, missing slices, or a spacing that varies.
  """
  if len(planes) < 2:
    raise errors.CTReadError(
        'at least 2 slices are required, found 1: the spacing of a single slice '
        'cannot be measured; give the folder of the whole series.')
  positions = np.array([plane.position for plane in planes])
  first = planes[0]
  axes = np.stack((first.normal, first.row_direction, first.column_direction))
  along, *across = ((positions - positions[0]) @ axes.T).T
  _require_no_gap(along, positions)
  step = _slope(along)
  if not _STEP_RANGE_MM[0] <= step <= _STEP_RANGE_MM[1]:
    raise errors.CTReadError(
        f'slices must be 0.05 to 50 mm apart, found {step:.3f} mm.')
  drift = [_slope(values) for values in across]
  deviation = np.sqrt(sum(
      _deviation(values, slope) ** 2
      for values, slope in zip((along, *across), (step, *drift))))
  warnings = list(_judge_deviation(deviation, step, positions))
  tilt = math.degrees(math.atan2(math.hypot(*drift), step))
  if math.hypot(*drift) * (len(planes) - 1) <= _VARYING[1]:
    tilt = 0.0  # Two thin slices with rounded positions look steep.
  elif _TILT_NOTE_DEG < tilt <= _TILT_LIMIT_DEG:
    warnings.append(f'the slices are sheared by {tilt:.2f} degrees; the affine '
                    'holds it')
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
        'resampling (resample_tilt=True, --resample-tilt).')


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


def _require_no_gap(along: np.ndarray, positions: np.ndarray):
  steps = np.diff(along)
  step = float(np.median(steps))
  if len(steps) < 2:
    return
  limit = max(_VARYING[0] * step, _VARYING[1])
  wide = np.flatnonzero(steps > 1.5 * step)
  if not wide.size:
    return
  lost = np.rint(steps[wide] / step).astype(int) - 1
  whole = np.abs(steps[wide] - (lost + 1) * step) <= limit * (lost + 1)
  gap = int(wide[0])
  place = f'between {_place(positions[gap])} and {_place(positions[gap + 1])}'
  if not whole.all() or lost.sum() > len(steps):
    raise errors.CTReadError(
        f'varying slice spacing: {steps.min():.2f} to {steps.max():.2f} mm, one '
        f'step is required; the first wide one ({steps[gap]:.2f} mm) is {place}.')
  raise errors.CTReadError(
      f'{lost.sum()} slice(s) missing in {len(wide)} gap(s): the slices are '
      f'{step:.2f} mm apart, but {steps[gap]:.2f} mm {place}; copy the series again.')


def _judge_deviation(deviation, step: float, positions):
  worst = int(np.argmax(deviation))
  off, place = deviation[worst], _place(positions[worst])
  if off > max(_VARYING[0] * step, _VARYING[1]):
    raise errors.CTReadError(
        f'varying slice spacing: even steps of {step:.3f} mm are required, the '
        f'slice at {place} is {off:.3f} mm off.')
  if off > max(_ROUNDING[0] * step, _ROUNDING[1]) * (1 + 1e-6):
    yield (f'slice positions are up to {off:.3f} mm off even steps of '
           f'{step:.3f} mm (at {place})')


def _place(position) -> str:
  return f'z = {position[2]:.2f} mm'
