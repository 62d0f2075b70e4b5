"""compare.json and compare.html: what became of one patient."""

import dataclasses
import pathlib

import numpy as np

from covid_tf import results
from covid_tf import version
from covid_tf.cohort.follow_up import course
from covid_tf.cohort.follow_up import ct_pictures
from covid_tf.cohort.follow_up import trend
from covid_tf.cohort.follow_up import zones
from covid_tf.reports import case_pictures
from covid_tf.reports import figures
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.reports import rendering
from covid_tf.storage import files
from covid_tf.storage import maps as maps_lib

# Maps of several studies side by side, at matching levels of the lungs.

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
  view: pictures.PlaneView
  heat_place: tuple[float, float, float, float]
  levels: tuple[Level, ...]


def study_maps(point: course.TimePoint) -> StudyMaps | None:
  """Draws one study from its NIfTI files; None where they are not there.

  Raises:
    errors.UsageError: a file is damaged or of another study.
  """
  if not maps_lib.has_maps(point.folder):
    return None
  mask, map_, affine = maps_lib.read_maps(point.folder, point.result)
  view = pictures.plane_view(affine, mask.shape, 'axial', _shown(map_, point.result))
  return StudyMaps(
    _front(mask, map_, affine),
    view,
    (0.0, 0.0, *view.size_mm[::-1]),
    tuple(
      _level(height, index, mask, map_, view, point.result)
      for height, index in zip(LEVELS, level_slices(mask, affine))
    ),
  )


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
    for height in LEVELS
  )


def _shown(map_, result):
  margins = (int(np.ceil(_MARGIN_MM / step)) for step in result.spacing_mm[1:])
  ends = ((map_.box.row0, map_.box.row1), (map_.box.column0, map_.box.column1))
  return (
    slice(None),
    *(
      slice(max(0, start - margin), min(length, stop + margin))
      for (start, stop), margin, length in zip(ends, margins, result.shape[1:])
    ),
  )


def _front(mask, map_, affine) -> case_pictures.Rendering:
  picture = rendering.render(rendering.lung_scene(mask, map_, affine), 0)
  rows, columns = picture.shape[:2]
  return case_pictures.Rendering(
    'From the front', pictures.rgba_uri(picture), rows, columns, 'R', 'L'
  )


def _level(
  height: float,
  index: int,
  mask: np.ndarray,
  map_: results.LocalizationMap,
  view,
  result,
) -> Level:
  lungs, heat = view.picture(mask[index]), view.picture(map_.slice_map(index))
  grey = np.where(lungs, _LUNG, _BACKGROUND).astype(np.uint8)
  rows = round(_COLUMNS * view.size_mm[0] / view.size_mm[1])
  return Level(
    height,
    index,
    case_pictures.Picture(
      pictures.grey_uri(grey, (rows, _COLUMNS), _QUALITY),
      pictures.heat_uri(heat, view.step_mm, _HEAT_COLUMNS) if heat.any() else '',
      pictures.outline(lungs, view.step_mm),
      pictures.outline(heat > result.thresholds.map, view.step_mm),
    ),
    result.corona_score_by_slice_cm3[index],
  )


SCHEMA_VERSION = 1  # Of compare.json.
_PAGE = 'compare.html'
FILE_NAMES = ('trend.svg', 'trend.png', _PAGE, 'compare.json')
ARROWS = {course.RISING: '↑', course.FALLING: '↓', course.UNCHANGED: '→'}
_NO_MAPS = (
  'Not every study has its map and lung mask beside result.json: no maps are shown '
  'for those that have none.'
)


