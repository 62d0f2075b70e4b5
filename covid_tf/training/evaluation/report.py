"""evaluation.json and evaluation.html: all metrics, the paper's beside them."""

import dataclasses
import os
import pathlib

import matplotlib.figure
import numpy as np

from covid_tf import version
from covid_tf.cohort import paper
from covid_tf.reports import figures
from covid_tf.reports import pages
from covid_tf.storage import files
from covid_tf.training.evaluation import by_acquisition
from covid_tf.training.evaluation import evaluating
from covid_tf.training.evaluation import metrics

# Plots of an evaluation: ROC, calibration, and the lungs case by case.


def roc_figure(
  found: metrics.Discrimination, unit: str, with_paper: bool = False
) -> matplotlib.figure.Figure:
  """ROC curve; `found.curve` must be there."""
  assert found.curve is not None  # As the caller promises.
  with figures.styled():
    figure = figures.new_figure(height_inch=4.1)
    axes = figures.roc_axes(figure, found.curve, f'AUC {found.auc:.3f}')
    for point, mark, colour in zip(found.points, 'os', (figures.ORANGE, figures.GREEN)):
      if point.specificity.value is None or point.sensitivity.value is None:
        continue  # One kind has no patient.
      axes.plot(
        1 - point.specificity.value,
        point.sensitivity.value,
        mark,
        color=colour,
        ms=5.5,
        mec='white',
        mew=0.6,
        ls='',
        clip_on=False,
        zorder=4,
        label=f'probability > {point.threshold:.3g}',
      )
    if with_paper:
      axes.plot(
        1 - paper.SLICE_SPECIFICITY,
        paper.SLICE_SENSITIVITY,
        '*',
        color=figures.PURPLE,
        ms=9,
        ls='',
        clip_on=False,
        zorder=5,
        label=f'paper, > {metrics.DECISION_THRESHOLD} (AUC {paper.SLICE_AUC})',
      )
    axes.legend(loc='lower right', fontsize=7)
    figures.put_caption(
      figure,
      (
        f'ROC curve, {found.n_positive} positive and {found.n_negative} negative '
        f'{unit}. AUC 95 % CI {paper.interval(found.auc_ci95_delong)} (DeLong), '
        f'{paper.interval(found.auc_ci95_bootstrap)} (bootstrap). Dotted: chance.'
      ),
    )
    return figure


def calibration_figure(
  found: metrics.Discrimination, unit: str
) -> matplotlib.figure.Figure:
  """Share of positives against the mean probability, bin by bin."""
  assert found.curve is not None  # As the caller promises.
  with figures.styled():
    figure = figures.new_figure(height_inch=4.1)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=figures.GREY, lw=0.7, ls=':')
    counts = np.array([b.count for b in found.calibration])
    axes.plot(
      [b.mean_probability for b in found.calibration],
      [b.positive_share for b in found.calibration],
      color=figures.BLUE,
      lw=1,
    )
    axes.scatter(
      [b.mean_probability for b in found.calibration],
      [b.positive_share for b in found.calibration],
      s=12 + 100 * counts / counts.max(),
      color=figures.BLUE,
      zorder=3,
      clip_on=False,
      edgecolors='white',
      linewidths=0.5,
    )
    axes.set(
      xlabel='Mean probability',
      ylabel='Share that is positive',
      xlim=(0, 1),
      ylim=(0, 1),
      aspect='equal',
    )
    figures.put_caption(
      figure,
      (
        f'Calibration over {counts.sum()} {unit} in bins of 0.1; area of a point: how '
        f'many. Brier score {found.brier:.3f}, mean distance from the diagonal '
        f'{found.calibration_error:.3f}.'
      ),
    )
    return figure


def lung_figure(cases: tuple[evaluating.LungCase, ...]) -> matplotlib.figure.Figure:
  """Dice and 95 % Hausdorff distance of every case."""
  with figures.styled():
    figure = figures.new_figure(height_inch=3.2)
    left, right = figure.subplots(1, 2)
    dice, distance = lung_values(cases)
    for axes, values, label in (
      (left, dice, 'Dice'),
      (right, distance, '95 % Hausdorff distance (mm)'),
    ):
      if values.size:
        axes.boxplot(
          values,
          widths=0.4,
          showfliers=False,
          medianprops={'color': 'black', 'lw': 1.4},
        )
        aside = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else 0.0
        axes.scatter(
          1 + aside + np.zeros(len(values)),
          np.sort(values),
          s=12,
          color=figures.BLUE,
          edgecolors='white',
          linewidths=0.4,
          zorder=3,
        )
      axes.set(ylabel=label, xticks=[])
    figures.put_caption(
      figure,
      (
        f'Lung masks of {len(cases)} cases against the true ones. Boxes: quartiles; '
        'points: cases, in order.'
      ),
    )
    return figure


