"""cohort.html: everything on one page that needs no other file."""

import pathlib

from covid_tf import files
from covid_tf.cohort import cohort_report
from covid_tf.cohort import figures
from covid_tf.cohort import paper
from covid_tf.cohort import wording
from covid_tf.reports import figure_style
from covid_tf.reports import pages

_POINT_NAMES = {'youden': 'Youden', 'sensitivity': 'Fixed sensitivity',
                'threshold': 'Stated threshold'}
_MOST_LISTED = 50  # The rest is in cohort.json.


def write_page(report: cohort_report.CohortReport, path: pathlib.Path) -> None:
  """Writes the page.

  Args:
    report: what was found.
    path: the HTML file.
  """
  detection, severity = report.detection, report.severity
  files.write_atomically(path, pages.render(
      'cohort.html', report=report, detection=detection, severity=severity,
      paper=paper, words=wording, point_names=_POINT_NAMES, most=_MOST_LISTED,
      left_out=_left_out(report), demo_models=report.demo_models,
      roc_svg=(figure_style.svg_text(figures.roc_figure(detection))
               if detection.curve else None),
      severity_svg=(figure_style.svg_text(figures.severity_figure(severity))
                    if severity.grades else None)))


def _left_out(report: cohort_report.CohortReport) -> list[tuple[str, list[str]]]:
  """(title, entries) of every study that is not in the numbers."""
  cohort = report.cohort
  failed = [f'{cohort_report.relative(study.path, report.root)}: {study.reason}'
            for study in report.failed]
  unlabelled = [cohort_report.relative(path, report.root)
                for path in cohort.results_without_label]
  groups = [
      ('failed studies', failed),
      ('labelled, but without a result', list(cohort.labels_without_result)),
      ('scored, but without a label', unlabelled),
      ('later time points of the same patient', list(cohort.later_studies)),
      ('first time points without a result (a later study stands in)',
       list(cohort.first_not_scored)),
  ]
  return [(title, entries) for title, entries in groups if entries]
