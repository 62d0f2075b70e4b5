"""What the paper finds in patients, found in phantoms whose truth is known.

`phantom_cohort.py --findings` ends with it: `covid-tf cohort` and `covid-tf
manifestations` over the stored results, their figures beside the paper's and beside
the phantoms' true kinds.
"""

import argparse
import csv
import io
import json
import pathlib

from covid_tf.cohort import paper
from covid_tf.commands import cohort
from covid_tf.commands import manifestations
from covid_tf.datasets.phantom import written
from covid_tf.demo import drawing
from covid_tf.storage import files


def write_kinds(folder: drawing.DemoFolder, names: list[str]) -> pathlib.Path:
  """Writes the true kind of every slice: its phantom's, or none without a lesion."""
  text = io.StringIO()
  table = csv.writer(text, lineterminator='\n')
  table.writerow(('study_uid', 'slice', 'kind'))
  for name in names:
    truth = written.read_truth(folder.truth(name))
    for index in range(truth.slice_count):
      kind = truth.kind if index in truth.positive_slices else 'none'
      table.writerow((truth.study_uid, index, kind))
  path = folder.root / 'kinds.csv'
  files.write_atomically(path, text.getvalue().encode())
  return path


def find(folder: drawing.DemoFolder, address: str, names: list[str]) -> dict:
  """Runs both commands; stored features are not asked for again.

  Args:
    folder: of the cohort, every phantom scored and its study still there.
    address: 'HOST:PORT' of the server that scored them.
    names: of the phantoms.

  Returns:
    Named figures.

  Raises:
    errors.CovidTFError: see the commands.
  """
  kinds = write_kinds(folder, names)
  _run(
    cohort, folder.root / 'results', folder.labels, '--output', folder.root / 'cohort'
  )
  _run(
    manifestations,
    folder.root / 'studies',
    '--output',
    folder.root / 'manifestations',
    '--server',
    address,
    '--results',
    folder.root / 'results',
    '--labels',
    folder.labels,
    '--kinds',
    kinds,
    '--clusters',
    paper.CLUSTERS,
    '--timeout',
    600,
  )
  found = _read(folder.root / 'cohort' / 'cohort.json')
  clusters = _read(folder.root / 'manifestations' / 'manifestations.json')
  return _cohort_figures(found) | _cluster_figures(clusters)


def text(named: dict) -> str:
  """The figures as a table, the paper's beside them."""
  medians = ' and '.join(map(str, paper.MEDIANS_CM3_AS_LISTED))
  rows = [
    ('AUC of the score', _number(named['auc'], 3), f'{paper.AUC}'),
    (
      '  95 % interval, DeLong',
      paper.interval(named['auc_ci95_delong']),
      paper.interval(paper.AUC_CI95),
    ),
    ('  95 % interval, bootstrap', paper.interval(named['auc_ci95_bootstrap']), ''),
    ('  95 % interval, Newcombe', paper.interval(named['auc_ci95_newcombe']), ''),
    (
      'Median, severe, cm³',
      _number(named['median_severe_cm3'], 1),
      f'{medians}, see docs/cohort.md',
    ),
    ('Median, not severe, cm³', _number(named['median_non_severe_cm3'], 1), ''),
    (
      'Severe above not severe',
      {True: 'yes', False: 'NO'}.get(named['severity_order_right'], '–'),
      '',
    ),
    (
      'Rank-sum p value',
      '–' if named['rank_sum_p_value'] is None else f'{named["rank_sum_p_value"]:.2g}',
      f'{paper.RANK_SUM_P_VALUE}',
    ),
    ('Clusters by the elbow', str(named['elbow_k']), str(paper.CLUSTERS)),
  ]
  rows += [
    (f'Adjusted Rand index, {name}', _number(value, 2), '')
    for name, value in named['rand_index'].items()
  ]
  return '\n'.join(
    f'{name:40} {ours:>14}   {theirs}'
    for name, ours, theirs in (('', 'phantoms', 'paper, patients'), *rows)
  )


def _run(command, *words) -> None:
  parser = argparse.ArgumentParser()
  command.add_arguments(parser)
  command.run(parser.parse_args([str(word) for word in words]))


def _cohort_figures(found: dict) -> dict:
  detection, severity = found['detection'], found['severity']
  medians = severity['medians_cm3']
  severe, others = medians.get('severe'), medians.get('non-severe')
  return {
    name: detection[name]
    for name in (
      'n_positive',
      'n_negative',
      'auc',
      'auc_ci95_delong',
      'auc_ci95_bootstrap',
      'auc_ci95_newcombe',
    )
  } | {
    'median_severe_cm3': severe,
    'median_non_severe_cm3': others,
    'severity_order_right': (None if None in (severe, others) else severe > others),
    'rank_sum_p_value': severity['rank_sum_p_value'],
  }


def _cluster_figures(found: dict) -> dict:
  kept = found['weightings'][0]
  return {
    'positive_slices': found['slices']['positive'],
    'negative_slices': found['slices']['negative'],
    'weighting': kept['weighting'],
    'elbow_k': kept['elbow_k'],
    'restart_rand_index': kept['restart_agreement'],
    'rand_index': {
      row['weighting']: row['truth_agreement'] for row in found['weightings']
    },
    'clusters': {row['name']: row['known_kinds'] for row in found['clusters']},
  }


def _number(value: float | None, digits: int) -> str:
  return '–' if value is None else f'{value:.{digits}f}'


def _read(path: pathlib.Path) -> dict:
  return json.loads(path.read_text('utf-8'))
