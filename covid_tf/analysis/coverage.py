"""What a reader of a score should know of the scan: which part of the lungs, how made.

A score is a sum over the lungs that were imaged. Where they are cut off, or one of them
is missing, it is of a part; a shallow breath, contrast and another kind of scan than
the classifier was made for change densities and probabilities. None of it stops a
scoring.
"""

from collections.abc import Iterable
import fnmatch
from typing import Any

import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf import volume as volume_lib

# Ours. Lung in an end slice is a cut if it is more than this share of the largest
# slice's lung: 12 cm² of an adult's. Five whole chests (1.25 to 8 mm) that were cut
# there would have lost 0.02 to 0.3 % of their lungs. The last of thick slices may lie
# some millimetres below the tip of a lung: 10 mm below the top these chests show 8 to
# 18 % of the largest slice's lung, so the share grows with the distance of slices.
_CUT_SHARE = 0.05
_CUT_SHARE_PER_MM = 0.015

# Ours: a healthy right lung holds somewhat more than the left one; the five chests have
# 41 to 54 % of their lungs on the right of the body's middle. The lung left after
# surgery reaches over the middle with a part.
_SMALLER_SIDE_SHARE = 0.15
_BODY_HU = -250  # Soft tissue and denser.
_SAMPLED_SLICES = 24
_SAMPLED_STEP_PIXELS = 4

# Adults in full inspiration, on CT lying down: 4,468 ± 1,271 cm³ (mean, SD; 564 with
# normal lungs: Cheng et al., Int J COPD 2019; 14: 1657), 4,066 ± 1,190 cm³ (100:
# Cressoni et al., Crit Care 2013; 17: R93). Two SD below these means lie 1,926 and
# 1,686 cm³; in a quiet breath lungs hold 1,900 cm³ of gas (11 men: Fleming et al., BMC
# Med Imaging 2014; 14: 25).
_SMALL_LUNGS_CM3 = 2000

_CUT = 'Lungs reach the '
_ONE_SIDE = 'Nearly all lung '
_SMALL = 'A lung volume of '
# How warnings of lungs that are cut off, missing or small begin.
OF_LUNGS = (_CUT, _ONE_SIDE, _SMALL)

# Words of `Acquisition.contrast_agent` that say where contrast did not reach the lungs,
# and those that say it did in spite of them.
_THROUGH_THE_GUT = frozenset('ORAL ORALLY PO RECTAL ENTERAL READICAT BARIUM'.split())
_INTO_VESSELS = frozenset(
  'IV INTRAVENOUS INTRAVENOUSLY INTRAVASCULAR VENOUS ARTERIAL PORTAL'.split()
)


def of_lungs(volume: volume_lib.CTVolume, mask: np.ndarray) -> tuple[str, ...]:
  """Warnings of lungs that are cut off, missing or small.

  Args:
    volume: the CT.
    mask: uint8 [slice, row, column], 0 or 1, its lungs; not empty.
  """
  # Of bytes 0 and 1: numpy counts truth values much faster.
  voxels = np.array([np.count_nonzero(plane) for plane in mask.view(bool)])
  part = _cut_off(volume, voxels) + _one_side(volume, mask, voxels)
  # The volume of a part says nothing of the breath.
  return part or _small(volume, voxels)


def renewed(
  warnings: Iterable[str], volume: volume_lib.CTVolume, mask: np.ndarray
) -> tuple[str, ...]:
  """Warnings of a result with those of its lungs as another mask gives them."""
  others = (text for text in warnings if not text.startswith(OF_LUNGS))
  return *others, *of_lungs(volume, mask)


def _cut_off(volume: volume_lib.CTVolume, voxels: np.ndarray) -> tuple[str, ...]:
  distance_mm = volume.spacing_mm[0]
  pixel_cm2 = volume.voxel_volume_mm3 / distance_mm / 100
  share = max(_CUT_SHARE, _CUT_SHARE_PER_MM * distance_mm)
  # Slices run to the head in what the reader gives; by the affine for any other.
  names = ('lowest', 'highest') if volume.affine[2, 0] > 0 else ('highest', 'lowest')
  ends = [
    (name, voxels[index] * pixel_cm2)
    for name, index in zip(names, (0, -1), strict=True)
    if voxels[index] > share * voxels.max()
  ]
  if not ends:
    return ()
  found = ' and the '.join(
    f'{name} slice ({area:.0f} cm² there)' for name, area in ends
  )
  parts = {'lowest': 'lower', 'highest': 'upper'}
  missing = ' and '.join(parts[name] for name, _ in ends)
  return (
    f'{_CUT}{found}: their {missing} end{"s" * (len(ends) > 1)} '
    f'{"were" if len(ends) > 1 else "was"} not imaged; score, lung volume and shares '
    'are of the part that was.',
  )


