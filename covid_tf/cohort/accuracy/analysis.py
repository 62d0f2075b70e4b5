"""Results and labels in, findings and files out: what `covid-tf cohort` runs."""

from collections.abc import Sequence
import dataclasses
import pathlib

from covid_tf import errors
from covid_tf.cohort import labels as labels_lib
from covid_tf.cohort import results as results_lib
from covid_tf.cohort.accuracy import experiments
from covid_tf.cohort.accuracy import measures
from covid_tf.cohort.accuracy import report as report_lib
from covid_tf.cohort.accuracy import strata
from covid_tf.cohort.review import contact_sheet
from covid_tf.cohort.review import decisions
from covid_tf.reports import figures
from covid_tf.statistics import operating_points

_ROC = 'detection_roc'
_BOXES = 'severity_box_plot'


@dataclasses.dataclass(frozen=True)
class CohortOptions:
  """What the user may choose.

  Attributes:
    detection: see experiments.DetectionOptions.
    severity_order: grades from mild to severe; empty: not stated.
    second_score: number of the same results to compare the Corona score with.
    second_results: other results whose Corona score is compared instead, or None.
    allow_mixed: take results whose scores may not compare.
    require_all: refuse studies that would be left out.
    review: review.csv with the results that a person accepted and rejected, or None.
  """

  detection: experiments.DetectionOptions = experiments.DetectionOptions()
  severity_order: tuple[str, ...] = ()
  second_score: str = 'involved_lung_fraction'
  second_results: pathlib.Path | None = None
  allow_mixed: bool = False
  require_all: bool = False
  review: pathlib.Path | None = None


def analyze_cohort(
  results_root: pathlib.Path | str,
  labels_path: pathlib.Path | str,
  options: CohortOptions = CohortOptions(),
) -> report_lib.CohortReport:
  """Analyzes stored results against labels.

  Args:
    results_root: folder searched for result.json at any depth.
    labels_path: CSV, see labels.read_labels.
    options: see CohortOptions.

  Returns:
    The findings.

  Raises:
    errors.UsageError: the labels, the results or both cannot be used as they are.
  """
  root = pathlib.Path(results_root)
  labels = labels_lib.read_labels(labels_path, options.severity_order)
  results, failed = results_lib.load_results(root)
  results, review, rejected = _reviewed(options.review, results, root)
  cohort = labels_lib.first_time_points(labels, results)
  cohort = dataclasses.replace(
    cohort,
    labels_without_result=tuple(
      uid for uid in cohort.labels_without_result if uid not in rejected
    ),
  )
  if options.require_all:
    _require_all(cohort, failed)
  labelled = {label.study_uid for label in labels}
  used = tuple(result for result in results if result.study_uid in labelled)
  made = [result.provenance for result in used]
  mixed = results_lib.require_comparable(made, options.allow_mixed)
  second, second_name, second_edits = _second(options, used)
  factors = strata.factors(
    cohort.patients, {result.study_uid: result.acquisition for result in used}
  )
  return report_lib.CohortReport(
    root,
    used,
    failed,
    cohort,
    experiments.detect(cohort.patients, options.detection, second, second_name),
    experiments.grade_severity(cohort.patients, options.severity_order),
    warnings=(
      *_demo(used),
      *mixed,
      *_no_point(mixed),
      *results_lib.software_warnings(made),
      *results_lib.edit_warnings(made),
      *second_edits,
      *strata.warnings(factors),
      *(review.messages() if review else ()),
      *_left_out(cohort, failed),
    ),
    mixed=bool(mixed),
    review=review,
    factors=factors,
    measures=measures.measure_all(cohort.patients, options.severity_order),
  )


def _reviewed(
  path: pathlib.Path | None,
  results: tuple[results_lib.StudyResult, ...],
  root: pathlib.Path,
) -> tuple[
  tuple[results_lib.StudyResult, ...], decisions.Review | None, frozenset[str]
]:
  """(results that were not rejected, the review, study UIDs of those that were)."""
  if path is None:
    return results, None, frozenset()
  folders = {contact_sheet.folder_name(result.path, root): result for result in results}
  review = decisions.read_review(path, folders)
  rejected = review.rejected()
  kept = tuple(result for folder, result in folders.items() if folder not in rejected)
  if not kept:
    raise errors.UsageError(
      f'{path}: at least one result that is not rejected is required, found '
      f'{len(rejected)} rejected of {len(results)}.'
    )
  return kept, review, frozenset(folders[folder].study_uid for folder in rejected)