def write_all(
  folder: pathlib.Path,
  follow_up: course.FollowUp,
  ct: ct_pictures.Comparison | None = None,
) -> course.FollowUp:
  """Writes FILE_NAMES into a folder.

  Args:
    folder: where; `files.filling_folder` describes all or none.
    follow_up: the studies.
    ct: their CT, or None for the maps alone.

  Returns:
    What was written: the studies, with a warning where maps were missing.

  Raises:
    errors.OutputError: a file cannot be written.
    errors.UsageError: a study's map or mask is damaged.
  """
  maps = [study_maps(point) for point in follow_up.points]
  if ct:
    follow_up = dataclasses.replace(
      follow_up, warnings=(*follow_up.warnings, *ct.warnings)
    )
  if None in maps:
    follow_up = dataclasses.replace(follow_up, warnings=(*follow_up.warnings, _NO_MAPS))
  figure = trend.trend_figure(follow_up)
  figures.save(figure, folder / 'trend')
  files.write_atomically(
    folder / _PAGE, page(follow_up, maps, figures.svg_text(figure), ct)
  )
  files.write_json(folder / 'compare.json', to_dict(follow_up, ct))
  return follow_up


def to_dict(
  follow_up: course.FollowUp, ct: ct_pictures.Comparison | None = None
) -> dict:
  """The content of compare.json; docs/compare.md explains it."""
  steps = {measure.name: follow_up.steps(measure) for measure in follow_up.measures}
  return {
    'schema_version': SCHEMA_VERSION,
    'patient_identity': follow_up.identity,
    'order': 'acquisition_date' if follow_up.by_date else 'as given',
    'studies': [_study(point, follow_up.measures) for point in follow_up.points],
    'changes': [
      {'from_study': number, 'to_study': number + 1}
      | {name: dataclasses.asdict(changes[number]) for name, changes in steps.items()}
      for number in range(len(follow_up.points) - 1)
    ],
    'first_to_last': {
      measure.name: dataclasses.asdict(follow_up.overall(measure))
      for measure in follow_up.measures
    },
    'repeatability': {
      'limit_cm3': follow_up.limit_cm3,
      'exceeded': follow_up.exceeds,
    },
    'zones': zones.to_dict(follow_up),
    'alignment': None if ct is None else _alignments(ct),
    'warnings': list(follow_up.warnings),
    'demo_models': is_demo(follow_up),
    'software': version.SOFTWARE,
  }


def _alignments(ct: ct_pictures.Comparison) -> list[dict]:
  """How each later study lies to the first one, and the error of it."""
  return [
    {
      'from_study': 0,
      'to_study': number,
      'surface_distance_mean_mm': study.alignment.mean_mm,
      'surface_distance_p95_mm': study.alignment.p95_mm,
      'common_lung_fraction': study.alignment.common_fraction,
      'turn_degrees': study.alignment.turn_degrees,
      'scales': list(study.alignment.scales),
      'matrix_lps_mm': study.alignment.matrix.tolist(),
    }
    for number, study in enumerate(ct.studies)
    if study.alignment is not None
  ]


def is_demo(follow_up: course.FollowUp) -> bool:
  """Whether the demo models answered for any of the studies."""
  return any(point.result.demo_models for point in follow_up.points)


def page(
  follow_up: course.FollowUp,
  maps: list[StudyMaps | None],
  trend_svg: str,
  ct: ct_pictures.Comparison | None = None,
) -> bytes:
  """compare.html, as UTF-8."""
  return pages.render(
    _PAGE,
    follow_up=follow_up,
    maps=maps,
    ct=ct,
    zones=zones.zone_courses(follow_up),
    zone_rows=zones.LEVEL_WORDS,
    zone_columns=zones.SIDES,
    trend_svg=trend_svg,
    measures=follow_up.measures,
    headline=course.MEASURES[:3],
    arrows=ARROWS,
    value=pages.measured,
    change_words=pages.change,
    levels=LEVELS,
    gradient=pictures.css_gradient(),
    thresholds=follow_up.points[0].result.thresholds,
    demo_models=is_demo(follow_up),
  )


def _study(point: course.TimePoint, measures: tuple[course.Measure, ...]) -> dict:
  result = point.result
  return (
    {
      'study_uid': result.study_uid,
      'series_uid': result.series_uid,
      'acquisition_date': result.acquisition_date,
      'days_since_first': point.days,
    }
    | {measure.name: measure.of(result) for measure in measures}
    | {
      'models': [
        {'name': model.name, 'version': model.version, 'card_sha256': model.card_sha256}
        for model in result.models
      ],
      'thresholds': dataclasses.asdict(result.thresholds),
      'warnings': list(result.warnings),
    }
  )
