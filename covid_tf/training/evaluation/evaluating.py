"""Networks over cases: the metrics of the lungs, the slices and the patients."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import glob
import itertools
import os
import pathlib

import numpy as np
import tensorflow as tf

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import lungs as lungs_lib
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.datasets import single_slices
from covid_tf.datasets import splits
from covid_tf.datasets.collections import phantoms
from covid_tf.datasets.collections import study as study_lib
from covid_tf.models import signatures
from covid_tf.models import weights
from covid_tf.training import pipelines
from covid_tf.training import shards as shards_lib
from covid_tf.training.evaluation import by_acquisition
from covid_tf.training.evaluation import metrics

# Where the cases of an evaluation come from; one is in memory at a time.


@dataclasses.dataclass(frozen=True)
class Case:
  """Slices of one series with their truth.

  Attributes:
    series, patient: as in the shard.
    hu: int16 [slice, row, column].
    labels: int [slice], 1, 0 or -1.
    case_label: 1, 0 or -1.
    lung_mask: uint8 [slice, row, column], or None.
    lung_mask_kind: 'drawn', 'pseudo', 'none', or '' where a shard does not say.
    box: lung box [row0, column0, row1, column1], or None: ask the lung network.
    spacing_mm: (slices, rows, columns); 0 where unknown or no stack.
    window_hu: of slices that have lost their HU, or None.
    are_neighbours: whether no slice between them is missing, so that they may be
      averaged.
    acquisition: how the series was acquired; None where that is not known.
  """

  series: str
  patient: str
  hu: np.ndarray
  labels: np.ndarray
  case_label: int
  lung_mask: np.ndarray | None
  lung_mask_kind: str
  box: tuple[int, int, int, int] | None
  spacing_mm: tuple[float, float, float]
  window_hu: tuple[float, float] | None = None
  are_neighbours: bool = True
  acquisition: volume_lib.Acquisition | None = None


def check_shards(shards: Sequence[str]) -> int:
  """Refuses damaged shards before a network is asked anything.

  Shards are compared with the checksums of their shards.csv; those without one are read
  through, since every record carries its own.

  Returns:
    How many had to be read through.

  Raises:
    errors.UsageError: a shard is missing, damaged, empty or no shard of slices.
  """
  unlisted = splits.check(shards)
  for path in unlisted:
    shards_lib.look_through(glob.escape(str(path)))
  return len(unlisted)


def from_shards(shards: Sequence[str]) -> Iterator[Case]:
  """Cases of shards, in the order written; neighbouring slices of a series are one."""

  def key(item):
    return item['patient'], item['series'], item['hu'].shape, tuple(item['box'])

  parsed = (
    record for record, _ in pipelines.records_in_order(shards).as_numpy_iterator()
  )
  for _, records in itertools.groupby(parsed, key):
    group = list(records)
    first = group[0]
    mask = np.stack([item['lung_mask'] for item in group])
    kind = first['lung_mask_kind'].decode()
    low, high = map(float, first['window_hu'])
    row0, column0, row1, column1 = map(int, first['box'])
    pixel_mm = float(first['pixel_mm'])
    yield Case(
      first['series'].decode(),
      first['patient'].decode(),
      np.stack([item['hu'] for item in group]),
      np.array([item['label'] for item in group]),
      int(first['case_label']),
      mask if mask.any() and kind != study_lib.NO_MASK else None,
      kind,
      (row0, column0, row1, column1),
      (float(first['slice_mm']), pixel_mm, pixel_mm),
      (low, high) if low or high else None,
      bool((np.diff([item['slice_index'] for item in group]) == 1).all()),
      volume_lib.Acquisition(
        manufacturer=first['manufacturer'].decode() or None,
        kernel=first['kernel'].decode() or None,
        slice_thickness_mm=float(first['nominal_thickness_mm']) or None,
      ),
    )


def from_phantoms(count: int, first_seed: int, size: int) -> Iterator[Case]:
  """Phantoms, drawn as they are asked for."""
  for entry in phantoms.list_studies(count, first_seed, size):
    study = study_lib.prepared(entry.read(), size, entry.series)
    yield Case(
      entry.series,
      entry.patient,
      study.hu,
      study.labels,
      entry.case_label,
      study.lung_mask,
      study.lung_mask_kind,
      study.box,
      study.spacing_mm,
    )


def from_single_slices(table: str) -> Iterator[Case]:
  """Slices that a CSV lists, each on its own (see `single_slices`)."""
  for entry in single_slices.list_slices(table):
    hu, pixel_mm = single_slices.read_slice(entry.path)
    yield Case(
      entry.path.name,
      entry.patient,
      hu[np.newaxis],
      np.array([entry.label]),
      study_lib.UNLABELLED,
      None,
      study_lib.NO_MASK,
      None,
      (0.0, pixel_mm, pixel_mm),
      acquisition=single_slices.read_acquisition(entry.path),
    )


_ASSUMED_PIXEL_MM = 0.7  # Ours, for single slices that do not say.
FROM_CASE, FROM_NETWORK, FROM_PSEUDO = 'of the case', 'lung network', 'pseudo lung mask'


@dataclasses.dataclass(frozen=True)
class LungCase:
  """A case's lungs: series, slices, kind of its true mask, and agreement."""

  series: str
  slices: int
  truth: str
  agreement: metrics.LungAgreement


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
  """All metrics of a run.

  Attributes:
    lungs: one a case with a lung mask, empty without a lung network.
    slices: one a slice, empty without a classifier.
    by_slice, by_patient: discrimination, or None where nothing is labelled.
    patients: (patient, label, score) of labelled patients.
    left_out: (series, reason).
    notes: to be read with the metrics.
    strata: the same by scanner, kernel and thickness; () where no case states any.
  """

  lungs: tuple[LungCase, ...]
  slices: tuple[SliceCase, ...]
  by_slice: metrics.Discrimination | None
  by_patient: metrics.Discrimination | None
  patients: tuple[tuple[str, int, float], ...]
  left_out: tuple[tuple[str, str], ...]
  notes: tuple[str, ...]
  strata: tuple[by_acquisition.Stratum, ...] = ()


