"""The reference standard of each study, with which scores are compared.

A wrong label is worse than a missing one, and no program can see it. So whatever
can be seen (blank, twice, at odds with another row) is refused with its row, and
no message repeats a patient's ID.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import datetime
import math
import pathlib
from typing import cast

from covid_tf import errors
from covid_tf.cohort import results as results_lib
from covid_tf.storage import tables

_REQUIRED = ('study_uid', 'patient_id', 'covid')
_OPTIONAL = ('severity', 'time_point')
_MOST_PROBLEMS_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Label:
  """One labelled study.

  Attributes:
    row: its row in the file, the header being row 1.
    study_uid: DICOM Study Instance UID, or the name of the result's folder where
      the source has no UID (NIfTI).
    patient_id: unique to the patient; it never leaves this object.
    covid: the reference standard's answer (paper: RT-PCR).
    severity: a grade, or None where the study was not graded.
    time_point: anything that sorts, or None.
  """

  row: int
  study_uid: str
  patient_id: str = dataclasses.field(repr=False)
  covid: bool
  severity: str | None = None
  time_point: float | datetime.datetime | None = None


def read_labels(
  path: pathlib.Path | str, severity_order: Sequence[str] = ()
) -> tuple[Label, ...]:
  """Reads the labels of a cohort.

  Args:
    path: table with `study_uid,patient_id,covid` (0 or 1, or as `tables.truth`
      takes them) and, where known, `severity` (text; blank: not graded) and
      `time_point` (number or ISO date).
    severity_order: the grades from mild to severe; empty: any grade is taken.

  Returns:
    The labels, in the file's order.

  Raises:
    errors.UsageError: the file is no such table, or rows are blank where they
      must not be, appear twice or contradict each other; names the rows.
  """
  problems = []
  labels = []
  for row in tables.read_table(path, _REQUIRED, _OPTIONAL):
    try:
      labels.append(_label(row, severity_order))
    except ValueError as error:
      problems.append((row.number, str(error)))
  for check in (
    _repeated_studies,
    _divided_patients,
    _unordered_times,
    _grades_spelled_twice,
  ):
    problems.extend(check(labels))
  if problems:
    raise errors.UsageError(_refusal(path, problems))
  return tuple(labels)


def _label(row: tables.TableRow, severity_order: Sequence[str]) -> Label:
  cells = row.cells
  blank = [name for name in _REQUIRED if not cells[name]]
  if blank:
    raise ValueError(f'{" and ".join(blank)} must not be blank')
  problem = tables.uid_problem(
    'study_uid', cells['study_uid']
  ) or tables.patient_problem('patient_id', cells['patient_id'])
  if problem:
    raise ValueError(problem)
  covid = tables.truth(cells['covid'])
  if covid is None:
    raise ValueError(f'covid must be 0 or 1, found {cells["covid"]!r}')
  severity = cells['severity'] or None
  if severity and not covid:
    raise ValueError('a study with covid 0 must have a blank severity, found a grade')
  if severity and severity_order and severity not in severity_order:
    raise ValueError(
      f'severity must be one of {", ".join(severity_order)}, found {severity!r}'
    )
  return Label(
    row.number,
    cells['study_uid'],
    cells['patient_id'],
    covid,
    severity,
    _time_point(row),
  )


def _time_point(row: tables.TableRow) -> float | datetime.datetime | None:
  text = row.cells['time_point']
  if not text:
    return None
  try:
    number = row.decimal('time_point')
  except ValueError:
    pass
  else:
    if math.isfinite(number):
      return number
    raise ValueError(f'time_point must be a finite number, found {text!r}')
  try:
    moment = datetime.datetime.fromisoformat(text)
  except ValueError:
    raise ValueError(
      f'time_point must be a number or an ISO date such as 2020-03-15, found {text!r}'
    ) from None
  if moment.tzinfo:  # In one zone, since their order is what counts.
    moment = moment.astimezone(datetime.UTC)
  return moment


def _repeated_studies(labels: Iterable[Label]) -> Iterable[tuple[int, str]]:
  first: dict[str, Label] = {}
  for label in labels:
    earlier = first.setdefault(label.study_uid, label)
    if earlier is label:
      continue
    same = dataclasses.replace(label, row=earlier.row) == earlier
    yield (
      label.row,
      (
        f'repeats the study of row {earlier.row}'
        if same
        else f'contradicts row {earlier.row} about the same study'
      ),
    )


def _divided_patients(labels: Iterable[Label]) -> Iterable[tuple[int, str]]:
  first: dict[str, Label] = {}
  for label in labels:
    earlier = first.setdefault(label.patient_id, label)
    if earlier.covid != label.covid and earlier.study_uid != label.study_uid:
      yield (
        label.row,
        (
          f'covid {label.covid:d} contradicts row {earlier.row}, which gives '
          f'covid {earlier.covid:d} to the same patient'
        ),
      )


def _unordered_times(labels: Sequence[Label]) -> Iterable[tuple[int, str]]:
  """It must be clear which of a patient's studies came first."""
  times = [label.time_point for label in labels]
  kinds = {type(time) for time in times if time is not None}
  if len(kinds) > 1:
    row = next(
      label.row for label in labels if isinstance(label.time_point, datetime.datetime)
    )
    yield row, 'time_point is a date here and a number elsewhere; use one of them'
    return
  zoned = [label for label in labels if getattr(label.time_point, 'tzinfo', None)]
  if zoned and len(zoned) < sum(time is not None for time in times):
    yield (
      zoned[0].row,
      (
        'time_point has a time zone here and none elsewhere; give all of them one, '
        'or none'
      ),
    )
    return
  by_patient: dict[str, dict[str, Label]] = {}
  for label in labels:
    by_patient.setdefault(label.patient_id, {}).setdefault(label.study_uid, label)
  for studies in by_patient.values():
    seen: dict[float | datetime.datetime, int] = {}
    for label in studies.values() if len(studies) > 1 else ():
      if label.time_point is None:
        yield (
          label.row,
          (
            'time_point must not be blank: the patient has several studies, and '
            'only the first is analyzed'
          ),
        )
      elif label.time_point in seen:
        yield (
          label.row,
          (
            'time_point must differ from that of the same patient in row '
            f'{seen[label.time_point]}: which study came first?'
          ),
        )
      else:
        seen[label.time_point] = label.row