def lung_values(
  cases: tuple[evaluating.LungCase, ...],
) -> tuple[np.ndarray, np.ndarray]:
  """(Dice, 95 % Hausdorff in mm) of the cases that have them."""
  dice = [case.agreement.dice for case in cases]
  distance = [case.agreement.hausdorff95_mm for case in cases]
  return _known(dice), _known(distance)


def _known(values: list[float | None]) -> np.ndarray:
  return np.array([value for value in values if value is not None], float)


JSON_NAME = 'evaluation.json'
PAGE_NAME = 'evaluation.html'
SCHEMA_VERSION = 1
_MOST_LISTED = 200  # The rest is in evaluation.json.


def write(
  evaluation: evaluating.Evaluation, subject: dict[str, str], folder: str | os.PathLike
) -> None:
  """Writes both files, each whole or not at all; earlier ones are replaced.

  Args:
    evaluation: the metrics.
    subject: what was evaluated on what, as the page shows it: title -> text.
    folder: gets the files; other files in it stay.

  Raises:
    errors.OutputError: it cannot be written.
  """
  content = as_dict(evaluation, subject)
  folder = pathlib.Path(folder)
  page = _page(evaluation, subject, content)
  files.write_atomically(folder / PAGE_NAME, page)
  files.write_json(folder / JSON_NAME, content)


def as_dict(evaluation: evaluating.Evaluation, subject: dict[str, str]) -> dict:
  """The metrics as evaluation.json holds them; what is not defined is null."""
  return {
    'schema_version': SCHEMA_VERSION,
    'software': f'covid_tf {version.__version__}',
    'subject': subject,
    'notes': list(evaluation.notes),
    'lungs': _lungs(evaluation.lungs),
    'slices': _discrimination(evaluation.by_slice),
    'patients': _discrimination(evaluation.by_patient),
    'acquisition': by_acquisition.as_json(evaluation.strata),
    'paper': {
      'source': paper.CITATION,
      'slices': {
        'n_positive': paper.SLICES_ABNORMAL,
        'n_negative': paper.SLICES_NORMAL,
        'auc': paper.SLICE_AUC,
        'threshold': metrics.DECISION_THRESHOLD,
        'sensitivity': paper.SLICE_SENSITIVITY,
        'specificity': paper.SLICE_SPECIFICITY,
      },
      'lungs': None,
      'patients': None,
    },
    'slice_probability': [dataclasses.asdict(s) for s in evaluation.slices],
    'patient_score': [
      {'patient': patient, 'label': label, 'score': score}
      for patient, label, score in evaluation.patients
    ],
    'left_out': [
      {'series': series, 'reason': reason} for series, reason in evaluation.left_out
    ],
  }


def _lungs(cases) -> dict | None:
  if not cases:
    return None
  dice, distance = lung_values(cases)
  return {
    'dice': _summary(dice),
    'hausdorff95_mm': _summary(distance),
    'iou': _summary(
      np.array([case.agreement.iou for case in cases if case.agreement.iou is not None])
    ),
    'cases': [
      {
        'series': case.series,
        'slices': case.slices,
        'truth': case.truth,
        **dataclasses.asdict(case.agreement),
      }
      for case in cases
    ],
  }


def _summary(values) -> dict | None:
  if not len(values):
    return None
  return {
    'n': len(values),
    'mean': float(values.mean()),
    'median': float(np.median(values)),
    'min': float(values.min()),
    'max': float(values.max()),
  }


def _discrimination(found) -> dict | None:
  if found is None:
    return None
  return {
    field.name: _plain(getattr(found, field.name))
    for field in dataclasses.fields(found)
    if field.name != 'curve'
  }


def _plain(value):
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return dataclasses.asdict(value)
  if isinstance(value, tuple):
    return [_plain(item) for item in value]
  return value


def _page(evaluation, subject, content) -> bytes:
  drawn = []
  for found, unit in (
    (evaluation.by_slice, 'slices'),
    (evaluation.by_patient, 'patients'),
  ):
    if found is not None and found.curve is not None:
      drawn.append(
        (f'ROC of {unit}', roc_figure(found, unit, with_paper=unit == 'slices'))
      )
      drawn.append((f'Calibration of {unit}', calibration_figure(found, unit)))
  if evaluation.lungs:
    drawn.append(('Lungs', lung_figure(evaluation.lungs)))
  return pages.render(
    'evaluation.html',
    evaluation=evaluation,
    subject=subject,
    paper=paper,
    words=paper,
    lungs=content['lungs'],
    paper_threshold=metrics.DECISION_THRESHOLD,
    most=_MOST_LISTED,
    demo_models='demo' in subject.values(),
    figures=[(title, figures.svg_text(figure)) for title, figure in drawn],
  )
