"""Plots of an evaluation: ROC, calibration, and the lungs case by case."""

import matplotlib.figure
import numpy as np

from covid_tf.cohort import paper
from covid_tf.cohort import wording
from covid_tf.reports import figure_style
from covid_tf.training.evaluation import run
from covid_tf.training.evaluation import slice_metrics


def roc_figure(
    found: slice_metrics.Discrimination, unit: str,
    with_paper: bool = False) -> matplotlib.figure.Figure:
  """ROC curve; `found.curve` must be there."""
  with figure_style.styled():
    figure = figure_style.new_figure(height_inch=4.1)
    axes = figure.add_subplot()
    curve = found.curve
    axes.plot([0, 1], [0, 1], color=figure_style.GREY, lw=0.7, ls=':')
    axes.plot(
        np.append(1.0, 1 - curve.specificity), np.append(1.0, curve.sensitivity),
        color=figure_style.BLUE, lw=1.5, clip_on=False, zorder=3,
        label=f'AUC {found.auc:.3f}')
    for point, mark, colour in zip(
        found.points, 'os', (figure_style.ORANGE, figure_style.GREEN)):
      axes.plot(
          1 - point.specificity.value, point.sensitivity.value, mark, color=colour,
          ms=5.5, mec='white', mew=0.6, ls='', clip_on=False, zorder=4,
          label=f'probability > {point.threshold:.3g}')
    if with_paper:
      axes.plot(
          1 - paper.SLICE_SPECIFICITY, paper.SLICE_SENSITIVITY, '*',
          color=figure_style.PURPLE, ms=9, ls='', clip_on=False, zorder=5,
          label=f'paper, > {slice_metrics.DECISION_THRESHOLD} (AUC {paper.SLICE_AUC})')
    axes.set(xlabel='1 − specificity', ylabel='Sensitivity', xlim=(0, 1), ylim=(0, 1),
             aspect='equal')
    axes.legend(loc='lower right', fontsize=7)
    figure_style.put_caption(figure, (
        f'ROC curve, {found.n_positive} positive and {found.n_negative} negative '
        f'{unit}. AUC 95 % CI {wording.interval(found.auc_ci95_delong)} (DeLong), '
        f'{wording.interval(found.auc_ci95_bootstrap)} (bootstrap). Dotted: chance.'))
    return figure


def calibration_figure(
    found: slice_metrics.Discrimination, unit: str) -> matplotlib.figure.Figure:
  """Share of positives against the mean probability, bin by bin."""
  with figure_style.styled():
    figure = figure_style.new_figure(height_inch=4.1)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=figure_style.GREY, lw=0.7, ls=':')
    counts = np.array([b.count for b in found.calibration])
    axes.plot(
        [b.mean_probability for b in found.calibration],
        [b.positive_share for b in found.calibration], color=figure_style.BLUE, lw=1)
    axes.scatter(
        [b.mean_probability for b in found.calibration],
        [b.positive_share for b in found.calibration],
        s=12 + 100 * counts / counts.max(), color=figure_style.BLUE, zorder=3,
        clip_on=False, edgecolors='white', linewidths=0.5)
    axes.set(xlabel='Mean probability', ylabel='Share that is positive', xlim=(0, 1),
             ylim=(0, 1), aspect='equal')
    figure_style.put_caption(figure, (
        f'Calibration over {counts.sum()} {unit} in bins of 0.1; area of a point: how '
        f'many. Brier score {found.brier:.3f}, mean distance from the diagonal '
        f'{found.calibration_error:.3f}.'))
    return figure


def lung_figure(cases: tuple[run.LungCase, ...]) -> matplotlib.figure.Figure:
  """Dice and 95 % Hausdorff distance of every case."""
  with figure_style.styled():
    figure = figure_style.new_figure(height_inch=3.2)
    left, right = figure.subplots(1, 2)
    dice, distance = lung_values(cases)
    for axes, values, label in ((left, dice, 'Dice'),
                                (right, distance, '95 % Hausdorff distance (mm)')):
      if values.size:
        axes.boxplot(values, widths=0.4, showfliers=False,
                     medianprops={'color': 'black', 'lw': 1.4})
        aside = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else 0.0
        axes.scatter(1 + aside + np.zeros(len(values)), np.sort(values), s=12,
                     color=figure_style.BLUE, edgecolors='white', linewidths=0.4,
                     zorder=3)
      axes.set(ylabel=label, xticks=[])
    figure_style.put_caption(figure, (
        f'Lung masks of {len(cases)} cases against the true ones. Boxes: quartiles; '
        'points: cases, in order.'))
    return figure


def lung_values(cases: tuple[run.LungCase, ...]) -> tuple[np.ndarray, np.ndarray]:
  """(Dice, 95 % Hausdorff in mm) of the cases that have them."""
  dice = [case.agreement.dice for case in cases]
  distance = [case.agreement.hausdorff95_mm for case in cases]
  return tuple(np.array([value for value in values if value is not None], float)
               for values in (dice, distance))
