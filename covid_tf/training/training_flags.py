"""The flags that both trainings have, and what they do with them."""

import pathlib
import sys
import time

from absl import flags
import tqdm

from covid_tf.datasets import splits
from covid_tf.training import script

_FLAGS = flags.FlagValues()  # Of both trainings.
_OUTPUT = flags.DEFINE_string(
  'output', None, 'Folder of the run.', required=True, flag_values=_FLAGS
)
_SHARDS = flags.DEFINE_multi_string(
  'shards',
  None,
  'TFRecord pattern; each gives an equal share of every batch.',
  required=True,
  flag_values=_FLAGS,
)
_VALIDATION = flags.DEFINE_multi_string(
  'validation', [], 'TFRecord pattern, held out.', flag_values=_FLAGS
)
WEIGHTS = flags.DEFINE_string(
  'weights',
  None,
  "A previous run, a .weights.h5 file or 'demo' to begin from.",
  flag_values=_FLAGS,
)
ENCODER = flags.DEFINE_string(
  'encoder_weights',
  None,
  "ImageNet weights of the backbone: 'imagenet' (downloaded by Keras) or a file "
  'without the top; none by default.',
  flag_values=_FLAGS,
)
COMPUTE_DTYPE = flags.DEFINE_enum(
  'compute_dtype',
  'float32',
  ['float32', 'bfloat16'],
  'bfloat16: mixed precision; weights and losses stay float32.',
  flag_values=_FLAGS,
)
_SEED = flags.DEFINE_integer(
  'seed', 1, 'Order, augmentation and first weights.', lower_bound=0, flag_values=_FLAGS
)
_SHUFFLE = flags.DEFINE_integer(
  'shuffle_buffer',
  600,
  'Slices in memory to be shuffled.',
  lower_bound=1,
  flag_values=_FLAGS,
)
_CHECKPOINT = flags.DEFINE_integer(
  'checkpoint_every',
  100,
  'Steps between checkpoints.',
  lower_bound=1,
  flag_values=_FLAGS,
)
_VALIDATION_SLICES = flags.DEFINE_integer(
  'validation_slices',
  256,
  'Slices of each pattern measured there.',
  lower_bound=1,
  flag_values=_FLAGS,
)
_PATIENCE = flags.DEFINE_integer(
  'patience',
  0,
  'Checkpoints without a better score that end a stage; 0: none do.',
  lower_bound=0,
  flag_values=_FLAGS,
)
_KEEP = flags.DEFINE_enum(
  'keep',
  'last',
  ['last', 'best'],
  "Which weights become the run's.",
  flag_values=_FLAGS,
)
_DETERMINISTIC = flags.DEFINE_boolean(
  'deterministic',
  True,
  'Slices keep their order on the way to the batch.',
  flag_values=_FLAGS,
)
_XLA = flags.DEFINE_boolean(
  'xla', False, 'Compile the step with XLA.', flag_values=_FLAGS
)
_TENSORBOARD = flags.DEFINE_boolean(
  'tensorboard',
  True,
  'Write curves and pictures to OUTPUT/tensorboard.',
  flag_values=_FLAGS,
)
_DEVICES = flags.DEFINE_enum(
  'devices',
  'none',
  ['none', 'mirrored', 'multi_worker'],
  'mirrored: all devices of this machine; multi_worker: the processes of TF_CONFIG.',
  flag_values=_FLAGS,
)
# What may differ when a run goes on: where it runs and what it shows, not what it does.
_NOT_CONFIGURATION = ('output', 'devices', 'tensorboard')


def define_plan(
  own: flags.FlagValues, default_stages: list[str], default_batch: int, kinds: str
) -> None:
  """Defines --stage and --batch, whose defaults differ.

  Args:
    own: flags of the script.
    default_stages: of this network.
    default_batch: likewise.
    kinds: what a stage may end in, for the help.
  """
  flags.DEFINE_multi_string(
    'stage',
    default_stages,
    'size:steps:learning rate:final learning rate[:kind]; stages run in turn. ' + kinds,
    flag_values=own,
  )
  flags.DEFINE_integer(
    'batch', default_batch, 'Slices a step.', lower_bound=1, flag_values=own
  )


