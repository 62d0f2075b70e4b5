"""What the models answer, checked before a number is made of it.

A model behind an address may be any model: a wrong shape is refused rather than
broadcast, and a NaN stops at the slice it came from instead of in a report.
"""

import numpy as np

from covid_tf import errors
from covid_tf import results

# Float arithmetic may leave a map by its last bits; anything more is another range.
_ROUNDING = 1e-6
_REMEDY = 'use models that this package exported'


def lung_mask(
    answer: np.ndarray, shape: tuple[int, int, int], first: int) -> np.ndarray:
  """The lungs model's answer, if it is a mask.

  Args:
    answer: what `segment_lungs` returned.
    shape: (slices, rows, columns) of what it was given.
    first: index of the first of these slices in the study, for the message.

  Returns:
    bool or integer [slice, row, column], 0 or 1.

  Raises:
    errors.ModelError: it is no such mask.
  """
  mask = np.asarray(answer)
  _require_shape('lung_mask', mask, shape, first)
  if mask.dtype.kind not in 'biu':
    raise errors.ModelError(
        f'the lungs model: lung_mask must be of integers, found {mask.dtype}; '
        f'{_REMEDY}.')
  for index, plane in enumerate(mask, first):
    if plane.max() > 1 or plane.min() < 0:
      raise errors.ModelError(
          f'the lungs model, slice {index}: lung_mask must be 0 or 1, found values '
          f'from {plane.min()} to {plane.max()}; {_REMEDY}.')
  return mask


def explanation(
    answer: tuple, count: int, first: int) -> results.SliceExplanation:
  """The classifier's answer, if it is probabilities and maps.

  Args:
    answer: what `grad_cam` returned: probabilities, fine maps, coarse maps.
    count: slices that it was given.
    first: index of the first of these slices in the study, for the message.

  Returns:
    The same in float32, in [0, 1].

  Raises:
    errors.ModelError: it is not.
  """
  names = results.SliceExplanation._fields
  parts = tuple(answer)
  if len(parts) != len(names):
    raise errors.ModelError(
        f'the classifier: {", ".join(names)} are required, found {len(parts)} '
        f'arrays; {_REMEDY}.')
  probability, cam_28, cam_14 = (np.asarray(part) for part in parts)
  _require_shape(names[0], probability, (count,), first)
  for name, maps in ((names[1], cam_28), (names[2], cam_14)):
    side = int(name.removeprefix('cam_'))
    _require_shape(name, maps, (count, side, side), first)
  return results.SliceExplanation(*(
      _unit_range(name, part, first)
      for name, part in zip(names, (probability, cam_28, cam_14))))


def _require_shape(name, array, shape, first):
  if array.shape != shape:
    raise errors.ModelError(
        f'the model, slices {first} to {first + shape[0] - 1}: {name} must have '
        f'shape {list(shape)}, found {list(array.shape)}; {_REMEDY}.')


def _unit_range(name, values, first) -> np.ndarray:
  if values.dtype.kind != 'f':
    raise errors.ModelError(
        f'the classifier: {name} must be of floats, found {values.dtype}; {_REMEDY}.')
  # Written so that NaN fails too.
  good = (values >= -_ROUNDING) & (values <= 1 + _ROUNDING)
  if not good.all():
    where = tuple(np.argwhere(~good)[0])
    raise errors.ModelError(
        f'the classifier, slice {first + where[0]}: {name} must be finite and in '
        f'[0, 1], found {values[where]!s}; {_REMEDY}.')
  return np.clip(values, 0, 1).astype(np.float32)
