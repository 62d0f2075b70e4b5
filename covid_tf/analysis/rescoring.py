"""A stored result scored again: the same maps, other thresholds, mask or slices.

No network is asked. What was not stored cannot be scored: maps exist for the slices
that were positive, inside the lung box that the classifier saw.
"""

from collections.abc import Iterable
import dataclasses
import hashlib
import math
import os
import pathlib
from typing import Any

import numpy as np

from covid_tf import errors
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import case_score
from covid_tf.analysis import corrections
from covid_tf.analysis import coverage
from covid_tf.analysis import label_regions
from covid_tf.analysis import lungs as lungs_lib
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.storage import maps
from covid_tf.storage import result_json

_MIXED = (
  'The slice threshold was raised on stored maps, of averages of so few slices that '
  'some maps may still hold a part that is below it; score the study again for the '
  'exact map.',
)
_REGIONS_LEFT_OUT = (
  'The regions of the label map were left out: what was edited moves their numbers; '
  'give the label map again (--regions).'
)
_SAME = 1e-6  # Relative: what is stored and what it sums to are the same numbers.


@dataclasses.dataclass(frozen=True)
class Scored:
  """A stored result with its map and its mask, which are those of its CT.

  Attributes:
    stored: the fields of result.json.
    lung_mask: uint8 [slice, row, column], 0 or 1, as stored.
    localization: the map of the positive slices, as stored.
    sha256: of result.json.
    hu_sha256: of the CT's voxels.
  """

  stored: result_json.StoredResult
  lung_mask: np.ndarray
  localization: results.LocalizationMap
  sha256: str
  hu_sha256: str


def read_scored(result: str | os.PathLike[str], volume: volume_lib.CTVolume) -> Scored:
  """Reads what `covid-tf score` wrote of a study.

  Args:
    result: its folder, or the result.json in it.
    volume: the CT that was scored.

  Raises:
    errors.UsageError: there is no such result, its map is not there or gives another
      score, or it is of another CT.
  """
  path = pathlib.Path(result)
  folder = path if path.is_dir() else path.parent
  file = folder / result_json.FILE_NAME if path.is_dir() else path
  stored = result_json.read_result(file)
  lung_mask, localization, _ = maps.read_maps(folder, stored, volume)
  hu_sha256 = case_score.hu_digest(volume)
  if stored.hu_sha256 not in (None, hu_sha256):
    raise errors.UsageError(
      f'{file}: a result of the CT at hand is required, found one of other voxels; '
      'give the study that was scored, read as it was then, or score it again.'
    )
  localization = dataclasses.replace(
    localization, maps=np.ascontiguousarray(localization.maps)
  )
  _require_same_score(folder, stored, localization)
  return Scored(
    stored,
    np.ascontiguousarray(lung_mask),
    localization,
    hashlib.sha256(file.read_bytes()).hexdigest(),
    hu_sha256,
  )


def as_scored(scored: Scored, volume: volume_lib.CTVolume) -> results.CaseResult:
  """All that was stored, as it was when the study was scored.

  Args:
    scored: what `read_scored` gives.
    volume: the CT that was scored.

  Raises:
    errors.UsageError: the lung mask is another than the one that was scored with.
  """
  _require_same_volume(scored, volume)
  stored = scored.stored
  fields = {
    field.name: getattr(stored, field.name)
    for field in dataclasses.fields(results.CaseResult)
    if hasattr(stored, field.name)
  }
  arrays = {
    'slice_probability': np.asarray(stored.slice_probability, np.float32),
    'corona_score_by_slice_cm3': np.asarray(stored.corona_score_by_slice_cm3),
    'lung_mask': scored.lung_mask,
    'localization': scored.localization,
    'affine': volume.affine,
  }
  return results.CaseResult(**{**fields, **arrays})


