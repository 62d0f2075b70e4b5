r"""Puts the slices that a classifier gets most wrong into a set of their own.

  python tools/select_hard_slices.py --classifier=runs/classifier --slices=600 \
      --shards='runs/phantoms/train/*' --output=runs/hard

Half of them are positive. Train on with `--shards='runs/hard/hard/*'` beside the
others, so that hard slices get a share of every batch of their own.
"""

from absl import flags
import script

from covid_tf import contract
from covid_tf.datasets import splits
from covid_tf.models import weights
from covid_tf.training import hard_slices
from covid_tf.training import shards as shards_lib

_CLASSIFIER = flags.DEFINE_string(
  'classifier', None, "A run's folder, a .weights.h5 file or 'demo'.", required=True
)
_SHARDS = flags.DEFINE_multi_string(
  'shards', None, 'TFRecord pattern of slices to train on.', required=True
)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder to make.', required=True)
_SLICES = flags.DEFINE_integer('slices', 600, 'How many.', lower_bound=2)


def main():
  """Selects, as the flags say."""
  found = [shards_lib.look_through(pattern) for pattern in _SHARDS.value]
  paths = [path for shards in found for path in shards.paths]
  splits.check(paths)
  thickness_mm = splits.require_one_thickness(paths)
  model, _ = weights.load_network(contract.CLASSIFIER_MODEL, _CLASSIFIER.value)
  hard = hard_slices.hardness(model, paths)
  labels = hard_slices.labels_of(paths)
  places = hard_slices.select(hard, labels, _SLICES.value)
  hard_slices.write(paths, places, _OUTPUT.value, thickness_mm)
  wrong = (hard[places] > 0).sum()
  print(
    f'{_OUTPUT.value}: {len(places)} of {len(labels)} slices, {wrong} of them on '
    'the wrong side of 0.5'
  )


if __name__ == '__main__':
  script.run(main)
