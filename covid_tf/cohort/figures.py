"""Figure 4 of the paper, of this cohort: the box plot and the ROC curve."""

import matplotlib.figure
import numpy as np

from covid_tf.cohort import detection as detection_lib
from covid_tf.cohort import severity_analysis
from covid_tf.cohort import wording
from covid_tf.reports import figure_style

# Hollow and of falling size: several points may be one place of the curve.
_POINT_MARKS = {'youden': ('o', 11), 'sensitivity': ('s', 7.5), 'threshold': ('D', 4)}
_POINT_NAMES = {'youden': 'Youden', 'sensitivity': 'Fixed sensitivity',
                'threshold': 'Stated threshold'}


def roc_figure(detection: detection_lib.Detection) -> matplotlib.figure.Figure:
  """Draws the ROC curve; `detection.curve` must be there."""
  with figure_style.styled():
    figure = figure_style.new_figure(height_inch=4.15)
    axes = figure.add_subplot()
    curve = detection.curve
    axes.plot([0, 1], [0, 1], color=figure_style.GREY, lw=0.7, ls=':', zorder=1)
    axes.plot(
        np.append(1.0, 1 - curve.specificity), np.append(1.0, curve.sensitivity),
        color=figure_style.BLUE, lw=1.5, zorder=3, clip_on=False,
        label=f'Corona score, AUC {detection.auc:.3f}')
    for point, colour in zip(detection.points, figure_style.CATEGORIES[1:]):
      mark, size = _POINT_MARKS[point.name]
      axes.plot(
          1 - point.specificity.value, point.sensitivity.value, mark, mec=colour,
          mfc='none', ms=size, mew=1.4, ls='', clip_on=False, zorder=4,
          label=f'{_POINT_NAMES[point.name]}, > {point.threshold_cm3:.1f} cm³')
    axes.set(xlabel='1 − specificity', ylabel='Sensitivity', xlim=(0, 1), ylim=(0, 1),
             aspect='equal')
    axes.legend(loc='lower right', fontsize=7, handlelength=1.4)
    figure_style.put_caption(figure, roc_caption(detection))
    return figure


def roc_caption(detection: detection_lib.Detection) -> str:
  """What the ROC figure shows, with n and interval."""
  return (
      f'ROC curve of the Corona score: {detection.n_positive} patients with and '
      f'{detection.n_negative} without COVID-19, one study each. AUC '
      f'{detection.auc:.3f}; 95 % CI {wording.interval(detection.auc_ci95_delong)} '
      f'(DeLong), {wording.interval(detection.auc_ci95_bootstrap)} (bootstrap over '
      f'patients, {detection.options.bootstrap_draws} draws), '
      f'{wording.interval(detection.auc_ci95_newcombe)} (Newcombe). Dotted: chance.')


def severity_figure(
    analysis: severity_analysis.SeverityAnalysis) -> matplotlib.figure.Figure:
  """Draws the box plot with every patient; needs at least one grade."""
  with figure_style.styled():
    figure = figure_style.new_figure(height_inch=4.1)
    axes = figure.add_subplot()
    groups = [analysis.scores_cm3[grade] for grade in analysis.grades]
    boxes = axes.boxplot(
        groups, widths=0.5, showfliers=False, patch_artist=True,
        medianprops={'color': 'black', 'lw': 1.4}, boxprops={'lw': 0.8},
        whiskerprops={'lw': 0.8}, capprops={'lw': 0.8})
    colours = _colours(len(groups))
    for position, (scores, colour) in enumerate(zip(groups, colours), start=1):
      boxes['boxes'][position - 1].set_facecolor(colour + '33')
      axes.scatter(
          position + _beside_each_other(scores), scores, s=9, color=colour,
          edgecolors='white', linewidths=0.3, zorder=3)
    axes.set_xticklabels(
        [f'{grade}\n(n = {len(scores)})'
         for grade, scores in zip(analysis.grades, groups)])
    axes.set_ylabel('Corona score (cm³)')
    axes.set_ylim(bottom=min(0.0, -0.02 * max(map(max, groups))))
    figure_style.put_caption(figure, severity_caption(analysis))
    return figure


def severity_caption(analysis: severity_analysis.SeverityAnalysis) -> str:
  """What the box plot shows, with n, medians, interval and test."""
  medians = '; '.join(
      f'{grade} {wording.cubic_centimetres(summary.median_cm3)} '
      f'({wording.interval(summary.quartiles_cm3, 1)}, n = {summary.n})'
      for grade, summary in analysis.summaries.items())
  text = (
      'Corona score by severity, first time point of each patient. Median '
      f'(quartiles): {medians}. Boxes: quartiles; whiskers: furthest point within 1.5 '
      'interquartile ranges; points: patients. ')
  if analysis.two:
    text += _two_group_words(analysis)
  elif analysis.many:
    text += f'Kruskal-Wallis {wording.p_value(analysis.many.kruskal_wallis_p_value)}. '
    if analysis.many.trend:
      text += ('Jonckheere-Terpstra trend '
               f'{wording.p_value(analysis.many.trend.p_value)}.')
  return text.strip()


def _two_group_words(analysis: severity_analysis.SeverityAnalysis) -> str:
  two = analysis.two
  first, second = analysis.grades
  return (
      'Wilcoxon rank-sum, two-sided, '
      f'{wording.p_value(two.rank_sum.p_value)} ({two.rank_sum.method}). Shift '
      f'{second} − {first}: {wording.cubic_centimetres(two.shift.estimate_cm3)}, 95 % '
      f'CI {wording.interval(two.shift.interval_cm3, 1)} (Hodges-Lehmann). AUC '
      f'{two.auc:.2f}, 95 % CI {wording.interval(two.auc_interval, 2)} (DeLong).')


def _colours(count: int) -> list[str]:
  palette = figure_style.CATEGORIES
  return [palette[i % len(palette)] for i in range(count)]


def _beside_each_other(scores: np.ndarray) -> np.ndarray:
  """float64 [n]: sideways offsets that part near points, without chance.

  Args:
    scores: float64 [n], ascending.
  """
  steps = np.array([0, 1, -1, 2, -2])
  return 0.055 * steps[np.arange(len(scores)) % len(steps)]
