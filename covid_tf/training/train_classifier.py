r"""Trains the slice classifier on shards of slices, helped by drawn lesions.

  python -m covid_tf.training.train_classifier --output=runs/classifier \
      --encoder_weights=imagenet \
      --shards='runs/phantoms/train/*' --shards='runs/implanted/train/*' \
      --validation='runs/held_out/test/*' --stage=224:100:1e-3:1e-3:frozen \
      --stage=224:500:1e-4:1e-5 --stage=224:560:3e-4:1e-5:guided

The same command goes on after an interruption, from the last checkpoint and with the
slices it had not seen. docs/training.md has the rest.
"""

from absl import flags

from covid_tf.training import training_flags

_FLAGS = flags.FlagValues()  # Its own: modules are imported together too.
training_flags.define_plan(
  _FLAGS,
  ['112:500:1e-3:2e-4', '224:160:3e-4:1e-5'],
  16,
  "':frozen' trains the last layer alone, ':guided' draws the Grad-CAM maps to the "
  'drawn lesions.',
)
_CLASS_WEIGHTS = flags.DEFINE_enum(
  'class_weights',
  'equal',
  ['equal', 'balanced'],
  'balanced: a slice of the rarer class counts for more, so that both count alike.',
  flag_values=_FLAGS,
)


def _task(sets):
  from covid_tf.training import classifier_task

  return classifier_task.ClassifierTask(
    training_flags.WEIGHTS.value,
    training_flags.ENCODER.value,
    training_flags.COMPUTE_DTYPE.value,
    _positive_weight(sets),
  )


def _positive_weight(sets):
  """Each set gives an equal share of a batch, whatever its size."""
  if _CLASS_WEIGHTS.value == 'equal':
    return 1.0
  positive = sum(shards.positives / shards.labelled for shards in sets)
  return (len(sets) - positive) / positive


def run():
  """Runs the script with the flags of the command line."""
  training_flags.run(_task, _FLAGS, help_=__doc__, require_classes=True)


if __name__ == '__main__':
  run()