def rescore(
  result: str | os.PathLike[str] | Scored,
  volume: volume_lib.CTVolume,
  *,
  lung_mask: np.ndarray | None = None,
  exclude_slices: Iterable[int] = (),
  slice_threshold: float | None = None,
  map_threshold: float | None = None,
  case_threshold_cm3: float | None = None,
  regions: label_regions.LabelMap | None = None,
) -> results.CaseResult:
  """Scores a stored result again, with corrections.

    result = covid_tf.rescore('result/', volume, exclude_slices=[0, 1])

  What is not given stays as it was, and so do earlier edits. Without any correction the
  numbers are those of the result, bit for bit.

  Args:
    result: the folder that `covid-tf score` wrote, or its result.json; or what
      `read_scored` gives.
    volume: the CT that was scored, with its original slices.
    lung_mask: [slice, row, column] of 0 and 1, on the CT's grid, taken as it is. The
      lung box stays: it is what the classifier saw.
    exclude_slices: indices of slices that count as negative, besides those that the
      result excludes already.
    slice_threshold: of the slices' probability; not below that of the result, since
      maps of the slices between were not stored.
    map_threshold: of the map.
    case_threshold_cm3: of the case.
    regions: further regions to measure, on the CT's grid. None: those of the result
      stay where nothing moves their numbers, else they are left out with a warning.

  Returns:
    The scored study; its `edits` say what was changed.

  Raises:
    errors.UsageError: the result cannot be read, is of another CT, or a correction is
      none that can be made.
  """
  if not isinstance(volume, volume_lib.CTVolume):
    raise errors.UsageError(
      'volume: a covid_tf.CTVolume is required, found '
      f'{type(volume).__name__}; covid_tf.read_ct(path) makes one of files.'
    )
  scored = result if isinstance(result, Scored) else read_scored(result, volume)
  thresholds = _thresholds(
    scored.stored.thresholds,
    slice_probability=slice_threshold,
    map=map_threshold,
    case_corona_score_cm3=case_threshold_cm3,
  )
  corrected = corrections.checked(volume, lung_mask, exclude_slices)
  label_map = None if regions is None else label_regions.checked(volume, regions)
  findings = dataclasses.replace(
    _findings(scored, volume, corrected, thresholds),
    options=_options(scored.stored, label_map),
  )
  again = case_score.score(volume, findings)
  if label_map is None and scored.stored.label_regions is not None:
    again = _with_stored_regions(again, scored)
  # Of the CT as it was read then, perhaps with the site's key.
  return dataclasses.replace(again, patient_key=scored.stored.patient_key)


def _findings(
  scored: Scored,
  volume: volume_lib.CTVolume,
  corrected: corrections.Corrections,
  thresholds: results.Thresholds,
) -> case_score.Findings:
  """What is stored, corrected."""
  stored = scored.stored
  mask, mask_sha256 = _mask(scored, corrected, volume)
  before = stored.edits or results.Edits()
  excluded = tuple(sorted({*before.excluded_slices, *corrected.excluded_slices}))
  corrections.require_lung_left(mask, excluded)
  lungs = lungs_lib.measured_lungs(mask, volume.voxel_volume_mm3, stored.lung_box)
  localization, is_exact = _positive(scored, thresholds, excluded)
  return case_score.Findings(
    lungs,
    np.asarray(stored.slice_probability, np.float32),
    localization,
    thresholds,
    stored.models,
    _warnings(scored, lungs, volume) + _MIXED * (not is_exact),
    demo_models=stored.demo_models,
    edits=results.Edits(
      mask_sha256,
      excluded,
      scored.sha256,
      _changed(stored.thresholds, thresholds, before.thresholds_before),
    ),
    hu_sha256=scored.hu_sha256,
    repeatability=stored.repeatability,
  )


def _options(
  stored: result_json.StoredResult, label_map: label_regions.LabelMap | None
) -> case_score.Options:
  """As the result was measured; by today's schemes where it has no densities."""
  if stored.densities is None:
    return case_score.Options(label_map=label_map)
  return case_score.Options(stored.densities.schemes, label_map)


def _with_stored_regions(
  found: results.CaseResult, scored: Scored
) -> results.CaseResult:
  """The regions of the result where they would be the same; its label map is gone."""
  before, after = scored.stored.thresholds, found.thresholds
  if (
    found.lung_mask is scored.lung_mask
    and found.positive_slices == scored.stored.positive_slices
    and (after.slice_probability, after.map) == (before.slice_probability, before.map)
  ):
    return dataclasses.replace(
      found,
      label_regions=scored.stored.label_regions,
      lobe_score=scored.stored.lobe_score,
    )
  return dataclasses.replace(found, warnings=(*found.warnings, _REGIONS_LEFT_OUT))


def _require_same_score(
  folder: pathlib.Path,
  stored: result_json.StoredResult,
  localization: results.LocalizationMap,
) -> None:
  """Refuses a map that another score belongs to."""
  threshold = float(stored.thresholds.map)
  total = math.fsum(
    map_[map_ > threshold].sum(dtype=np.float64) for map_ in localization.maps
  )
  found = total * stored.voxel_volume_mm3 / 1000
  if not math.isclose(found, stored.corona_score_cm3, rel_tol=_SAME, abs_tol=_SAME):
    raise errors.UsageError(
      f'{folder / maps.MAP_NAME}: the map of result.json is required, with a score of '
      f'{stored.corona_score_cm3:.3f} cm³, found one of {found:.3f} cm³; score the '
      'study again.'
    )


def _mask(
  scored: Scored, corrected: corrections.Corrections, volume: volume_lib.CTVolume
) -> tuple[np.ndarray, str | None]:
  """The mask to score by, and its digest where it is not the lung network's."""
  before = scored.stored.edits
  stored_sha256 = before.lung_mask_sha256 if before else None
  given = corrected.lung_mask
  if given is None:
    _require_same_volume(scored, volume)
    return scored.lung_mask, stored_sha256
  if _is_intact(scored, volume) and np.array_equal(given, scored.lung_mask):
    return scored.lung_mask, stored_sha256
  return given, corrections.mask_digest(given)


