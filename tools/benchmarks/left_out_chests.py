r"""Classifiers of several folds, each judged on the chests that its training left out.

  python tools/benchmarks/left_out_chests.py --studies 10 \
      --fold runs/fold0=CHEST_1 --fold runs/fold1=CHEST_2,CHEST_3 [--json] [--page DIR]

A fold is a classifier ('demo', a run's folder, a .weights.h5 file or an export) and CT
folders, or slabs that tools/evaluate.py --keep_slabs wrote. Prints the slice AUC of
each fold and their mean, that of the simple rule beside, specificity on the chests as
they are, and over the studies of all folds the rank correlation of Corona score and
true volume and the share of slabs found whose map marks the opacity.
"""

import argparse
import json
import pathlib

import environment  # noqa: F401  Before TensorFlow.
import numpy as np

from covid_tf import errors
from covid_tf import streams
from covid_tf.analysis import slabs
from covid_tf.datasets import judged_chests
from covid_tf.training.evaluation import evaluating
from covid_tf.training.evaluation import judging
from covid_tf.training.evaluation import judging_report


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument(
    '--fold', action='append', required=True, metavar='RUN=CHEST[,CHEST]'
  )
  parser.add_argument('--studies', type=int, default=10, help='implants of each chest')
  parser.add_argument('--seed', type=int, default=0, help='of the implants')
  parser.add_argument('--thickness-mm', type=float, default=5.0, help='of slabs')
  parser.add_argument(
    '--smoothing-mm',
    type=float,
    default=slabs.DEFAULT_SMOOTHING_MM,
    help='of logits along the body; 0: none',
  )
  parser.add_argument(
    '--texture', action='append', default=[], help='slice with a real opacity'
  )
  parser.add_argument('--stress', action='store_true', help='other kernels and doses')
  parser.add_argument('--json', action='store_true')
  parser.add_argument('--page', help='folder for evaluation.html of all folds')
  arguments = parser.parse_args()
  try:
    wanted = judged_chests.Wanted(
      studies=arguments.studies,
      seed=arguments.seed,
      thickness_mm=arguments.thickness_mm,
      textures=tuple(map(judged_chests.read_texture, arguments.texture)),
      stress=arguments.stress,
    )
    folds = [_fold(text) for text in arguments.fold]
    found = [_judge(*fold, wanted, arguments.smoothing_mm) for fold in folds]
  except errors.CovidTFError as error:
    parser.exit(error.exit_status, f'left_out_chests: {error}\n')
  figures = _figures(found)
  for (run, _), one in zip(folds, found):
    print(f'{run} on {", ".join(sorted({slab.chest for slab in one.slabs}))}')
    print('\n'.join(f'  {line}' for line in judging_report.in_words(one)))
  for name, value in figures.items():
    print(f'{name:28} {value}')
  if arguments.page:
    judging_report.write(
      judging.pooled(found),
      {'Classifiers': f'{len(found)} folds: ' + ', '.join(run for run, _ in folds)},
      arguments.page,
    )
  if arguments.json:
    print(json.dumps(figures))


def _fold(text: str) -> tuple[str, list[pathlib.Path]]:
  run, _, chests = text.partition('=')
  paths = [pathlib.Path(path) for path in chests.split(',') if path]
  if not run or not paths or not all(path.exists() for path in paths):
    raise errors.UsageError(
      f'--fold: RUN=CHEST[,CHEST] with chests that exist is required, found {text!r}.'
    )
  return run, paths


def _judge(run, chests, wanted, smoothing_mm) -> judging.Judgement:
  return judging.judge(
    evaluating.load_explainer(run),
    judged_chests.prepare(chests, wanted),
    smoothing_mm=smoothing_mm,
  )


def _figures(found: list[judging.Judgement]) -> dict[str, object]:
  """The means over folds, and what is measured over the studies of all."""
  areas = np.array(
    [(one.overall.auc.value, one.overall.rule_auc.value) for one in found], float
  )
  together = judging.pooled(found)
  correlation, marked = together.rank_correlation, together.marked
  return {
    'folds': len(found),
    'auc_mean': round(float(areas[:, 0].mean()), 4),
    'auc_of_folds': np.round(areas[:, 0], 4).tolist(),
    'rule_auc_mean': round(float(areas[:, 1].mean()), 4),
    'rule_auc_of_folds': np.round(areas[:, 1], 4).tolist(),
    'sensitivity': _rounded(together.overall.sensitivity.value),
    'specificity': _rounded(together.overall.specificity.value),
    'studies': len([s for s in together.studies if not s.condition]),
    'rank_correlation': _rounded(correlation.value),
    'rank_correlation_ci95': correlation.interval,
    'score_ratio_quartiles': together.score_ratio,
    'marked_share': _rounded(marked.value),
    'marked_share_ci95': marked.interval,
  }


def _rounded(value: float | None) -> float | None:
  return None if value is None else round(value, 4)


if __name__ == '__main__':
  with streams.safe_streams():
    main()
