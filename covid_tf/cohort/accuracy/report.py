"""All that one run over a cohort found: its JSON and its page."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

import matplotlib.figure
import numpy as np

from covid_tf import version
from covid_tf.cohort import labels
from covid_tf.cohort import paper
from covid_tf.cohort import results as results_lib
from covid_tf.cohort.accuracy import experiments
from covid_tf.cohort.accuracy import measures as measures_lib
from covid_tf.cohort.accuracy import strata
from covid_tf.cohort.review import decisions
from covid_tf.reports import figures
from covid_tf.reports import pages
from covid_tf.statistics import groups as groups_lib
from covid_tf.statistics import operating_points
from covid_tf.storage import files

# All that one run over a cohort found, and its JSON.

SCHEMA_VERSION = 1  # Of cohort.json.


@dataclasses.dataclass(frozen=True)
class CohortReport:
  """The stages' results together.

  Attributes:
    root: the folder of results; paths are written relative to it.
    results: the usable ones.
    failed: studies without one.
    cohort: who was analyzed, and who was left out.
    detection: see detection.
    severity: see severity_analysis.
    warnings: to be read before the numbers.
    mixed: whether the scores come from several schema versions, models or thresholds.
    review: which results a person accepted and rejected, or None.
    factors: patients by scanner, kernel, thickness and contrast.
    measures: densities and zone scores beside the score.
  """

  root: pathlib.Path
  results: tuple[results_lib.StudyResult, ...]
  failed: tuple[results_lib.FailedStudy, ...]
  cohort: labels.Cohort
  detection: experiments.Detection
  severity: experiments.SeverityAnalysis
  warnings: tuple[str, ...]
  mixed: bool = False
  review: decisions.Review | None = None
  factors: tuple[strata.Factor, ...] = ()
  measures: tuple[measures_lib.Measure, ...] = ()

  @property
  def demo_models(self) -> bool:
    """Whether any result was made by the demo models."""
    return any(result.demo_models for result in self.results)

  def models(self) -> dict[str, list[str]]:
    """Model name to the card digests that answered, one unless mixed."""
    found: dict[str, set[str]] = {}
    for result in self.results:
      for name, (_, digest) in result.models.items():
        found.setdefault(name, set()).add(digest)
    return {name: sorted(digests) for name, digests in sorted(found.items())}


def write_json(report: CohortReport, path: pathlib.Path) -> None:
  """Writes cohort.json; no number in it is a NaN."""
  files.write_json(path, as_dict(report))


def as_dict(report: CohortReport) -> dict:
  """The report as cohort.json holds it."""
  return {
    'schema_version': SCHEMA_VERSION,
    'software': f'covid_tf {version.__version__}',
    'warnings': list(report.warnings),
    'models': report.models(),
    'demo_models': report.demo_models,
    'studies': _studies(report),
    'detection': _detection(report.detection),
    'severity': _severity(report.severity),
    'acquisition': strata.as_json(report.factors),
    'measures': measures_lib.as_json(report.measures),
    'paper': paper.as_dict(),
    'patients': [
      {
        'study_uid': patient.study_uid,
        'covid': int(patient.covid),
        'severity': patient.severity,
        results_lib.CORONA_SCORE: patient.scores[results_lib.CORONA_SCORE],
      }
      for patient in report.cohort.patients
    ],
  }


def _studies(report: CohortReport) -> dict:
  cohort = report.cohort
  return {
    'results': len(report.results),
    'failed': len(report.failed),
    'patients_analyzed': len(cohort.patients),
    'failed_studies': [
      {'path': relative(study.path, report.root), 'reason': study.reason}
      for study in report.failed
    ],
    'review': _review(report.review),
    'later_time_points': list(cohort.later_studies),
    'first_time_points_not_scored': list(cohort.first_not_scored),
    'labels_without_result': list(cohort.labels_without_result),
    'results_without_label': [
      relative(path, report.root) for path in cohort.results_without_label
    ],
  }


def _review(review: decisions.Review | None) -> dict | None:
  if review is None:
    return None
  return {name.replace(' ', '_'): count for name, count in review.counts().items()} | {
    'rejected_by_reason': review.reasons(),
    'rejected_results': review.rejected(),
  }


def _detection(detection: experiments.Detection) -> dict:
  curve = detection.curve
  return {
    'n_positive': detection.n_positive,
    'n_negative': detection.n_negative,
    'auc': detection.auc,
    'auc_standard_error': detection.auc_standard_error,
    'auc_ci95_delong': detection.auc_ci95_delong,
    'auc_ci95_bootstrap': detection.auc_ci95_bootstrap,
    'auc_ci95_newcombe': detection.auc_ci95_newcombe,
    'bootstrap': {
      'draws': detection.options.bootstrap_draws,
      'seed': detection.options.seed,
      'unit': 'patient, within each group',
      'method': 'percentile',
    },
    'roc': None
    if curve is None
    else {
      'threshold_cm3': curve.thresholds.tolist(),
      'sensitivity': curve.sensitivity.tolist(),
      'specificity': curve.specificity.tolist(),
    },
    'operating_points': [dataclasses.asdict(point) for point in detection.points],
    'comparison': (
      None if detection.comparison is None else dataclasses.asdict(detection.comparison)
    ),
    'messages': list(detection.messages),
  }


def _severity(analysis: experiments.SeverityAnalysis) -> dict:
  two, many = analysis.two, analysis.many
  return {
    'grades': list(analysis.grades),
    'order': 'mild to severe' if analysis.order_given else 'alphabetical',
    'n': {grade: summary.n for grade, summary in analysis.summaries.items()},
    'medians_cm3': {
      grade: summary.median_cm3 for grade, summary in analysis.summaries.items()
    },
    'quartiles_cm3': {
      grade: summary.quartiles_cm3 for grade, summary in analysis.summaries.items()
    },
    'rank_sum_p_value': two.rank_sum.p_value if two else None,
    'rank_sum_method': two.rank_sum.method if two else None,
    'rank_sum_u': two.rank_sum.statistic if two else None,
    'shift': None
    if two is None
    else dataclasses.asdict(two.shift)
    | {'of': analysis.grades[1], 'against': analysis.grades[0]},
    'auc': two.auc if two else None,
    'auc_ci95_delong': two.auc_interval if two else None,
    'kruskal_wallis_h': many.kruskal_wallis_h if many else None,
    'kruskal_wallis_p_value': many.kruskal_wallis_p_value if many else None,
    'trend': (dataclasses.asdict(many.trend) if many and many.trend else None),
    'messages': list(analysis.messages),
  }


def write_operating_point(
  report: CohortReport, point: operating_points.OperatingPoint, path: pathlib.Path
) -> None:
  """Writes a threshold as `covid-tf score --case-threshold FILE` reads it.

  Args:
    report: of one kind of models; a threshold of mixed ones means nothing.
    point: the chosen operating point.
    path: the file.
  """
  models = {name: digests[0] for name, digests in report.models().items()}
  files.write_json(
    path,
    {
      'schema_version': operating_points.SCHEMA_VERSION,
      'case_corona_score_cm3': point.threshold_cm3,
      'rule': (
        f'{point.rule}; {report.detection.n_positive} patients with and '
        f'{report.detection.n_negative} without disease'
      ),
      'models': models,
      'thickness_mm': report.results[0].thresholds.get('thickness_mm'),
      'smoothing_mm': report.results[0].thresholds.get('smoothing_mm', 0.0),
      'slice_probability': report.results[0].thresholds.get('slice_probability', 0.5),
      'map': report.results[0].thresholds.get('map', 0.6),
    },
  )


def relative(path: pathlib.Path | str, root: pathlib.Path) -> str:
  """`path` below `root`, with forward slashes; results travel without their disk."""
  return results_lib.relative_name(pathlib.Path(path), root)


# Figure 4 of the paper, of this cohort: the box plot and the ROC curve.

# Hollow and of falling size: several points may be one place of the curve.
_POINT_MARKS = {'youden': ('o', 11), 'sensitivity': ('s', 7.5), 'threshold': ('D', 4)}
_POINT_NAMES = {
  'youden': 'Youden',
  'sensitivity': 'Fixed sensitivity',
  'threshold': 'Stated threshold',
}


def roc_figure(detection: experiments.Detection) -> matplotlib.figure.Figure:
  """Draws the ROC curve; `detection.curve` must be there."""
  assert detection.curve is not None  # As the caller promises.
  with figures.styled():
    figure = figures.new_figure(height_inch=4.15)
    axes = figures.roc_axes(
      figure, detection.curve, f'Corona score, AUC {detection.auc:.3f}'
    )
    for point, colour in zip(detection.points, figures.CATEGORIES[1:]):
      mark, size = _POINT_MARKS[point.name]
      if point.specificity.value is None or point.sensitivity.value is None:
        continue  # One kind has no patient.
      axes.plot(
        1 - point.specificity.value,
        point.sensitivity.value,
        mark,
        mec=colour,
        mfc='none',
        ms=size,
        mew=1.4,
        ls='',
        clip_on=False,
        zorder=4,
        label=f'{_POINT_NAMES[point.name]}, > {point.threshold_cm3:.1f} cm³',
      )
    axes.legend(loc='lower right', fontsize=7, handlelength=1.4)
    figures.put_caption(figure, roc_caption(detection))
    return figure


def roc_caption(detection: experiments.Detection) -> str:
  """What the ROC figure shows, with n and interval."""
  return (
    f'ROC curve of the Corona score: {detection.n_positive} patients with and '
    f'{detection.n_negative} without COVID-19, one study each. AUC '
    f'{detection.auc:.3f}; 95 % CI {paper.interval(detection.auc_ci95_delong)} '
    f'(DeLong), {paper.interval(detection.auc_ci95_bootstrap)} (bootstrap over '
    f'patients, {detection.options.bootstrap_draws} draws), '
    f'{paper.interval(detection.auc_ci95_newcombe)} (Newcombe). Dotted: chance.'
  )


def severity_figure(analysis: experiments.SeverityAnalysis) -> matplotlib.figure.Figure:
  """Draws the box plot with every patient; needs at least one grade."""
  with figures.styled():
    figure = figures.new_figure(height_inch=4.1)
    axes = figure.add_subplot()
    groups = [analysis.scores_cm3[grade] for grade in analysis.grades]
    _draw_boxes(axes, analysis)
    axes.set_ylabel('Corona score (cm³)')
    axes.set_ylim(bottom=min(0.0, -0.02 * max(map(max, groups))))
    figures.put_caption(figure, severity_caption(analysis))
    return figure


def _draw_boxes(axes, analysis: experiments.SeverityAnalysis) -> None:
  """A box for each grade, with every patient."""
  groups = [analysis.scores_cm3[grade] for grade in analysis.grades]
  boxes = axes.boxplot(
    groups,
    widths=0.5,
    showfliers=False,
    patch_artist=True,
    medianprops={'color': 'black', 'lw': 1.4},
    boxprops={'lw': 0.8},
    whiskerprops={'lw': 0.8},
    capprops={'lw': 0.8},
  )
  colours = _colours(len(groups))
  for position, (scores, colour) in enumerate(zip(groups, colours), start=1):
    boxes['boxes'][position - 1].set_facecolor(colour + '33')
    axes.scatter(
      position + _beside_each_other(scores),
      scores,
      s=9,
      color=colour,
      edgecolors='white',
      linewidths=0.3,
      zorder=3,
    )
  axes.set_xticklabels(
    [f'{grade}\n(n = {len(scores)})' for grade, scores in zip(analysis.grades, groups)]
  )


def measures_roc_figure(
  detection: experiments.Detection, found: Sequence[measures_lib.Measure]
) -> matplotlib.figure.Figure:
  """Draws the ROC curves of the measures and the score, which must have one."""
  with figures.styled():
    figure = figures.new_figure(height_inch=4.3)
    assert detection.curve is not None  # As the caller promises.
    axes = figures.roc_axes(
      figure, detection.curve, f'Corona score, AUC {detection.auc:.3f}'
    )
    colours = (*figures.CATEGORIES[1:], figures.GREY)
    for measure, colour in zip(found, colours):
      if measure.curve is None:
        continue
      axes.plot(
        np.append(1.0, 1 - measure.curve.specificity),
        np.append(1.0, measure.curve.sensitivity),
        color=colour,
        lw=1.1,
        clip_on=False,
        label=f'{measure.title.partition(" (")[0]}, AUC {measure.auc:.3f}',
      )
    axes.legend(loc='lower right', fontsize=6, handlelength=1.4)
    figures.put_caption(
      figure,
      'ROC curves of densities and zone scores beside that of the Corona score: larger '
      'values called positive, patients whose result has the measure. An area below '
      '0.5: lower with disease. Dotted: chance.',
    )
    return figure


def measures_box_figure(
  found: Sequence[measures_lib.Measure],
) -> matplotlib.figure.Figure:
  """Draws a box plot of each measure that has graded patients."""
  graded = [measure for measure in found if measure.severity.grades]
  with figures.styled():
    figure = figures.new_figure(2.2 * -(-len(graded) // 2) + 0.6, 7.0)
    for place, measure in enumerate(graded, start=1):
      axes = figure.add_subplot(-(-len(graded) // 2), 2, place)
      _draw_boxes(axes, measure.severity)
      tested = measure.severity.p_value
      p_value = '' if tested is None else f', {paper.p_value(tested)}'
      axes.set_title(f'{measure.title}{p_value}', fontsize=7, loc='left')
    figures.put_caption(
      figure,
      'Densities and zone scores by severity, first time point of each patient. Boxes: '
      'quartiles; whiskers: furthest point within 1.5 interquartile ranges; points: '
      'patients. p: rank-sum of two grades, Kruskal-Wallis of more; not corrected for '
      'their number.',
      line_characters=138,
    )
    return figure


def measure_figures(report: CohortReport) -> dict[str, matplotlib.figure.Figure]:
  """File name without its ending to figure: those that can be drawn."""
  found: dict[str, matplotlib.figure.Figure] = {}
  if any(measure.curve for measure in report.measures):
    found[MEASURES_ROC] = measures_roc_figure(report.detection, report.measures)
  if any(measure.severity.grades for measure in report.measures):
    found[MEASURES_BOXES] = measures_box_figure(report.measures)
  return found


MEASURES_ROC, MEASURES_BOXES = 'measures_roc', 'measures_box_plot'


def severity_caption(analysis: experiments.SeverityAnalysis) -> str:
  """What the box plot shows, with n, medians, interval and test."""
  medians = '; '.join(
    f'{grade} {paper.cubic_centimetres(summary.median_cm3)} '
    f'({paper.interval(summary.quartiles_cm3, 1)}, n = {summary.n})'
    for grade, summary in analysis.summaries.items()
  )
  text = (
    'Corona score by severity, first time point of each patient. Median '
    f'(quartiles): {medians}. Boxes: quartiles; whiskers: furthest point within 1.5 '
    'interquartile ranges; points: patients. '
  )
  if analysis.two:
    text += _two_group_words(analysis.two, analysis.grades)
  elif analysis.many:
    text += f'Kruskal-Wallis {paper.p_value(analysis.many.kruskal_wallis_p_value)}. '
    if analysis.many.trend:
      text += f'Jonckheere-Terpstra trend {paper.p_value(analysis.many.trend.p_value)}.'
  return text.strip()


def _two_group_words(two: groups_lib.TwoGroups, grades: tuple[str, ...]) -> str:
  first, second = grades
  return (
    'Wilcoxon rank-sum, two-sided, '
    f'{paper.p_value(two.rank_sum.p_value)} ({two.rank_sum.method}). Shift '
    f'{second} − {first}: {paper.cubic_centimetres(two.shift.estimate_cm3)}, 95 % '
    f'CI {paper.interval(two.shift.interval_cm3, 1)} (Hodges-Lehmann). AUC '
    f'{two.auc:.2f}, 95 % CI {paper.interval(two.auc_interval, 2)} (DeLong).'
  )


def _colours(count: int) -> list[str]:
  palette = figures.CATEGORIES
  return [palette[i % len(palette)] for i in range(count)]


def _beside_each_other(scores: np.ndarray) -> np.ndarray:
  """float64 [n]: sideways offsets that part near points, without chance.

  Args:
    scores: float64 [n], ascending.
  """
  steps = np.array([0, 1, -1, 2, -2])
  return 0.055 * steps[np.arange(len(scores)) % len(steps)]


# cohort.html: everything on one page that needs no other file.

_MOST_LISTED = 50  # The rest is in cohort.json.


def write_page(
  report: CohortReport,
  path: pathlib.Path,
  beside: Mapping[str, matplotlib.figure.Figure] | None = None,
) -> None:
  """Writes the page.

  Args:
    report: what was found.
    path: the HTML file.
    beside: its `measure_figures`, where they are drawn already.
  """
  beside = measure_figures(report) if beside is None else beside
  detection, severity = report.detection, report.severity
  files.write_atomically(
    path,
    pages.render(
      'cohort.html',
      report=report,
      detection=detection,
      severity=severity,
      paper=paper,
      words=paper,
      point_names=_POINT_NAMES,
      most=_MOST_LISTED,
      left_out=_left_out(report),
      demo_models=report.demo_models,
      none_measured=measures_lib.NONE_MEASURED,
      measure_svgs=[figures.svg_text(figure) for figure in beside.values()],
      roc_svg=(figures.svg_text(roc_figure(detection)) if detection.curve else None),
      severity_svg=(
        figures.svg_text(severity_figure(severity)) if severity.grades else None
      ),
    ),
  )


def _left_out(report: CohortReport) -> list[tuple[str, list[str]]]:
  """(title, entries) of every study that is not in the numbers."""
  cohort = report.cohort
  failed = [
    f'{relative(study.path, report.root)}: {study.reason}' for study in report.failed
  ]
  unlabelled = [relative(path, report.root) for path in cohort.results_without_label]
  review = report.review.rejected() if report.review else {}
  rejected = [f'{folder}: {reason}' for folder, reason in review.items()]
  groups = [
    ('failed studies', failed),
    ('labelled, but without a result', list(cohort.labels_without_result)),
    ('scored, but without a label', unlabelled),
    ('later time points of the same patient', list(cohort.later_studies)),
    (
      'first time points without a result (a later study stands in)',
      list(cohort.first_not_scored),
    ),
    ('rejected in review', rejected),
  ]
  return [(title, entries) for title, entries in groups if entries]
