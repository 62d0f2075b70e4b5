"""What a person corrects of a study: its lung mask, and which slices count.

A mask or a slice number that cannot be meant is refused, not repaired: the numbers of a
corrected study are quoted like those of any other (docs/corrections.md).
"""

from collections.abc import Iterable
import dataclasses
import hashlib
import operator

import numpy as np

from covid_tf import errors
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import lungs as lungs_lib

# All three ours. No chest holds more than this; what does is the body, or the mask
# turned inside out.
MOST_LUNG_CM3 = 15_000
# Lung that holds air lies in this range; emphysema is denser than its lower end
# (lung_pieces), and air outside the patient is not.
AERATED_HU = (-970, -500)
# Of a mask, so much is aerated lung even where both lungs are consolidated.
FEWEST_AERATED = 0.05


@dataclasses.dataclass(frozen=True)
class Corrections:
  """Corrections of one study, checked against it.

  Attributes:
    lung_mask: uint8 [slice, row, column], 0 or 1, or None: none was given.
    excluded_slices: indices of the slices that count as negative, ascending.
  """

  lung_mask: np.ndarray | None = None
  excluded_slices: tuple[int, ...] = ()

  def edits(self) -> results.Edits | None:
    """As the result states them; None where nothing is corrected."""
    if self.lung_mask is None and not self.excluded_slices:
      return None
    return results.Edits(
      None if self.lung_mask is None else mask_digest(self.lung_mask),
      self.excluded_slices,
    )


def checked(
  volume: volume_lib.CTVolume,
  lung_mask: np.ndarray | None = None,
  exclude_slices: Iterable[int] = (),
) -> Corrections:
  """Checks corrections of a study.

  Args:
    volume: the CT.
    lung_mask: [slice, row, column] of 0 and 1, on its grid; None: none.
    exclude_slices: indices of slices, in any order.

  Raises:
    errors.UsageError: the mask has another shape or other values, or covers no lung;
      there are no such slices.
  """
  if lung_mask is not None:
    lung_mask = _checked_mask(volume, lung_mask)
  return Corrections(lung_mask, _checked_slices(exclude_slices, volume.shape[0]))


def mask_digest(mask: np.ndarray) -> str:
  """SHA-256 of a mask's voxels.

  Args:
    mask: uint8 [slice, row, column], 0 or 1.
  """
  digest = hashlib.sha256()
  for plane in mask:
    digest.update(np.ascontiguousarray(plane, np.uint8).data)
  return digest.hexdigest()


def require_lung_left(mask: np.ndarray, excluded_slices: Iterable[int]) -> None:
  """Refuses to exclude every slice that holds lung.

  Args:
    mask: uint8 [slice, row, column], 0 or 1.
    excluded_slices: indices of slices.

  Raises:
    errors.UsageError: no slice with lung is left to score.
  """
  excluded = set(excluded_slices)
  if not excluded:
    return
  with_lung = np.flatnonzero(mask.any(axis=(1, 2))).tolist()
  if excluded.issuperset(with_lung):
    raise errors.UsageError(
      'excluded slices: at least one slice with lung must be left to score, found '
      f'all {len(with_lung)} of them excluded; exclude fewer.'
    )


def _checked_slices(exclude_slices: Iterable[int], count: int) -> tuple[int, ...]:
  try:
    if isinstance(exclude_slices, str):
      raise TypeError
    indices = sorted({operator.index(index) for index in exclude_slices})
  except TypeError:
    raise errors.UsageError(
      'excluded slices: whole numbers are required, 0 the lowest slice, found '
      f'{exclude_slices!r:.60}; give for instance [3, 4, 5] or range(3, 6).'
    ) from None
  wrong = [index for index in indices if not 0 <= index < count]
  if wrong:
    raise errors.UsageError(
      f'excluded slices: numbers from 0 to {count - 1} are required, as in '
      f'result.json, for the {count} slices of this study, found '
      f'{results.slices_in_words(wrong):.60}; give others.'
    )
  if len(indices) == count:
    raise errors.UsageError(
      'excluded slices: at least one slice with lung must be left to score, found '
      f'all {count} excluded; exclude fewer.'
    )
  return tuple(indices)


def _checked_mask(volume: volume_lib.CTVolume, lung_mask: np.ndarray) -> np.ndarray:
  """uint8 copy of a mask that covers lung of this CT."""
  if not isinstance(lung_mask, np.ndarray) or lung_mask.dtype.kind not in 'biuf':
    raise errors.UsageError(
      'lung mask: a numpy array of 0 and 1 is required, found '
      f'{getattr(lung_mask, "dtype", type(lung_mask).__name__)}.'
    )
  if lung_mask.shape != volume.shape:
    raise errors.UsageError(
      f'lung mask: the shape of the CT is required, {volume.shape} (slices, rows, '
      f'columns), found {lung_mask.shape}.'
    )
  mask = lung_mask == 1
  if np.count_nonzero(mask) != np.count_nonzero(lung_mask):
    raise errors.UsageError(
      f'lung mask: 0 and 1 are required, found {_values(lung_mask)}; make one label '
      'of all that is lung, for instance of a label map by (labels > 0).'
    )
  _require_lung(volume, mask)
  return mask.view(np.uint8)


def _require_lung(volume: volume_lib.CTVolume, mask: np.ndarray) -> None:
  count = int(np.count_nonzero(mask))
  cm3 = count * volume.voxel_volume_mm3 / 1000
  least, most = lungs_lib.MIN_LUNG_VOLUME_CM3, MOST_LUNG_CM3
  if not least <= cm3 <= most:
    found = f'{cm3:.0f} cm³' if count else 'an empty mask'
    raise errors.UsageError(
      f'lung mask: {least} to {most} cm³ of lung are required, found {found}; give a '
      'mask of both lungs of this CT.'
    )
  low, high = AERATED_HU
  air = aerated = 0
  for plane, lung in zip(volume.hu, mask):
    hu = plane[lung]
    below = int(np.count_nonzero(hu < low))
    air += below
    aerated += int(np.count_nonzero(hu <= high)) - below
  if aerated < FEWEST_AERATED * count or air > count / 2:
    raise errors.UsageError(
      f'lung mask: lung of this CT is required, at least {FEWEST_AERATED:.0%} of it '
      f'between {low} and {high} HU and not half of it below, found '
      f'{aerated / count:.1%} and {air / count:.1%}: is it the mask of another '
      'study, or of other tissue?'
    )


def _values(mask: np.ndarray) -> str:
  found = np.unique(mask)
  if len(found) <= 6:
    return ', '.join(f'{value:g}' for value in found)
  return f'{len(found)} values from {found[0]:g} to {found[-1]:g}'
