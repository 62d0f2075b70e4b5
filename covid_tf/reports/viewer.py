"""viewer.html: one case to look at, in three planes and turning lungs.

The page paints its planes itself, from exact HU; NiiVue draws what turns. Without a
graphics card it would need about 16 s of a processor to show a whole CT through another
window (docs/adr/0170).
"""

import base64
import dataclasses
import gzip
import importlib.resources
import json
import os
import pathlib
from typing import Any

import numpy as np

from covid_tf import errors
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
) -> None:
  """Writes a case's viewer: one file, no outside references, no patient identifiers.

  It links the report beside it, `report.html`.

  Args:
    path: the file to make or replace.
    result: the scored study.
    volume: its CT, on the same grid.
    demo_models: whether to say that the models are demonstration models.

  Raises:
    errors.OutputError: the file cannot be written.
    ValueError: result and volume are not of one grid, or not axial.
  """
  files.write_atomically(path, viewer_html(result, volume, demo_models=demo_models))


def viewer_html(
  result: results.CaseResult, volume: volume_lib.CTVolume, *, demo_models: bool = False
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
    report_name=case_report.FILE_NAME,
    gradient=pictures.css_gradient(),
    study=_study(result, volume, viewed, ranked),
    parts=[base64.b64encode(part).decode() for part in viewed.parts],
    provenance=pages.provenance(result, pictures.WINDOW_HU, demo_models),
    niivue=_niivue_script(),
    niivue_record=json.loads(NIIVUE_RECORD.read_text('utf-8')),
    niivue_licenses=NIIVUE_LICENSES.read_text('utf-8'),
  )


def write_stored_viewer(
  result: str | os.PathLike, volume: volume_lib.CTVolume, path: str | os.PathLike
) -> None:
  """Writes the viewer of a stored result.

  Args:
    result: the folder that `covid-tf score` wrote, or its result.json.
    volume: the CT that was scored.
    path: the file to make or replace.

  Raises:
    errors.UsageError: the result cannot be read, or is of another CT.
    errors.OutputError: the file cannot be written.
  """
  scored = rescoring.rescore(result, volume)
  stored = result_json.read_result(pathlib.Path(result))
  # As it was stored: that its maps were summed again to draw them is no edit.
  shown = dataclasses.replace(
    scored, edits=stored.edits, software=stored.software, warnings=stored.warnings
  )
  if not np.isclose(shown.corona_score_cm3, stored.corona_score_cm3):
    raise errors.UsageError(
      f'{result}: the map of result.json is required, found one of another score; '
      'score the study again.'
    )
  write_viewer(path, shown, volume, demo_models=shown.demo_models)


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