def run(
  make_task, own: flags.FlagValues, help_: str | None, require_classes: bool = False
) -> None:
  """Runs a script that trains.

  Args:
    make_task: shards to train on -> the tasks.Task.
    own: its flags beside those here.
    help_: what it is for.
    require_classes: whether both classes must be in the shards.
  """
  script.run(
    lambda: _train(make_task, own, require_classes),
    _FLAGS,
    own,
    help_=help_,
    needs_tensorflow=True,
  )


def _train(make_task, own, require_classes):
  from covid_tf.training import loop
  from covid_tf.training import shards as shards_lib
  from covid_tf.training import tasks
  from covid_tf.training import trainer

  strategy = loop.strategy(_DEVICES.value)  # Before anything else of TensorFlow.
  options = _options(own)
  sets = [shards_lib.look_through(pattern) for pattern in _SHARDS.value]
  held_out = [shards_lib.look_through(pattern) for pattern in _VALIDATION.value]
  thickness_mm = _check(sets, held_out, require_classes)
  if any(stage.kind == tasks.GUIDED for stage in options.stages):
    shards_lib.require_drawn_lesions('--shards', sets)
  for shards in sets + held_out:
    print(
      f'{shards.pattern}: {shards.count} slices, {shards.positives} positive, '
      f'{shards.negatives} negative'
    )
  # Off where nobody watches: a log file needs no bar.
  with tqdm.tqdm(
    total=sum(stage.steps for stage in options.stages), disable=None, unit='step'
  ) as bar:
    trainer.train(
      make_task(sets),
      options,
      sets,
      held_out,
      _configuration(own, thickness_mm),
      strategy=strategy,
      report=_report,
      progress=lambda *now: _show(bar, options.stages, *now),
    )


def _check(sets, held_out, require_classes):
  """Before the first step: lists of shards agree, patients are apart.

  Returns:
    The thickness that slices were averaged to when they were imported, or None.
  """
  from covid_tf.training import shards as shards_lib

  paths = {
    name: [path for shards in group for path in shards.paths]
    for name, group in (('--shards', sets), ('--validation', held_out))
  }
  every = [path for group in paths.values() for path in group]
  splits.check(every)
  thickness_mm = splits.require_one_thickness(every)
  splits.require_apart(paths)
  if require_classes:
    shards_lib.require_both_classes('--shards', sets)
    for shards in held_out:
      shards_lib.require_both_classes('--validation', [shards])
  return thickness_mm


def _options(own):
  from covid_tf.training import tasks

  return tasks.Options(
    pathlib.Path(_OUTPUT.value),
    tuple(tasks.Stage.parse(text) for text in own.stage),
    own.batch,
    _SEED.value,
    _SHUFFLE.value,
    _CHECKPOINT.value,
    _VALIDATION_SLICES.value,
    _PATIENCE.value,
    _KEEP.value == 'best',
    _DETERMINISTIC.value,
    _XLA.value,
    _TENSORBOARD.value,
  )


def _configuration(own, thickness_mm):
  """The training flags by name, in JSON's types, and the thickness of averages."""
  named = {
    name: values[name].value
    for values in (_FLAGS, own)
    for name in values
    if name not in _NOT_CONFIGURATION
  }
  # Where slices are as they are, a run's configuration is what it was before.
  return named if thickness_mm is None else named | {'thickness_mm': thickness_mm}


def _report(line):
  tqdm.tqdm.write(f'{time.strftime("%H:%M:%S")} {line}')
  sys.stdout.flush()


def _show(bar, plan, stage, step, steps, loss):
  del steps
  bar.n = sum(earlier.steps for earlier in plan[:stage]) + step
  bar.set_postfix(stage=stage, loss=f'{loss:.4f}')