def evaluate(
  cases: Iterable[Case],
  lungs: Callable | None,
  classifier: Callable | None,
  seed: int = 0,
  thickness_mm: float | None = None,
  smoothing_mm: float = 0.0,
) -> Evaluation:
  """Asks the networks about every case.

  Args:
    cases: consumed one by one.
    lungs: int16 [N, h, w] to uint8 [N, h, w], or None.
    classifier: int16 [N, h, w] lung crops to float32 [N], or None.
    seed: of the bootstraps.
    thickness_mm: the classifier sees slices that lie closer as slabs this thick, and
      each slice gets the answers of its slabs, as in `analyze`; None: slices as they
      are. Single slices, and slices of which neighbours are missing, always are.
    smoothing_mm: of the logits along the body, as in `analyze`; 0: none. Not of single
      slices, nor where neighbours are missing.

  Returns:
    The metrics.

  Raises:
    errors.UsageError: no case shows anything to evaluate.
  """
  lung_cases, slice_cases, left_out, notes = [], [], [], set()
  acquisitions = {}
  cases = iter(cases)
  while True:
    try:
      case = next(cases, None)
    except errors.StudyRefusedError as error:
      raise errors.UsageError(
        f'evaluation: cases that can be read are required: {error}'
      ) from error
    if case is None:
      break
    notes.update(_notes(case))
    acquisitions[case.series] = case.acquisition
    found = None if lungs is None else lungs(case.hu)
    if found is not None and case.lung_mask is not None:
      lung_cases.append(
        LungCase(
          case.series,
          len(case.hu),
          case.lung_mask_kind or 'not stated',
          metrics.compare_masks(found, case.lung_mask, case.spacing_mm),
        )
      )
    if classifier is not None:
      try:
        slice_cases.extend(
          _classify(case, found, classifier, thickness_mm, smoothing_mm)
        )
      except errors.NoLungsError as error:
        left_out.append((case.series, str(error)))
  if not lung_cases and not slice_cases:
    raise errors.UsageError(
      'evaluation: cases with a lung mask (for a lung network) or slices with lungs '
      '(for a classifier) are required, found none.'
    )
  by_slice, by_patient, patients = _discrimination(slice_cases, seed)
  return Evaluation(
    tuple(lung_cases),
    tuple(slice_cases),
    by_slice,
    by_patient,
    patients,
    tuple(left_out),
    tuple(sorted(notes)),
    _strata(acquisitions, slice_cases, lung_cases),
  )


def _classify(case, found, classifier, thickness_mm, smoothing_mm):
  box, crop = case.box, FROM_CASE
  if box is None:
    mask, crop = found, FROM_NETWORK
    if mask is None:
      pixel_mm = case.spacing_mm[1] or _ASSUMED_PIXEL_MM
      mask = np.stack([study_lib.segment_slice_lungs(hu, pixel_mm) for hu in case.hu])
      crop = FROM_PSEUDO
    if not mask.any():
      raise errors.NoLungsError(
        f'{case.series}: lungs are required for the crop, found none.'
      )
    box = lungs_lib.largest_box(lungs_lib.slice_boxes(mask)).as_list()
  row0, column0, row1, column1 = box
  crops = case.hu[:, row0:row1, column0:column1]
  is_stack = case.are_neighbours and case.spacing_mm[0]
  slabs = slabs_lib.divide(
    len(crops), case.spacing_mm[0], thickness_mm if is_stack else None
  )
  averages = slabs_lib.classified(slabs, smoothing_mm)
  probability = classifier(averages.average(crops, slice(None)))
  if is_stack:
    probability = slabs_lib.smoothed(probability, averages.positions_mm, smoothing_mm)
  probability = slabs.to_slices(slabs_lib.of_slabs(averages, probability))
  for label, value in zip(case.labels, probability):
    yield SliceCase(
      case.series, case.patient, int(label), case.case_label, float(value), crop
    )


