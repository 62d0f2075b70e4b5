"""The files of one scored study, as `covid-tf score` leaves them."""

import dataclasses
import pathlib

from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.reports import html
from covid_tf.reports import nifti
from covid_tf.reports import result_json

# In the order in which they appear: result.json is there only when all are.
NAMES = (
    'lung_mask.nii.gz', 'localization.nii.gz', 'report.html', result_json.FILE_NAME)

DEMO_WARNING = (
    'Scored by the demo models, which were trained on phantoms to show how the '
    'package works: no measurement of a patient.')
_NOTE = 'covid-tf; research use only'
_DEMO_NOTE = 'covid-tf DEMO MODELS; research use only'


def write_all(
    folder: pathlib.Path, result: results.CaseResult, volume: volume_lib.CTVolume, *,
    demo_models: bool, with_report: bool = True) -> None:
  """Writes result.json, report.html, localization.nii.gz and lung_mask.nii.gz.

  Args:
    folder: where; see output_folder.filling for all or none.
    result: the scored study.
    volume: its CT, for the pictures.
    demo_models: the demo models answered; every file says so.
    with_report: False leaves report.html out, which takes longer than the rest.

  Raises:
    errors.OutputError: a file cannot be written.
  """
  note = _NOTE
  if demo_models:
    result = with_demo_warning(result)
    note = _DEMO_NOTE
  nifti.write_lung_mask(folder / NAMES[0], result, note)
  nifti.write_localization(folder / NAMES[1], result, note)
  if with_report:
    html.write_report(folder / NAMES[2], result, volume, demo_models=demo_models)
  result_json.write_result(folder / NAMES[3], result)


def with_demo_warning(result: results.CaseResult) -> results.CaseResult:
  """The result, its warnings led by DEMO_WARNING."""
  others = tuple(text for text in result.warnings if text != DEMO_WARNING)
  return dataclasses.replace(result, warnings=(DEMO_WARNING, *others))
