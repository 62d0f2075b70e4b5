"""viewer.html: one case to look at, in three planes and turning lungs.

The page paints its planes itself, from exact HU; NiiVue draws what turns. Without a
graphics card it would need about 16 s of a processor to show a whole CT through another
window (docs/adr/0170).
"""

import base64
from collections.abc import Mapping
import dataclasses
import gzip
import importlib.resources
import json
import os
import pathlib
from typing import Any
import urllib.parse

import numpy as np

from covid_tf import errors
from covid_tf import readers
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import rescoring
from covid_tf.reports import case_pictures
from covid_tf.reports import case_report
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.reports import viewed_volume
from covid_tf.storage import files
from covid_tf.storage import result_json

# `viewer.html#slice=41` opens the page at slice 41, numbered as in result.json.
FILE_NAME = 'viewer.html'
_OTHER_PAGES = (case_report.FILE_NAME,)

# Made by tools/vendor_niivue.py.
_NIIVUE = pathlib.Path(str(importlib.resources.files('covid_tf.reports'))) / 'niivue'
NIIVUE_SCRIPT = _NIIVUE / 'niivue.umd.js.gz'
NIIVUE_RECORD = _NIIVUE / 'niivue.json'
NIIVUE_LICENSES = _NIIVUE / 'LICENSES.txt'


@dataclasses.dataclass(frozen=True)
class Window:
  """A window of HU: `center` and `width` as viewers name them."""

  name: str
  center: int
  width: int
  key: str


# Lung: as in the report. Mediastinum and bone: usual ones of chest reading.
WINDOWS = (
  Window('Lung', -600, 1500, '1'),
  Window('Mediastinum', 40, 400, '2'),
  Window('Bone', 400, 1800, '3'),
)


def write_viewer(
  path: str | os.PathLike,
  result: results.CaseResult,
  volume: volume_lib.CTVolume,
  *,
  demo_models: bool = False,
  report_name: str | None = case_report.FILE_NAME,
) -> None:
  """Writes a case's viewer: one file, no outside references, no patient identifiers.

  Args:
    path: the file to make or replace.
    result: the scored study.
    volume: its CT, on the same grid.
    demo_models: whether to say that the models are demonstration models.
    report_name: of the report's page in the same folder, which the viewer then links;
      None where there is none.

  Raises:
    errors.OutputError: the file cannot be written.
    ValueError: result and volume are not of one grid, or not axial.
  """
  page = viewer_html(result, volume, demo_models=demo_models, report_name=report_name)
  files.write_atomically(path, page)


def viewer_html(
  result: results.CaseResult,
  volume: volume_lib.CTVolume,
  *,
  demo_models: bool = False,
  report_name: str | None = case_report.FILE_NAME,
) -> bytes:
  """The page of `write_viewer`, as UTF-8; at most 25 MB."""
  viewed = viewed_volume.viewed_volume(volume, result)
  ranked = case_pictures.most_affected_slices(result)
  demo_models = demo_models or result.demo_models
  return pages.render(
    FILE_NAME,
    result=result,
    demo_models=demo_models,
    viewed=viewed,
    windows=WINDOWS,
    views=_views(volume, viewed),
    ranked=[
      {
        'index': index,
        'score_cm3': float(result.corona_score_by_slice_cm3[index]),
        'probability': float(result.slice_probability[index]),
      }
      for index in ranked
    ],
    report_href=urllib.parse.quote(report_name) if report_name else '',
    gradient=pictures.css_gradient(),
    study=_study(result, volume, viewed, ranked),
    parts=[base64.b64encode(part).decode() for part in viewed.parts],
    provenance=pages.provenance(result, pictures.WINDOW_HU, demo_models),
    niivue=_niivue_script(),
    niivue_record=json.loads(NIIVUE_RECORD.read_text('utf-8')),
    niivue_licenses=NIIVUE_LICENSES.read_text('utf-8'),
  )


def write_stored_viewer(
  result: str | os.PathLike[str],
  volume: volume_lib.CTVolume,
  path: str | os.PathLike[str],
) -> None:
  """Writes the viewer of a stored result; its other files stay as they are.

  Args:
    result: the folder that `covid-tf score` wrote, or its result.json.
    volume: the CT that was scored.
    path: the file to make or replace. In the result's folder it links the report.

  Raises:
    errors.UsageError: the result cannot be read, or is of another CT.
    errors.OutputError: the file cannot be written.
  """
  shown = rescoring.as_scored(rescoring.read_scored(result, volume), volume)
  report = _folder(result) / case_report.FILE_NAME
  is_beside = pathlib.Path(path).resolve().parent == report.parent.resolve()
  write_viewer(
    path,
    shown,
    volume,
    demo_models=shown.demo_models,
    report_name=report.name if is_beside and report.is_file() else None,
  )


