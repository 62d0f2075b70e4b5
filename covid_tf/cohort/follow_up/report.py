"""compare.json and compare.html: what became of one patient."""

import dataclasses
import json
import pathlib

from covid_tf import files
from covid_tf import version
from covid_tf.cohort import follow_up as follow_up_lib
from covid_tf.cohort import follow_up_figure
from covid_tf.cohort import follow_up_maps
from covid_tf.reports import figure_style
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.reports import study_files
from covid_tf.reports import wording

SCHEMA_VERSION = 1  # Of compare.json.
NAMES = ('trend.svg', 'trend.png', 'compare.html', 'compare.json')
ARROWS = {
    follow_up_lib.RISING: '↑', follow_up_lib.FALLING: '↓', follow_up_lib.UNCHANGED: '→'}
_NO_MAPS = (
    'Not every study has its map and lung mask beside result.json: no maps are shown '
    'for those that have none.')


def write_all(
    folder: pathlib.Path, follow_up: follow_up_lib.FollowUp) -> follow_up_lib.FollowUp:
  """Writes NAMES into a folder.

  Args:
    folder: where; see output_folder.filling for all or none.
    follow_up: the studies.

  Returns:
    What was written: the studies, with a warning where maps were missing.

  Raises:
    errors.OutputError: a file cannot be written.
    errors.UsageError: a study's map or mask is damaged.
  """
  maps = [follow_up_maps.study_maps(point) for point in follow_up.points]
  if None in maps:
    follow_up = dataclasses.replace(
        follow_up, warnings=(*follow_up.warnings, _NO_MAPS))
  figure = follow_up_figure.trend_figure(follow_up)
  figure_style.save(figure, folder / 'trend')
  files.write_atomically(
      folder / 'compare.html', page(follow_up, maps, figure_style.svg_text(figure)))
  text = json.dumps(to_dict(follow_up), indent=2, ensure_ascii=False, allow_nan=False)
  files.write_atomically(folder / 'compare.json', f'{text}\n'.encode())
  return follow_up


def to_dict(follow_up: follow_up_lib.FollowUp) -> dict:
  """The content of compare.json; docs/compare.md explains it."""
  steps = {measure.name: follow_up.steps(measure)
           for measure in follow_up_lib.MEASURES}
  return {
      'schema_version': SCHEMA_VERSION,
      'patient_identity': follow_up.identity,
      'order': 'acquisition_date' if follow_up.by_date else 'as given',
      'studies': [_study(point) for point in follow_up.points],
      'changes': [
          {'from_study': number, 'to_study': number + 1} | {
              name: dataclasses.asdict(changes[number])
              for name, changes in steps.items()}
          for number in range(len(follow_up.points) - 1)],
      'first_to_last': {
          measure.name: dataclasses.asdict(follow_up.overall(measure))
          for measure in follow_up_lib.MEASURES},
      'warnings': list(follow_up.warnings),
      'demo_models': is_demo(follow_up),
      'software': f'covid-tf {version.__version__}',
  }


def is_demo(follow_up: follow_up_lib.FollowUp) -> bool:
  """Whether the demo models answered for any of the studies."""
  return any(study_files.DEMO_WARNING in point.result.warnings
             for point in follow_up.points)


def page(
    follow_up: follow_up_lib.FollowUp,
    maps: list[follow_up_maps.StudyMaps | None], trend_svg: str) -> bytes:
  """compare.html, as UTF-8."""
  return pages.render(
      'compare.html', follow_up=follow_up, maps=maps, trend_svg=trend_svg,
      measures=follow_up_lib.MEASURES, headline=follow_up_lib.MEASURES[:3],
      arrows=ARROWS, value=wording.measured, change_words=wording.change,
      levels=follow_up_maps.LEVELS, gradient=pictures.css_gradient(),
      thresholds=follow_up.points[0].result.thresholds,
      demo_models=is_demo(follow_up))


def _study(point: follow_up_lib.TimePoint) -> dict:
  result = point.result
  return {
      'study_uid': result.study_uid,
      'series_uid': result.series_uid,
      'acquisition_date': result.acquisition_date,
      'days_since_first': point.days,
  } | {measure.name: measure.of(result) for measure in follow_up_lib.MEASURES} | {
      'models': [{'name': model.name, 'version': model.version,
                  'card_sha256': model.card_sha256} for model in result.models],
      'thresholds': dataclasses.asdict(result.thresholds),
      'warnings': list(result.warnings),
  }
