"""How far the demo's results agree with the truth: metrics, JSON, text and page."""

from collections.abc import Sequence
import csv
import dataclasses
import io
import json

import numpy as np
from scipy import stats
from sklearn import metrics

from covid_tf import readers
from covid_tf.datasets.phantom import written
from covid_tf.demo import drawing
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.storage import files
from covid_tf.storage import maps
from covid_tf.storage import result_json

# How far a scored phantom agrees with its truth.


@dataclasses.dataclass(frozen=True)
class CaseAgreement:
  """Truth beside result of one phantom.

  Attributes:
    name: the case's folder.
    truth: what is so.
    corona_score_cm3, involved_lung_fraction, lung_volume_cm3, positive_slices,
      slice_probability: what was found (see results.CaseResult).
    lung_dice: overlap of found and true lung masks, in [0, 1].
    true_positive_slices: slices detected positive that hold lesion.
    hit_slices: those of them where a map above its threshold touches lesion.
    seconds: that scoring took, reading and reports included.
  """

  name: str
  truth: written.Truth
  corona_score_cm3: float
  involved_lung_fraction: float
  lung_volume_cm3: float
  positive_slices: tuple[int, ...]
  slice_probability: tuple[float, ...]
  lung_dice: float
  true_positive_slices: int
  hit_slices: int
  seconds: float


def compare_case(folder: drawing.DemoFolder, name: str) -> CaseAgreement:
  """Reads a case's truth and result and compares them.

  Args:
    folder: the demo's.
    name: of the case.

  Raises:
    errors.UsageError: truth or result is absent or damaged.
  """
  truth = written.read_truth(folder.truth(name))
  result = result_json.read_result(folder.result(name))
  lung_mask, localization, _ = maps.read_maps(folder.result(name), result)
  lung_dice = dice(
    written.read_mask(folder.truth(name) / written.LUNG_MASK_NAME), lung_mask
  )
  seconds = json.loads(folder.timing(name).read_text('utf-8'))['seconds']
  both = sorted(set(truth.positive_slices) & set(result.positive_slices))
  hits = 0
  if both:
    lesion = written.read_mask(folder.truth(name) / written.LESION_MASK_NAME)
    hits = sum(
      bool((localization.slice_map(i)[lesion[i] > 0] > result.thresholds.map).any())
      for i in both
    )
  return CaseAgreement(
    name,
    truth,
    result.corona_score_cm3,
    result.involved_lung_fraction,
    result.lung_volume_cm3,
    result.positive_slices,
    result.slice_probability,
    lung_dice,
    len(both),
    hits,
    seconds,
  )


def dice(first: np.ndarray, second: np.ndarray) -> float:
  """Twice the overlap of two masks over their sum; 1 where both are empty."""
  first, second = first > 0, second > 0
  total = np.count_nonzero(first) + np.count_nonzero(second)
  return 2 * np.count_nonzero(first & second) / total if total else 1.0


# The demo's metrics: how good the shipped models are on phantoms.

# Metric -> what the demo models must reach; others are only reported.
REQUIRED = {
  'positives_above_negatives': 1.0,
  'volume_rank_correlation': 0.8,
  'map_hits_lesion_fraction': 0.9,
  'lung_dice_min': 0.95,
}


def cohort_metrics(cases: Sequence[CaseAgreement]) -> dict[str, float | None]:
  """Metrics of a cohort by name; None where the cohort cannot have one.

  positives_above_negatives is the share of positive patients whose score lies
  above every negative's.

  Args:
    cases: the scored phantoms.
  """
  positive = [case for case in cases if case.truth.positive]
  negative = [case for case in cases if not case.truth.positive]
  scores = np.array([case.corona_score_cm3 for case in positive])
  highest = max((case.corona_score_cm3 for case in negative), default=None)
  found = sum(case.true_positive_slices for case in cases)
  dices = [case.lung_dice for case in cases]
  slices = sum(case.truth.slice_count for case in cases)
  seconds = sum(case.seconds for case in cases)
  both = bool(positive) and bool(negative)
  return {
    'patients': len(cases),
    'positive_patients': len(positive),
    'slices': slices,
    'score_auc': _auc(
      [case.truth.positive for case in cases], [case.corona_score_cm3 for case in cases]
    ),
    'positives_above_negatives': float((scores > highest).mean()) if both else None,
    'lowest_positive_score_cm3': float(scores.min()) if positive else None,
    'highest_negative_score_cm3': highest,
    'volume_rank_correlation': _rank_correlation(positive),
    'true_positive_slices': found,
    'map_hits_lesion_fraction': (
      sum(case.hit_slices for case in cases) / found if found else None
    ),
    **_slice_metrics(cases),
    'lung_dice_min': min(dices, default=None),
    'lung_dice_mean': float(np.mean(dices)) if dices else None,
    'seconds': seconds,
    'seconds_per_slice': seconds / slices if slices else None,
  }


