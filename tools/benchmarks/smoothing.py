r"""By how much are logits to be smoothed along the body, and with which shift?

  python tools/benchmarks/smoothing.py --chest CHEST [--chest CHEST ...]
      [--classifier demo] [--studies 10] [--smoothing-mm 8 ...] [--json]

The classifier is asked once about chests that training left out, with opacities of the
second painter and with small ones alone (0.5 to 4 cm3 in all); each smoothing is then
arithmetic. Prints for each, of slabs as `covid-tf score` asks about them:

  AUC of slabs, all opacities and small ones; sensitivity and specificity at 0.5
  the shift of the logit that --specificity on all chests as they are asks for, and
  sensitivity and specificity with it
"""

import argparse
import dataclasses
import json
import pathlib

import environment  # noqa: F401  Before TensorFlow.
import numpy as np

from covid_tf import errors
from covid_tf import streams
from covid_tf.datasets import judge_lesions
from covid_tf.datasets import judged_chests
from covid_tf.statistics import operating_points
from covid_tf.statistics import roc
from covid_tf.training.evaluation import evaluating
from covid_tf.training.evaluation import judging

_SMALL_CM3 = (0.5, 4.0)  # One ball of 4 cm³ is 2 cm wide.
_MM = (0.0, 6.0, 8.0, 10.0, 12.0, 16.0)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--chest', action='append', required=True)
  parser.add_argument('--classifier', default='demo')
  parser.add_argument('--studies', type=int, default=10, help='of each chest and kind')
  parser.add_argument('--seed', type=int, default=0, help='of the opacities')
  parser.add_argument('--smoothing-mm', action='append', type=float, help=f'{_MM}')
  parser.add_argument('--thickness-mm', type=float, default=5.0, help='of slabs')
  parser.add_argument('--specificity', type=float, default=0.95)
  parser.add_argument('--json', action='store_true')
  arguments = parser.parse_args()
  try:
    classifier = evaluating.load_explainer(arguments.classifier)
    every, small = (
      [_Asked.of(chest, classifier) for chest in _chests(arguments, amount_cm3)]
      for amount_cm3 in (judge_lesions.AMOUNT_CM3, _SMALL_CM3)
    )
  except errors.CovidTFError as error:
    parser.exit(error.exit_status, f'smoothing: {error}\n')
  try:
    found = [
      compare(every, small, smoothing_mm, arguments.specificity)
      for smoothing_mm in arguments.smoothing_mm or _MM
    ]
  except ValueError as error:
    parser.exit(2, f'smoothing: no shift reaches the specificity ({error}).\n')
  for row in found:
    print('  '.join(f'{name} {value}' for name, value in row.items()))
  if arguments.json:
    print(json.dumps(found))


def _chests(arguments, amount_cm3):
  wanted = judged_chests.Wanted(
    studies=arguments.studies,
    seed=arguments.seed,
    thickness_mm=arguments.thickness_mm,
    amount_cm3=amount_cm3,
  )
  return judged_chests.prepare(list(map(pathlib.Path, arguments.chest)), wanted)


@dataclasses.dataclass(frozen=True)
class _Asked:
  """A chest whose slabs were asked about: probabilities, and no pixels."""

  chest: judged_chests.JudgedChest
  of_slabs: np.ndarray
  between: np.ndarray

  @classmethod
  def of(cls, chest: judged_chests.JudgedChest, classifier) -> '_Asked':
    answers = [
      classifier(hu).covid_probability if len(hu) else np.empty(0, np.float32)
      for hu in (chest.hu, chest.between_hu)
    ]
    none = chest.hu[:0]
    return cls(dataclasses.replace(chest, hu=none, between_hu=none), *answers)

  def probability(self, label: int, smoothing_mm: float) -> np.ndarray:
    """Of the slabs with a label."""
    # Alone, a slab answers for itself.
    between = self.between if smoothing_mm else self.between[:0]
    of_slabs, _ = judging.smoothed(self.chest, self.of_slabs, between, smoothing_mm)
    return of_slabs[self.chest.label == label]


def compare(every, small, smoothing_mm: float, specificity: float) -> dict:
  """What one smoothing gives, as it is and with the shift that it asks for."""
  positive, negative, lone = (
    np.concatenate([one.probability(label, smoothing_mm) for one in of])
    for of, label in ((every, 1), (every, 0), (small, 1))
  )
  chosen = operating_points.choose_shift(positive, negative, specificity)
  figures = {
    'smoothing_mm': smoothing_mm,
    'slabs': [len(positive), len(lone), len(negative)],
    'auc': _area(positive, negative),
    'auc_small': _area(lone, negative),
    'shift': round(chosen.shift, 2),
  }
  for name, threshold in (('at_0.5', 0.5), ('shifted', chosen.threshold)):
    figures[name] = [
      round(float(np.mean(share)), 3)
      for share in (positive > threshold, lone > threshold, negative <= threshold)
    ]
  return figures


def _area(positive, negative) -> float:
  return round(float(roc.estimate_area(positive[None], negative[None]).auc[0]), 4)


if __name__ == '__main__':
  with streams.safe_streams():
    main()
