r"""Evaluates networks on shards, on phantoms, on single slices or on implanted chests.

  python -m covid_tf.training.evaluate --output=runs/evaluation \
      --classifier=runs/classifier --lungs=runs/lungs --shards='runs/data/test/*'

and in place of --shards also --phantoms=10, --slices=slices.csv or, once for each
chest, --implanted=CHEST.

A network is 'demo', a run's folder, a .weights.h5 file or an export. Writes
evaluation.json and evaluation.html. docs/training.md says what the figures mean.
"""

import glob
import pathlib

from absl import flags

from covid_tf import contract
from covid_tf import errors
from covid_tf.datasets import judged_chests
from covid_tf.datasets import splits
from covid_tf.training import script

_FLAGS = flags.FlagValues()  # Its own: modules are imported together too.
_CLASSIFIER = flags.DEFINE_string(
  'classifier', None, 'The classifier.', flag_values=_FLAGS
)
_LUNGS = flags.DEFINE_string('lungs', None, 'The lung network.', flag_values=_FLAGS)
_SHARDS = flags.DEFINE_multi_string(
  'shards', [], 'TFRecord pattern.', flag_values=_FLAGS
)
_APART_FROM = flags.DEFINE_multi_string(
  'apart_from',
  [],
  'TFRecord pattern that training saw: no patient may be in both.',
  flag_values=_FLAGS,
)
_PHANTOMS = flags.DEFINE_integer(
  'phantoms', None, 'How many phantoms to draw.', flag_values=_FLAGS
)
_FIRST_SEED = flags.DEFINE_integer(
  'first_seed',
  1_000_000,
  'Seed of the first phantom; training draws below this.',
  flag_values=_FLAGS,
)
_SIZE = flags.DEFINE_integer(
  'size', 256, 'Rows and columns of a phantom.', lower_bound=1, flag_values=_FLAGS
)
_SLICES = flags.DEFINE_string(
  'slices', None, 'CSV: file,label[,patient].', flag_values=_FLAGS
)
_IMPLANTED = flags.DEFINE_multi_string(
  'implanted',
  [],
  'CT folder of a chest without COVID that training left out, or its slabs as '
  '--keep_slabs wrote them.',
  flag_values=_FLAGS,
)
_STUDIES = flags.DEFINE_integer(
  'studies',
  10,
  'How often each chest gets opacities.',
  lower_bound=1,
  flag_values=_FLAGS,
)
_IMPLANTS_SEED = flags.DEFINE_integer(
  'implants_seed', 0, 'Of the opacities.', lower_bound=0, flag_values=_FLAGS
)
_TEXTURES = flags.DEFINE_multi_string(
  'textures',
  [],
  'Axial slice with an opacity whose density every second implant takes; of no '
  'patient that training saw.',
  flag_values=_FLAGS,
)
_STRESS = flags.DEFINE_bool(
  'stress',
  False,
  'Implanted chests also with other kernels, dose and thickness.',
  flag_values=_FLAGS,
)
_PREVALENCE = flags.DEFINE_float(
  'prevalence',
  0.33,
  'Share of slices with an opacity that calibration holds for.',
  flag_values=_FLAGS,
)
_KEEP_SLABS = flags.DEFINE_string(
  'keep_slabs',
  None,
  'Folder for the slabs of implanted chests, to judge them again.',
  flag_values=_FLAGS,
)
_THICKNESS_MM = flags.DEFINE_float(
  'thickness_mm',
  5.0,
  'Slices that lie closer are averaged for the classifier, as covid-tf score does.',
  flag_values=_FLAGS,
)
_EVERY_SLICE = flags.DEFINE_bool(
  'every_slice', False, 'Slices as they are.', flag_values=_FLAGS
)
_SMOOTHING_MM = flags.DEFINE_float(
  'smoothing_mm',
  None,
  'Standard deviation by which logits are smoothed along the body, as covid-tf score '
  'does: 6 by default, with --every_slice 0.',
  flag_values=_FLAGS,
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'Folder to make.', required=True, flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Of the bootstraps.', lower_bound=0, flag_values=_FLAGS
)


