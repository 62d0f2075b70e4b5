"""evaluation.json and evaluation.html: all figures, the paper's beside them."""

import dataclasses
import json
import os
import pathlib

import numpy as np

from covid_tf import files
from covid_tf import version
from covid_tf.cohort import paper
from covid_tf.cohort import wording
from covid_tf.reports import figure_style
from covid_tf.reports import pages
from covid_tf.training.evaluation import figures
from covid_tf.training.evaluation import run
from covid_tf.training.evaluation import slice_metrics

JSON_NAME = 'evaluation.json'
PAGE_NAME = 'evaluation.html'
SCHEMA_VERSION = 1
_MOST_LISTED = 200  # The rest is in evaluation.json.


def write(
    evaluation: run.Evaluation, subject: dict[str, str],
    folder: str | os.PathLike) -> None:
  """Writes both files, each whole or not at all; earlier ones are replaced.

  Args:
    evaluation: the figures.
    subject: what was evaluated on what, as the page shows it: title -> text.
    folder: gets the files; other files in it stay.

  Raises:
    errors.OutputError: it cannot be written.
  """
  content = as_dict(evaluation, subject)
  folder = pathlib.Path(folder)
  page = _page(evaluation, subject, content)
  text = json.dumps(content, indent=2, allow_nan=False) + '\n'
  files.write_atomically(folder / PAGE_NAME, page)
  files.write_atomically(folder / JSON_NAME, text.encode())


def as_dict(evaluation: run.Evaluation, subject: dict[str, str]) -> dict:
  """The figures as evaluation.json holds them; what is not defined is null."""
  return {
      'schema_version': SCHEMA_VERSION,
      'software': f'covid_tf {version.__version__}',
      'subject': subject,
      'notes': list(evaluation.notes),
      'lungs': _lungs(evaluation.lungs),
      'slices': _discrimination(evaluation.by_slice),
      'patients': _discrimination(evaluation.by_patient),
      'paper': {
          'source': paper.CITATION,
          'slices': {
              'n_positive': paper.SLICES_ABNORMAL, 'n_negative': paper.SLICES_NORMAL,
              'auc': paper.SLICE_AUC, 'threshold': slice_metrics.DECISION_THRESHOLD,
              'sensitivity': paper.SLICE_SENSITIVITY,
              'specificity': paper.SLICE_SPECIFICITY},
          'lungs': None, 'patients': None},
      'slice_probability': [dataclasses.asdict(s) for s in evaluation.slices],
      'patient_score': [
          {'patient': patient, 'label': label, 'score': score}
          for patient, label, score in evaluation.patients],
      'left_out': [{'series': series, 'reason': reason}
                   for series, reason in evaluation.left_out],
  }


def _lungs(cases) -> dict | None:
  if not cases:
    return None
  dice, distance = figures.lung_values(cases)
  return {
      'dice': _summary(dice), 'hausdorff95_mm': _summary(distance),
      'iou': _summary(np.array([case.agreement.iou for case in cases
                                if case.agreement.iou is not None])),
      'cases': [
          {'series': case.series, 'slices': case.slices, 'truth': case.truth,
           **dataclasses.asdict(case.agreement)} for case in cases]}


def _summary(values) -> dict | None:
  if not len(values):
    return None
  return {'n': len(values), 'mean': float(values.mean()),
          'median': float(np.median(values)), 'min': float(values.min()),
          'max': float(values.max())}


def _discrimination(found) -> dict | None:
  if found is None:
    return None
  return {field.name: _plain(getattr(found, field.name))
          for field in dataclasses.fields(found) if field.name != 'curve'}


def _plain(value):
  if dataclasses.is_dataclass(value):
    return dataclasses.asdict(value)
  if isinstance(value, tuple):
    return [_plain(item) for item in value]
  return value


def _page(evaluation, subject, content) -> bytes:
  drawn = []
  for found, unit in ((evaluation.by_slice, 'slices'),
                      (evaluation.by_patient, 'patients')):
    if found is not None and found.curve is not None:
      drawn.append((f'ROC of {unit}', figures.roc_figure(
          found, unit, with_paper=unit == 'slices')))
      drawn.append((f'Calibration of {unit}', figures.calibration_figure(found, unit)))
  if evaluation.lungs:
    drawn.append(('Lungs', figures.lung_figure(evaluation.lungs)))
  return pages.render(
      'evaluation.html', evaluation=evaluation, subject=subject, paper=paper,
      words=wording, lungs=content['lungs'], most=_MOST_LISTED,
      demo_models='demo' in subject.values(),
      figures=[(title, figure_style.svg_text(figure)) for title, figure in drawn])
