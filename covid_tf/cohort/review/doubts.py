"""What makes a result worth a second look, each reason in words and with a weight.

No reason makes a result wrong. Weights only decide which results stand first on the
contact sheet; all of them and all limits are ours.
"""

from collections.abc import Iterable
import dataclasses
import re

import numpy as np
from scipy import ndimage

from covid_tf import results
from covid_tf.analysis import coverage
from covid_tf.analysis import lung_pieces
from covid_tf.storage import result_json

_SEVERE, _CLEAR, _SLIGHT, _ROUTINE = 4, 2, 1, 0
_OUTSIDE_BOX = ' of the lung lies outside the lung box'
# Counts of voxels that the reader set to air: most files have some.
_COUNTED_VOXELS = re.compile(r'\d+ (padding )?voxels ')

# The largest lungs on CT in full inspiration hold about this.
_LARGE_LUNGS_CM3 = 9000
_OUTSIDE_LUNGS = 0.5  # Of the score.
_MUCH_INVOLVED = 0.8  # Of the lungs: diffuse disease, or a classifier gone wrong.
# Pieces below this are crumbs. Two lungs are two pieces, or one where they touch.
_PIECE_CM3 = 10.0
_LUNGS = 2
# A slice with less than this share of the lung on both sides of it, within so many
# millimetres, where that is more than a fingertip.
_DIP = 0.6
_DIP_REACH_MM = 15.0
_DIP_LEAST_CM2 = 20.0
# Enclosed in a slice's mask, of the lungs: vessels are less.
_HOLES = 0.03
_GRID_MM = 2.0


@dataclasses.dataclass(frozen=True)
class Doubt:
  """One reason to look again.

  Attributes:
    text: the reason, for people.
    weight: how much it says, 1 to 4; 0: nothing, as most results have it.
  """

  text: str
  weight: int


def total(doubts: Iterable[Doubt]) -> int:
  """What results are sorted by: the sum of the weights."""
  return sum(doubt.weight for doubt in doubts)


def of_numbers(stored: result_json.StoredResult) -> tuple[Doubt, ...]:
  """Doubts that result.json alone raises: its warnings first.

  Args:
    stored: the result.
  """
  doubts = [
    Doubt(text, _warning_weight(text))
    for text in stored.warnings
    if text != result_json.DEMO_WARNING
  ]
  if stored.lung_volume_cm3 > _LARGE_LUNGS_CM3:
    doubts.append(
      Doubt(
        f'Lung volume of {stored.lung_volume_cm3:.0f} cm³: more than lungs hold '
        f'({_LARGE_LUNGS_CM3} cm³); is something else in the mask?',
        _SEVERE,
      )
    )
  score = stored.corona_score_cm3
  outside = 1 - stored.corona_score_in_lung_cm3 / score if score else 0.0
  if outside > _OUTSIDE_LUNGS:
    doubts.append(
      Doubt(f'{outside:.0%} of the score lies outside the lung mask.', _CLEAR)
    )
  if stored.involved_lung_fraction > _MUCH_INVOLVED:
    doubts.append(
      Doubt(f'{stored.involved_lung_fraction:.0%} of the lungs are involved.', _SLIGHT)
    )
  if stored.edits:
    doubts.append(Doubt(f'Edited: {" ".join(stored.edits.in_words())}', _SLIGHT))
  if stored.demo_models:
    doubts.append(Doubt('Scored by the demo models, trained on phantoms.', _SLIGHT))
  return tuple(doubts)


def _warning_weight(text: str) -> int:
  if _COUNTED_VOXELS.match(text):
    return _ROUTINE
  if text.startswith(coverage.OF_LUNGS):
    return _SEVERE
  return _CLEAR if _OUTSIDE_BOX in text else _SLIGHT


def of_mask(mask: np.ndarray, stored: result_json.StoredResult) -> tuple[Doubt, ...]:
  """Doubts that the lung mask raises: pieces, slices that lost lung, holes.

  Args:
    mask: uint8 [slice, row, column], 0 or 1, as stored.
    stored: the result that it belongs to.
  """
  voxel_cm3 = stored.voxel_volume_mm3 / 1000
  areas_cm2 = np.array([np.count_nonzero(plane) for plane in mask]) * (
    voxel_cm3 / (stored.spacing_mm[0] / 10)
  )
  return (
    *_pieces(mask, voxel_cm3),
    *_dips(areas_cm2, stored.spacing_mm[0]),
    *_lungless(stored, areas_cm2),
    *_holes(mask, stored.spacing_mm),
  )


def _pieces(mask: np.ndarray, voxel_cm3: float) -> tuple[Doubt, ...]:
  sizes_cm3 = np.sort(lung_pieces.find_pieces(mask).sizes * voxel_cm3)[::-1]
  large = sizes_cm3[sizes_cm3 >= _PIECE_CM3]
  if len(large) <= _LUNGS:
    return ()
  others = ', '.join(f'{size:.0f}' for size in large[_LUNGS : _LUNGS + 4])
  return (
    Doubt(
      f'The lung mask is in {len(large)} pieces of {_PIECE_CM3:.0f} cm³ or more: '
      f'beside the two largest {others}{", …" * (len(large) > _LUNGS + 4)} cm³.',
      _CLEAR,
    ),
  )


def _dips(areas_cm2: np.ndarray, distance_mm: float) -> tuple[Doubt, ...]:
  """Slices with much less lung than slices near them on both sides."""
  reach = max(1, round(_DIP_REACH_MM / distance_mm))
  dips = []
  for index in range(1, len(areas_cm2) - 1):
    around = min(
      areas_cm2[max(0, index - reach) : index].max(),
      areas_cm2[index + 1 : index + 1 + reach].max(),
    )
    if around >= _DIP_LEAST_CM2 and areas_cm2[index] < _DIP * around:
      dips.append(index)
  if not dips:
    return ()
  return (
    Doubt(
      'The lung mask has much less lung in some slices than above and below them: '
      f'{results.slices_in_words(dips)}.',
      _SEVERE,
    ),
  )


def _lungless(
  stored: result_json.StoredResult, areas_cm2: np.ndarray
) -> tuple[Doubt, ...]:
  without = [index for index in stored.positive_slices if not areas_cm2[index]]
  if not without:
    return ()
  return (
    Doubt(f'Positive slices without lung: {results.slices_in_words(without)}.', _CLEAR),
  )


def _holes(
  mask: np.ndarray, spacing_mm: tuple[float, float, float]
) -> tuple[Doubt, ...]:
  steps = [max(1, round(_GRID_MM / step)) for step in spacing_mm]
  coarse = mask[:: steps[0], :: steps[1], :: steps[2]] > 0
  holes = sum(
    int(np.count_nonzero(ndimage.binary_fill_holes(plane) & ~plane))
    for plane in coarse
    if plane.any()
  )
  share = holes / max(1, int(np.count_nonzero(coarse)))
  if share <= _HOLES:
    return ()
  return (
    Doubt(
      f'The lung mask has holes, {share:.0%} of the lungs: lost consolidation, or '
      'large vessels.',
      _CLEAR,
    ),
  )


def unreadable(reason: str) -> Doubt:
  """Where mask and map cannot be looked at."""
  return Doubt(reason, _SEVERE)