def main():
  """Evaluates, as the flags say."""
  sources = [
    bool(_SHARDS.value),
    _PHANTOMS.value is not None,
    bool(_SLICES.value),
    bool(_IMPLANTED.value),
  ]
  if sum(sources) != 1 or not (_CLASSIFIER.value or _LUNGS.value):
    raise errors.UsageError(
      '--classifier or --lungs (or both), and one of --shards, --phantoms, --slices '
      f'and --implanted are required, found {sum(sources)} of the latter.'
    )
  script.check_thickness('--thickness_mm', _THICKNESS_MM.value)
  smoothing_mm = script.smoothing(
    '--smoothing_mm', _SMOOTHING_MM.value, _EVERY_SLICE.value
  )
  if _IMPLANTED.value:
    _judge(smoothing_mm)
    return
  shards = _matches(_SHARDS.value)
  if _APART_FROM.value:
    splits.require_apart(
      {'--shards': shards, '--apart_from': _matches(_APART_FROM.value)}
    )
  # Here: what is asked wrongly is refused before TensorFlow starts.
  from covid_tf.training.evaluation import evaluating
  from covid_tf.training.evaluation import report

  evaluating.check_shards(shards)
  lungs, classifier = (
    evaluating.load_network(name, source) if source else None
    for name, source in (
      (contract.LUNGS_MODEL, _LUNGS.value),
      (contract.CLASSIFIER_MODEL, _CLASSIFIER.value),
    )
  )
  found = evaluating.evaluate(
    _cases(evaluating, shards),
    lungs,
    classifier,
    _SEED.value,
    None if _EVERY_SLICE.value else _THICKNESS_MM.value,
    smoothing_mm,
  )
  report.write(found, _subject(shards, smoothing_mm), _OUTPUT.value)
  _print(found)


def _judge(smoothing_mm):
  """Judges the classifier on chests with implanted opacities."""
  if not _CLASSIFIER.value:
    raise errors.UsageError('--implanted: --classifier is required, found none.')
  if not 0 < _PREVALENCE.value < 1:
    raise errors.UsageError(
      '--prevalence: a share above 0 and below 1 is required, found '
      f'{_PREVALENCE.value:g}.'
    )
  paths = [pathlib.Path(path) for path in _IMPLANTED.value]
  if names := [str(path) for path in paths if not path.exists()]:
    raise errors.UsageError(f'--implanted: {names[0]}: no such file or folder.')
  wanted = judged_chests.Wanted(
    studies=_STUDIES.value,
    seed=_IMPLANTS_SEED.value,
    thickness_mm=None if _EVERY_SLICE.value else _THICKNESS_MM.value,
    textures=tuple(map(judged_chests.read_texture, _TEXTURES.value)),
    stress=_STRESS.value,
  )
  # Here: what is asked wrongly is refused before TensorFlow starts.
  from covid_tf.training.evaluation import evaluating
  from covid_tf.training.evaluation import judging
  from covid_tf.training.evaluation import judging_report

  lungs = _LUNGS.value and evaluating.load_network(contract.LUNGS_MODEL, _LUNGS.value)
  found = judging.judge(
    evaluating.load_explainer(_CLASSIFIER.value),
    _kept(
      judged_chests.prepare(
        paths, wanted, (lambda hu, spacing_mm: lungs(hu)) if lungs else None
      )
    ),
    smoothing_mm=smoothing_mm,
    prevalence=_PREVALENCE.value,
    seed=_SEED.value,
  )
  subject = {
    'Classifier': _CLASSIFIER.value,
    'Lungs': _LUNGS.value or 'classical segmentation',
    'Chests': ', '.join(sorted({slab.chest for slab in found.slabs})),
    'Implants': (
      f'{_STUDIES.value} studies of each chest, seed {_IMPLANTS_SEED.value}, '
      f'{len(_TEXTURES.value)} textures of real lesions; slabs that were kept are as '
      'they were drawn'
    ),
    'Thickness': (
      'every slice as it is'
      if _EVERY_SLICE.value
      else f'slabs of {_THICKNESS_MM.value:g} mm, or slices where these are thicker'
    ),
    'Smoothing': _smoothing(smoothing_mm),
  }
  judging_report.write(found, subject, _OUTPUT.value)
  print('\n'.join(judging_report.in_words(found)))
  print(f'{_OUTPUT.value}/evaluation.html')


def _kept(chests):
  for chest in chests:
    if _KEEP_SLABS.value and not chest.condition:
      judged_chests.write(chest, _KEEP_SLABS.value)
    yield chest


def _cases(cases, shards):
  if shards:
    return cases.from_shards(shards)
  if _SLICES.value:
    return cases.from_single_slices(_SLICES.value)
  return cases.from_phantoms(_PHANTOMS.value, _FIRST_SEED.value, _SIZE.value)


def _subject(shards, smoothing_mm):
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
    'Smoothing': _smoothing(smoothing_mm),
  }


def _thickness():
  if _EVERY_SLICE.value or _SLICES.value:
    return 'every slice as it is'
  return (
    f'for the classifier neighbouring slices are averaged to {_THICKNESS_MM.value:g} '
    'mm where they lie closer; a slice without its neighbours is taken as it is'
  )


def _smoothing(smoothing_mm):
  if not smoothing_mm or _SLICES.value:
    return 'none'
  return (
    f'logits are smoothed along the body by {smoothing_mm:g} mm; those of a slice '
    'without its neighbours are not'
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


def run():
  """Runs the script with the flags of the command line."""
  script.run(main, _FLAGS, help_=__doc__, needs_tensorflow=True)


if __name__ == '__main__':
  run()