def _strata(acquisitions, slices, lungs):
  dice = [(case.series, case.agreement.dice) for case in lungs]
  return by_acquisition.divide(
    acquisitions,
    [(s.series, s.label, s.probability) for s in slices if s.label >= 0],
    [(series, value) for series, value in dice if value is not None],
  )


def _discrimination(slices, seed):
  labelled = [s for s in slices if s.label >= 0]
  by_slice = by_patient = None
  if labelled:
    by_slice = metrics.discriminate(
      np.array([s.label for s in labelled]),
      np.array([s.probability for s in labelled]),
      [s.patient for s in labelled],
      seed,
    )
  if not slices:
    return None, None, ()
  names, labels, scores = metrics.patient_scores(
    np.array([s.label for s in slices]),
    np.array([s.probability for s in slices]),
    [s.patient for s in slices],
    [s.case_label for s in slices],
  )
  if names:
    by_patient = metrics.discriminate(labels, scores, None, seed)
  return by_slice, by_patient, tuple(zip(names, labels.tolist(), scores.tolist()))


def _notes(case):
  if case.window_hu is not None:
    low, high = case.window_hu
    yield (
      f'Some slices were grey values of the window {low:g} to {high:g} HU, turned '
      'back into HU.'
    )
  if case.lung_mask is not None and case.lung_mask_kind == study_lib.PSEUDO:
    yield (
      'Some true lung masks are pseudo-labels of a classical segmentation: '
      'agreement with them is agreement with that method.'
    )
  if case.patient.startswith('implanted'):
    yield 'Some lesions were implanted into chests without disease.'
  if case.patient.startswith('phantom'):
    yield 'Some cases are phantoms, not patients.'


# Networks to evaluate: demo weights, a training's weights, or an export.
#
# All answer through the functions that are served, so an evaluation says what a server
# with these weights would.

_BATCH = 16


def load_network(
  name: str, source: str | os.PathLike
) -> Callable[[np.ndarray], np.ndarray]:
  """Loads a network for its masks, or its probabilities.

  Args:
    name: a model name of the contract.
    source: 'demo'; a run's folder or .weights.h5 file; or an export: the folder
      that holds `<name>/<version>`, `<name>` itself, or a version's folder.

  Returns:
    A function: int16 [N, h, w] in HU to uint8 [N, h, w] masks (lungs) or to float32
    [N] probabilities (classifier).

  Raises:
    errors.UsageError, errors.ModelError: there is no such network.
  """
  answers = _load(name, source, contract.SERVING_DEFAULT)
  return lambda hu: answers(hu)[0]


def load_explainer(
  source: str | os.PathLike,
) -> Callable[[np.ndarray], results.SliceExplanation]:
  """Loads a classifier for its probabilities with their Grad-CAM.

  Args:
    source: as of `load_network`.

  Returns:
    A function: int16 [N, h, w] lung crops in HU to the explanation of N slices.

  Raises:
    errors.UsageError, errors.ModelError: there is no such network.
  """
  answers = _load(contract.CLASSIFIER_MODEL, source, contract.GRAD_CAM)
  return lambda hu: results.SliceExplanation(*answers(hu))


def _load(name, source, signature) -> Callable[[np.ndarray], list[np.ndarray]]:
  """A function from int16 [N, h, w] to the outputs of a signature, in its order."""
  outputs = [spec.name for spec in contract.SIGNATURES[name][signature].outputs]
  if (export := _version_folder(name, pathlib.Path(source))) is not None:
    ask = _exported(export, signature)
  else:
    model, _ = weights.load_network(name, source)
    # One trace for all sizes: studies differ in theirs.
    ask = tf.function(
      signatures.SIGNATURES[name](model, '')[signature],
      input_signature=[tf.TensorSpec([None, None, None], tf.int16, 'hu')],
    )

  def answers(hu: np.ndarray) -> list[np.ndarray]:
    parts = [
      ask(hu=tf.constant(np.ascontiguousarray(hu[first : first + _BATCH])))
      for first in range(0, len(hu), _BATCH)
    ]
    return [np.concatenate([part[key].numpy() for part in parts]) for key in outputs]

  return answers


def _exported(folder, signature):
  try:
    loaded = tf.saved_model.load(str(folder))
    ask = loaded.signatures[signature]
  except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
    raise errors.ModelError(
      f'{folder}: an exported model is required, found one that cannot be loaded '
      f'({type(error).__name__}); export it again.'
    ) from error
  ask.covid_tf_keeps = loaded  # A signature does not hold its variables.
  return ask


def _version_folder(name, source) -> pathlib.Path | None:
  """The highest version of an export, or None where `source` is none."""
  for folder in (source / name, source):
    versions = [
      path
      for path in (folder.iterdir() if folder.is_dir() else ())
      if path.name.isdecimal() and (path / 'saved_model.pb').is_file()
    ]
    if versions:
      return max(versions, key=lambda path: int(path.name))
  return source if (source / 'saved_model.pb').is_file() else None
