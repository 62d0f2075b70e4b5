"""All that one run over a cohort found, and its JSON."""

import dataclasses
import json
import pathlib

from covid_tf import files
from covid_tf import version
from covid_tf.cohort import detection as detection_lib
from covid_tf.cohort import find_results
from covid_tf.cohort import first_time_point
from covid_tf.cohort import load_results
from covid_tf.cohort import operating_points
from covid_tf.cohort import paper
from covid_tf.cohort import severity_analysis

SCHEMA_VERSION = 1  # Of cohort.json and operating_point.json.


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
    warnings: what the reader must know before the numbers.
    mixed: whether the scores come from several schema versions, models or cuts.
  """

  root: pathlib.Path
  results: tuple[load_results.StudyResult, ...]
  failed: tuple[find_results.FailedStudy, ...]
  cohort: first_time_point.Cohort
  detection: detection_lib.Detection
  severity: severity_analysis.SeverityAnalysis
  warnings: tuple[str, ...]
  mixed: bool = False

  @property
  def demo_models(self) -> bool:
    """Whether any result says that the demo models made it."""
    return any(result.demo_models for result in self.results)

  def models(self) -> dict[str, list[str]]:
    """Model name to the card digests that answered, one unless mixed."""
    found = {}
    for result in self.results:
      for name, (_, digest) in result.models.items():
        found.setdefault(name, set()).add(digest)
    return {name: sorted(digests) for name, digests in sorted(found.items())}


def write_json(report: CohortReport, path: pathlib.Path) -> None:
  """Writes cohort.json; no number in it is a NaN."""
  text = json.dumps(as_dict(report), indent=2, ensure_ascii=False, allow_nan=False)
  files.write_atomically(path, text.encode() + b'\n')


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
      'paper': paper.as_dict(),
      'patients': [
          {'study_uid': patient.study_uid, 'covid': int(patient.covid),
           'severity': patient.severity,
           load_results.CORONA_SCORE: patient.scores[load_results.CORONA_SCORE]}
          for patient in report.cohort.patients],
  }


def _studies(report: CohortReport) -> dict:
  cohort = report.cohort
  return {
      'results': len(report.results),
      'failed': len(report.failed),
      'patients_analyzed': len(cohort.patients),
      'failed_studies': [
          {'path': relative(study.path, report.root), 'reason': study.reason}
          for study in report.failed],
      'later_time_points': list(cohort.later_studies),
      'first_time_points_not_scored': list(cohort.first_not_scored),
      'labels_without_result': list(cohort.labels_without_result),
      'results_without_label': [
          relative(path, report.root) for path in cohort.results_without_label],
  }


def _detection(detection: detection_lib.Detection) -> dict:
  curve = detection.curve
  return {
      'n_positive': detection.n_positive,
      'n_negative': detection.n_negative,
      'auc': detection.auc,
      'auc_standard_error': detection.auc_standard_error,
      'auc_ci95_delong': detection.auc_ci95_delong,
      'auc_ci95_bootstrap': detection.auc_ci95_bootstrap,
      'auc_ci95_newcombe': detection.auc_ci95_newcombe,
      'bootstrap': {'draws': detection.options.bootstrap_draws,
                    'seed': detection.options.seed,
                    'unit': 'patient, within each group', 'method': 'percentile'},
      'roc': None if curve is None else {
          'threshold_cm3': curve.thresholds.tolist(),
          'sensitivity': curve.sensitivity.tolist(),
          'specificity': curve.specificity.tolist()},
      'operating_points': [dataclasses.asdict(point) for point in detection.points],
      'comparison': (None if detection.comparison is None else
                     dataclasses.asdict(detection.comparison)),
      'messages': list(detection.messages),
  }


def _severity(analysis: severity_analysis.SeverityAnalysis) -> dict:
  two, many = analysis.two, analysis.many
  return {
      'grades': list(analysis.grades),
      'order': 'mild to severe' if analysis.order_given else 'alphabetical',
      'n': {grade: summary.n for grade, summary in analysis.summaries.items()},
      'medians_cm3': {
          grade: summary.median_cm3 for grade, summary in analysis.summaries.items()},
      'quartiles_cm3': {
          grade: summary.quartiles_cm3
          for grade, summary in analysis.summaries.items()},
      'rank_sum_p_value': two.rank_sum.p_value if two else None,
      'rank_sum_method': two.rank_sum.method if two else None,
      'rank_sum_u': two.rank_sum.statistic if two else None,
      'shift': None if two is None else dataclasses.asdict(two.shift) | {
          'of': analysis.grades[1], 'against': analysis.grades[0]},
      'auc': two.auc if two else None,
      'auc_ci95_delong': two.auc_interval if two else None,
      'kruskal_wallis_h': many.kruskal_wallis_h if many else None,
      'kruskal_wallis_p_value': many.kruskal_wallis_p_value if many else None,
      'trend': (dataclasses.asdict(many.trend) if many and many.trend else None),
      'messages': list(analysis.messages),
  }


def write_operating_point(
    report: CohortReport, point: operating_points.OperatingPoint,
    path: pathlib.Path) -> None:
  """Writes a threshold as `covid-tf score --case-threshold FILE` reads it.

  Args:
    report: of one kind of models; a threshold of mixed ones means nothing.
    point: the chosen operating point.
    path: the file.
  """
  models = {name: digests[0] for name, digests in report.models().items()}
  text = json.dumps({
      'schema_version': SCHEMA_VERSION,
      'case_corona_score_cm3': point.threshold_cm3,
      'rule': (f'{point.rule}; {report.detection.n_positive} patients with and '
               f'{report.detection.n_negative} without disease'),
      'models': models,
  }, indent=2, ensure_ascii=False, allow_nan=False)
  files.write_atomically(path, text.encode() + b'\n')


def relative(path: pathlib.Path | str, root: pathlib.Path) -> str:
  """`path` below `root`, with forward slashes; results travel without their disk."""
  path = pathlib.Path(path)
  return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