def _one_side(
  volume: volume_lib.CTVolume, mask: np.ndarray, voxels: np.ndarray
) -> tuple[str, ...]:
  """Sides of the body's middle: a plane between two lungs needs both of them."""
  with_lung = np.flatnonzero(voxels)
  slices = with_lung[:: max(1, len(with_lung) // _SAMPLED_SLICES)]
  step = slice(None, None, _SAMPLED_STEP_PIXELS)
  hu, lung = volume.hu[slices, step, step], mask[slices, step, step] > 0
  x_axis = volume.affine[0]
  x = (
    x_axis[0] * slices[:, np.newaxis, np.newaxis]
    + x_axis[1] * _SAMPLED_STEP_PIXELS * np.arange(hu.shape[1])[:, np.newaxis]
    + x_axis[2] * _SAMPLED_STEP_PIXELS * np.arange(hu.shape[2])
  )
  body = x[(hu > _BODY_HU) | lung]
  if not lung.any():
    return ()
  left = float(np.mean(x[lung] > np.median(body)))  # LPS: x grows to the left.
  if min(left, 1 - left) >= _SMALLER_SIDE_SHARE:
    return ()
  side, other = ('left', 'right') if left > 0.5 else ('right', 'left')
  return (
    f'{_ONE_SIDE}({max(left, 1 - left):.0%}) lies on the {side} side of the body: the '
    f'{other} lung is missing, or was not found (consolidation, effusion, surgery); '
    'score, lung volume and shares are of what was found.',
  )


def _small(volume: volume_lib.CTVolume, voxels: np.ndarray) -> tuple[str, ...]:
  volume_cm3 = voxels.sum() * volume.voxel_volume_mm3 / 1000
  if volume_cm3 >= _SMALL_LUNGS_CM3:
    return ()
  return (
    f'{_SMALL}{volume_cm3:.0f} cm³ is less than adults have in full inspiration (below '
    f'{_SMALL_LUNGS_CM3} cm³): an expiration, a child, a small person or lungs that '
    'disease made small. In expiration lungs are denser, and normal ones may look like '
    'ground glass.',
  )


def of_acquisition(
  volume: volume_lib.CTVolume, models: Iterable[results.ModelIdentity]
) -> tuple[str, ...]:
  """Warnings of contrast, and of a scan that the classifier was not made for.

  Args:
    volume: the CT.
    models: who answers; the classifier's card may have a `scope`.

  Raises:
    errors.ModelError: the card's scope is none.
  """
  distance_mm = volume.spacing_mm[0]
  acquisition = volume.acquisition or volume_lib.Acquisition(
    slice_distance_mm=distance_mm
  )
  warnings = _contrast(acquisition)
  for model in models:
    if model.name == contract.CLASSIFIER_MODEL:
      warnings += _out_of_scope(acquisition, model.card.get('scope'))
  return warnings


def _contrast(acquisition: volume_lib.Acquisition) -> tuple[str, ...]:
  words = set((acquisition.contrast_agent or '').split())
  if not acquisition.contrast or words & _THROUGH_THE_GUT and not words & _INTO_VESSELS:
    return ()
  agent = f' ({acquisition.contrast_agent})' if acquisition.contrast_agent else ''
  return (
    f'Contrast was given{agent}: vessels and lungs are denser than without; the paper '
    'scored CT without contrast.',
  )


def _out_of_scope(acquisition: volume_lib.Acquisition, card: Any) -> tuple[str, ...]:
  """What differs from the scans that the classifier's card names."""
  try:
    scope = contract.Scope.of_card(card)
  except ValueError as error:
    raise errors.ModelError(
      f"the classifier: its card's {error}; export the model again."
    ) from None
  differing = []
  for name, (low, high) in scope.ranges.items():
    value = getattr(acquisition, name)
    if value is not None and not low * 0.99 <= value <= high * 1.01:  # As rounded.
      shown = contract.SCOPE_RANGES[name]
      differing.append(f'{shown.format(f"{value:.4g}")} (made for {low:g} to {high:g})')
  for name, patterns in scope.patterns.items():
    value = getattr(acquisition, name)
    if value is not None and not any(
      fnmatch.fnmatchcase(value.casefold(), pattern.casefold()) for pattern in patterns
    ):
      differing.append(f'{name} {value} (made for {", ".join(patterns)})')
  if not differing:
    return ()
  return (
    f'The classifier was not made for this scan: {"; ".join(differing)}. How well it '
    'answers here was not measured.',
  )