def _grades_spelled_twice(labels: Iterable[Label]) -> Iterable[tuple[int, str]]:
  first: dict[str, Label] = {}
  for label in labels:
    if label.severity is None:
      continue
    earlier = first.setdefault(label.severity.casefold(), label)
    if earlier.severity != label.severity:
      yield (
        label.row,
        (
          f'severity {label.severity!r} and {earlier.severity!r} (row {earlier.row}) '
          'differ only in capitals; spell a grade one way'
        ),
      )


def _refusal(path: pathlib.Path | str, problems: list[tuple[int, str]]) -> str:
  problems = sorted(problems)
  shown = '; '.join(
    f'row {row}: {text}' for row, text in problems[:_MOST_PROBLEMS_SHOWN]
  )
  left_out = len(problems) - _MOST_PROBLEMS_SHOWN
  more = f'; and {left_out} more' if left_out > 0 else ''
  return f'{path}: {len(problems)} problem(s) with the labels: {shown}{more}.'


# Labels and results joined: one study for each patient, the first in time.
#
# A patient who was scanned five times is one patient. Counting all five would make
# every interval too narrow, and severity is asked of the first scan in the paper
# (section 3.2).


@dataclasses.dataclass(frozen=True)
class Patient:
  """One patient, by the first study that was scored.

  Attributes:
    study_uid: of that study.
    covid: the reference standard.
    severity: the grade given to that study, or None.
    scores: name to value (see results.StudyResult).
  """

  study_uid: str
  covid: bool
  severity: str | None
  scores: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Cohort:
  """The patients to analyze, and everything that was left out.

  Attributes:
    patients: one entry a patient, in order of study UID.
    later_studies: study UIDs set aside: not the patient's first.
    first_not_scored: study UIDs of first studies without a result, whose patient
      is analyzed by a later one.
    labels_without_result: study UIDs labelled, but not scored.
    results_without_label: paths of results that no row labels.
  """

  patients: tuple[Patient, ...]
  later_studies: tuple[str, ...]
  first_not_scored: tuple[str, ...]
  labels_without_result: tuple[str, ...]
  results_without_label: tuple[str, ...]


def first_time_points(
  labels: Sequence[Label], results: Sequence[results_lib.StudyResult]
) -> Cohort:
  """Joins labels to results and keeps the first study of every patient.

  Args:
    labels: as `read_labels` gives them.
    results: as `results.load_results` gives them.

  Returns:
    The cohort.

  Raises:
    errors.UsageError: no study is both labelled and scored, or two patients of
      the labels are one by the results' patient_key.
  """
  scored = {result.study_uid: result for result in results}
  labelled = {label.study_uid for label in labels}
  if not labelled & scored.keys():
    raise errors.UsageError(
      f'at least one study must be both labelled and scored, found {len(labelled)} '
      f'labels and {len(scored)} results with no study_uid in common.'
    )
  _check_patient_keys(labels, scored)
  by_patient: dict[str, list[Label]] = {}
  for label in labels:
    by_patient.setdefault(label.patient_id, []).append(label)
  patients: list[Patient] = []
  later: list[str] = []
  first_missing: list[str] = []
  for studies in by_patient.values():
    if len(studies) > 1:
      # Numbers or dates, one kind in a table and none missing: read_labels sees to it.
      studies = sorted(studies, key=lambda label: cast(float, label.time_point))
    with_result = [label for label in studies if label.study_uid in scored]
    if not with_result:
      continue
    if with_result[0] is not studies[0]:
      first_missing.append(studies[0].study_uid)
    patients.append(_patient(with_result[0], scored[with_result[0].study_uid]))
    later.extend(label.study_uid for label in with_result[1:])
  return Cohort(
    tuple(sorted(patients, key=lambda patient: patient.study_uid)),
    tuple(sorted(later)),
    tuple(sorted(first_missing)),
    tuple(sorted(labelled - scored.keys())),
    tuple(str(scored[uid].path) for uid in sorted(scored.keys() - labelled)),
  )


def _patient(label: Label, result: results_lib.StudyResult) -> Patient:
  return Patient(label.study_uid, label.covid, label.severity, result.scores)


def _check_patient_keys(
  labels: Sequence[Label], scored: dict[str, results_lib.StudyResult]
) -> None:
  """One key under two patient_ids: one patient, counted twice."""
  first: dict[str, Label] = {}
  for label in labels:
    result = scored.get(label.study_uid)
    if result is None or result.patient_key is None:
      continue
    earlier = first.setdefault(result.patient_key, label)
    if earlier.patient_id != label.patient_id:
      raise errors.UsageError(
        f'labels, row {label.row}: one patient_id per patient is required, but its '
        f'result has the patient_key of row {earlier.row}, which names another '
        'patient_id; correct one of the rows.'
      )
