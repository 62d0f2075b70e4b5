"""Labels and results joined: one study for each patient, the first in time.

A patient who was scanned five times is one patient. Counting all five would make
every interval too narrow, and severity is asked of the first scan in the paper
(section 3.2).
"""

from collections.abc import Sequence
import dataclasses

from covid_tf import errors
from covid_tf.cohort import labels as labels_lib
from covid_tf.cohort import load_results


@dataclasses.dataclass(frozen=True)
class Patient:
  """One patient, by the first study that was scored.

  Attributes:
    study_uid: of that study.
    covid: the reference standard.
    severity: the grade given to that study, or None.
    scores: name to value (see load_results.StudyResult).
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


def select(
    labels: Sequence[labels_lib.Label],
    results: Sequence[load_results.StudyResult]) -> Cohort:
  """Joins labels to results and keeps the first study of every patient.

  Args:
    labels: as `read_labels` gives them.
    results: as `load_results` gives them.

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
        f'labels and {len(scored)} results with no study_uid in common.')
  _check_patient_keys(labels, scored)
  by_patient = {}
  for label in labels:
    by_patient.setdefault(label.patient_id, []).append(label)
  patients, later, first_missing = [], [], []
  for studies in by_patient.values():
    if len(studies) > 1:
      studies = sorted(studies, key=lambda label: label.time_point)
    with_result = [label for label in studies if label.study_uid in scored]
    if not with_result:
      continue
    if with_result[0] is not studies[0]:
      first_missing.append(studies[0].study_uid)
    patients.append(_patient(with_result[0], scored[with_result[0].study_uid]))
    later.extend(label.study_uid for label in with_result[1:])
  return Cohort(
      tuple(sorted(patients, key=lambda patient: patient.study_uid)),
      tuple(sorted(later)), tuple(sorted(first_missing)),
      tuple(sorted(labelled - scored.keys())),
      tuple(str(scored[uid].path) for uid in sorted(scored.keys() - labelled)))


def _patient(label: labels_lib.Label, result: load_results.StudyResult) -> Patient:
  return Patient(label.study_uid, label.covid, label.severity, result.scores)


def _check_patient_keys(
    labels: Sequence[labels_lib.Label],
    scored: dict[str, load_results.StudyResult]) -> None:
  """One key under two patient_ids: one patient, counted twice."""
  first = {}
  for label in labels:
    result = scored.get(label.study_uid)
    if result is None or result.patient_key is None:
      continue
    earlier = first.setdefault(result.patient_key, label)
    if earlier.patient_id != label.patient_id:
      raise errors.UsageError(
          f'labels, row {label.row}: one patient_id per patient is required, but its '
          f'result has the patient_key of row {earlier.row}, which names another '
          'patient_id; correct one of the rows.')