def write_report(
  report: report_lib.CohortReport,
  output: pathlib.Path | str,
  point_name: str = 'youden',
) -> None:
  """Writes cohort.json, cohort.html, operating_point.json and the figures.

  Files that an earlier run left and this one does not make are removed: a
  threshold of other results must not stay beside these.

  Args:
    report: as `analyze_cohort` gives it.
    output: the folder.
    point_name: which operating point to write.
  """
  output = pathlib.Path(output)
  _clear(output)
  if report.detection.curve:
    figures.save(report_lib.roc_figure(report.detection), output / 'figures' / _ROC)
  if report.severity.grades:
    figures.save(
      report_lib.severity_figure(report.severity), output / 'figures' / _BOXES
    )
  beside = report_lib.measure_figures(report)
  for stem, figure in beside.items():
    figures.save(figure, output / 'figures' / stem)
  for point in report.detection.points:
    if point.name == point_name and not report.mixed:
      report_lib.write_operating_point(
        report, point, output / operating_points.FILE_NAME
      )
  report_lib.write_page(report, output / 'cohort.html', beside)
  report_lib.write_json(report, output / results_lib.OWN_OUTPUT)


def _clear(output: pathlib.Path) -> None:
  pictures = (
    f'figures/{stem}{suffix}'
    for stem in (_ROC, _BOXES, report_lib.MEASURES_ROC, report_lib.MEASURES_BOXES)
    for suffix in ('.svg', '.png')
  )
  try:
    for name in (operating_points.FILE_NAME, *pictures):
      (output / name).unlink(missing_ok=True)
  except OSError as error:
    raise errors.OutputError(
      f'{output}: a folder that can be written is required: {error.strerror}; choose '
      'another one.'
    ) from error


def _demo(results: Sequence[results_lib.StudyResult]) -> tuple[str, ...]:
  count = sum(result.demo_models for result in results)
  return (
    (
      f'Results by the demo models, trained on phantoms: {count}. They show how '
      'this works and measure no patient.',
    )
    if count
    else ()
  )


def _no_point(mixed: Sequence[str]) -> tuple[str, ...]:
  return ('No operating point is written of mixed results.',) if mixed else ()


def _second(
  options: CohortOptions, used: Sequence[results_lib.StudyResult]
) -> tuple[dict[str, float] | None, str, tuple[str, ...]]:
  """(study UID to the second score or None, its name, warnings of edited results)."""
  if options.second_results is None:
    name = options.second_score
    values = {
      result.study_uid: result.scores[name] for result in used if name in result.scores
    }
    return values or None, name.replace('_', ' '), ()
  loaded, _ = results_lib.load_results(options.second_results)
  wanted = {result.study_uid for result in used}
  others = [other for other in loaded if other.study_uid in wanted]
  if not others:
    raise errors.UsageError(
      f'{options.second_results}: results of the same studies are required, found '
      'no study_uid in common.'
    )
  made = [other.provenance for other in others]
  results_lib.require_comparable(made)
  return (
    {other.study_uid: other.scores[results_lib.CORONA_SCORE] for other in others},
    f'Corona score in {options.second_results.name}',
    results_lib.edit_warnings(made),
  )


def _left_out(
  cohort: labels_lib.Cohort, failed: Sequence[results_lib.FailedStudy]
) -> tuple[str, ...]:
  counts = (
    (
      len(failed),
      'failed: no score, and if failure goes with disease every figure here is off',
    ),
    (len(cohort.labels_without_result), 'labelled, but without a result'),
    (len(cohort.results_without_label), 'scored, but without a label'),
    (
      len(cohort.first_not_scored),
      'replaced by a later study of the same patient, having no result to use',
    ),
  )
  return tuple(
    f'Studies {text}: {count}, listed at the end.' for count, text in counts if count
  )


def _require_all(
  cohort: labels_lib.Cohort, failed: Sequence[results_lib.FailedStudy]
) -> None:
  left_out = (
    [f'{study.path} ({study.reason})' for study in failed]
    + [f'{uid} (labelled, no result)' for uid in cohort.labels_without_result]
    + [f'{path} (no label)' for path in cohort.results_without_label]
  )
  if left_out:
    raise errors.UsageError(
      f'every study must be labelled and scored, found {len(left_out)} that are '
      f'not: {"; ".join(left_out[:10])}; correct them or drop --require-all.'
    )