def failures(named: dict[str, float | None]) -> list[str]:
  """Names of the required metrics that are defined and not reached."""
  return [
    name
    for name, least in REQUIRED.items()
    if (value := named[name]) is not None and value < least
  ]


def _rank_correlation(positive):
  """Spearman's, of score and true lesion volume; None below three patients."""
  if len(positive) < 3:
    return None
  scores = [case.corona_score_cm3 for case in positive]
  volumes = [case.truth.lesion_volume_cm3 for case in positive]
  if min(scores) == max(scores) or min(volumes) == max(volumes):
    return 0.0  # All equal: no order at all.
  return float(stats.spearmanr(scores, volumes).statistic)


def _slice_metrics(cases):
  """Sensitivity, specificity and AUC over slices; any lesion makes one positive."""
  truths, positives, probability = [], [], []
  for case in cases:
    indices = np.arange(case.truth.slice_count)
    truths.append(np.isin(indices, case.truth.positive_slices))
    positives.append(np.isin(indices, case.positive_slices))
    probability.append(case.slice_probability)
  if not cases:
    return dict.fromkeys(('slice_sensitivity', 'slice_specificity', 'slice_auc'))
  truth, found = np.concatenate(truths), np.concatenate(positives)
  return {
    'slice_sensitivity': float(found[truth].mean()) if truth.any() else None,
    'slice_specificity': float((~found[~truth]).mean()) if (~truth).any() else None,
    'slice_auc': _auc(truth, np.concatenate(probability)),
  }


def _auc(truth, score):
  if len(set(np.asarray(truth).tolist())) < 2:
    return None
  return float(metrics.roc_auc_score(truth, score))


# The demo's findings: as JSON, as labels for `covid-tf cohort`, as text.

_TRUTH_FIELDS = (
  'kind',
  'severe',
  'lesion_volume_cm3',
  'lung_volume_cm3',
  'positive_slices',
  'slice_count',
  'study_uid',
  'series_uid',
  'seed',
)
HEADER = (
  'phantom           truth     lesion cm³   score cm³ | lung cm³  found   Dice | '
  'slices with lesion  detected\n' + '-' * 104
)
_NAMES = {
  'score_auc': 'AUC of the score, patients with against without lesions',
  'positives_above_negatives': 'patients with lesions scored above all without',
  'volume_rank_correlation': 'rank correlation of score and true lesion volume',
  'map_hits_lesion_fraction': 'true-positive slices whose map touches a lesion',
  'slice_sensitivity': 'sensitivity over slices',
  'slice_specificity': 'specificity over slices',
  'slice_auc': 'AUC over slices',
  'lung_dice_min': 'Dice of the lungs, lowest',
  'lung_dice_mean': 'Dice of the lungs, mean',
}


def write_summary(
  folder: drawing.DemoFolder,
  cases: Sequence[CaseAgreement],
  ungraded: frozenset[str] = frozenset(),
) -> None:
  """Writes summary.json and labels.csv.

  Args:
    folder: the demo's.
    cases: the scored phantoms.
    ungraded: names of cases whose severity the labels leave out.

  Raises:
    errors.OutputError: they cannot be written.
  """
  content = {
    'note': 'phantoms, not patients; research use only',
    'figures': cohort_metrics(cases),
    'required': REQUIRED,
    'cases': [_case(case) for case in cases],
  }
  files.write_atomically(folder.labels, _labels(cases, ungraded).encode())
  files.write_json(folder.summary, content)


def row(case: CaseAgreement) -> str:
  """One line of the table below HEADER."""
  truth = case.truth
  kind = truth.kind + (', severe' if truth.severe else '')
  return (
    f'{case.name:17} {kind:15} {truth.lesion_volume_cm3:8.1f} '
    f'{case.corona_score_cm3:9.1f} | {truth.lung_volume_cm3:8.0f} '
    f'{case.lung_volume_cm3:7.0f}  {case.lung_dice:.3f} | '
    f'{len(truth.positive_slices):18} {len(case.positive_slices):9}'
  )


