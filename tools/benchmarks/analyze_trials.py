"""Other ways to ask the networks about slabs, each against today's, in turns.

A part of analyze.py: `python tools/benchmarks/analyze.py --part trials`.
"""

from collections.abc import Callable
import contextlib
import os
import statistics
import subprocess
import sys
import time
from unittest import mock

import environment  # noqa: F401  Before TensorFlow.
import numpy as np

from covid_tf import predictors
from covid_tf.datasets import phantom
from covid_tf.predictors import in_process
from covid_tf.predictors import interface

_SLABS = 32
_TURNS = 5


def _slices() -> tuple[np.ndarray, np.ndarray]:
  """int16 [32, 512, 512] of a phantom, and lung crops of the usual size."""
  case = phantom.draw_case(phantom.TRAINING_SEED_LIMIT + 7, 'diffuse')
  hu = phantom.generate(case).volume.hu
  chosen = np.linspace(8, len(hu) - 6, _SLABS).round().astype(int)
  whole = hu[chosen].repeat(2, axis=1).repeat(2, axis=2)
  return whole, np.ascontiguousarray(whole[:, 100:420, 70:440])


def _ask(models) -> Callable[[], None]:
  whole, crops = _slices()

  def ask() -> None:
    models.lung_probability(whole)
    models.grad_cam(crops)

  return ask


def _in_turns(ways: dict[str, Callable[[], None]]) -> dict[str, float]:
  """Median seconds of each way ÷ those of the first, one after the other."""
  seconds: dict[str, list[float]] = {name: [] for name in ways}
  for turn in range(1 + _TURNS):
    for name, run in ways.items():
      begin = time.perf_counter()
      run()
      if turn:  # The first calls prepare the graphs.
        seconds[name].append(time.perf_counter() - begin)
  first = statistics.median(seconds[next(iter(ways))])
  return {name: statistics.median(taken) / first for name, taken in seconds.items()}


def batches() -> dict[str, float]:
  """Slices of 512 x 512 that the lung network gets at once; 8 today."""
  with contextlib.ExitStack() as stack:
    ways = {}
    for count in (8, 2, 4, 16, 32):
      models = stack.enter_context(
        predictors.load_models(batch_bytes=count * 512 * 512 * 2, self_check=False)
      )
      ways[f'{count} slices at once'] = _ask(models)
    with mock.patch.object(interface, 'MAX_SLICES', _SLABS):
      return _in_turns(ways)


def at_once() -> dict[str, float]:
  """Batches on their way at the same time; 2 today."""
  with predictors.load_models(self_check=False) as models:
    ask = _ask(models)

    def with_limit(count: int) -> Callable[[], None]:
      def run() -> None:
        with mock.patch.object(in_process, '_AT_ONCE', count):
          ask()

      return run

    return _in_turns(
      {f'{count} batches under way': with_limit(count) for count in (2, 1)}
    )


def threads() -> dict[str, float]:
  """TensorFlow's threads, in processes of their own; as many as cores today."""
  settings = {
    'threads as TensorFlow sets them': {},
    'one thread in an operation': {'TF_NUM_INTRAOP_THREADS': '1'},
    'one operation at a time': {'TF_NUM_INTEROP_THREADS': '1'},
  }
  seconds: dict[str, list[float]] = {name: [] for name in settings}
  for _ in range(3):
    for name, variables in settings.items():
      done = subprocess.run(
        [sys.executable, '-c', 'import analyze_trials; analyze_trials.ask_alone()'],
        env=os.environ | variables | {'PYTHONPATH': os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
      )
      seconds[name].append(float(done.stdout.split()[-1]))
  first = statistics.median(seconds['threads as TensorFlow sets them'])
  return {name: statistics.median(taken) / first for name, taken in seconds.items()}


def lung_sizes() -> dict[str, float]:
  """The U-Net at other input sizes; 256 today. Dice against the masks of 256."""
  import tensorflow as tf

  from covid_tf.models import export
  from covid_tf.models import networks
  from covid_tf.models import preprocessing
  from covid_tf.models import weights

  trained, _ = weights.load_network('lungs', weights.DEMO)
  whole, _ = _slices()
  masks, ways = {}, {}
  for size in (256, 224, 192, 160):
    network = networks.build_lung_unet(size=size)
    network.set_weights(trained.get_weights())
    served = export.for_serving(network)
    inputs = preprocessing.Preprocessing(preprocessing.LUNGS.window_hu, size)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None], tf.int16)])
    def probability(hu, served=served, inputs=inputs):
      logit = served(preprocessing.network_input(hu, inputs), training=False)
      return tf.image.resize(tf.sigmoid(logit), tf.shape(hu)[1:])[..., 0]

    def run(size=size, probability=probability) -> None:
      masks[size] = np.concatenate(
        [probability(whole[i : i + 8]).numpy() > 0.5 for i in range(0, _SLABS, 8)]
      )

    ways[f'lungs at {size} x {size}'] = run
  ratios = _in_turns(ways)
  for size, mask in masks.items():
    common = np.count_nonzero(mask & masks[256])
    dice = 2 * common / (np.count_nonzero(mask) + np.count_nonzero(masks[256]))
    print(f'lungs at {size}: Dice {dice:.4f} against 256', flush=True)
  return ratios


def trials() -> dict:
  """Prints and returns seconds of every way ÷ today's."""
  figures: dict[str, float] = {}
  for trial in (batches, at_once, threads, lung_sizes):
    print(trial.__doc__.splitlines()[0])
    for name, ratio in trial().items():
      figures[name.replace(' ', '_')] = ratio
      print(f'  {name:34} {ratio:6.3f}', flush=True)
  return figures


def ask_alone() -> None:
  """Prints seconds of three rounds, for a process with settings of its own."""
  with predictors.load_models(self_check=False) as models:
    ask = _ask(models)
    ask()
    begin = time.perf_counter()
    for _ in range(3):
      ask()
    print(time.perf_counter() - begin)
