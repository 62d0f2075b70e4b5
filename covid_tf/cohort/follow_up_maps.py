"""Maps of several studies side by side, at matching levels of the lungs."""

import dataclasses

import numpy as np

from covid_tf import results
from covid_tf.cohort import follow_up as follow_up_lib
from covid_tf.reports import case_pictures
from covid_tf.reports import lung_rendering
from covid_tf.reports import pictures
from covid_tf.reports import plane_view
from covid_tf.reports import stored_maps

# Shares of the lungs' height, from the head down. Ours: no registration, but the
# same place in the lungs whatever the slices and the depth of breath.
LEVELS = (0.8, 0.6, 0.4, 0.2)
_MARGIN_MM = 10
_BACKGROUND, _LUNG = 14, 92  # Greys: there is no CT beside a result.
_COLUMNS, _QUALITY, _HEAT_COLUMNS = 320, 60, 72


@dataclasses.dataclass(frozen=True)
class Level:
  """One level of one study.

  Attributes:
    height: share of the lungs' height.
    index: of the slice nearest to it.
    picture: lungs and map of that slice.
    score_cm3: the slice's part of the score.
  """

  height: float
  index: int
  picture: case_pictures.Picture
  score_cm3: float


@dataclasses.dataclass(frozen=True)
class StudyMaps:
  """The pictures of one study.

  Attributes:
    front: the rendered lungs from the front.
    view: how its slices lie on the page.
    heat_place: (x, y, width, height) of the map in a level's picture, in mm.
    levels: as LEVELS.
  """

  front: case_pictures.Rendering
  view: plane_view.PlaneView
  heat_place: tuple[float, float, float, float]
  levels: tuple[Level, ...]


def study_maps(point: follow_up_lib.TimePoint) -> StudyMaps | None:
  """Draws one study from its NIfTI files; None where they are not there.

  Raises:
    errors.UsageError: a file is damaged or of another study.
  """
  if not stored_maps.has_maps(point.folder):
    return None
  mask, map_, affine = stored_maps.read_maps(point.folder, point.result)
  view = plane_view.plane_view(affine, mask.shape, 'axial', _shown(map_, point.result))
  return StudyMaps(
      _front(mask, map_, affine), view, (0.0, 0.0, *view.size_mm[::-1]),
      tuple(_level(height, index, mask, map_, view, point.result)
            for height, index in zip(LEVELS, level_slices(mask, affine))))


def level_slices(mask: np.ndarray, affine: np.ndarray) -> tuple[int, ...]:
  """The slice nearest to each of LEVELS.

  Args:
    mask: uint8 [slice, row, column], 0 or 1, not empty.
    affine: float64 [4, 4], index (slice, row, column, 1) to LPS millimetres.
  """
  covered = np.flatnonzero(mask.any(axis=(1, 2)))
  base, apex = covered[0] - 0.5, covered[-1] + 0.5
  if affine[2, 0] < 0:  # Slices run to the feet.
    base, apex = apex, base
  return tuple(
      int(np.clip(round(base + height * (apex - base)), covered[0], covered[-1]))
      for height in LEVELS)


def _shown(map_, result):
  margins = (int(np.ceil(_MARGIN_MM / step)) for step in result.spacing_mm[1:])
  ends = ((map_.box.row0, map_.box.row1), (map_.box.column0, map_.box.column1))
  return (slice(None), *(
      slice(max(0, start - margin), min(length, stop + margin))
      for (start, stop), margin, length in zip(ends, margins, result.shape[1:])))


def _front(mask, map_, affine) -> case_pictures.Rendering:
  picture = lung_rendering.render(lung_rendering.lung_scene(mask, map_, affine), 0)
  return case_pictures.Rendering(
      'From the front', pictures.rgba_uri(picture), *picture.shape[:2], 'R', 'L')


def _level(
    height: float, index: int, mask: np.ndarray, map_: results.LocalizationMap, view,
    result) -> Level:
  lungs, heat = view.picture(mask[index]), view.picture(map_.slice_map(index))
  grey = np.where(lungs, _LUNG, _BACKGROUND).astype(np.uint8)
  rows = round(_COLUMNS * view.size_mm[0] / view.size_mm[1])
  return Level(
      height, index, case_pictures.Picture(
          pictures.grey_uri(grey, (rows, _COLUMNS), _QUALITY),
          pictures.heat_uri(heat, view.step_mm, _HEAT_COLUMNS) if heat.any() else '',
          pictures.outline(lungs, view.step_mm),
          pictures.outline(heat > result.thresholds.map, view.step_mm)),
      result.corona_score_by_slice_cm3[index])