def metrics_text(named: dict[str, float | None]) -> str:
  """The metrics as lines, what is required beside."""
  lines = []
  for name, words in _NAMES.items():
    value = named[name]
    if value is not None:
      least = REQUIRED.get(name)
      verdict = (
        ''
        if least is None
        else f'  (required {least:g}: '
        + ('reached)' if value >= least else 'NOT REACHED)')
      )
      lines.append(f'{words:55} {value:.3f}{verdict}')
  lines.append(
    f'{"seconds a slice, everything included":55} {named["seconds_per_slice"]:.3f}'
  )
  return '\n'.join(lines)


def _case(case):
  truth = dataclasses.asdict(case.truth)
  result = dataclasses.asdict(case)
  del result['truth'], result['name']
  return {
    'name': case.name,
    'truth': {name: truth[name] for name in _TRUTH_FIELDS},
    'result': result,
  }


def _labels(cases, ungraded):
  """What `covid-tf cohort` asks for, and `covid-tf manifestations --kinds`."""
  text = io.StringIO()
  table = csv.writer(text, lineterminator='\n')
  table.writerow(('study_uid', 'patient_id', 'covid', 'severity', 'time_point', 'kind'))
  for case in cases:
    truth = case.truth
    severity = 'severe' if truth.severe else 'non-severe'
    if not truth.positive or case.name in ungraded:
      severity = ''
    table.writerow(
      (truth.study_uid, case.name, int(truth.positive), severity, 1, truth.kind)
    )
  return text.getvalue()


# index.html: every phantom's truth beside its result, with links to the reports.

_COLUMNS = 220  # Of a thumbnail.
_MARGIN_MM = 12
_QUALITY = 60


@dataclasses.dataclass(frozen=True)
class Thumbnail:
  """One axial slice: the CT, the map found, the lesions' true outline.

  Attributes:
    grey_uri, heat_uri: images, as data URIs; heat_uri may be ''.
    lesion_path: SVG path of the true lesions, in tenths of a millimetre.
    width, height: of the picture, millimetres.
    index: of the slice, 0 the lowest.
  """

  grey_uri: str
  heat_uri: str
  lesion_path: str
  width: float
  height: float
  index: int


def thumbnail(folder: drawing.DemoFolder, name: str) -> Thumbnail:
  """The slice with most lesion; the one with most lung where there is none.

  Args:
    folder: the demo's.
    name: of a scored case.

  Raises:
    errors.CovidTFError: a file is absent or damaged.
  """
  volume = readers.read_ct(folder.study(name))
  truth = folder.truth(name)
  lung = written.read_mask(truth / written.LUNG_MASK_NAME)
  lesion = written.read_mask(truth / written.LESION_MASK_NAME)
  shown = lesion if lesion.any() else lung
  index = int(shown.sum((1, 2)).argmax())
  result = result_json.read_result(folder.result(name))
  found = maps.read_maps(folder.result(name), result, volume)[1].slice_map(index)
  step_mm = row_mm, column_mm = volume.spacing_mm[1:]
  window = _around(lung, step_mm)
  grey = pictures.lung_window(volume.hu[index][window])
  height, width = grey.shape[0] * row_mm, grey.shape[1] * column_mm
  return Thumbnail(
    pictures.grey_uri(grey, (round(_COLUMNS * height / width), _COLUMNS), _QUALITY),
    pictures.heat_uri(found[window], step_mm, _COLUMNS) if found.any() else '',
    pictures.outline(lesion[index][window], step_mm),
    width,
    height,
    index,
  )


def write_page(
  folder: drawing.DemoFolder,
  cases: Sequence[CaseAgreement],
  thumbnails: dict[str, Thumbnail],
) -> None:
  """Writes index.html.

  Args:
    folder: the demo's.
    cases: the scored phantoms, in the order of the table.
    thumbnails: one a case, by name.

  Raises:
    errors.OutputError: it cannot be written.
  """
  named = cohort_metrics(cases)
  files.write_atomically(
    folder.page,
    pages.render(
      'demo.html',
      cases=cases,
      thumbnails=thumbnails,
      metrics=named,
      required=REQUIRED,
      demo_models=True,
    ),
  )


def _around(mask, step_mm):
  """Rows and columns of all lung, with a margin."""
  window = []
  for axis, step in zip((1, 2), step_mm):
    used = np.flatnonzero(mask.any(axis=(0, 3 - axis)))
    margin = round(_MARGIN_MM / step)
    window.append(slice(max(0, int(used[0]) - margin), int(used[-1]) + margin + 1))
  return tuple(window)
