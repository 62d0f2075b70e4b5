"""The demo's findings: as JSON, as labels for `covid-tf cohort`, as text."""

from collections.abc import Sequence
import csv
import dataclasses
import io
import json

from covid_tf import files
from covid_tf.demo import agreement
from covid_tf.demo import figures
from covid_tf.demo import layout

_TRUTH_FIELDS = ('kind', 'severe', 'lesion_volume_cm3', 'lung_volume_cm3',
                 'positive_slices', 'slice_count', 'study_uid', 'series_uid', 'seed')
HEADER = (
    'phantom           truth     lesion cm³   score cm³ | lung cm³  found   Dice | '
    'slices with lesion  detected\n' + '-' * 104)
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
    folder: layout.DemoFolder, cases: Sequence[agreement.CaseAgreement],
    ungraded: frozenset[str] = frozenset()) -> None:
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
      'figures': figures.figures(cases),
      'required': figures.REQUIRED,
      'cases': [_case(case) for case in cases]}
  files.write_atomically(folder.labels, _labels(cases, ungraded).encode())
  files.write_atomically(
      folder.summary, (json.dumps(content, indent=2) + '\n').encode())


def row(case: agreement.CaseAgreement) -> str:
  """One line of the table below HEADER."""
  truth = case.truth
  kind = truth.kind + (', severe' if truth.severe else '')
  return (
      f'{case.name:17} {kind:15} {truth.lesion_volume_cm3:8.1f} '
      f'{case.corona_score_cm3:9.1f} | {truth.lung_volume_cm3:8.0f} '
      f'{case.lung_volume_cm3:7.0f}  {case.lung_dice:.3f} | '
      f'{len(truth.positive_slices):18} {len(case.positive_slices):9}')


def figures_text(named: dict[str, float | None]) -> str:
  """The figures as lines, what is required beside."""
  lines = []
  for name, words in _NAMES.items():
    if named[name] is not None:
      least = figures.REQUIRED.get(name)
      verdict = '' if least is None else f'  (required {least:g}: ' + (
          'reached)' if named[name] >= least else 'NOT REACHED)')
      lines.append(f'{words:55} {named[name]:.3f}{verdict}')
  lines.append(f'{"seconds a slice, everything included":55} '
               f'{named["seconds_per_slice"]:.3f}')
  return '\n'.join(lines)


def _case(case):
  truth = dataclasses.asdict(case.truth)
  result = dataclasses.asdict(case)
  del result['truth'], result['name']
  return {'name': case.name, 'truth': {name: truth[name] for name in _TRUTH_FIELDS},
          'result': result}


def _labels(cases, ungraded):
  """What `covid-tf cohort` asks for, and `covid-tf manifestations --kinds`."""
  text = io.StringIO()
  table = csv.writer(text, lineterminator='\n')
  table.writerow(
      ('study_uid', 'patient_id', 'covid', 'severity', 'time_point', 'kind'))
  for case in cases:
    truth = case.truth
    severity = 'severe' if truth.severe else 'non-severe'
    if not truth.positive or case.name in ungraded:
      severity = ''
    table.writerow((
        truth.study_uid, case.name, int(truth.positive), severity, 1, truth.kind))
  return text.getvalue()