def view_stored(
  result: str | os.PathLike[str],
  study: str | os.PathLike[str],
  path: str | os.PathLike[str] | None = None,
  reading: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes the viewer of a stored result and of its study's files.

  Args:
    result: the folder that `covid-tf score` wrote, or its result.json.
    study: the files that were scored.
    path: a file whose name ends in .html; None: viewer.html beside result.json.
    reading: keyword arguments of `read_ct` as the study was scored with; a result of
      DICOM names its series itself.

  Returns:
    The file that is there now.

  Raises:
    errors.CovidTFError: the study is not that of the result, or cannot be read, or the
      file cannot be written; what was there is as it was.
  """
  folder = _folder(result)
  path = pathlib.Path(folder / FILE_NAME if path is None else path)
  if path.suffix.lower() != '.html' or path.name in _OTHER_PAGES:
    raise errors.UsageError(
      f'{path}: a file to write is required whose name ends in .html and is not '
      f'{" or ".join(_OTHER_PAGES)}, found another; {FILE_NAME} is usual.'
    )
  stored = result_json.read_result(result)
  if not os.path.exists(study):
    raise errors.UsageError(
      f'{study}: the study of {folder} is required, found nothing there; give the '
      'files that were scored.'
    )
  reading = dict(reading or {})
  if stored.series_uid:  # Whichever rule picked it.
    reading.pop('select', None)
    reading.setdefault('series_uid', stored.series_uid)
  write_stored_viewer(result, readers.read_ct(study, **reading), path)
  return path


def _folder(result: str | os.PathLike[str]) -> pathlib.Path:
  path = pathlib.Path(result)
  return path if path.is_dir() else path.parent


def _views(
  volume: volume_lib.CTVolume, viewed: viewed_volume.ViewedVolume
) -> list[pictures.PlaneView]:
  affine = viewed.blocks.affine(volume.affine)
  views = [
    pictures.plane_view(affine, viewed.blocks.shape, name)
    for name in ('axial', 'coronal', 'sagittal')
  ]
  if views[0].fixed_axis != 0:
    raise ValueError('slices nearest to axial are required.')
  return views


def _study(
  result: results.CaseResult,
  volume: volume_lib.CTVolume,
  viewed: viewed_volume.ViewedVolume,
  ranked: list[int],
) -> dict[str, Any]:
  """What the page's scripts are told, as JSON."""
  blocks = viewed.blocks
  start = ranked[0] if ranked else int(np.argmax(result.lung_mask.sum(axis=(1, 2))))
  return {
    'shape': blocks.shape,
    'ctShape': viewed.ct_shape,
    'start': blocks.start,
    'stop': blocks.stop,
    'factors': blocks.factors,
    'affine': blocks.affine(volume.affine).tolist(),
    'partSlices': viewed.part_slices,
    'planes': [_plane(view) for view in _views(volume, viewed)],
    'colours': pictures.heat_colours(np.linspace(0, 1, 256))[:, :3].ravel().tolist(),
    'threshold': result.thresholds.map,
    'slice': start,
    'windows': [[window.center, window.width] for window in WINDOWS],
    'probability': np.round(result.slice_probability, 3).tolist(),
    'score': np.round(result.corona_score_by_slice_cm3, 4).tolist(),
  }


def _plane(view: pictures.PlaneView) -> dict[str, Any]:
  return {
    'name': view.name,
    'fixed': view.fixed_axis,
    'down': _side(view.down),
    'across': _side(view.across),
    'markers': view.markers,
  }


def _side(side: pictures.PictureAxis) -> dict[str, Any]:
  return {'axis': side.axis, 'reversed': side.reversed, 'step': side.step_mm}


def _niivue_script() -> str:
  """NiiVue, as it stands in an HTML script."""
  script = gzip.decompress(NIIVUE_SCRIPT.read_bytes()).decode()
  if '</script' in script.lower() or '<!--' in script:
    raise AssertionError('a script that HTML would end early')
  return script
