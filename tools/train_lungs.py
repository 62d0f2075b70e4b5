r"""Trains the lung U-Net on shards of slices with lung masks.

  python tools/train_lungs.py --output=runs/lungs --encoder_weights=imagenet \
      --shards='runs/phantoms/train/*' --shards='runs/implanted/train/*' \
      --validation='runs/held_out/test/*' \
      --stage=128:300:3e-4:1e-4 --stage=256:80:1e-4:1e-5

The same command goes on after an interruption, from the last checkpoint and with the
slices it had not seen. docs/training.md has the rest.
"""

import training_flags

from covid_tf.training import lung_task

training_flags.define_plan(
  ['128:300:3e-4:1e-4', '256:80:1e-4:1e-5'], 8, "':frozen' keeps the encoder as it is."
)


def _task(sets):
  del sets
  return lung_task.LungTask(
    training_flags.WEIGHTS.value,
    training_flags.ENCODER.value,
    training_flags.COMPUTE_DTYPE.value,
  )


if __name__ == '__main__':
  training_flags.main(_task)
