"""Networks over cases: the figures of the lungs, the slices and the patients."""

from collections.abc import Callable, Iterable
import dataclasses

import numpy as np

from covid_tf import errors
from covid_tf import lungs as lungs_lib
from covid_tf.datasets import pseudo_lungs
from covid_tf.datasets.collections import study as study_lib
from covid_tf.training.evaluation import cases as cases_lib
from covid_tf.training.evaluation import lung_metrics
from covid_tf.training.evaluation import slice_metrics

_ASSUMED_PIXEL_MM = 0.7  # Ours, for single slices that do not say.
FROM_CASE, FROM_NETWORK, FROM_PSEUDO = 'of the case', 'lung network', 'pseudo lung mask'


@dataclasses.dataclass(frozen=True)
class LungCase:
  """A case's lungs: series, slices, kind of its true mask, and agreement."""

  series: str
  slices: int
  truth: str
  agreement: lung_metrics.LungAgreement


@dataclasses.dataclass(frozen=True)
class SliceCase:
  """A slice's answer, and where its crop came from."""

  series: str
  patient: str
  label: int
  case_label: int
  probability: float
  crop: str


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """All figures of a run.

  Attributes:
    lungs: one a case with a lung mask, empty without a lung network.
    slices: one a slice, empty without a classifier.
    by_slice, by_patient: discrimination, or None where nothing is labelled.
    patients: (patient, label, score) of labelled patients.
    left_out: (series, reason).
    notes: what a reader of the figures must know.
  """

  lungs: tuple[LungCase, ...]
  slices: tuple[SliceCase, ...]
  by_slice: slice_metrics.Discrimination | None
  by_patient: slice_metrics.Discrimination | None
  patients: tuple[tuple[str, int, float], ...]
  left_out: tuple[tuple[str, str], ...]
  notes: tuple[str, ...]


def evaluate(
    cases: Iterable[cases_lib.Case], lungs: Callable | None,
    classifier: Callable | None, seed: int = 0) -> Evaluation:
  """Asks the networks about every case.

  Args:
    cases: consumed one by one.
    lungs: int16 [N, h, w] to uint8 [N, h, w], or None.
    classifier: int16 [N, h, w] lung crops to float32 [N], or None.
    seed: of the bootstraps.

  Returns:
    The figures.

  Raises:
    errors.UsageError: no case shows anything to evaluate.
  """
  lung_cases, slice_cases, left_out, notes = [], [], [], set()
  cases = iter(cases)
  while True:
    try:
      case = next(cases, None)
    except errors.StudyRefusedError as error:
      raise errors.UsageError(
          f'evaluation: cases that can be read are required: {error}') from error
    if case is None:
      break
    notes.update(_notes(case))
    found = None if lungs is None else lungs(case.hu)
    if found is not None and case.lung_mask is not None:
      lung_cases.append(LungCase(
          case.series, len(case.hu), case.lung_mask_kind or 'not stated',
          lung_metrics.compare(found, case.lung_mask, case.spacing_mm)))
    if classifier is not None:
      try:
        slice_cases.extend(_classify(case, found, classifier))
      except errors.NoLungsError as error:
        left_out.append((case.series, str(error)))
  if not lung_cases and not slice_cases:
    raise errors.UsageError(
        'evaluation: cases with a lung mask (for a lung network) or slices with lungs '
        '(for a classifier) are required, found none.')
  by_slice, by_patient, patients = _discrimination(slice_cases, seed)
  return Evaluation(
      tuple(lung_cases), tuple(slice_cases), by_slice, by_patient, patients,
      tuple(left_out), tuple(sorted(notes)))


def _classify(case, found, classifier):
  box, crop = case.box, FROM_CASE
  if box is None:
    mask, crop = found, FROM_NETWORK
    if mask is None:
      pixel_mm = case.spacing_mm[1] or _ASSUMED_PIXEL_MM
      mask = np.stack([pseudo_lungs.segment_slice(hu, pixel_mm) for hu in case.hu])
      crop = FROM_PSEUDO
    if not mask.any():
      raise errors.NoLungsError(
          f'{case.series}: lungs are required for the crop, found none.')
    box = lungs_lib.largest_box(lungs_lib.slice_boxes(mask)).as_list()
  row0, column0, row1, column1 = box
  probability = classifier(case.hu[:, row0:row1, column0:column1])
  for label, value in zip(case.labels, probability):
    yield SliceCase(
        case.series, case.patient, int(label), case.case_label, float(value), crop)


def _discrimination(slices, seed):
  labelled = [s for s in slices if s.label >= 0]
  by_slice = by_patient = None
  if labelled:
    by_slice = slice_metrics.discriminate(
        [s.label for s in labelled], [s.probability for s in labelled],
        [s.patient for s in labelled], seed)
  if not slices:
    return None, None, ()
  names, labels, scores = slice_metrics.patient_scores(
      [s.label for s in slices], [s.probability for s in slices],
      [s.patient for s in slices], [s.case_label for s in slices])
  if names:
    by_patient = slice_metrics.discriminate(labels, scores, None, seed)
  return by_slice, by_patient, tuple(zip(names, labels.tolist(), scores.tolist()))


def _notes(case):
  if case.window_hu is not None:
    low, high = case.window_hu
    yield (f'Some slices were grey values of the window {low:g} to {high:g} HU, turned '
           'back into HU.')
  if case.lung_mask is not None and case.lung_mask_kind == study_lib.PSEUDO:
    yield ('Some true lung masks are pseudo-labels of a classical segmentation: '
           'agreement with them is agreement with that method.')
  if case.patient.startswith('implanted'):
    yield 'Some lesions were implanted into chests without disease.'
  if case.patient.startswith('phantom'):
    yield 'Some cases are phantoms, not patients.'
