r"""Trains the lung U-Net on shards of slices with lung masks.

  python -m covid_tf.training.train_lungs --output=runs/lungs \
      --encoder_weights=imagenet \
      --shards='runs/phantoms/train/*' --shards='runs/implanted/train/*' \
      --validation='runs/held_out/test/*' \
      --stage=128:300:3e-4:1e-4 --stage=256:80:1e-4:1e-5

The same command goes on after an interruption, from the last checkpoint and with the
slices it had not seen. docs/training.md has the rest.
"""

from absl import flags

from covid_tf.training import training_flags

_FLAGS = flags.FlagValues()  # Its own: modules are imported together too.
training_flags.define_plan(
  _FLAGS,
  ['128:300:3e-4:1e-4', '256:80:1e-4:1e-5'],
  8,
  "':frozen' keeps the encoder as it is.",
)


def _task(sets):
  from covid_tf.training import lung_task

  del sets
  return lung_task.LungTask(
    training_flags.WEIGHTS.value,
    training_flags.ENCODER.value,
    training_flags.COMPUTE_DTYPE.value,
  )


def run():
  """Runs the script with the flags of the command line."""
  training_flags.run(_task, _FLAGS, help_=__doc__)


if __name__ == '__main__':
  run()