def _is_intact(scored: Scored, volume: volume_lib.CTVolume) -> bool:
  cm3 = np.count_nonzero(scored.lung_mask) * volume.voxel_volume_mm3 / 1000
  return math.isclose(cm3, scored.stored.lung_volume_cm3, rel_tol=_SAME)


def _require_same_volume(scored: Scored, volume: volume_lib.CTVolume) -> None:
  if not _is_intact(scored, volume):
    raise errors.UsageError(
      f'{maps.MASK_NAME}: the mask of result.json is required, with '
      f'{scored.stored.lung_volume_cm3:.1f} cm³ of lung, found another; if it was '
      'edited, covid-tf rescore takes it (--lung-mask).'
    )


def _thresholds(
  before: results.Thresholds, **stated: float | None
) -> results.Thresholds:
  try:
    changes: dict[str, Any] = {
      name: float(value) for name, value in stated.items() if value is not None
    }
    after = dataclasses.replace(before, **changes)
  except (TypeError, ValueError) as error:
    raise errors.UsageError(f'thresholds: {error}') from None
  if after.slice_probability < before.slice_probability:
    raise errors.UsageError(
      f'slice threshold: {before.slice_probability:g} or more is required, that of '
      f'the result, found {after.slice_probability:g}: maps of slices below it were '
      'not stored; score the study again.'
    )
  return after


def _positive(
  scored: Scored, thresholds: results.Thresholds, excluded: tuple[int, ...]
) -> tuple[results.LocalizationMap, bool]:
  """(the map of the slices that are still positive, whether it is that of a score)."""
  map_, stored = scored.localization, scored.stored
  # In float32, as the slices were decided.
  probability = np.asarray(stored.slice_probability, np.float32)
  threshold = float(thresholds.slice_probability)
  kept = [
    place
    for place, index in enumerate(map_.slices)
    if probability[index] > threshold and index not in excluded
  ]
  kept_maps = np.asarray(map_.maps)[kept]
  is_exact = True
  slabs = slabs_lib.of_study(stored, stored.thresholds)
  if slabs.is_averaged and threshold > stored.thresholds.slice_probability:
    for place, found in _of_fewer_slabs(map_, slabs, probability, threshold).items():
      if place in kept and found is not None:
        kept_maps[kept.index(place)] = found
      is_exact &= place not in kept or found is not None
  slices = tuple(map_.slices[place] for place in kept)
  return dataclasses.replace(map_, slices=slices, maps=kept_maps), is_exact


def _of_fewer_slabs(
  map_: results.LocalizationMap,
  slabs: slabs_lib.Slabs,
  probability: np.ndarray,
  threshold: float,
) -> dict[int, np.ndarray | None]:
  """Maps of slices between two slabs, one of which is not above a raised threshold.

  A slice that one slab covers alone has that slab's probability, and its map if it is
  positive: of these the map of a slice between two slabs is made anew, as `localize`
  makes it.

  Returns:
    Place among the map's slices to the new map; None where a slab has no such slice.
  """
  alone: dict[int, int] = {}
  for index in range(slabs.slices):
    if len(slabs.shares(index)) == 1:
      alone.setdefault(slabs.shares(index)[0][0], index)
  renewed: dict[int, np.ndarray | None] = {}
  for place, index in enumerate(map_.slices):
    shares = slabs.shares(index)
    if len(shares) == 1:
      continue
    own = [alone.get(slab) for slab, _ in shares]
    above = [one is not None and probability[one] > threshold for one in own]
    if all(above):
      continue
    known = None not in own and sum(above) == 1
    other = own[above.index(True)] if known else None
    renewed[place] = (
      np.float32(shares[above.index(True)][1]) * map_.maps[map_.slices.index(other)]
      if other in map_.slices
      else None
    )
  return renewed


def _changed(
  before: results.Thresholds,
  after: results.Thresholds,
  earlier: Any,
) -> dict[str, float | None]:
  """Name to first value of each threshold that is not what it was at first."""
  first = {
    name: getattr(before, name)
    for name in ('slice_probability', 'map', 'case_corona_score_cm3')
  } | dict(earlier)
  return {name: value for name, value in first.items() if getattr(after, name) != value}


def _warnings(
  scored: Scored,
  lungs: lungs_lib.Lungs,
  volume: volume_lib.CTVolume,
) -> tuple[str, ...]:
  """The result's warnings, with those of its lungs by the lungs of now."""
  stored = scored.stored
  kept = stored.warnings
  if lungs.mask is not scored.lung_mask:
    by_stored = lungs_lib.outside_warnings(stored.lung_outside_box_fraction)
    kept = (*(text for text in kept if text not in by_stored), *lungs.warnings)
    kept = coverage.renewed(kept, volume, lungs.mask)
  return kept
