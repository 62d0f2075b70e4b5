r"""Evaluates networks on shards, on phantoms or on single slices.

  python tools/evaluate.py --classifier=runs/classifier --lungs=runs/lungs \
      --shards='runs/data/test/*.tfrecord' --output=runs/evaluation
  python tools/evaluate.py --classifier=demo --lungs=demo --phantoms=10 --output=...
  python tools/evaluate.py --classifier=demo --lungs=demo --slices=slices.csv ...

A network is 'demo', a run's folder, a .weights.h5 file or an export. Writes
evaluation.json and evaluation.html. docs/training.md says what the figures mean.
"""

import glob

from absl import flags
import script

from covid_tf import contract
from covid_tf import errors
from covid_tf.datasets import splits

_CLASSIFIER = flags.DEFINE_string('classifier', None, 'The classifier.')
_LUNGS = flags.DEFINE_string('lungs', None, 'The lung network.')
_SHARDS = flags.DEFINE_multi_string('shards', [], 'TFRecord pattern.')
_APART_FROM = flags.DEFINE_multi_string(
  'apart_from', [], 'TFRecord pattern that training saw: no patient may be in both.'
)
_PHANTOMS = flags.DEFINE_integer('phantoms', None, 'How many phantoms to draw.')
_FIRST_SEED = flags.DEFINE_integer(
  'first_seed', 1_000_000, 'Seed of the first phantom; training draws below this.'
)
_SIZE = flags.DEFINE_integer(
  'size', 256, 'Rows and columns of a phantom.', lower_bound=1
)
_SLICES = flags.DEFINE_string('slices', None, 'CSV: file,label[,patient].')
_THICKNESS_MM = flags.DEFINE_float(
  'thickness_mm',
  5.0,
  'Slices that lie closer are averaged for the classifier, as covid-tf score does.',
)
_EVERY_SLICE = flags.DEFINE_bool('every_slice', False, 'Slices as they are.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder to make.', required=True)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the bootstraps.', lower_bound=0)


def main():
  """Evaluates, as the flags say."""
  sources = [bool(_SHARDS.value), _PHANTOMS.value is not None, bool(_SLICES.value)]
  if sum(sources) != 1 or not (_CLASSIFIER.value or _LUNGS.value):
    raise errors.UsageError(
      '--classifier or --lungs (or both), and one of --shards, --phantoms '
      f'and --slices are required, found {sum(sources)} of the latter.'
    )
  script.check_thickness('--thickness_mm', _THICKNESS_MM.value)
  shards = _matches(_SHARDS.value)
  if _APART_FROM.value:
    splits.require_apart(
      {'--shards': shards, '--apart_from': _matches(_APART_FROM.value)}
    )
  # Here: what is asked wrongly is refused before TensorFlow starts.
  from covid_tf.training.evaluation import evaluating
  from covid_tf.training.evaluation import report

  evaluating.check_shards(shards)
  lungs = _LUNGS.value and evaluating.load_network(contract.LUNGS_MODEL, _LUNGS.value)
  classifier = _CLASSIFIER.value and evaluating.load_network(
    contract.CLASSIFIER_MODEL, _CLASSIFIER.value
  )
  found = evaluating.evaluate(
    _cases(evaluating, shards),
    lungs,
    classifier,
    _SEED.value,
    None if _EVERY_SLICE.value else _THICKNESS_MM.value,
  )
  report.write(found, _subject(shards), _OUTPUT.value)
  _print(found)


def _cases(cases, shards):
  if shards:
    return cases.from_shards(shards)
  if _SLICES.value:
    return cases.from_single_slices(_SLICES.value)
  return cases.from_phantoms(_PHANTOMS.value, _FIRST_SEED.value, _SIZE.value)


def _subject(shards):
  data = (
    f'{len(shards)} shards: {", ".join(_SHARDS.value)}'
    if shards
    else f'single slices of {_SLICES.value}'
    if _SLICES.value
    else f'{_PHANTOMS.value} phantoms from seed {_FIRST_SEED.value}'
  )
  return {
    'Classifier': _CLASSIFIER.value or 'none',
    'Lungs': _LUNGS.value or 'none',
    'Data': data,
    'Thickness': _thickness(),
  }


def _thickness():
  if _EVERY_SLICE.value or _SLICES.value:
    return 'every slice as it is'
  return (
    f'for the classifier neighbouring slices are averaged to {_THICKNESS_MM.value:g} '
    'mm where they lie closer; a slice without its neighbours is taken as it is'
  )


def _print(found):
  for unit, part in (('slices', found.by_slice), ('patients', found.by_patient)):
    if part is not None:
      point = part.points[0]
      auc = 'not defined' if part.auc is None else f'{part.auc:.4f}'
      shares = ', '.join(
        f'{name} {"-" if share.value is None else format(share.value, ".3f")}'
        for name, share in (
          ('sensitivity', point.sensitivity),
          ('specificity', point.specificity),
        )
      )
      print(f'{unit}: {part.n_positive} + {part.n_negative}, AUC {auc}, {shares}')
  dice = [
    case.agreement.dice for case in found.lungs if case.agreement.dice is not None
  ]
  if dice:
    print(f'lungs: {len(dice)} cases, mean Dice {sum(dice) / len(dice):.4f}')
  print(f'{_OUTPUT.value}/evaluation.html')


def _matches(patterns):
  found = []
  for pattern in patterns:
    matches = sorted(glob.glob(pattern))
    if not matches:
      raise errors.UsageError(
        f'{pattern}: a shard is required, no file matches; quote the pattern and '
        'check the folder.'
      )
    found += matches
  return found


if __name__ == '__main__':
  script.run(main)
