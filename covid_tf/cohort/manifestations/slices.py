"""What one scored study gives to the clustering: its slices as features.

Three vectors a slice: the classifier's pooled features, the gradient of its logit,
and the features of the same slice with its opacities erased. The last is how the
served contract lets features be asked about a place: the signature `features` pools
over the whole crop, so the place is taken away from the input instead.
"""

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np
from PIL import Image

from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import orientation
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.predictors import answers
from covid_tf.predictors import interface
from covid_tf.reports import pictures as pictures_lib
from covid_tf.storage import maps as maps_lib
from covid_tf.storage import result_json

# Slices small enough to keep beside their features, and the way up.

SIDE = 128  # Pixels of the longer side: key slices are shown at two centimetres.


def small_pictures(
  volume: volume_lib.CTVolume, box: results.LungBox, crops: np.ndarray, maps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Lung crops and their maps as small pictures, the patient's right on the left.

  Args:
    volume: the CT, for its directions and spacing.
    box: where the crops lie.
    crops: int16 [N, rows, columns], HU.
    maps: float32 [N, rows, columns], in [0, 1].

  Returns:
    (uint8 [N, height, width] in the lung window, the same of the maps, 255 for 1).
  """
  axial = pictures_lib.plane_view(
    volume.affine, volume.shape, 'axial', (slice(None), box.rows, box.columns)
  )
  # Slices that are not axial are shown as they are stored.
  view = axial if axial.fixed_axis == 0 else None

  def placed(crop: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The crop as it is shown, and the (rows, columns) of its small picture."""
    shown, (height, width) = crop, crop.shape
    if view:
      plane = np.zeros(volume.shape[1:], np.uint8)
      plane[box.rows, box.columns] = crop
      shown, (height, width) = view.picture(plane), view.size_mm
    scale = SIDE / max(height, width)
    return shown, (max(1, round(height * scale)), max(1, round(width * scale)))

  def small(crop: np.ndarray) -> np.ndarray:
    shown, size = placed(pictures_lib.lung_window(crop))
    return np.asarray(
      Image.fromarray(np.ascontiguousarray(shown)).resize(
        size[::-1], Image.Resampling.BILINEAR
      )
    )

  def small_map(map_: np.ndarray) -> np.ndarray:
    shown, size = placed(np.rint(255 * map_).astype(np.uint8))
    return pictures_lib.with_peaks(shown, tuple(np.divide(size, shown.shape)))

  if not len(crops):
    return np.zeros((0, 1, 1), np.uint8), np.zeros((0, 1, 1), np.uint8)
  return np.stack(list(map(small, crops))), np.stack(list(map(small_map, maps)))


# Ours: a healthy lung's usual density, where a study shows no lung outside its map.
_AERATED_HU = -850.0


@dataclasses.dataclass(frozen=True)
class ScoredStudy:
  """What must be known of a study before its slices are described.

  Attributes:
    study_uid: Study Instance UID, or ''.
    box: the lung crop.
    lung_mask: uint8 [slice, row, column], 0 or 1.
    slice_probability: float32 [slice].
    positive_slices: indices of the slices detected positive, ascending.
    maps: one float32 [box rows, box columns] for each positive slice, in [0, 1].
    thresholds: of the score.
    models: model name to card digest.
    slabs: what the networks saw.
    excluded_slices: that a person excluded; they are neither positive nor negative.
  """

  study_uid: str
  box: results.LungBox
  lung_mask: np.ndarray
  slice_probability: np.ndarray
  positive_slices: tuple[int, ...]
  maps: Sequence[np.ndarray] | np.ndarray
  thresholds: results.Thresholds
  models: dict[str, str]
  slabs: slabs_lib.Slabs
  excluded_slices: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class StudySlices:
  """The described slices of one study, N of them.

  Attributes:
    study_uid: Study Instance UID, or ''.
    slice_index: int32 [N], in the CT.
    covid_probability: float32 [N].
    positive: bool [N], detected positive.
    involved_fraction: float32 [N], share of the slice's lung voxels with a map
      above its threshold; 0 on negative slices.
    features: float32 [N, 2048], pooled last convolution.
    gradients: float32 [N, 2048], d logit / d features.
    erased_features: float32 [N, 2048], of the slice without its opacities; equal to
      `features` on negative slices, which have no map.
    pictures: uint8 [N, height, width], the lung crop as a radiologist sees it.
    maps: uint8 [N, height, width], the map over it, 255 for 1.
  """

  study_uid: str
  slice_index: np.ndarray
  covid_probability: np.ndarray
  positive: np.ndarray
  involved_fraction: np.ndarray
  features: np.ndarray
  gradients: np.ndarray
  erased_features: np.ndarray
  pictures: np.ndarray
  maps: np.ndarray


def from_case(case: results.CaseResult) -> ScoredStudy:
  """The study as `analyze` left it."""
  return ScoredStudy(
    case.study_uid,
    case.lung_box,
    case.lung_mask,
    case.slice_probability,
    case.positive_slices,
    case.localization.maps,
    case.thresholds,
    results.card_digests(case.models),
    slabs_lib.of_study(case, case.thresholds),
    case.edits.excluded_slices if case.edits else (),
  )


def choose_slices(
  study: ScoredStudy, negative_count: int, covid: bool | None
) -> tuple[int, ...]:
  """Which slices enter, as in the paper: positive slices of positive patients.

  Of slices that the networks saw as one slab the middle one stands for all.

  Args:
    study: the scored study.
    negative_count: negative slices of a patient without disease, at most.
    covid: the reference standard; None: a study with a positive slice is positive.

  Returns:
    Positive slices of a positive patient; else negative ones, evenly spaced over those
    that show lung.
  """
  is_positive = bool(study.positive_slices) if covid is None else covid
  middles = np.array(study.slabs.middles(slice(None)))
  if is_positive:
    return tuple(np.intersect1d(middles, study.positive_slices).tolist())
  with_lung = middles[study.lung_mask[middles].any(axis=(1, 2))]
  clear = np.setdiff1d(with_lung, (*study.positive_slices, *study.excluded_slices))
  if len(clear) > negative_count:
    clear = clear[np.linspace(0, len(clear) - 1, negative_count).round().astype(int)]
  return tuple(clear.tolist())


def describe(
  volume: volume_lib.CTVolume,
  study: ScoredStudy,
  slices: Sequence[int],
  models: interface.Models,
) -> StudySlices:
  """Asks the classifier for the features of some slices.

  Args:
    volume: the CT.
    study: its score.
    slices: indices, as `choose_slices` gives them.
    models: anything with `features(hu)`.

  Returns:
    The described slices, in the order of `slices`.

  Raises:
    errors.ModelError: a model failed, or its answers are no features.
  """
  chosen = np.asarray(slices, np.int32)
  positive = np.isin(chosen, study.positive_slices)
  crops = _crops(volume.hu[:, study.box.rows, study.box.columns], study.slabs, chosen)
  lungs = study.lung_mask[chosen, study.box.rows, study.box.columns] > 0
  maps = _maps(study, chosen)
  turn = orientation.plane_turn(volume.affine)
  asked = _features(crops, chosen, turn, models)
  erased = asked.features.copy()
  if positive.any():
    healthy = _healthy_hu(volume.hu, study)
    erased[positive] = _features(
      erase(
        crops[positive], maps[positive], lungs[positive], study.thresholds.map, healthy
      ),
      chosen[positive],
      turn,
      models,
    ).features
  involved = (maps > study.thresholds.map) & lungs
  return StudySlices(
    study.study_uid,
    chosen,
    study.slice_probability[chosen].astype(np.float32),
    positive,
    _share(involved, lungs),
    asked.features,
    asked.gradients,
    erased,
    *small_pictures(volume, study.box, crops, maps),
  )


def erase(
  crops: np.ndarray,
  maps: np.ndarray,
  lungs: np.ndarray,
  map_threshold: float,
  healthy_hu: float,
) -> np.ndarray:
  """Fills what the map points at with aerated lung.

  Wholly where the map reaches its threshold, fading below it: a sharp edge in the
  lung would be a finding of its own.

  Args:
    crops: int16 [N, rows, columns], HU.
    maps: float32 [N, rows, columns], in [0, 1].
    lungs: bool [N, rows, columns]; nothing outside them changes.
    map_threshold: of the map, in (0, 1).
    healthy_hu: what to fill with.

  Returns:
    int16 [N, rows, columns].
  """
  share = np.where(lungs, np.minimum(maps / map_threshold, 1), 0)
  return np.rint(crops + share * (healthy_hu - crops)).astype(np.int16)


def _crops(hu: np.ndarray, slabs: slabs_lib.Slabs, slices: np.ndarray) -> np.ndarray:
  """int16 [N, rows, columns]: what the networks saw around some middle slices."""
  if not slabs.is_averaged:
    return hu[slices]
  place = {middle: slab for slab, middle in enumerate(slabs.middles(slice(None)))}
  crops = np.empty((len(slices), *hu.shape[1:]), np.int16)
  for crop, index in zip(crops, slices.tolist(), strict=True):
    crop[...] = slabs.average(hu, slice(place[index], place[index] + 1))[0]
  return crops


def _maps(study: ScoredStudy, slices: np.ndarray) -> np.ndarray:
  """float32 [N, rows, columns]: zero for negative slices."""
  place = {index: i for i, index in enumerate(study.positive_slices)}
  maps = np.zeros((len(slices), *study.box.shape), np.float32)
  for i, index in enumerate(slices.tolist()):
    if index in place:
      maps[i] = study.maps[place[index]]
  return maps


def _features(
  crops: np.ndarray,
  slices: np.ndarray,
  turn: orientation.PlaneTurn,
  models: interface.Models,
) -> results.SliceFeatures:
  parts = []
  # A study may give no slice: then one call with none, for the shapes.
  for start in range(0, max(len(crops), 1), interface.CALL_SLICES):
    part = slice(start, start + interface.CALL_SLICES)
    parts.append(
      answers.checked_features(
        models.features(turn.to_usual(crops[part])), slices[part]
      )
    )
  return results.SliceFeatures(*map(np.concatenate, zip(*parts)))


def _healthy_hu(hu: np.ndarray, study: ScoredStudy) -> float:
  """Median HU of the lung in slices without a positive answer."""
  clear = np.setdiff1d(np.arange(len(hu)), study.positive_slices)
  voxels = hu[clear][study.lung_mask[clear] > 0]
  return float(np.median(voxels)) if voxels.size else _AERATED_HU


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  counts = np.maximum(whole.sum(axis=(1, 2)), 1)
  return (part.sum(axis=(1, 2)) / counts).astype(np.float32)


# A study as `covid-tf score` left it on disk, so that it is not scored twice.


def read_study(result_path: pathlib.Path, volume: volume_lib.CTVolume) -> ScoredStudy:
  """Reads result.json, map and mask of a study.

  Args:
    result_path: its result.json; map and mask lie beside it.
    volume: the CT that was scored.

  Returns:
    The scored study.

  Raises:
    errors.UsageError: a file is missing, damaged or of another CT.
  """
  result = result_json.read_result(result_path)
  mask, localization, _ = maps_lib.read_maps(result_path.parent, result, volume)
  return ScoredStudy(
    result.study_uid,
    result.lung_box,
    mask,
    np.array(result.slice_probability, np.float32),
    result.positive_slices,
    localization.maps,
    result.thresholds,
    results.card_digests(result.models),
    slabs_lib.of_study(volume, result.thresholds),
    result.edits.excluded_slices if result.edits else (),
  )
