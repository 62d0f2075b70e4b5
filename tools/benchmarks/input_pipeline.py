"""Whether the input pipeline keeps the training step fed.

  python tools/benchmarks/input_pipeline.py                    # the classifier at 224
  python tools/benchmarks/input_pipeline.py --steps=4 --size=64 --turns=1   # a trial

Shards of drawn phantoms are read, shuffled and augmented as in a training. Turns
alternate, and each figure is the median over the turns:

  epoch_ratio   a stretch of steps on the real pipeline / the same on one cached batch
  feed_ratio    slices a second of the pipeline alone / slices a second of the step
  memory_mb     growth of the resident memory while the pipeline ran alone
"""

import argparse
import itertools
import json
import pathlib
import resource
import statistics
import tempfile
import time

import environment  # noqa: F401  Before TensorFlow.
import tensorflow as tf

from covid_tf import streams
from covid_tf.datasets import phantom
from covid_tf.training import classifier_task
from covid_tf.training import loop
from covid_tf.training import lung_task
from covid_tf.training import pipelines
from covid_tf.training import shards
from covid_tf.training import tasks

_AHEAD = 16  # Batches; more than all its buffers hold.
_SIZE = 256  # Rows and columns stored, as tools/import_dataset.py does.
_TASKS = {'classifier': classifier_task.ClassifierTask, 'lungs': lung_task.LungTask}


def measure(
  network: str, size: int, batch: int, steps: int, turns: int, patients: int
) -> dict:
  """Named figures of one network's training step and pipeline."""
  with tempfile.TemporaryDirectory() as folder:
    pattern = _write_phantoms(pathlib.Path(folder), patients)
    task = _TASKS[network]()
    options = tasks.Options(pathlib.Path(folder) / 'run', (), batch)
    source = pipelines.Feed(task, options, [shards.look_through(pattern)], size, 0)
    dataset = source(tf.distribute.InputContext(), 0)
    cached = next(iter(dataset))
    step = _training_step(task, size, batch, pathlib.Path(folder))
    batches = iter(dataset)
    step(cached)  # Tracing belongs to neither side.
    before = _memory_mb()
    rounds = [_turn(step, batches, cached, steps) for _ in range(turns)]
    real, once, alone = (statistics.median(column) for column in zip(*rounds))
    return {
      'network': network,
      'size': size,
      'batch': batch,
      'steps': steps,
      'epoch_ratio': statistics.median(r / o for r, o, _ in rounds),
      'feed_ratio': statistics.median(o / a for _, o, a in rounds),
      'step_slices_per_second': batch * steps / once,
      'pipeline_slices_per_second': batch * steps / alone,
      'real_seconds': real,
      'memory_mb': _memory_mb() - before,
    }


def _turn(step, batches, cached, steps):
  """Seconds of `steps` steps on the pipeline, on one batch, and without a step."""
  real = _seconds(step, itertools.islice(batches, steps))
  once = _seconds(step, itertools.repeat(cached, steps))
  # What the pipeline has made ready meanwhile cost the step's time, not its own.
  _seconds(_drop, itertools.islice(batches, _AHEAD))
  return real, once, _seconds(_drop, itertools.islice(batches, steps))


def _drop(batch):
  del batch


def _seconds(function, batches):
  began = time.perf_counter()
  for batch in batches:
    function(batch)
  return time.perf_counter() - began


def _training_step(task, size, batch, folder):
  stage = tasks.Stage(size, 1, 1e-4, 1e-4)
  model = task.build(size)
  trainer = loop.Trainer(model, task.objective(model, stage), folder / 'trainer')
  trainer.build()
  step = trainer.train_step()
  return lambda batch: float(step(*batch))


def _write_phantoms(folder, patients):
  for seed in range(patients):
    drawn = phantom.generate(phantom.draw_case(seed, matrix=_SIZE))
    shards.write_shard(
      folder / f'{seed}.tfrecord',
      [
        shards.SliceRecord(
          hu,
          drawn.lung_mask[i],
          drawn.lesion_mask[i],
          (40, 30, 210, 226),
          int(drawn.lesion_mask[i].any()),
          drawn.volume.spacing_mm[1],
          f'p{seed}',
          f's{seed}',
          i,
          'phantom',
        )
        for i, hu in enumerate(drawn.volume.hu)
      ],
    )
  return str(folder / '*.tfrecord')


def _memory_mb():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
  """Prints the figures."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--network', choices=sorted(_TASKS), default='classifier')
  parser.add_argument('--size', type=int, default=224)
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--steps', type=int, default=8)
  parser.add_argument('--turns', type=int, default=3)
  parser.add_argument('--patients', type=int, default=6)
  parser.add_argument('--json', action='store_true')
  arguments = vars(parser.parse_args())
  as_json = arguments.pop('json')
  figures = measure(**arguments)
  if as_json:
    print(json.dumps(figures))
    return
  for name, value in figures.items():
    print(
      f'{name:28} {value:.3f}' if isinstance(value, float) else f'{name:28} {value}'
    )


if __name__ == '__main__':
  with streams.safe_streams():
    main()
